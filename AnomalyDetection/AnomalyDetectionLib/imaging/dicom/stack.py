"""Slices in order: sorted along their normal, checked for gaps and repetitions, and their common geometry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib.errors import InputError

from ..geometry import SHEAR_TOLERANCE, ras_lps
from .frame import Frame

MISSING = 1.5
"""A gap of this many median spacings or more is a missing slice."""
JITTER = 0.10
"""Share of the median spacing by which a gap may differ.  Scanners round positions and real series jitter by about 1 %
(a GE oblique head: 6.96 to 7.07 mm); beyond a tenth the slices do not make a regular grid."""
_SAME_PLACE_MM = 1e-3
_WORTH_A_NOTE = 1e-3


@dataclass(frozen=True)
class Stack:
    """Slices in the order of the array's K axis.

    Attributes
    ----------
    frames
        Sorted along row direction × column direction.
    ijk_to_ras
        4 × 4, RAS millimetres.
    spacing_known
        False where the file gives no pixel spacing.
    notes
        What the user should be told.
    """

    frames: Sequence[Frame]
    ijk_to_ras: NDArray[np.float64]
    spacing_known: bool
    notes: Sequence[str]


def arrange(frames: Sequence[Frame], same_pixels: Callable[[Frame, Frame], bool]) -> Stack:
    """Sort slices of one orientation and size and work out their common geometry (PS3.3 C.7.6.2.1.1).

    Parameters
    ----------
    frames
        Slices that all state a position and the same orientation.
    same_pixels
        Tells whether two slices at one position are copies of each other.

    Raises
    ------
    InputError
        If slices are missing, repeated with different pixels, unevenly spaced or shifted sideways.
    """
    notes: list[str] = []
    row, column = _directions(frames[0])
    normal = np.cross(row, column)
    along = np.array([np.dot(frame.position, normal) for frame in frames])
    order = np.argsort(along, kind="stable")
    ordered = _without_copies([frames[i] for i in order], along[order], same_pixels, notes)
    positions = np.array([frame.position for frame in ordered])
    spacing = ordered[0].spacing
    step = _step(ordered, positions, normal, spacing or (1.0, 1.0), notes)
    affine = np.eye(4)
    affine[:3, 0] = row * (spacing[1] if spacing else 1.0)
    affine[:3, 1] = column * (spacing[0] if spacing else 1.0)
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    if not spacing:
        notes.append("The file gives no pixel spacing; sizes are counted in pixels.")
    return Stack(ordered, ras_lps(affine), bool(spacing), notes)


def _directions(frame: Frame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    row, column = np.array(frame.orientation[:3]), np.array(frame.orientation[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if not all(0.99 < length < 1.01 for length in lengths) or abs(np.dot(row, column)) > 0.01:
        raise InputError(
            f"{frame.name}: Image Orientation (Patient) is not two unit vectors at a right angle; "
            "export the series again."
        )
    return row / lengths[0], column / lengths[1]


def _without_copies(
    frames: list[Frame], along: NDArray[np.float64], same_pixels: Callable[[Frame, Frame], bool], notes: list[str]
) -> list[Frame]:
    """Drop exact copies of a slice; refuse two different slices at one place."""
    kept, dropped = [frames[0]], []
    for frame, gap in zip(frames[1:], np.diff(along), strict=True):
        if gap > _SAME_PLACE_MM:
            kept.append(frame)
        elif same_pixels(kept[-1], frame):
            dropped.append(frame.name)
        else:
            raise InputError(
                f"{kept[-1].name} and {frame.name} show different pixels at the same position; keep the files of one "
                "volume only (one time point, one echo, one reconstruction) and try again."
            )
    if dropped:
        notes.append(f"{_listed(dropped)}: identical to another slice at the same position, left out.")
    return kept


def _step(
    frames: Sequence[Frame],
    positions: NDArray[np.float64],
    normal: NDArray[np.float64],
    spacing: Sequence[float],
    notes: list[str],
) -> NDArray[np.float64]:
    """The vector from one slice to the next, LPS millimetres."""
    if len(frames) == 1:
        return normal * _thickness(frames[0], notes)
    step = (positions[-1] - positions[0]) / (len(frames) - 1)
    gaps = np.diff(positions @ normal)
    median = float(np.median(gaps))
    missing = [
        f"{round(gap / median) - 1 or 1} between {frames[i].name} and {frames[i + 1].name}"
        for i, gap in enumerate(gaps)
        if gap >= MISSING * median
    ]
    if missing:
        raise InputError(
            f"slices are missing (spacing {median:.3g} mm): {_listed(missing)}; export the whole series again."
        )
    worst = int(np.argmax(np.abs(gaps - median)))
    offsets = positions - (positions[0] + np.arange(len(frames))[:, None] * step)
    lengthwise = offsets @ normal
    if abs(gaps[worst] - median) > JITTER * median or np.abs(lengthwise).max() > 0.5 * median:
        raise InputError(
            f"the slices are unevenly spaced ({gaps.min():.3g} to {gaps.max():.3g} mm; {gaps[worst]:.3g} mm between "
            f"{frames[worst].name} and {frames[worst + 1].name}); resample the series to even spacing and try again."
        )
    sideways = np.linalg.norm(offsets - lengthwise[:, None] * normal, axis=1)
    if sideways.max() > 0.5 * min(spacing):
        raise InputError(
            f"{frames[int(np.argmax(sideways))].name} lies {sideways.max():.2f} mm beside the line of the others; "
            "the series is not one rectangular volume: resample it and try again."
        )
    if np.abs(gaps - median).max() > _WORTH_A_NOTE * median:
        notes.append(
            f"Slice spacing varies from {gaps.min():.4g} to {gaps.max():.4g} mm (most unusual between "
            f"{frames[worst].name} and {frames[worst + 1].name}); the mean of {np.linalg.norm(step):.4g} mm is used."
        )
    length = float(np.linalg.norm(step))
    tilt = np.linalg.norm(step - (step @ normal) * normal) / length
    # Rounded positions (0.02 degrees in a GE head) are no tilt: the grid stays rectangular, as in ITK's reader.  A real
    # tilt stays in the affine, which `Grid` refuses.
    return normal * length if tilt <= SHEAR_TOLERANCE else step


def _thickness(frame: Frame, notes: list[str]) -> float:
    for keyword in ("SliceThickness", "SpacingBetweenSlices"):
        values = frame.numbers(keyword)
        if values and values[0] > 0:
            return values[0]
    notes.append("The slice has no stated thickness; 1 mm is assumed.")
    return 1.0


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
