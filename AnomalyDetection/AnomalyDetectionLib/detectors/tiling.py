"""Networks over whole volumes by a sliding window: tiles that overlap, weighted towards their middles.

The layout of tiles and their weights are those of MONAI's `sliding_window_inference` (Cardoso et al., 2022), which
scoring must do without; what they have in common agrees with it to rounding.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SIGMA = 0.125
"""Standard deviation of the tiles' weights, as a share of the tile."""

LEAST_WEIGHT = 1e-3

WHOLE = (slice(None), slice(None))
"""Of batch and channels a tile has all."""


def score_by_tiles(
    network: Callable[[Tensor], Tensor],
    image: Tensor,
    foreground: Tensor,
    size: Sequence[int],
    *,
    overlap: float = 0.25,
    progress: Callable[[float], None] = lambda share: None,
) -> Tensor:
    """What a network says of a volume that it is shown tile by tile.

    Parameters
    ----------
    network
        Of (1, C, *size) to (1, out, *size).
    image
        (1, C, *spatial); along an axis where it is smaller than the tile it is filled up with zeros on both sides.
    foreground
        bool (1, 1, *spatial); tiles without any are left out.
    size
        Of the tiles.
    overlap
        Least share of a tile that its neighbour covers too.
    progress
        Called before each tile with the share that is done; may raise to stop.

    Returns
    -------
    Tensor
        float32 (1, out, *spatial); 0 where no tile was looked at.
    """
    spatial = image.shape[2:]
    missing = [max(tile - n, 0) for n, tile in zip(spatial, size, strict=True)]
    if any(missing):
        padding = [part for n in reversed(missing) for part in (n // 2, n - n // 2)]
        image, foreground = F.pad(image, padding), F.pad(foreground, padding)
    weight = tile_weights(size).to(image.device)
    tiles = [tile for tile in tiles_of(image.shape[2:], size, overlap) if foreground[tile].any()]
    total: Tensor | None = None
    covered = torch.zeros(image.shape[2:], device=image.device)
    for done, tile in enumerate(tiles):
        progress(done / len(tiles))
        answer = network(image[tile]).float()
        if total is None:
            total = torch.zeros(1, answer.shape[1], *image.shape[2:], device=image.device)
        total[tile] += answer * weight
        covered[tile[2:]] += weight
    if total is None:
        total = torch.zeros(1, 1, *image.shape[2:], device=image.device)
    total /= torch.where(covered > 0, covered, 1.0)
    return total[(*WHOLE, *(slice(gap // 2, gap // 2 + n) for gap, n in zip(missing, spatial, strict=True)))]


def tiles_of(spatial: Sequence[int], size: Sequence[int], overlap: float) -> list[tuple[slice, ...]]:
    """Indices (N, C, *spatial) of tiles that cover a volume no smaller than a tile; the last ones end with it."""
    starts = []
    for n, tile in zip(spatial, size, strict=True):
        step = max(1, int(tile * (1 - overlap)))
        count = 1 + math.ceil((n - tile) / step)
        starts.append([min(index * step, n - tile) for index in range(count)])
    return [
        (*WHOLE, *(slice(start, start + tile) for start, tile in zip(corner, size, strict=True)))
        for corner in itertools.product(*starts)
    ]


def tile_weights(size: Sequence[int]) -> Tensor:
    """Gaussian weights of a tile's voxels, float32 of that size, at least `LEAST_WEIGHT`."""
    weight = torch.ones(())
    for n in size:
        offsets = torch.arange(n, dtype=torch.float32) - (n - 1) / 2
        weight = weight.unsqueeze(-1) * torch.exp(-0.5 * (offsets / (SIGMA * n)) ** 2)
    return weight.clamp(min=LEAST_WEIGHT)


def tile_memory_bytes(voxels: int, channels: int, out: int) -> int:
    """Working memory of `score_by_tiles` beside the network's, for a volume of so many voxels."""
    return 4 * voxels * (2 * channels + 2 * out + 2)
