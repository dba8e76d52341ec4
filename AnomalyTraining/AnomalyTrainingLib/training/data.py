"""Prepared slices on disk, their augmentation with MONAI, and an order that only seed and epoch decide."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from monai.transforms import (
    Compose,
    RandAdjustContrast,
    RandAffine,
    RandFlip,
    RandScaleIntensity,
    RandShiftIntensity,
)
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from AnomalyDetectionLib.errors import OutputError
from AnomalyDetectionLib.imaging.template import Template
from AnomalyDetectionLib.scoring.contract import Batch, InputSpec
from AnomalyDetectionLib.scoring.prepare import check_fits, prepare
from AnomalyTrainingLib.cohorts.manifest import Case, load_case_volume

from .config import AugmentSection

Item = tuple[Tensor, Tensor, int | None]
"""Image (C, H, W) in [0, 1], foreground (1, H, W), epoch."""


def seed_of(*parts: object) -> int:
    """A number below 2^31 that is a function of its parts alone, on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big") >> 1


class PreparedCases:
    """The slices of cases as they come out of `scoring.prepare`, kept in a folder in half precision.

    Only the slices of a batch are in memory at a time; what a killed run has prepared is not prepared again.

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

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Image and foreground of one slice, float32 (C, H, W) and bool (1, H, W)."""
        case = int(np.searchsorted(self._ends, index, side="right"))
        within = index - (int(self._ends[case - 1]) if case else 0)
        image = self._images[case][within].astype(np.float32)
        return torch.from_numpy(image), torch.from_numpy(self._masks[case][within].copy())


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


def augmentation(settings: AugmentSection) -> tuple[Compose, Compose]:
    """Random changes of place (affine map with zoom, flip) and of intensity, of (channels, H, W)."""
    zoom = (-settings.zoom, settings.zoom)
    place = Compose(
        [
            RandAffine(
                prob=1.0,
                rotate_range=float(np.radians(settings.rotate_degrees)),
                translate_range=settings.shift_pixels,
                scale_range=(zoom, zoom),
                padding_mode="zeros",
            ),
            RandFlip(prob=settings.flip, spatial_axis=1),
        ]
    )
    intensity = Compose(
        [
            RandScaleIntensity(factors=settings.gain, prob=1.0),
            RandShiftIntensity(offsets=settings.offset, prob=1.0),
            RandAdjustContrast(prob=1.0, gamma=(1 - settings.gamma, 1 + settings.gamma)),
        ]
    )
    return place, intensity


class TrainingSlices(Dataset):
    """Augmented slices; an item is a function of (seed, epoch, index), whoever asks for it and when."""

    def __init__(self, cases: PreparedCases, settings: AugmentSection, seed: int) -> None:
        self._cases, self._seed = cases, seed
        self._changes = augmentation(settings) if settings.on else None

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        image, mask = self._cases[index]
        if self._changes is None:
            return image, mask, epoch
        for kind, change in zip(("place", "intensity"), self._changes, strict=True):
            change.set_random_state(seed=seed_of(kind, self._seed, epoch, index))
        place, intensity = self._changes
        # Image and foreground as channels of one image: resampling is most of the work, and is done once.
        moved = place(torch.cat([image, mask.float()]))
        foreground = moved.as_tensor()[-1:] > 0.5
        changed = intensity(moved[:-1]).as_tensor().clamp(0, 1)
        return torch.where(foreground, changed, 0.0), foreground, epoch


class ValidationSlices(Dataset):
    """Slices as they are, without an epoch: all epochs are judged by the same loss."""

    def __init__(self, cases: PreparedCases) -> None:
        self._cases = cases

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, index: int) -> Item:
        image, mask = self._cases[index]
        return image, mask, None


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


def collate(items: Sequence[Item]) -> Batch:
    """Items of one epoch as a batch."""
    images, masks, epochs = zip(*items, strict=True)
    return Batch(torch.stack(images), torch.stack(masks), epoch=epochs[0])
