"""Findings: connected regions of the rarity map above a threshold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib.imaging.geometry import Canonical, Grid
from AnomalyDetectionLib.imaging.volume import Volume

from .result import Finding

MIDLINE_MM = 2.5
"""A centroid this near to the midline belongs to neither side."""


@dataclass(frozen=True)
class LeastSize:
    """The smallest region that is reported; smaller ones are noise to a reader.

    `ml` for volumes, `mm2` for single images with a known pixel spacing, `px` for those without.
    """

    ml: float = 0.1
    mm2: float = 25.0
    px: float = 25.0

    def voxels(self, volume: Volume) -> int:
        """The least size in voxels of this volume."""
        size, _ = voxel_size(volume)
        least = self.ml if not volume.is_slice else self.mm2 if volume.spacing_known else self.px
        return max(1, int(np.ceil(least / size - 1e-9)))

    def to_json(self) -> dict[str, float]:
        """As plain JSON values."""
        return {"ml": self.ml, "mm2": self.mm2, "px": self.px}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LeastSize:
        """The inverse of `to_json`."""
        return cls(float(data["ml"]), float(data["mm2"]), float(data["px"]))


def voxel_size(volume: Volume) -> tuple[float, str]:
    """Size of one voxel (pixel) of a volume and its unit: "mL", "mm²" or, where the spacing is unknown, "px"."""
    x, y, z = volume.spacing
    if not volume.spacing_known:
        return 1.0, "px"
    return (x * y, "mm²") if volume.is_slice else (x * y * z / 1000, "mL")


def label_regions(rarity: NDArray[np.float32], threshold: float, least_voxels: int) -> NDArray[np.int32]:
    """26-connected regions (8-connected in a single image) of rarity >= threshold with at least that many voxels.

    Parameters
    ----------
    rarity
        (K, J, I), 0 outside the foreground.

    Returns
    -------
    int32 (K, J, I), 1 ... n ordered by falling peak rarity, 0 elsewhere.
    """
    import SimpleITK as sitk  # not before there is a map: opening Slicer's panel reaches this file

    above = rarity >= threshold
    labels = np.zeros(rarity.shape, dtype=np.int32)
    voxels = np.flatnonzero(above)
    if voxels.size == 0:
        return labels
    # Components are looked for in the box of what is above, and all else is done for those few voxels alone: two thirds
    # of the time of a head in 256³ voxels (30 ms).
    places = np.unravel_index(voxels, rarity.shape)
    box = tuple(slice(int(place.min()), int(place.max()) + 1) for place in places)
    cut = sitk.GetImageFromArray(above[box].view(np.uint8))
    components = sitk.GetArrayFromImage(sitk.ConnectedComponent(cut, True))
    of_voxel = components[tuple(place - side.start for place, side in zip(places, box, strict=True))]
    sizes = np.bincount(of_voxel)
    peaks = np.full(sizes.size, -np.inf)
    np.maximum.at(peaks, of_voxel, rarity[places])
    order = np.lexsort((-sizes, -peaks))  # of equal peaks the larger region is first
    order = order[sizes[order] >= max(1, least_voxels)]  # there is no region 0
    ranks = np.zeros(sizes.size, dtype=np.int32)
    ranks[order] = np.arange(1, order.size + 1)
    labels.ravel()[voxels] = ranks[of_voxel]
    return labels


def box_of(mask: NDArray[np.bool_]) -> tuple[slice, ...] | None:
    """The smallest box (slices along k, j, i) that holds all of a mask; None for an empty one."""
    lines = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    return tuple(slice(int(line[0]), int(line[-1]) + 1) for line in lines) if lines[0].size else None


@dataclass(frozen=True)
class Midline:
    """The plane between a patient's left and right.

    Attributes
    ----------
    point
        RAS mm (3,), anywhere on it.
    right
        Unit vector (3,), RAS, at right angles to it, towards the patient's right.
    """

    point: NDArray[np.float64]
    right: NDArray[np.float64]

    def to_the_right(self, ras: NDArray[np.float64]) -> float:
        """Distance (mm) of a RAS point from the plane, negative on the patient's left."""
        return float((ras - self.point) @ self.right)

    def moved(self, matrix: NDArray[np.float64]) -> Midline:
        """The plane after an affine transform of space (4 x 4, RAS mm)."""
        right = np.linalg.inv(matrix[:3, :3]).T @ self.right
        return Midline(matrix[:3, :3] @ self.point + matrix[:3, 3], right / np.linalg.norm(right))


