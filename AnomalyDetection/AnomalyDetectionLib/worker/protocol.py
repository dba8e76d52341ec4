"""Messages as bytes and back: one JSON object a line, UTF-8, checked against the schema on arrival."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NoReturn

from .schema import SchemaError, check

PROTOCOL = 1
"""Raised whenever a message changes its meaning; both ends must speak the same."""

MOST_BYTES = 16 * 1024 * 1024
"""Of one message.  The largest is a result: 40,000 findings fit; voxels travel in files."""

Direction = Literal["request", "answer"]


class ProtocolError(ValueError):
    """What came is no message of this protocol; the text says why, for the middle of a sentence."""


def encode(message: Mapping[str, Any]) -> bytes:
    """A message as one line.

    Raises
    ------
    ProtocolError
        If it is longer than `MOST_BYTES`, or holds NaN or infinity.
    """
    try:
        line = json.dumps(message, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"
    except ValueError as error:
        raise ProtocolError(f"a message cannot be written: {error}") from error
    if len(line) > MOST_BYTES:
        raise ProtocolError(f"a message of {len(line)} bytes is longer than {MOST_BYTES}")
    return line


def decode(line: bytes, direction: Direction) -> dict[str, Any]:
    """The message in one line.

    Raises
    ------
    ProtocolError
        If it is not JSON, or not a message of that direction.
    """
    try:
        message = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {_shown(line)}") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise ProtocolError(f"no message: {_shown(line)}")
    try:
        check(message, f"{direction}.{message['type']}")
    except SchemaError as error:
        raise ProtocolError(str(error)) from error
    return message


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _shown(line: bytes) -> str:
    text = line[:80].decode("utf-8", "replace").strip()
    return repr(text + ("…" if len(line) > 80 else ""))


class Lines:
    """Cuts a stream of bytes into lines, however it is chopped up."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that are complete now, without their ends; empty ones are left out.

        Raises
        ------
        ProtocolError
            If a line grows beyond `MOST_BYTES`.
        """
        searched = len(self._rest)  # what was there before holds no line end: a long line is not searched again
        self._rest += data
        while (end := self._rest.find(b"\n", searched)) >= 0:
            line = bytes(self._rest[:end]).strip()
            del self._rest[: end + 1]
            searched = 0
            if len(line) > MOST_BYTES:
                raise ProtocolError(f"a line is longer than {MOST_BYTES} bytes")
            if line:
                yield line
        if len(self._rest) > MOST_BYTES:
            raise ProtocolError(f"a line is longer than {MOST_BYTES} bytes")

    @property
    def rest(self) -> bytes:
        """What came after the last line end."""
        return bytes(self._rest)
