"""Prepared slices on disk, batches of them, and an order that only seed and epoch decide."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from AnomalyDetectionLib.errors import OutputError
from AnomalyDetectionLib.imaging.template import Template
from AnomalyDetectionLib.scoring.contract import Batch, InputSpec
from AnomalyDetectionLib.scoring.prepare import check_fits, neighbours_of, prepare
from AnomalyTrainingLib.cohorts.manifest import Case, load_case_volume

from .augment import Augmentation
from .config import AugmentSection
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
    """The slices of cases as they come out of `scoring.prepare`, kept in a folder in half precision.

    Only the slices of a batch are in memory at a time; what a killed run has prepared is not prepared again.  A slice
    is kept once: neighbours are put together when a batch is.

    Parameters
    ----------
    folder
        Where they are kept: two files a case.
    progress
        Called with the number of cases done.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        spec: InputSpec,
        template: Template | None,
        folder: Path,
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        self.neighbours = spec.neighbours
        self._images: list[NDArray[np.float16]] = []
        self._masks: list[NDArray[np.bool_]] = []
        for done, case in enumerate(cases, 1):
            image, mask = (folder / f"{case.case}.{part}.npy" for part in ("image", "foreground"))
            if not (image.exists() and mask.exists()):
                volume = load_case_volume(case)
                check_fits(volume, spec)
                batch = prepare(volume, spec, template).batch
                _save(image, batch.image.numpy().astype(np.float16))
                _save(mask, batch.foreground.numpy())
            self._images.append(np.load(image, mmap_mode="r", allow_pickle=False))
            self._masks.append(np.load(mask, mmap_mode="r", allow_pickle=False))
            progress(done)
        self._ends = np.cumsum([len(images) for images in self._images])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of a slice."""
        return self._images[0].shape[2], self._images[0].shape[3]

    def stacked(self, indices: Sequence[int]) -> Tensor:
        """Slices, with the foreground of each as the last channels: float32 (N, (C + 1) * (2 neighbours + 1), H, W)."""
        slices, channels = 2 * self.neighbours + 1, self._images[0].shape[1]
        images = np.empty((len(indices), slices, channels, *self.size), dtype=np.float32)
        masks = np.empty((len(indices), slices, *self.size), dtype=np.float32)
        for place, index in enumerate(indices):
            case = int(np.searchsorted(self._ends, index, side="right"))
            within = np.array([index - (int(self._ends[case - 1]) if case else 0)])
            around = neighbours_of(within, len(self._images[case]), self.neighbours)[0]
            images[place] = self._images[case][around]
            masks[place] = self._masks[case][around, 0]
        return torch.from_numpy(np.concatenate([images.reshape(len(indices), -1, *self.size), masks], axis=1))


def _save(path: Path, array: NDArray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(buffer.getbuffer())
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: the prepared slices cannot be kept ({error.strerror or error}).") from error
    finally:
        partial.unlink(missing_ok=True)


class TrainingSlices(Batches):
    """Augmented slices; a slice is a function of (seed, epoch, index), whoever asks for it and when."""

    def __init__(self, cases: PreparedCases, settings: AugmentSection, seed: int) -> None:
        self._cases, self._seed = cases, seed
        self._augmentation = Augmentation(settings) if settings.on else None

    def __len__(self) -> int:
        return len(self._cases)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        """The batch of slices with these (epoch, index); the epoch is the same for all."""
        stack = self._cases.stacked([index for _, index in keys])
        if self._augmentation is None:
            return _batch(stack, self._cases.neighbours, keys[0][0])
        seeds = [seed_of("augment", self._seed, epoch, index) for epoch, index in keys]
        changes = self._augmentation.draw(seeds, self._cases.size)
        image, foreground = self._augmentation.apply(changes, stack, 2 * self._cases.neighbours + 1)
        return Batch(image, foreground, epoch=keys[0][0])


class ValidationSlices(Batches):
    """Slices as they are, without an epoch: all epochs are judged by the same loss."""

    def __init__(self, cases: PreparedCases) -> None:
        self._cases = cases

    def __len__(self) -> int:
        return len(self._cases)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """The batch of slices with these indices."""
        return _batch(self._cases.stacked(indices), self._cases.neighbours, None)


def as_it_is(batch: Batch) -> Batch:
    """What makes one batch of the batch that a data set hands out: nothing is left to do."""
    return batch


def _batch(stack: Tensor, neighbours: int, epoch: int | None) -> Batch:
    slices = 2 * neighbours + 1
    middle = stack.shape[1] - neighbours - 1
    return Batch(stack[:, :-slices], stack[:, middle : middle + 1] > 0.5, epoch=epoch)


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