def midline_of(volume: Volume, foreground: NDArray[np.bool_]) -> Midline | None:
    """The sagittal plane through the centroid of the foreground; None if sides are unknown.

    It is the patient's midline as far as the patient lies straight and wholly in view; where a template was aligned,
    the template's midline is better (`Midline.moved`).
    """
    if not volume.orientation_known:
        return None
    return midline_of_mask(volume.grid, foreground)


def midline_of_mask(grid: Grid, foreground: NDArray[np.bool_]) -> Midline | None:
    """The plane of constant R through the centroid of a mask (K, J, I); None for an empty one."""
    counts = [foreground.sum(axis=axes, dtype=np.int64) for axes in ((0, 1), (0, 2), (1, 2))]  # along i, j, k
    total = int(counts[0].sum())
    if total == 0:
        return None
    centroid = [float((np.arange(c.size) * c).sum() / total) for c in counts]
    return Midline(grid.to_ras(np.array(centroid)), np.array([1.0, 0.0, 0.0]))


def describe(
    volume: Volume, rarity: NDArray[np.float32], labels: NDArray[np.int32], midline: Midline | None
) -> tuple[Finding, ...]:
    """Size, extent, place, side and rarity of every labelled region.

    Parameters
    ----------
    midline
        The plane between left and right (`midline_of`), or None where they are unknown.
    """
    inside = np.flatnonzero(labels != 0)  # of booleans: five times faster than of int32
    if inside.size == 0:
        return ()
    of_voxel, values = labels.ravel()[inside], rarity.ravel()[inside]
    ijk = np.stack(np.unravel_index(inside, labels.shape)[::-1], axis=1)
    order = np.argsort(of_voxel, kind="stable")
    starts = np.searchsorted(of_voxel[order], np.arange(1, int(of_voxel.max()) + 2))
    unit_size, unit = voxel_size(volume)
    findings = []
    for label in range(1, starts.size):
        members = order[starts[label - 1] : starts[label]]
        points, scores = ijk[members], values[members].astype(np.float64)
        centroid = points.mean(axis=0)
        nearest = points[int(np.argmin(((points - centroid) ** 2).sum(axis=1)))]
        centroid_ras = volume.grid.to_ras(centroid)
        findings.append(
            Finding(
                label=label,
                size=float(members.size * unit_size),
                size_unit=unit,
                extent_mm=_extent(volume.grid, points),
                centroid_ras=_triple(centroid_ras),
                peak_ras=_triple(volume.grid.to_ras(points[int(np.argmax(scores))])),
                centroid_ijk=(int(nearest[0]), int(nearest[1]), int(nearest[2])),
                side=_side(centroid_ras, midline),
                peak=float(scores.max()),
                mean=float(scores.mean()),
            )
        )
    return tuple(findings)


def _triple(point: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(point[0]), float(point[1]), float(point[2])


def _extent(grid: Grid, points: NDArray[np.int64]) -> tuple[float, float, float]:
    """Extent of voxels (n, 3; i, j, k) along the grid axes nearest to right, anterior, superior, in mm."""
    along_ijk = (points.max(axis=0) - points.min(axis=0) + 1) * np.array(grid.spacing)
    axes = Canonical.of(grid).axes  # array axes for S, A, R
    return _triple(np.array([along_ijk[2 - axes[2]], along_ijk[2 - axes[1]], along_ijk[2 - axes[0]]]))


def _side(centroid_ras: NDArray[np.float64], midline: Midline | None) -> str:
    if midline is None:
        return "unknown"
    distance = midline.to_the_right(centroid_ras)
    if abs(distance) <= MIDLINE_MM:
        return "midline"
    return "right" if distance > 0 else "left"
