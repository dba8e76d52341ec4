"""Crops of prepared volumes, for detectors that are trained on patches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from AnomalyDetectionLib.scoring.contract import Batch

from .augment import Augmentation, Changes
from .config import AugmentSection
from .data import Batches, PreparedCases
from .kept import KeptCase
from .seeds import seed_of

MARGIN = 0.2
"""Share of a crop that is read beyond each of its faces, for what a rotation or zoom brings in."""

NEAR_THE_MIDDLE = 0.25
"""Share of a crop's size by which a lesion's voxel may lie off its middle, so that no rotation takes it out."""


class Patches(Batches):
    """Crops of volumes as they are; a crop is a function of (seed, epoch, index), whoever asks for it and when.

    Where cases have masks, every other crop is laid around a voxel of a lesion; the others are laid around any voxel of
    the foreground of any case.

    Parameters
    ----------
    size
        (D, H, W) of a crop; where a volume is smaller it is filled up with zeros.
    per_case
        Crops a case and epoch.
    context_images
        As `Detector.context_images`.
    fixed
        For validation: crops are the same in every epoch, keys are indices rather than (epoch, index), and batches have
        no epoch.
    """

    def __init__(
        self,
        cases: PreparedCases,
        size: Sequence[int],
        per_case: int,
        seed: int,
        augment: AugmentSection | None = None,
        *,
        fixed: bool = False,
        context_images: int = 0,
    ) -> None:
        self._cases, self._size, self._seed, self._fixed = cases.kept, tuple(size), seed, fixed
        self._count = per_case * len(cases.kept)
        self._masks, self._context_images = cases.masks, context_images
        self._abnormal = [place for place, case in enumerate(self._cases) if case.mask is not None and case.mask.any()]
        self._augmentation = Augmentation(augment, dimensions=3) if augment is not None and augment.on else None
        self._margin = [math.ceil(MARGIN * n) if self._augmentation else 0 for n in self._size]

    def __len__(self) -> int:
        return self._count

    def __getitems__(self, keys: Sequence[Any]) -> Batch:
        """The batch of crops with these keys: (epoch, index), the epoch the same for all; or indices."""
        pairs = [(None, key) if self._fixed else key for key in keys]
        stack = torch.stack([self._block(*pair) for pair in pairs])
        if self._augmentation is not None:
            seeds = [seed_of("augment", self._seed, *pair) for pair in pairs]
            stack = self._changed(stack, self._augmentation.draw(seeds, self._size, self._margin))
        channels = self._cases[0].shape[1]
        batch = Batch(stack[:, :channels], stack[:, channels : channels + 1] > 0.5, epoch=pairs[0][0])
        if self._masks:
            batch.mask = (stack[:, channels + 1 : channels + 2] > 0.5).float()
        if stack.shape[1] > channels + 2:
            batch.context = stack[:, channels + 2 :]
        return batch

    def _changed(self, stack: Tensor, changes: Changes) -> Tensor:
        """Blocks as `_block` makes them, moved and without their margin, the intensities of the image changed; those of
        the context in the same way, for a network that is shown two images of a body never sees them differ so."""
        assert self._augmentation is not None
        channels = self._cases[0].shape[1]
        known = slice(channels + 2, channels + 2 + self._context_images)
        # No foreground of the context is kept: what is not exactly 0 belongs to it.
        stack = torch.cat([stack, (stack[:, known] != 0).float()], dim=1)
        moved = self._augmentation.moved(changes, stack, self._size)
        moved, within = moved.split([moved.shape[1] - self._context_images, self._context_images], dim=1)
        images = self._augmentation.recoloured(changes, torch.cat([moved[:, :channels], moved[:, known]], dim=1))
        moved[:, :channels] = images[:, :channels] * (moved[:, channels : channels + 1] > 0.5)
        moved[:, known] = images[:, channels:] * (within > 0.5)
        return moved

    def _block(self, epoch: int | None, index: int) -> Tensor:
        """A crop with its margin: channels, foreground, mask and context, float32 (C + 2 + K, D, H, W)."""
        rng = np.random.default_rng(seed_of("crop", self._seed, epoch, index))
        if self._abnormal and index % 2 == 0:
            case = self._cases[self._abnormal[int(rng.integers(len(self._abnormal)))]]
            assert case.mask is not None
            middle = self._around(case.mask[0, 0], rng, NEAR_THE_MIDDLE)
        else:
            case = self._cases[int(rng.integers(len(self._cases))) if self._abnormal else index % len(self._cases)]
            middle = self._around(case.foreground[0, 0], rng, 0.5)
        start = self._corner(middle, case.shape[2:])
        begin = [corner - margin for corner, margin in zip(start, self._margin, strict=True)]
        shape = [n + 2 * margin for n, margin in zip(self._size, self._margin, strict=True)]
        return torch.from_numpy(_read(case, begin, shape))

    def _around(self, where: NDArray[np.bool_], rng: np.random.Generator, share: float) -> NDArray[np.int64]:
        """A voxel within that share of a crop of one that holds, by index."""
        holding = np.flatnonzero(where)
        if holding.size == 0:
            return np.array(where.shape) // 2
        voxel = np.array(np.unravel_index(holding[int(rng.integers(holding.size))], where.shape))
        away = np.array([int(share * n) for n in self._size])
        return voxel + rng.integers(-away, away + 1)

    def _corner(self, middle: NDArray[np.int64], spatial: Sequence[int]) -> list[int]:
        """Where a crop around `middle` starts: inside the volume where that is large enough, else around all of it."""
        corners = []
        for at, size, n in zip(middle.tolist(), self._size, spatial, strict=True):
            corners.append(min(max(at - size // 2, 0), n - size) if n > size else -((size - n) // 2))
        return corners


def _read(case: KeptCase, begin: Sequence[int], shape: Sequence[int]) -> NDArray[np.float32]:
    """A block of a volume, 0 where it reaches beyond: channels, foreground, mask, context."""
    channels, known = case.shape[1], 0 if case.context is None else case.context.shape[1]
    block = np.zeros((channels + 2 + known, *shape), dtype=np.float32)
    inside, there = [], []
    for start, n, whole in zip(begin, shape, case.shape[2:], strict=True):
        low, high = max(start, 0), min(start + n, whole)
        inside.append(slice(low, high))
        there.append(slice(low - start, high - start))
    (z, y, x), (to_z, to_y, to_x) = inside, there
    block[:channels, to_z, to_y, to_x] = case.image[0, :, z, y, x]
    block[channels, to_z, to_y, to_x] = case.foreground[0, 0, z, y, x]
    if case.mask is not None:
        block[channels + 1, to_z, to_y, to_x] = case.mask[0, 0, z, y, x]
    if case.context is not None:
        block[channels + 2 :, to_z, to_y, to_x] = case.context[0, :, z, y, x]
    return block
