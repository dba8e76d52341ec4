"""Seeds: everything random in a run is a function of one number and a place."""

from __future__ import annotations

import hashlib


def seed_of(*parts: object) -> int:
    """A number below 2^31 that is a function of its parts alone, on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big") >> 1
