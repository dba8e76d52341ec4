"""Voxel metrics from histograms of rarity, for many weightings of the cases at once.

Only cases with a lesion count, and in them the judged voxels: the scored foreground and all of the truth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .curves import Rows, Weights
from .records import RARITY_BINS, VoxelRecord

_AT_ONCE = 500


def voxel_metrics(voxels: Sequence[VoxelRecord], weights: Weights) -> tuple[dict[str, Rows], float | None]:
    """Average precision, Dice and IoU at the fixed threshold, and the best Dice of an oracle.

    Parameters
    ----------
    voxels
        Of the cases with a lesion, (n,).
    weights
        (rows, n).

    Returns
    -------
    `average_precision` (of the pooled voxels), `dice` and `iou` (means over cases), `dice_oracle` (of the pooled
    voxels, each row with its own best threshold), float64 (rows,); and the oracle's threshold in the first row.
    """
    rows = weights.shape[0]
    if not voxels:
        nothing = np.full(rows, np.nan)
        return dict.fromkeys(("average_precision", "dice", "iou", "dice_oracle"), nothing), None
    used, lesion, healthy = _filled_bins(voxels)
    average, best, threshold = np.empty(rows), np.empty(rows), None
    for start in range(0, rows, _AT_ONCE):
        part = weights[start : start + _AT_ONCE].astype(np.float64)
        true, false = np.cumsum(part @ lesion, axis=1), np.cumsum(part @ healthy, axis=1)
        average[start : start + _AT_ONCE] = _average_precision(true, false)
        dice = 2 * true / np.maximum(true + false + true[:, -1:], 1)
        best[start : start + _AT_ONCE] = dice.max(axis=1)
        if start == 0:
            threshold = float(RARITY_BINS[used[int(dice[0].argmax())]])
    total = weights.sum(axis=1, dtype=np.float64)
    total[total == 0] = np.nan  # a draw without a lesion
    means = {
        name: weights.astype(np.float64) @ np.array([getattr(v, name) for v in voxels], dtype=np.float64) / total
        for name in ("dice", "iou")
    }
    pooled = {"average_precision": average, "dice_oracle": best}
    return means | {name: np.where(np.isnan(total), np.nan, values) for name, values in pooled.items()}, threshold


def average_precision(voxels: VoxelRecord) -> float | None:
    """Of one case's voxels; None without a lesion."""
    if not voxels.lesion.any():
        return None
    _, lesion, healthy = _filled_bins([voxels])
    return float(_average_precision(np.cumsum(lesion, axis=1), np.cumsum(healthy, axis=1))[0])


def _filled_bins(
    voxels: Sequence[VoxelRecord],
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Bins with a voxel in any case, the highest first, and the histograms (n, bins) of lesion and healthy voxels."""
    lesion = np.stack([v.lesion for v in voxels])[:, ::-1]
    healthy = np.stack([v.healthy for v in voxels])[:, ::-1]
    filled = np.flatnonzero((lesion + healthy).any(axis=0))
    numbers = RARITY_BINS.size - 2 - filled
    return numbers, lesion[:, filled].astype(np.float64), healthy[:, filled].astype(np.float64)


def _average_precision(true: NDArray[np.float64], false: NDArray[np.float64]) -> Rows:
    precision = true / np.maximum(true + false, 1)
    return (np.diff(true, axis=1, prepend=0) * precision).sum(axis=1) / np.maximum(true[:, -1], 1)
