"""Volumes as sequences of slices: batches of several lengths, changed at random in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from AnomalyDetectionLib.scoring.contract import Batch

from .augment import Augmentation
from .config import AugmentSection
from .data import Batches, PreparedCases
from .kept import KeptCase
from .seeds import seed_of


class Sequences(Batches):
    """Sequences (N, C, L, H, W) as long as the longest of the batch; what is missing of the others is empty.

    In training all slices of a volume are changed alike; a sequence is a function of (seed, epoch, index).

    Parameters
    ----------
    settings
        How they are changed; None leaves them as they are, for validation.
    """

    def __init__(self, cases: PreparedCases, settings: AugmentSection | None, seed: int) -> None:
        self._cases, self._seed = cases, seed
        self._augmentation = Augmentation(settings) if settings is not None and settings.on else None

    def __len__(self) -> int:
        return len(self._cases.kept)

    def __getitems__(self, keys: Sequence[Any]) -> Batch:
        """The batch of these keys: (epoch, index) in training, indices in validation."""
        pairs = [key if isinstance(key, tuple) else (None, key) for key in keys]
        made = [self._sequence(epoch, self._cases.kept[index], index) for epoch, index in pairs]
        longest = max(sequence.shape[1] for sequence in made)
        stack = torch.stack([F.pad(sequence, (0, 0, 0, 0, 0, longest - sequence.shape[1])) for sequence in made])
        return Batch(stack[:, :-1], stack[:, -1:] > 0.5, epoch=pairs[0][0])

    def _sequence(self, epoch: int | None, case: KeptCase, index: int) -> Tensor:
        """The slices of a case, and as the last channel their foreground (0 or 1): float32 (C + 1, L, H, W)."""
        stack = torch.from_numpy(np.concatenate([case.image[0], case.foreground[0]]).astype(np.float32))
        if self._augmentation is None:
            return stack
        length = stack.shape[1]
        changes = self._augmentation.draw([seed_of("augment", self._seed, epoch, index)], stack.shape[2:])
        moved = self._augmentation.moved(changes, stack.flatten(0, 1)[None])
        foreground = (moved[0, -length:] > 0.5).float()[None]
        image = self._augmentation.recoloured(changes, moved[:, :-length])[0].unflatten(0, (-1, length))
        return torch.cat([image * foreground, foreground])
