"""From a volume to a detector's batch, and the way back for its map.

The one road by which images reach detectors, in training as in scoring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.foreground import foreground as find_foreground
from AnomalyDetectionLib.imaging.geometry import Canonical, Grid, resample, with_spacing
from AnomalyDetectionLib.imaging.intensity import normalise
from AnomalyDetectionLib.imaging.registration import register_affine
from AnomalyDetectionLib.imaging.template import Normal, Template, fitting_grid, sample, stretched
from AnomalyDetectionLib.imaging.volume import Volume

from .contract import Batch, InputSpec

LEAST_SLICES = 8
"""Fewer slices than that do not pin down where a head lies along its long axis."""


@dataclass
class Prepared:
    """One case on the detector's grid.

    Attributes
    ----------
    batch
        The whole case: N = 1, or for slice-wise kinds the slices that hold foreground, (N, C, H, W); each alone, for
        `items` and `chunks` hand out the neighbours.  A sequence is one item of these slices, (1, C, L, H, W).
    foreground
        bool (K, J, I) on the input's own grid.
    overlap
        Dice of the outlines of image and template after alignment, or None where nothing was registered.
    slices
        For slice-wise kinds: int64 (N,), which slice of `grid` each item is; for sequences (L,); None where N = 1 is
        the whole volume.
    neighbours
        Slices on either side that an item is handed out with.
    """

    batch: Batch
    foreground: NDArray[np.bool_]
    grid: Grid
    source: Grid
    to_source: NDArray[np.float64]
    overlap: float | None = None
    slices: NDArray[np.int64] | None = None
    neighbours: int = 0

    def items(self, start: int = 0, end: int | None = None) -> Batch:
        """The items from `start` to before `end`, as the detector takes them: with their neighbours."""
        image = self.batch.image
        if not self.neighbours:
            return Batch(image[start:end], self.batch.foreground[start:end])
        chosen = np.arange(image.shape[0])[start:end]
        around = neighbours_of(chosen, image.shape[0], self.neighbours)
        return Batch(image[around].flatten(1, 2), self.batch.foreground[start:end])

    def chunks(self, most: int) -> Iterator[Batch]:
        """The batch in order, in parts of at most `most` items."""
        for start in range(0, self.batch.image.shape[0], most):
            yield self.items(start, start + most)

    def whole(self, items: NDArray) -> NDArray:
        """One array (D, H, W) on the detector's grid of what was computed per item, (N, 1, *spatial); 0 elsewhere."""
        if self.slices is None:
            return items[0, 0]
        array = np.zeros(self.grid.shape, dtype=items.dtype)
        array[self.slices] = items[0, 0] if items.ndim == 5 else items[:, 0]
        return array

    def to_input(self, array: NDArray, *, nearest: bool = False) -> NDArray:
        """An array on the detector's grid (D, H, W) in the input's geometry (K, J, I); 0 where it does not reach."""
        return resample(
            array, self.grid, self.source, np.asarray(np.linalg.inv(self.to_source), dtype=np.float64), nearest=nearest
        )

    def shown(self) -> NDArray[np.bool_]:
        """The foreground as far as the detector's grid reaches, bool (K, J, I): beyond it `to_input` has no scores."""
        if not self.foreground.any():
            return self.foreground
        corners = np.array(list(product(*_box_of(self.foreground).T)))
        ras = np.c_[self.source.to_ras(corners), np.ones(len(corners))] @ np.linalg.inv(self.to_source).T
        places = self.grid.to_ijk(ras[:, :3])
        # A grid reaches to the outer faces of its voxels; what lies on a face is left to `to_input`.
        counts = np.array(self.grid.shape[::-1])
        if (np.abs(places - (counts - 1) / 2) < counts / 2 - 1e-6).all():
            return self.foreground
        return self.foreground & self.to_input(np.ones(self.grid.shape, dtype=np.bool_))


def neighbours_of(items: NDArray[np.int64], count: int, neighbours: int) -> NDArray[np.int64]:
    """Of slices 0 ... count - 1 those around each of `items`, (N, 2 * neighbours + 1); the outermost are repeated."""
    return np.clip(items[:, None] + np.arange(-neighbours, neighbours + 1), 0, count - 1)


def check_fits(volume: Volume, spec: InputSpec) -> str | None:
    """Refuse an image the model was not made for; returns a note where that cannot be told.

    Raises
    ------
    InputError
        For another modality, a single image where a volume is needed or the reverse, and unusable voxels.
    """
    if spec.modalities and volume.modality and volume.modality not in spec.modalities:
        raise InputError(
            f"{volume.name}: the image is {volume.modality}, the model was made for {' or '.join(spec.modalities)}; "
            "choose a model for this modality."
        )
    thinnest = min(volume.shape)  # a sagittal or coronal slice may lie along any axis of the array
    if (spec.grid == "template" or spec.kind in ("patches", "sequence")) and thinnest == 1:
        raise InputError(
            f"{volume.name}: this is a single slice, the model needs a volume; give the folder that holds the series."
        )
    if spec.grid == "template" and thinnest < LEAST_SLICES:
        raise InputError(
            f"{volume.name}: {thinnest} slices are too few to place the image in the body; "
            f"at least {LEAST_SLICES} are needed."
        )
    if spec.grid == "frame" and not volume.is_slice:
        raise InputError(f"{volume.name}: the model was made for single images, this one has {volume.shape[0]} slices.")
    volume.check_values()
    if not volume.modality and spec.modalities:
        return f"The file does not say its modality; it was scored as {' or '.join(spec.modalities)}."
    return None


