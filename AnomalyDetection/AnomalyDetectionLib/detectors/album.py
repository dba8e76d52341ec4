"""A bounded collection of normals' images, for what is learned from whole images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .reservoir import Reservoir


class Album:
    """A uniform sample of images in [0, 1], a byte a pixel.

    Parameters
    ----------
    shape
        (C, H, W) of an image.
    most
        Bytes to be used at most.
    seed
        What is kept is a function of it and of the order of the images.
    """

    def __init__(self, shape: Sequence[int], most: int, seed: int) -> None:
        self._shape, self._seed = tuple(shape), seed
        pixels = int(np.prod(self._shape))
        self._reservoir = Reservoir(1, max(1, most // pixels), pixels, seed, np.uint8)

    def offer(self, images: Tensor) -> None:
        """Take in images (N, C, H, W)."""
        values = (images.clamp(0, 1) * 255).round().to(torch.uint8).flatten(1).numpy()
        self._reservoir.offer_anywhere(values, 0)

    def images(self) -> Tensor:
        """What was kept: uint8 (n, C, H, W), 255 for 1."""
        kept = int(self._reservoir.filled[0])
        return torch.from_numpy(self._reservoir.values[0, :kept]).unflatten(1, self._shape)
