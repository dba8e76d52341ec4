"""From a volume to a detector's batch, and the way back for its map.

The one road by which images reach detectors, in training as in scoring.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.foreground import foreground as find_foreground
from AnomalyDetectionLib.imaging.geometry import Grid, resample
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
        N = 1, the whole case.
    foreground
        bool (K, J, I) on the input's own grid.
    overlap
        Dice of the outlines of image and template after alignment, or None where nothing was registered.
    """

    batch: Batch
    foreground: NDArray[np.bool_]
    grid: Grid
    source: Grid
    to_source: NDArray[np.float64]
    overlap: float | None = None

    def to_input(self, array: NDArray, *, nearest: bool = False) -> NDArray:
        """An array on the detector's grid (D, H, W) in the input's geometry (K, J, I); 0 where it does not reach."""
        return resample(
            array, self.grid, self.source, np.asarray(np.linalg.inv(self.to_source), dtype=np.float64), nearest=nearest
        )


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
    if spec.grid == "template" and thinnest == 1:
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
        progress("aligning with the template", 0.1)
        alignment = register_affine(image, mask, grid, template.image, template.foreground, template.grid)
        overlap = alignment.overlap
        target, source, to_source = template.grid, grid, alignment.template_to_volume
    progress("resampling", 0.5)
    sampled, sampled_mask = sample(image, mask, source, target, to_source)
    batch = Batch(torch.from_numpy(sampled)[None, None], torch.from_numpy(sampled_mask)[None, None])
    return Prepared(batch, mask, target, source, to_source, overlap)
