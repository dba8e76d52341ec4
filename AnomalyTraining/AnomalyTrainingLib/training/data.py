"""Prepared slices on disk, batches of them, and an order that only seed and epoch decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from AnomalyDetectionLib.imaging.template import Template
from AnomalyDetectionLib.scoring.contract import Batch, InputSpec
from AnomalyDetectionLib.scoring.prepare import neighbours_of
from AnomalyTrainingLib.cohorts.manifest import Case

from .augment import Augmentation
from .config import AugmentSection
from .kept import ContextOf, KeptCase, keep
from .seeds import seed_of


class Batches(Dataset):
    """A data set that hands out whole batches: of keys (epoch, index) in training, of indices in validation.

    `DataLoader` hands the keys of a whole batch to `__getitems__`: use `as_it_is` as its `collate_fn`.
    """

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitems__(self, keys: Sequence[Any]) -> Batch:
        """The batch of these keys; in training the epoch is the same for all."""
        raise NotImplementedError


class PreparedCases:
    """The slices (or volumes) of cases as they come out of `scoring.prepare`, kept in a folder in half precision.

    Only those of a batch are in memory at a time; what a killed run has prepared is not prepared again.  A slice
    is kept once: neighbours are put together when a batch is.

    Parameters
    ----------
    folder
        Where they are kept: two files a case, three with its mask.
    progress
        Called with the number of cases done.
    masks
        Whether the masks of abnormal voxels are kept too.
    context
        Works out what is kept as the context of each case; None for nothing.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        spec: InputSpec,
        template: Template | None,
        folder: Path,
        progress: Callable[[int], None] = lambda done: None,
        masks: bool = False,
        context: ContextOf | None = None,
    ) -> None:
        self.neighbours, self.masks = spec.neighbours, masks
        self.kept: list[KeptCase] = []
        for done, case in enumerate(cases, 1):
            self.kept.append(keep(case, spec, template, folder, masks, context))
            progress(done)
        self._ends = np.cumsum([case.shape[0] for case in self.kept])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of a slice."""
        return self.kept[0].shape[2], self.kept[0].shape[3]

    def stacked(self, indices: Sequence[int]) -> Tensor:
        """Slices, with the foreground of each as the last channels: float32 (N, (C + 1) * (2 neighbours + 1), H, W)."""
        slices, channels = 2 * self.neighbours + 1, self.kept[0].shape[1]
        images = np.empty((len(indices), slices, channels, *self.size), dtype=np.float32)
        foregrounds = np.empty((len(indices), slices, *self.size), dtype=np.float32)
        for place, index in enumerate(indices):
            case, within = self._place(index)
            around = neighbours_of(np.array([within]), case.shape[0], self.neighbours)[0]
            images[place] = case.image[around]
            foregrounds[place] = case.foreground[around, 0]
        return torch.from_numpy(np.concatenate([images.reshape(len(indices), -1, *self.size), foregrounds], axis=1))

    def painted(self, indices: Sequence[int]) -> Tensor | None:
        """The masks of slices, float32 (N, 1, H, W), 0 for those of cases without one; None where none are kept."""
        if not self.masks:
            return None
        masks = torch.zeros(len(indices), 1, *self.size)
        for place, index in enumerate(indices):
            case, within = self._place(index)
            if (mask := case.mask) is not None:
                masks[place] = torch.from_numpy(mask[within].astype(np.float32))
        return masks

    def _place(self, index: int) -> tuple[KeptCase, int]:
        """The case that a slice is of, and which of its slices it is."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        return self.kept[number], index - (int(self._ends[number - 1]) if number else 0)


class TrainingSlices(Batches):
    """Augmented slices; a slice is a function of (seed, epoch, index), whoever asks for it and when."""

    def __init__(self, cases: PreparedCases, settings: AugmentSection, seed: int) -> None:
        self._cases, self._seed = cases, seed
        self._augmentation = Augmentation(settings) if settings.on else None

    def __len__(self) -> int:
        return len(self._cases)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        """The batch of slices with these (epoch, index); the epoch is the same for all."""
        indices = [index for _, index in keys]
        stack, mask = self._cases.stacked(indices), self._cases.painted(indices)
        if self._augmentation is None:
            return _batch(stack, mask, self._cases.neighbours, keys[0][0])
        seeds = [seed_of("augment", self._seed, epoch, index) for epoch, index in keys]
        changes = self._augmentation.draw(seeds, self._cases.size)
        image, foreground = self._augmentation.apply(changes, stack, 2 * self._cases.neighbours + 1)
        if mask is not None:
            mask = (self._augmentation.moved(changes, mask) > 0.5).float()
        return Batch(image, foreground, mask=mask, epoch=keys[0][0])


class ValidationSlices(Batches):
    """Slices as they are, without an epoch: all epochs are judged by the same loss."""

    def __init__(self, cases: PreparedCases) -> None:
        self._cases = cases

    def __len__(self) -> int:
        return len(self._cases)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """The batch of slices with these indices."""
        return _batch(self._cases.stacked(indices), self._cases.painted(indices), self._cases.neighbours, None)


def as_it_is(batch: Batch) -> Batch:
    """What makes one batch of the batch that a data set hands out: nothing is left to do."""
    return batch


def _batch(stack: Tensor, mask: Tensor | None, neighbours: int, epoch: int | None) -> Batch:
    slices = 2 * neighbours + 1
    middle = stack.shape[1] - neighbours - 1
    return Batch(stack[:, :-slices], stack[:, middle : middle + 1] > 0.5, mask=mask, epoch=epoch)


class EpochOrder(Sampler):
    """(epoch, index) of every item, in an order that is a function of (seed, epoch)."""

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._seed, self._epoch = count, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(seed_of("order", self._seed, self._epoch))
        for index in torch.randperm(self._count, generator=generator).tolist():
            yield self._epoch, index
