"""Ultrasound: the calibrated region of its frames (PS3.3 C.8.5.5)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from .header import Header
from .values import integer, items, number, numbers

_TWO_DIMENSIONAL, _TISSUE, _COLOUR_FLOW, _CENTIMETRES = 1, 1, 2, 3


@dataclass(frozen=True)
class Calibration:
    """What the regions of an ultrasound image tell.

    Attributes
    ----------
    region
        Boolean (rows, columns): where there is tissue, or None if no region is described.
    spacing
        Millimetres between rows and between columns, or empty.
    """

    region: NDArray[np.bool_] | None
    spacing: tuple[float, ...]


def calibration(header: Header, notes: list[str]) -> Calibration:
    """Region and scale of an ultrasound image: its two-dimensional regions of tissue that are measured in centimetres.

    Several regions (a dual view) are all kept; the largest gives the scale.
    """
    found = [
        (box, scale)
        for item in items(header.dataset, "SequenceOfUltrasoundRegions")
        if (box := _box(item, header)) and (scale := _scale(item))
    ]
    if not found:
        spacing = numbers(header.dataset, "PixelSpacing")
        known = spacing if len(spacing) == 2 and min(spacing) > 0 else ()
        notes.append(
            "The file describes no calibrated region; the whole frame, with its borders and text, counts as image."
            + ("" if known else "  Sizes are counted in pixels.")
        )
        return Calibration(None, known)
    region = np.zeros((header.rows, header.columns), dtype=bool)
    for (top, bottom, left, right), _ in found:
        region[top:bottom, left:right] = True
    (_, spacing) = max(found, key=lambda entry: _area(entry[0]))
    if any(not np.allclose(scale, spacing, rtol=0.01) for _, scale in found):
        notes.append(f"The frame holds {len(found)} regions of different scale; that of the largest is used.")
    return Calibration(region, spacing)


def _box(item: Dataset, header: Header) -> tuple[int, int, int, int] | None:
    """Rows and columns of a region of tissue, as half-open ranges inside the image."""
    if integer(item, "RegionSpatialFormat") != _TWO_DIMENSIONAL:
        return None
    if integer(item, "RegionDataType") not in (_TISSUE, _COLOUR_FLOW):
        return None
    left, right = integer(item, "RegionLocationMinX0"), integer(item, "RegionLocationMaxX1") + 1
    top, bottom = integer(item, "RegionLocationMinY0"), integer(item, "RegionLocationMaxY1") + 1
    right, bottom = min(right, header.columns), min(bottom, header.rows)
    return (top, bottom, left, right) if 0 <= left < right and 0 <= top < bottom else None


def _scale(item: Dataset) -> tuple[float, ...]:
    units = integer(item, "PhysicalUnitsXDirection"), integer(item, "PhysicalUnitsYDirection")
    across, down = number(item, "PhysicalDeltaX") or 0.0, number(item, "PhysicalDeltaY") or 0.0
    if units != (_CENTIMETRES, _CENTIMETRES) or not across or not down:
        return ()
    return abs(down) * 10, abs(across) * 10


def _area(box: tuple[int, int, int, int]) -> int:
    return (box[1] - box[0]) * (box[3] - box[2])
