"""From the frames of one image to its `Volume`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib.errors import InputError

from ..geometry import ras_lps
from ..volume import Volume
from .frame import Frame
from .nuclear import oriented, refuse_planar_series, tomographic_notes
from .patient import clinical_values
from .pet import standardise
from .pixels import real_values, same_pixels
from .projection import picture_geometry
from .series import SLICES, ULTRASOUND, Part
from .stack import arrange
from .ultrasound import calibration

_CROSS_SECTIONAL = ("CT", "MR", "PT")


def assemble(part: Part, frame_number: int | None, notes: list[str]) -> Volume:
    """Read the pixels of one image and put them into the patient.

    Parameters
    ----------
    part
        Which frames.
    frame_number
        One frame of a multi-frame file (from 1), or None for all.
    notes
        What is known already; more is added.

    Raises
    ------
    InputError
        If the frames do not make an image, or a file is damaged.
    """
    if frame_number is not None:
        part = _one_frame(part, frame_number)
    if part.kind == SLICES and all(frame.position and frame.orientation for frame in part.frames):
        return _slices(part, notes)
    if part.kind == ULTRASOUND:
        return _ultrasound(part, notes)
    return _picture(part, notes)


def safe_name(text: str, otherwise: str) -> str:
    """A short name for folders: letters, digits, points, dashes and underscores."""
    name = re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("._-")[:40]
    return name or otherwise


def _one_frame(part: Part, number: int) -> Part:
    if part.info.images != part.frames[0].header.frame_count or len(part.info.files) != 1:
        raise InputError(f"{part.info.files[0]}: a single frame can only be chosen in a multi-frame file.")
    if not 1 <= number <= len(part.frames):
        raise InputError(f"{part.info.files[0]}: there is no frame {number}; the file holds 1 to {len(part.frames)}.")
    return Part(part.info, part.kind, [part.frames[number - 1]])


def _slices(part: Part, notes: list[str]) -> Volume:
    stack = arrange(part.frames, same_pixels)
    notes.extend(stack.notes)
    array, remarks = real_values(stack.frames, colour=False)
    notes.extend(remarks)
    header = stack.frames[0].header
    known = True
    if header.modality == "NM":
        known = oriented(header) or "DetectorInformationSequence" not in header.dataset
        notes.extend(tomographic_notes(header) if header.frame_count > 1 else ())
    units = standardise(array, stack.frames, notes) if header.modality == "PT" else _units(stack.frames, notes)
    return _volume(
        part, array, stack.ijk_to_ras, notes, units=units, spacing_known=stack.spacing_known, orientation_known=known
    )


def _picture(part: Part, notes: list[str]) -> Volume:
    """Radiographs, secondary captures and cross-sections of which nothing says where they lie."""
    header = part.frames[0].header
    if header.modality in _CROSS_SECTIONAL and len(part.frames) > 1:
        raise InputError(
            f"{part.info.files[0]}: the {len(part.frames)} slices do not say where they lie (Image Position and "
            "Orientation (Patient) are missing); export the series again with its geometry, or choose one with frame=N."
        )
    if len(part.frames) == header.frame_count:
        refuse_planar_series(header)
    affine, spacing_known, orientation_known = picture_geometry(part.frames[0], notes)
    array, remarks = real_values(part.frames, colour=header.modality not in _CROSS_SECTIONAL)
    if len(part.frames) > 1:
        spacing_known = False
        remarks.append(_cine_note(part))
    notes.extend(remarks)
    units = _units(part.frames, notes) if header.modality == "CT" else ""
    return _volume(
        part, array, affine, notes, units=units, spacing_known=spacing_known, orientation_known=orientation_known
    )


def _ultrasound(part: Part, notes: list[str]) -> Volume:
    header = part.frames[0].header
    scale = calibration(header, notes)
    array, remarks = real_values(part.frames, colour=True)
    notes.extend(remarks)
    region = None
    if scale.region is not None:
        region = np.ascontiguousarray(np.broadcast_to(scale.region, array.shape))
    spacing_known = bool(scale.spacing)
    if len(part.frames) > 1:
        spacing_known = False
        notes.append(_cine_note(part))
    rows, columns = scale.spacing or (1.0, 1.0)
    affine = ras_lps(np.diag([columns, rows, 1.0, 1.0]))
    return _volume(part, array, affine, notes, spacing_known=spacing_known, orientation_known=False, region=region)


def _cine_note(part: Part) -> str:
    return (
        f"The {len(part.frames)} frames are moments of a cine, not slices: they are judged side by side and sizes are "
        "counted in pixels; choose one with frame=N to have sizes in millimetres."
    )


def _units(frames: Sequence[Frame], notes: list[str]) -> str:
    """HU of a CT that has been rescaled to them (PS3.3 C.11.1.1.2)."""
    if frames[0].header.modality != "CT":
        return ""
    kinds = {(frame.words("RescaleType") or ("HU",))[0].upper() for frame in frames}
    rescaled = all(frame.words("RescaleSlope") and frame.words("RescaleIntercept") for frame in frames)
    if rescaled and kinds == {"HU"}:
        return "HU"
    notes.append("The values of this CT are not stated to be Hounsfield units.")
    return ""


def _volume(part: Part, array: NDArray, affine: NDArray, notes: Sequence[str], **known: Any) -> Volume:
    stem = part.info.files[0].stem if len(part.info.files) == 1 else "series"
    return Volume(
        array,
        affine,
        modality=part.frames[0].header.modality,
        name=safe_name(part.info.description, safe_name(stem, "image")),
        source=[str(path) for path in part.info.files],
        notes=notes,
        covariates=clinical_values(part.frames[0].header),
        **known,
    )
