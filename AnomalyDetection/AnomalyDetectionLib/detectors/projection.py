"""Vectors of stacked feature maps made comparable, and shorter, by one linear map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

PLACES_AT_ONCE = 64


class Projection(nn.Module):
    """Standardises every channel, weighs every feature map alike, and projects at random.

    A random projection keeps distances within a few per cent (Johnson & Lindenstrauss 1984: about sqrt(2 / components)
    for one), and makes the search that much cheaper.

    Parameters
    ----------
    groups
        Channels of each feature map in the stack.
    components
        Numbers after the projection; 0, or more than the channels, leaves all channels.
    seed
        Of the random directions.
    """

    centre: Tensor
    matrix: Tensor

    def __init__(self, groups: Sequence[int], components: int, seed: int) -> None:
        super().__init__()
        self._groups, self._seed = tuple(groups), seed
        self.width = sum(groups)
        self.components = components if 0 < components < self.width else self.width
        self.register_buffer("centre", torch.zeros(self.width))
        self.register_buffer("matrix", torch.zeros(self.width, self.components))

    def fit(self, values: NDArray, filled: NDArray[np.int64]) -> None:
        """Take the channels' mean and standard deviation from a reservoir (places, n, width)."""
        total, squares, count = np.zeros(self.width), np.zeros(self.width), int(filled.sum())
        for place, held in enumerate(filled):
            block = values[place, :held].astype(np.float32)
            total += block.sum(axis=0, dtype=np.float64)
            squares += np.square(block).sum(axis=0, dtype=np.float64)
        mean = total / count
        deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
        scale = 1 / np.maximum(deviation, 1e-3 * deviation.max())
        share = np.concatenate([np.full(n, 1 / np.sqrt(n * len(self._groups))) for n in self._groups])
        self.centre = torch.from_numpy(mean).float()
        self.matrix = torch.from_numpy(scale * share).float()[:, None] * self._directions()

    def _directions(self) -> Tensor:
        if self.components == self.width:
            return torch.eye(self.width)
        generator = torch.Generator().manual_seed(self._seed)
        return torch.randn((self.width, self.components), generator=generator) / self.components**0.5

    def forward(self, vectors: Tensor) -> Tensor:
        """Projected vectors (..., components)."""
        return (vectors - self.centre) @ self.matrix

    def of_stored(self, values: NDArray) -> Tensor:
        """Projected vectors of a reservoir (places, n, width), in half precision."""
        parts = [self(torch.from_numpy(block).float()).half() for block in np.array_split(values, _parts(values))]
        return torch.cat(parts)


def _parts(values: NDArray) -> int:
    return max(1, len(values) // PLACES_AT_ONCE, values.size // 50_000_000)