def as_normal(volume: Volume, spec: InputSpec) -> Normal:
    """Intensities in [0, 1], foreground and grid of a volume, by the spec's named rules."""
    mask = find_foreground(volume, spec.foreground)
    return normalise(volume, mask, spec.intensity), mask, volume.grid


def prepare(
    volume: Volume,
    spec: InputSpec,
    template: Template | None = None,
    progress: Callable[[str, float], None] = lambda stage, fraction: None,
) -> Prepared:
    """Bring a volume onto the detector's grid.

    Parameters
    ----------
    template
        Needed where `spec.grid` is "template" or "frame".

    Raises
    ------
    InputError
        If the image does not fit the spec or cannot be aligned.
    """
    progress("finding the foreground", 0.0)
    image, mask, grid = as_normal(volume, spec)
    overlap = None
    if spec.grid == "own":
        target, source, to_source = fitting_grid(grid, spec.spacing), grid, np.eye(4)
    elif template is None:
        raise ValueError("this detector needs its template")
    elif spec.grid == "frame":
        target, source, to_source = template.grid, stretched(grid, template.grid), np.eye(4)
    else:
        stage = "aligning with the template"
        progress(stage, 0.1)
        alignment = register_affine(
            *(image, mask, grid),
            *(template.image, template.foreground, template.grid),
            progress=lambda share: progress(stage, 0.1 + 0.8 * share),
        )
        overlap = alignment.overlap
        target, source, to_source = template.grid, grid, alignment.template_to_volume
    progress("resampling", 0.9)
    if spec.has_slices and spec.grid != "frame":
        target = _slice_grid(target, spec, mask, grid)
    sampled, sampled_mask = sample(image, mask, source, target, to_source)
    if not spec.has_slices:
        batch = Batch(torch.from_numpy(sampled)[None, None], torch.from_numpy(sampled_mask)[None, None])
        return Prepared(batch, mask, target, source, to_source, overlap)
    kept = np.flatnonzero(sampled_mask.any(axis=(1, 2)))  # most of a head scan's box is air
    if kept.size == 0:
        raise InputError(f"{volume.name}: no slice of the image holds anything the model can judge.")
    batch = Batch(torch.from_numpy(sampled[kept])[:, None], torch.from_numpy(sampled_mask[kept])[:, None])
    if spec.kind == "sequence":
        batch = Batch(batch.image.transpose(0, 1)[None], batch.foreground.transpose(0, 1)[None])
    return Prepared(batch, mask, target, source, to_source, overlap, kept, spec.neighbours)


def _slice_grid(target: Grid, spec: InputSpec, mask: NDArray[np.bool_], grid: Grid) -> Grid:
    """The canonical grid whose slices along S have the spec's size.

    With a voxel size in the spec the slices are cut, or filled up with air, around the patient (or the template);
    without one the whole field of view is fitted into the slice, its aspect ratio kept.  Slices thicker than the
    spec's are never divided: what lies between them is not in the image.
    """
    if spec.grid == "own":
        canonical = Canonical.of(grid).grid(grid)
        if grid.shape[0] == 1 and canonical.shape[0] != 1:
            raise InputError(
                f"{grid.name}: the model judges slices across the body axis, this single slice lies along it; "
                "choose a model for such images."
            )
        right, anterior, superior = canonical.spacing
        if spec.spacing is not None:
            right, anterior, superior = spec.spacing[0], spec.spacing[1], max(spec.spacing[2], superior)
        elif spec.size is not None and canonical.shape[1:] != spec.size:
            height, width = spec.size
            right = anterior = max(anterior * canonical.shape[1] / height, right * canonical.shape[2] / width)
        spacing = (right, anterior, superior)
        target = canonical if spacing == canonical.spacing else with_spacing(canonical, spacing)
    if spec.size is None or target.shape[1:] == spec.size:
        return target
    height, width = spec.size
    middle = (np.array(target.shape[::-1], dtype=np.float64) - 1) / 2
    if spec.grid == "own" and spec.spacing is not None and mask.any():
        middle[:2] = _middle_of(mask, grid, target)[:2]
    affine = target.ijk_to_ras.copy()
    affine[:3, 3] = target.to_ras(np.array([middle[0] - (width - 1) / 2, middle[1] - (height - 1) / 2, 0.0]))
    return Grid((target.shape[0], height, width), affine, target.name)


def _middle_of(mask: NDArray[np.bool_], grid: Grid, target: Grid) -> NDArray[np.float64]:
    """Voxel indices (i, j, k) on `target` of the middle of the box around a mask on `grid`."""
    return target.to_ijk(grid.to_ras(_box_of(mask).mean(axis=0)))


def _box_of(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The first and the last voxel indices (i, j, k) of a mask that is not empty, (2, 3)."""
    extents = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in (2, 1, 0)]
    return np.array([(found[0], found[-1]) for found in extents]).T
