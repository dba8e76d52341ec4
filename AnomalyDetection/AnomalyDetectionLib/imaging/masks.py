"""Morphology on boolean masks at a reduced resolution: the tools `foreground` is built from.

Radii are millimetres and are met exactly on anisotropic grids, because dilation and erosion are taken from distance
maps (Maurer et al., IEEE TPAMI 25, 2003).  On 120 x 120 x 78 voxels a closing takes 0.1 s on one core, SimpleITK's
ball kernels 0.35 s; filling holes by labelling the background takes 0.05 s, `BinaryFillhole` 0.8 s.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]
"""mm along (i, j, k), as in `Volume.spacing`."""


def _distance_to(mask: Mask, spacing: Spacing) -> NDArray[np.float32]:
    """Distance (mm) of every voxel centre outside `mask` to the nearest inside it; zero or negative inside."""
    image = sitk.GetImageFromArray(mask.view(np.uint8))
    image.SetSpacing(spacing)
    return sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(image, False, False, True))


def dilate(mask: Mask, radius_mm: float, spacing: Spacing) -> Mask:
    """Every voxel whose centre is within `radius_mm` of the mask."""
    if not mask.any():
        return mask.copy()
    return _distance_to(mask, spacing) <= radius_mm


def erode(mask: Mask, radius_mm: float, spacing: Spacing) -> Mask:
    """Voxels of the mask farther than `radius_mm` from any voxel outside it; beyond the array's edge is not outside."""
    if mask.all():
        return mask.copy()
    return _distance_to(~mask, spacing) > radius_mm


def close(mask: Mask, radius_mm: float, spacing: Spacing) -> Mask:
    """Closing; gaps that open at the edge of the array are not closed by the edge."""
    pad = [(int(radius_mm / s) + 1,) * 2 if n > 1 else (0, 0) for s, n in zip(spacing[::-1], mask.shape, strict=True)]
    padded = np.pad(mask, pad)
    closed = erode(dilate(padded, radius_mm, spacing), radius_mm, spacing)
    return np.ascontiguousarray(closed[tuple(slice(b, -a or None) for b, a in pad)]) | mask


def open_(mask: Mask, radius_mm: float, spacing: Spacing) -> Mask:
    """Opening; what touches the edge of the array is taken to go on beyond it."""
    return dilate(erode(mask, radius_mm, spacing), radius_mm, spacing) & mask


def components(mask: Mask) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Face-connected components: label map (0 outside the mask) and voxels per label (index 0 counts the outside)."""
    labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(mask.view(np.uint8)), False))
    return labels, np.bincount(labels.ravel())


def largest(mask: Mask, share: float) -> Mask:
    """The largest component and those that have at least `share` of its voxels (two legs, two breasts)."""
    labels, counts = components(mask)
    if counts.size <= 2:
        return mask
    counts[0] = 0
    return (counts >= share * counts.max())[labels] & mask


def fill(mask: Mask) -> Mask:
    """Fill what is enclosed in three dimensions, and what is enclosed within one slice (array axis 0)."""
    if mask.shape[0] > 2:
        mask = mask | _off_edge(~mask, (0, 1, 2))
    return mask | enclosed_in_slices(~mask)


def enclosed_in_slices(mask: Mask) -> Mask:
    """Components of each slice (array axis 0) that do not reach the slice's edge."""
    # Slices set apart by empty ones are labelled all at once: 0.1 s rather than 1.2 s for 78 calls.
    apart = np.zeros((2 * mask.shape[0], *mask.shape[1:]), dtype=bool)
    apart[::2] = mask
    return _off_edge(apart, (1, 2))[::2]


def _off_edge(mask: Mask, axes: tuple[int, ...]) -> Mask:
    """Components of `mask` that do not touch the array's edge along `axes`."""
    labels, counts = components(mask)
    keep = np.ones(counts.size, dtype=bool)
    keep[0] = False
    for axis in axes:
        for end in (0, -1):
            keep[np.unique(np.take(labels, end, axis=axis))] = False
    return keep[labels]
