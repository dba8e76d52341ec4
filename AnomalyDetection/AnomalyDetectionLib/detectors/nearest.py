"""Nearest neighbours in a bank of feature vectors, and a small bank that covers a large one."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK_NUMBERS = 16_000_000
"""Distances held at once (64 MB): beyond that the matrix product gains nothing."""


class PlacedBank:
    """Nearest neighbours of vectors at places, among the bank's vectors at the same and neighbouring places.

    Parameters
    ----------
    bank
        (places, n, width), of any float type; distances are computed in single precision.
    filled
        int64 (places,): vectors of each place that count.
    grid
        Rows and columns of the places; (1, 1) searches the whole bank wherever a vector is.
    reach
        Places to either side whose vectors are searched too; below 0 as 0.
    cases
        (places, n), the case of each vector, or None.
    """

    def __init__(
        self, bank: Tensor, filled: Tensor, grid: tuple[int, int], reach: int = 0, cases: Tensor | None = None
    ) -> None:
        self._bank, self._grid, self._reach, self._cases = bank.float(), grid, max(0, reach), cases
        self._norms = self._bank.square().sum(dim=2)
        empty = torch.arange(bank.shape[1], device=bank.device) >= filled[:, None]
        self._norms = self._norms.masked_fill(empty, torch.inf)

    @property
    def device(self) -> torch.device:
        """Where it searches."""
        return self._bank.device

    def distances(self, queries: Tensor, k: int, cases: Tensor | None = None) -> Tensor:
        """Mean distance to the k nearest vectors.

        Parameters
        ----------
        queries
            float32 (places, m, width).
        cases
            (places, m): vectors of the query's own case do not count; None counts all.

        Returns
        -------
        float32 (places, m); where fewer than k vectors count, of those there are, and infinite without any.
        """
        at_once = max(1, CHUNK_NUMBERS // max(1, self._norms.numel()))
        parts = []
        for start in range(0, queries.shape[1], at_once):
            part = queries[:, start : start + at_once]
            parts.append(self._of_chunk(part, k, None if cases is None else cases[:, start : start + at_once]))
        return torch.cat(parts, dim=1)

    def _of_chunk(self, queries: Tensor, k: int, cases: Tensor | None) -> Tensor:
        rows, columns = self._grid
        placed = queries.unflatten(0, self._grid)
        bank, norms = self._bank.unflatten(0, self._grid), self._norms.unflatten(0, self._grid)
        mine = None if cases is None else cases.unflatten(0, self._grid)
        theirs = None if self._cases is None else self._cases.unflatten(0, self._grid)
        count = min(k, bank.shape[2])
        best = torch.full((rows, columns, queries.shape[1], k), torch.inf, device=queries.device)
        # Row by row, for a bank's rows are used where they lie: copying a window of it takes longer than the search.
        for (row, here), (other, there) in self._windows():
            # |q - b|^2 = |q|^2 + |b|^2 - 2 q b: a matrix product, ten times as fast as difference and norm.
            found = torch.baddbmm(norms[other, there, None], placed[row, here], bank[other, there].mT, alpha=-2)
            if mine is not None and theirs is not None:
                found = found.masked_fill(mine[row, here, :, None] == theirs[other, there, None], torch.inf)
            nearest = found.topk(count, dim=2, largest=False).values
            best[row, here] = torch.cat([best[row, here], nearest], dim=2).topk(k, dim=2, largest=False).values
        squared = best.flatten(0, 1) + queries.square().sum(dim=2, keepdim=True)
        usable = torch.isfinite(squared)
        distances = torch.where(usable, squared, 0.0).clamp(min=0).sqrt()
        mean = distances.sum(dim=2) / usable.sum(dim=2)  # 0 / 0 without any
        return torch.where(usable.any(dim=2), mean, torch.inf)

    def _windows(self) -> Iterator[tuple[tuple[int, slice], tuple[int, slice]]]:
        """Pairs of (row and columns of places that look, those they look at), for every direction."""
        rows, columns = self._grid
        for row in range(rows):
            for other in range(max(0, row - self._reach), min(rows, row + self._reach + 1)):
                for right in range(-min(self._reach, columns - 1), min(self._reach, columns - 1) + 1):
                    yield (row, _overlap(columns, right)), (other, _overlap(columns, -right))


def _overlap(count: int, shift: int) -> slice:
    """The places from which one may look `shift` further."""
    return slice(max(0, -shift), count - max(0, shift))


def coreset(vectors: Tensor, count: int, seed: int) -> Tensor:
    """Indices of vectors that cover all: each next one is the farthest from those chosen (Gonzalez 1985; k-centre).

    Parameters
    ----------
    vectors
        float32 (n, width).
    count
        Of vectors to choose; all of them where there are no more.
    seed
        Of the first one.

    Returns
    -------
    int64 (min(count, n),), in the order chosen.
    """
    total = vectors.shape[0]
    if count >= total:
        return torch.arange(total, device=vectors.device)
    norms = vectors.square().sum(dim=1)
    chosen = torch.empty(count, dtype=torch.int64, device=vectors.device)
    chosen[0] = int(torch.randint(total, (1,), generator=torch.Generator().manual_seed(seed)))
    nearest = torch.full((total,), torch.inf, device=vectors.device)
    for number in range(1, count):
        last = chosen[number - 1]
        nearest = torch.minimum(nearest, norms + norms[last] - 2 * (vectors @ vectors[last]))
        chosen[number] = nearest.argmax()
    return chosen
