"""Random changes of training slices with MONAI's transforms, worked out for a whole batch at a time.

MONAI's transforms draw what happens to each slice; then one resampling and one gamma curve do it to all of them.  Slice
by slice, as the transforms would do it by themselves, it took a tenth to a sixth of the training's time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.networks.layers import AffineTransform
from monai.transforms import (
    RandAdjustContrast,
    RandAffineGrid,
    RandFlip,
    RandScaleIntensity,
    RandShiftIntensity,
)
from torch import Tensor

from .config import AugmentSection

_MIRROR = torch.diag(torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64))
_LEAST_RANGE = 1e-7
"""Added to an image's range where it is divided by it, as MONAI does."""


@dataclass(frozen=True)
class Changes:
    """What happens to each of N slices.

    Attributes
    ----------
    affine
        (N, 3, 3), from places in the changed slice to places in the original, in pixels (row, column).
    gain, offset, gamma
        (N, 1, 1, 1).
    """

    affine: Tensor
    gain: Tensor
    offset: Tensor
    gamma: Tensor


class Augmentation:
    """Random affine map (with zoom), mirroring, and changes of gain, offset and gamma."""

    def __init__(self, settings: AugmentSection) -> None:
        zoom = (-settings.zoom, settings.zoom)
        self._affine = RandAffineGrid(
            rotate_range=float(np.radians(settings.rotate_degrees)),
            translate_range=(settings.shift_pixels, settings.shift_pixels),
            scale_range=(zoom, zoom),
            lazy=True,
        )
        self._flip = RandFlip(prob=settings.flip, spatial_axis=1)
        self._gain = RandScaleIntensity(factors=settings.gain, prob=1.0)
        self._offset = RandShiftIntensity(offsets=settings.offset, prob=1.0)
        self._gamma = RandAdjustContrast(prob=1.0, gamma=(1 - settings.gamma, 1 + settings.gamma))
        self._resample = AffineTransform(align_corners=False)

    def draw(self, seeds: Sequence[int], size: tuple[int, int]) -> Changes:
        """The changes of slices of `size` pixels; each is a function of its seed."""
        affine, numbers = [], []
        for seed in seeds:
            state = np.random.RandomState(seed)
            for part in (self._affine, self._flip, self._gain, self._offset, self._gamma):
                part.set_random_state(state=state)
            self._affine(size)
            for part in (self._flip, self._gain, self._offset, self._gamma):
                part.randomize(None)
            matrix = torch.as_tensor(self._affine.get_transformation_matrix(), dtype=torch.float64)
            affine.append(matrix @ _MIRROR if self._flip._do_transform else matrix)
            numbers.append((1 + self._gain.factor, self._offset._offset, self._gamma.gamma_value))
        gain, offset, gamma = torch.tensor(numbers, dtype=torch.float32).T[:, :, None, None, None]
        return Changes(_about_the_middle(torch.stack(affine), size), gain, offset, gamma)

    def apply(self, changes: Changes, stacked: Tensor, slices: int = 1) -> tuple[Tensor, Tensor]:
        """Changed slices and their foreground.

        Parameters
        ----------
        stacked
            (N, (C + 1) * slices, H, W): the channels in [0, 1] and, as the last ones, the foreground of each slice (0
            or 1): they are resampled together.
        slices
            How many an item has, all changed alike: itself and its neighbours.

        Returns
        -------
        tuple
            float32 (N, C * slices, H, W) in [0, 1], 0 outside the foreground; bool (N, 1, H, W), of the middle slice.
        """
        moved = self._resample(stacked, changes.affine)
        image, foreground = moved[:, :-slices], moved[:, -slices:] > 0.5
        image = image * changes.gain + changes.offset
        least, most = image.amin(dim=(1, 2, 3), keepdim=True), image.amax(dim=(1, 2, 3), keepdim=True)
        image = ((image - least) / (most - least + _LEAST_RANGE)).pow_(changes.gamma).mul_(most - least).add_(least)
        image.clamp_(0, 1).mul_(foreground.repeat_interleave(image.shape[1] // slices, dim=1))
        return image, foreground[:, slices // 2 : slices // 2 + 1]


def _about_the_middle(affine: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps of places counted from the middle of the slice (MONAI's) as maps of places counted from its corner."""
    there = torch.eye(3, dtype=torch.float64)
    there[:2, 2] = (torch.tensor(size) - 1) / 2
    return (there @ affine @ torch.linalg.inv(there)).float()
