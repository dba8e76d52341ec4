"""Random changes of training slices and crops with MONAI's transforms, worked out for a whole batch at a time.

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

_LEAST_RANGE = 1e-7
"""Added to an image's range where it is divided by it, as MONAI does."""


@dataclass(frozen=True)
class Changes:
    """What happens to each of N slices or crops.

    Attributes
    ----------
    affine
        (N, 3, 3) or (N, 4, 4), from places in the changed slice to places in the original, in pixels (row, column) or
        voxels.
    gain, offset, gamma
        (N, 1, 1, 1) or (N, 1, 1, 1, 1).
    """

    affine: Tensor
    gain: Tensor
    offset: Tensor
    gamma: Tensor


class Augmentation:
    """Random affine map (with zoom), mirroring, and changes of gain, offset and gamma.

    Parameters
    ----------
    dimensions
        2 for slices; 3 for crops of volumes, which turn about all three axes.
    """

    def __init__(self, settings: AugmentSection, dimensions: int = 2) -> None:
        zoom, angle = (-settings.zoom, settings.zoom), float(np.radians(settings.rotate_degrees))
        self._affine = RandAffineGrid(
            rotate_range=angle if dimensions == 2 else (angle,) * 3,
            translate_range=(settings.shift_pixels,) * 2
            if dimensions == 2
            else None,  # crops are laid at random anyway
            scale_range=(zoom,) * dimensions,
            lazy=True,
        )
        self._mirror = torch.eye(dimensions + 1, dtype=torch.float64)
        self._mirror[-2, -2] = -1  # left and right
        self._flip = RandFlip(prob=settings.flip, spatial_axis=1)
        self._gain = RandScaleIntensity(factors=settings.gain, prob=1.0)
        self._offset = RandShiftIntensity(offsets=settings.offset, prob=1.0)
        self._gamma = RandAdjustContrast(prob=1.0, gamma=(1 - settings.gamma, 1 + settings.gamma))
        self._resample = AffineTransform(align_corners=False)

    def draw(self, seeds: Sequence[int], size: Sequence[int], margin: Sequence[int] = ()) -> Changes:
        """The changes of slices of `size` pixels; each is a function of its seed.

        Parameters
        ----------
        margin
            How much the originals reach beyond that at each side.
        """
        affine, numbers = [], []
        for seed in seeds:
            state = np.random.RandomState(seed)
            for part in (self._affine, self._flip, self._gain, self._offset, self._gamma):
                part.set_random_state(state=state)
            self._affine(size)
            for part in (self._flip, self._gain, self._offset, self._gamma):
                part.randomize(None)
            matrix = torch.as_tensor(self._affine.get_transformation_matrix(), dtype=torch.float64)
            affine.append(matrix @ self._mirror if self._flip._do_transform else matrix)
            numbers.append((1 + self._gain.factor, self._offset._offset, self._gamma.gamma_value))
        shape = (3, len(seeds), *[1] * (len(size) + 1))
        gain, offset, gamma = torch.tensor(numbers, dtype=torch.float32).T.reshape(shape)
        return Changes(_about_the_middle(torch.stack(affine), size, margin or (0,) * len(size)), gain, offset, gamma)

    def moved(self, changes: Changes, stacked: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """What is (N, C, *spatial) moved by the affine maps only; (N, C, *size) where that is another size."""
        return self._resample(stacked, changes.affine, size and tuple(size))

    def apply(
        self, changes: Changes, stacked: Tensor, slices: int = 1, size: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Changed slices and their foreground.

        Parameters
        ----------
        stacked
            (N, (C + 1) * slices, *spatial): the channels in [0, 1] and, as the last ones, the foreground of each slice
            (0 or 1): they are resampled together.
        slices
            How many an item has, all changed alike: itself and its neighbours.
        size
            Of what is answered, where the originals have a margin.

        Returns
        -------
        tuple
            float32 (N, C * slices, *spatial) in [0, 1], 0 outside the foreground; bool (N, 1, *spatial), of the middle
            slice.
        """
        moved = self.moved(changes, stacked, size)
        foreground = moved[:, -slices:] > 0.5
        image = self.recoloured(changes, moved[:, :-slices])
        image.mul_(foreground.repeat_interleave(image.shape[1] // slices, dim=1))
        return image, foreground[:, slices // 2 : slices // 2 + 1]

    def recoloured(self, changes: Changes, image: Tensor) -> Tensor:
        """Images (N, C, *spatial) with other gain, offset and gamma, in [0, 1]; one curve for all channels of an item,
        background too."""
        image = image * changes.gain + changes.offset
        all_but_items = tuple(range(1, image.dim()))
        least, most = image.amin(dim=all_but_items, keepdim=True), image.amax(dim=all_but_items, keepdim=True)
        image = ((image - least) / (most - least + _LEAST_RANGE)).pow_(changes.gamma).mul_(most - least).add_(least)
        return image.clamp_(0, 1)


def _about_the_middle(affine: Tensor, size: Sequence[int], margin: Sequence[int]) -> Tensor:
    """Maps of places counted from the middle of the slice (MONAI's) as maps of places counted from its corner."""
    there = torch.eye(len(size) + 1, dtype=torch.float64)
    there[:-1, -1] = (torch.tensor(size) - 1) / 2
    back = torch.linalg.inv(there)
    there[:-1, -1] += torch.tensor(margin)
    return (there @ affine @ back).float()
