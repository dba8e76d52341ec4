"""What a threshold costs: false findings per normal scan, measured on the calibration normals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .findings import LeastSize, box_of, label_regions

LEVELS = np.round(np.arange(1.0, 12.01, 0.1), 1)
"""Rarities at which the cost is measured."""

MOST_FALSE_FINDINGS = 1.0
"""False findings a normal scan shows at the default threshold on average, at most: one a scan is where free-response
curves are customarily read.  (Asking it of nearly every single normal instead lets the oddest one of them set the
threshold; of simulated lesions that a map shows clearly, next to nothing was then marked.)"""


def count_findings(rarity: NDArray[np.float32], least_voxels: int) -> NDArray[np.int32]:
    """Number of findings of at least that many voxels at each of `LEVELS` in one rarity map; shape (len(LEVELS),)."""
    counts = np.zeros(LEVELS.size, dtype=np.int32)
    for index, level in enumerate(LEVELS):
        # Work in the box of what exceeds the level: connected components of a whole head cost 0.2 s a level.
        box = box_of(rarity >= level)
        if box is None:
            break
        labels = label_regions(rarity[box], float(level), least_voxels)
        counts[index] = int(labels.max())
        # A region lies within one of the level below, so what was too small there stays so.
        rarity = np.where(labels > 0, rarity[box], np.float32(0))
    return counts


@dataclass(frozen=True)
class Threshold:
    """The default threshold of a model and the price of any other.

    Attributes
    ----------
    default
        Rarity above which a voxel belongs to a finding.
    levels, findings_per_normal
        (m,) rarity and the mean number of false findings per calibration normal there.
    least_size
        Regions below it are not findings.
    """

    default: float
    levels: NDArray[np.float64]
    findings_per_normal: NDArray[np.float64]
    least_size: LeastSize

    @classmethod
    def fit(cls, counts: Sequence[NDArray[np.int32]], least_size: LeastSize) -> Threshold:
        """From `count_findings` of every calibration normal.

        The default is the lowest level from which upwards normals have `MOST_FALSE_FINDINGS` findings or fewer on
        average.
        """
        table = np.stack(counts)  # (n, levels)
        cost = table.mean(axis=0)
        # Regions merge as the level falls, so the cost may rise and fall: take the level above the last that fails.
        failures = np.flatnonzero(cost > MOST_FALSE_FINDINGS)
        first = 0 if failures.size == 0 else min(int(failures[-1]) + 1, LEVELS.size - 1)
        # Low levels can look "fine" because everything has merged into one region: findings are rarer than 1 in 100.
        first = max(first, int(np.searchsorted(LEVELS, 2.0)))
        return cls(float(LEVELS[first]), LEVELS.copy(), cost, least_size)

    def cost(self, rarity: float) -> float | None:
        """Mean false findings per normal scan at that threshold, interpolated; above the last level that level's.

        None below the first level: there everything merges into one region, and a count would say nothing.
        """
        if rarity < self.levels[0]:
            return None
        return float(np.interp(rarity, self.levels, self.findings_per_normal))

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "default": self.default,
            "levels": self.levels.tolist(),
            "findings_per_normal": self.findings_per_normal.tolist(),
            "least_size": self.least_size.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Threshold:
        """The inverse of `to_json`."""
        levels = np.asarray(data["levels"], dtype=np.float64)
        cost = np.asarray(data["findings_per_normal"], dtype=np.float64)
        default = float(data["default"])
        if (
            levels.size == 0
            or levels.shape != cost.shape
            or levels.ndim != 1
            or not (np.diff(levels) > 0).all()
            or not default >= levels[0]
        ):
            raise ValueError("the threshold table is not in order")
        return cls(default, levels, cost, LeastSize.from_json(data["least_size"]))
