"""The head a lesion is planned in, and what all kinds of lesion need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from AnomalyDetectionLib.errors import InputError

Fractions = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Site:
    """The head a lesion is planned in.

    Attributes
    ----------
    points
        float32 (K, J, I, 3), RAS mm of each voxel in the head's own frame (x = 0 is its midline).
    scanner_x
        float32 (K, J, I), RAS x of each voxel in the scanner, as in the image's header.
    tissue
        Channels of the anatomy (`anatomy.CHANNELS`) before the lesion, float32 (K, J, I) each.
    spacing
        Voxel size in mm along (i, j, k).
    skull
        Whether the anatomy has a skull, which nothing in it can move.
    """

    points: Tensor
    scanner_x: NDArray[np.float32]
    tissue: Mapping[str, NDArray[np.float32]]
    spacing: tuple[float, float, float]
    skull: bool = False


def choose(candidates: NDArray[np.bool_], rng: np.random.Generator, what: str) -> tuple[int, int, int]:
    """One of the candidate voxels (k, j, i), at random."""
    places = np.flatnonzero(candidates)
    if places.size == 0:
        raise InputError(f"There is no place for another {what} in this head; ask for fewer or smaller ones.")
    k, j, i = np.unravel_index(places[int(rng.integers(places.size))], candidates.shape)
    return int(k), int(j), int(i)


def soft(inside_mm: NDArray, edge_mm: float) -> NDArray[np.float32]:
    """0 outside, 1 inside, linear over an edge of that width: the partial volume of a boundary."""
    return np.clip(0.5 + inside_mm / edge_mm, 0, 1).astype(np.float32)
