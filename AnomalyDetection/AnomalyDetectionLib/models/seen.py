"""What a model has seen, as hashes, so that anybody can tell whether a case is new to it without knowing whose it is.

A bundle keeps them in `info["used"]`: role (`train`, `validate`, `calibrate`) to `patients_sha256` and `images_sha256`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from AnomalyDetectionLib.imaging.geometry import Canonical
from AnomalyDetectionLib.imaging.volume import Volume

LEARNT = ("train", "validate")
"""Roles by whose cases a model has become what it is."""

KINDS = ("patients_sha256", "images_sha256")

Used = Mapping[str, Mapping[str, Sequence[str]]]
"""Role to `patients_sha256` and `images_sha256`, as bundles keep them."""


def patient_hash(patient: str) -> str:
    """128 bits of the SHA-256 of a patient's identifier, as bundles keep it."""
    return hashlib.sha256(patient.encode()).hexdigest()[:32]


def pixel_hash(volume: Volume) -> str:
    """128 bits of the SHA-256 of the voxels in canonical axis order; the geometry does not count."""
    turned = np.ascontiguousarray(Canonical.of(volume.grid).apply(volume.array))
    digest = hashlib.sha256(repr(turned.shape).encode())
    digest.update(turned.data)
    return digest.hexdigest()[:32]


def is_crossed(info: Mapping[str, Any]) -> bool:
    """Whether a model is fitted to its calibration normals too, which is what cross-conformal calibration does."""
    return str(info.get("calibration", {}).get("method", "")).startswith("cross")


def used_of(info: Mapping[str, Any]) -> dict[str, dict[str, list[str]]]:
    """What a model has seen by role, by its `info`; without the role `train` whom it has learnt from is unknown.

    The calibration normals of a cross-conformal calibration stand in `train` as well.
    """
    used: Used = info.get("used", {})
    learnt = [{"train": used["calibrate"]}] if is_crossed(info) and "calibrate" in used else []
    return joined_used(used, *learnt)


def learnt_from(info: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """Hashes of the patients and of the images by which a model has become what it is, by its `info`."""
    used = used_of(info)
    patients, images = ({digest for role in LEARNT for digest in used.get(role, {}).get(kind, ())} for kind in KINDS)
    return patients, images


def joined_used(*parts: Used) -> dict[str, dict[str, list[str]]]:
    """The union of what several models have seen, by role."""
    return {
        role: {
            kind: sorted({digest for part in parts for digest in part.get(role, {}).get(kind, ())}) for kind in KINDS
        }
        for role in dict.fromkeys(role for part in parts for role in part)
    }
