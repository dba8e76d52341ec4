"""Single pictures: radiographs (CR, DX, MG), angiography and secondary captures (PS3.3 C.8.11, 10.7)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..geometry import ras_lps
from .frame import Frame
from .header import Header
from .values import number, numbers, word, words

_DIRECTIONS = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "H": (0, 0, 1), "F": (0, 0, -1)}
"""First letter of a value of Patient Orientation, as LPS direction (PS3.3 C.7.6.1.1.1)."""


def picture_geometry(frame: Frame, notes: list[str]) -> tuple[NDArray[np.float64], bool, bool]:
    """Geometry of a picture without depth, as far as the file tells it.

    Parameters
    ----------
    notes
        Takes where the pixel spacing comes from.

    Returns
    -------
    ijk_to_ras, spacing_known, orientation_known
        The origin is the first pixel.  Without a known orientation, i runs to the patient's left and j to the back,
        as in a picture of which nothing is known.
    """
    spacing, known = _spacing(frame.header, notes)
    row, column, oriented = _orientation(frame.header, notes)
    affine = np.eye(4)
    affine[:3, 0] = row * spacing[1]
    affine[:3, 1] = column * spacing[0]
    affine[:3, 2] = np.cross(row, column)
    return ras_lps(affine), known, oriented


def _spacing(header: Header, notes: list[str]) -> tuple[Sequence[float], bool]:
    """Millimetres between rows and between columns, and whether they are known."""
    patient, detector = _pair(header, "PixelSpacing"), _pair(header, "ImagerPixelSpacing")
    magnification = number(header.dataset, "EstimatedRadiographicMagnificationFactor") or 0.0
    if patient and (not detector or not np.allclose(patient, detector, rtol=1e-3)):
        calibration = word(header.dataset, "PixelSpacingCalibrationType").lower()
        notes.append(
            f"Pixel spacing {patient[0]:.4g} mm as stated{f', calibrated by {calibration}' if calibration else ''}."
        )
        return patient, True
    if detector and magnification > 0:
        notes.append(
            f"Pixel spacing {detector[0] / magnification:.4g} mm: detector plane {detector[0]:.4g} mm divided by the "
            f"estimated magnification {magnification:.4g}."
        )
        return tuple(size / magnification for size in detector), True
    if detector:
        notes.append(f"Pixel spacing {detector[0]:.4g} mm is that of the detector; sizes in the patient are smaller.")
        return detector, True
    if scanned := _pair(header, "NominalScannedPixelSpacing"):
        notes.append(f"Pixel spacing {scanned[0]:.4g} mm is that of the scanned film.")
        return scanned, True
    notes.append("The file gives no pixel spacing; sizes are counted in pixels.")
    aspect = _pair(header, "PixelAspectRatio")
    return ((aspect[0] / aspect[1], 1.0) if aspect else (1.0, 1.0)), False


def _pair(header: Header, keyword: str) -> tuple[float, ...]:
    values = numbers(header.dataset, keyword)
    return values if len(values) == 2 and min(values) > 0 else ()


def _orientation(header: Header, notes: list[str]) -> tuple[NDArray, NDArray, bool]:
    """Directions (LPS) of increasing column and row index, and whether the file tells them."""
    letters = [word.upper()[:1] for word in words(header.dataset, "PatientOrientation")]
    known = [np.array(_DIRECTIONS[letter], dtype=float) for letter in letters if letter in _DIRECTIONS]
    if len(known) == 2 and abs(np.dot(known[0], known[1])) < 0.5:
        if any(len(text) > 1 for text in words(header.dataset, "PatientOrientation")):
            notes.append("The view is oblique; it is placed by its main directions.")
        return known[0], known[1], True
    notes.append("The file does not say which side of the patient is where; sides are not reported.")
    return np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0]), False
