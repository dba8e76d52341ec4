"""A small head as a label map with FreeSurfer's values: ellipsoids, but each where it belongs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib.imaging.geometry import Grid
from AnomalyDetectionLib.imaging.write import write_labels

SPACING_MM = 2.0
_LOW = np.array([-84.0, -112.0, -96.0])
_SHAPE = (98, 104, 84)  # K, J, I

#: Label (left, right), centre and half axes in mm of the right one, in the order they are painted.
_LAYERS: tuple[tuple[tuple[int, int], tuple[float, float, float], tuple[float, float, float]], ...] = (
    ((511, 511), (0, -14, 0), (80, 96, 94)),  # skin
    ((507, 507), (0, -14, 0), (77, 93, 92)),  # fat and muscle
    ((515, 515), (0, -14, 6), (71, 88, 76)),  # compact bone
    ((516, 516), (0, -14, 6), (69, 86, 74)),  # marrow
    ((515, 515), (0, -14, 6), (67, 84, 72)),
    ((24, 24), (0, -14, 6), (65, 82, 70)),  # fluid
    ((3, 42), (0, -14, 12), (61, 78, 60)),  # cortex
    ((2, 41), (0, -14, 12), (56, 73, 55)),  # white matter
    ((8, 47), (25, -62, -36), (21, 18, 14)),  # cerebellum
    ((7, 46), (22, -60, -36), (8, 8, 6)),
    ((16, 16), (0, -28, -34), (10, 9, 22)),  # brainstem
    ((17, 53), (26, -22, -14), (5, 13, 5)),  # hippocampus
    ((18, 54), (23, -5, -18), (7, 7, 7)),
    ((12, 51), (25, 1, 0), (5, 14, 9)),  # putamen
    ((13, 52), (20, -5, -1), (4, 7, 5)),
    ((11, 50), (13, 9, 10), (4, 12, 9)),  # caudate
    ((10, 49), (11, -19, 7), (7, 12, 8)),  # thalamus
    ((4, 43), (9, -12, 18), (5, 30, 7)),  # lateral ventricle
    ((14, 14), (0, -15, 2), (2, 12, 10)),
    ((506, 506), (30, 62, -34), (11, 11, 11)),  # eyes
)


def head_labels(width: float = 1.0, spacing: float = SPACING_MM) -> tuple[NDArray[np.uint16], Grid]:
    """Labels (K, J, I) in RAS order and their grid; `width` stretches the cerebrum sideways."""
    shape = tuple(int(n * SPACING_MM / spacing) for n in _SHAPE)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = _LOW
    k, j, i = np.indices(shape, sparse=True)
    x, y, z = (_LOW[axis] + spacing * index for axis, index in enumerate((i, j, k)))
    labels = np.zeros(shape, dtype=np.uint16)
    for pair, (cx, cy, cz), (rx, ry, rz) in _LAYERS:
        rx = rx * width if pair in ((3, 42), (2, 41)) else rx
        for label, side in zip(pair, (-1, 1), strict=True):
            half = side * x >= 0 if pair[0] != pair[1] else np.ones_like(x, dtype=bool)
            inside = ((x - side * cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2 < 1
            labels[inside & half] = label
    return labels, Grid(shape, affine, "head")


def write_head(path: Path, width: float = 1.0) -> Path:
    """Write a head to a file."""
    labels, grid = head_labels(width)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_labels(labels, grid, path)


def write_plaque_masks(folder: Path, count: int = 2) -> Path:
    """Masks in MNI space, 1 mm: beside the ventricles a long plaque of 0.5 mL, a bent one, and a speck of 8 mm3."""
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = (-80, -110, -60)
    grid = Grid((150, 180, 160), affine, "mask")
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, count + 1):
        mask = np.zeros(grid.shape, dtype=np.uint8)
        i, j, k = np.round(grid.to_ijk(np.array([22.0 + number, -30, 22]))).astype(int)
        mask[k : k + 5, j : j + 6, i : i + 17] = 1
        mask[k + 20 : k + 24, j : j + 5, i : i + 9] = 1
        mask[k + 20 : k + 24, j : j + 12, i : i + 4] = 1
        mask[k - 20 : k - 18, j : j + 2, i : i + 2] = 1
        write_labels(mask, grid, folder / f"mask_{number}.nii.gz")
    return folder
