"""Nuclear medicine: reconstructed SPECT as slices, planar images as what they are (PS3.3 C.8.4)."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset

from AnomalyDetectionLib.errors import InputError

from .frame import Frame, frames_of
from .header import Header
from .values import items, number, numbers, words

_TOMOGRAPHIC = ("RECON TOMO", "RECON GATED TOMO")
_AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def tomographic_frames(header: Header) -> list[Frame]:
    """Slices of a reconstructed SPECT with the positions that its vectors imply; empty for any other object.

    The first slice lies where the detector item says; the others follow along row × column at the spacing between
    slices, whose sign is meant (PS3.3 C.8.4.15.1.1).  Gated slots become temporal positions.

    Raises
    ------
    InputError
        If the slices cannot be placed.
    """
    if header.modality != "NM" or _frame_type(header) not in _TOMOGRAPHIC:
        return []
    frames = frames_of(header)
    if header.frame_count == 1 and frames[0].position and frames[0].orientation:
        return frames
    step = _slice_step(header)
    if not step:
        raise InputError(f"{header.path}: this SPECT states no spacing between its slices; export it again.")
    numbers_of_slices = numbers(header.dataset, "SliceVector") or tuple(range(1, header.frame_count + 1))
    slots = numbers(header.dataset, "TimeSlotVector") or (1.0,) * header.frame_count
    if len(numbers_of_slices) != header.frame_count or len(slots) != header.frame_count:
        raise InputError(
            f"{header.path}: its slice vector does not fit its {header.frame_count} frames; export it again."
        )
    detector = _detector(header)
    orientation = numbers(detector, "ImageOrientationPatient") if oriented(header) else _AXIAL
    origin = np.array(numbers(detector, "ImagePositionPatient") if oriented(header) else (0.0, 0.0, 0.0))
    normal = np.cross(orientation[:3], orientation[3:])
    for frame, slice_number, slot in zip(frames, numbers_of_slices, slots, strict=True):
        frame.position = tuple(float(x) for x in origin + (slice_number - 1) * step * normal)
        frame.orientation = orientation
        own = Dataset()
        own.TemporalPositionIdentifier = int(slot)
        frame.sources = (own, header.dataset)
    return frames


def oriented(header: Header) -> bool:
    """Whether a SPECT says how its first slice lies in the patient."""
    detector = _detector(header)
    return (
        len(numbers(detector, "ImageOrientationPatient")) == 6 and len(numbers(detector, "ImagePositionPatient")) == 3
    )


def tomographic_notes(header: Header) -> list[str]:
    """What the user should be told about the geometry of a SPECT."""
    notes = []
    if not oriented(header):
        notes.append("The file does not say how the slices lie in the patient; sides are not reported.")
    if not number(header.dataset, "SpacingBetweenSlices"):
        notes.append("The spacing between slices is not stated; the slice thickness is used.")
    return notes


def refuse_planar_series(header: Header) -> None:
    """Refuse nuclear images that several frames do not make a volume of."""
    if header.modality != "NM":
        return
    kind = _frame_type(header)
    if kind in ("TOMO", "GATED TOMO"):
        raise InputError(
            f"{header.path}: these are the {header.frame_count} raw projections of a SPECT; "
            "reconstruct it first and use the reconstructed slices."
        )
    if header.frame_count > 1:
        raise InputError(
            f"{header.path}: the {header.frame_count} frames of this {(kind or 'planar').lower()} study are separate "
            f"views or moments, not slices; choose one of them with frame=1 to {header.frame_count}."
        )


def _frame_type(header: Header) -> str:
    kinds = words(header.dataset, "ImageType")
    return kinds[2].upper() if len(kinds) > 2 else ""


def _detector(header: Header) -> Dataset:
    found = items(header.dataset, "DetectorInformationSequence")
    return found[0] if found else header.dataset


def _slice_step(header: Header) -> float:
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        if value := number(header.dataset, keyword):
            return value
    return 0.0
