"""What any detector must beat: score maps that need no model worth the name.

Each baseline is fitted on the same training normals as the detector and sees the same prepared arrays: image float32
in [0, 1] and foreground bool, on the detector's grid (K, J, I).  Higher is more abnormal.  The atlas z-score, the
remaining voxel-wise baseline of the protocol, is the `zscore` detector itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
ScoreMap = Callable[[Image, Mask], NDArray[np.float32]]
"""From a prepared image and its foreground to a score map (K, J, I), 0 outside the foreground."""

BLUR_SIGMA_VOXELS = 3.0
_QUANTILES = 2001


@dataclass(frozen=True, eq=False)
class NormalStatistics:
    """What the baselines learn from the training normals.

    Attributes
    ----------
    mean
        float32 (K, J, I), mean of the normals on the detector's grid, over the cases whose foreground covers the voxel.
    quantiles
        float64 (m,), evenly spaced quantiles of all foreground intensities.
    """

    mean: Image
    quantiles: NDArray[np.float64]

    @classmethod
    def fit(cls, mean: Image, intensities: Iterable[NDArray[np.float32]]) -> NormalStatistics:
        """Fit on the mean image and the foreground intensities of each normal, (n,) each.

        Every case counts alike whatever its size: the quantiles are those of the pooled quantiles of the cases.

        Raises
        ------
        ValueError
            If there is no normal.
        """
        levels = np.linspace(0, 1, _QUANTILES)
        per_case = [np.quantile(values, levels) for values in intensities]
        if not per_case:
            raise ValueError("the baselines need at least one training normal")
        return cls(mean, np.quantile(np.concatenate(per_case), levels))


def random_scores(_statistics: NormalStatistics) -> ScoreMap:
    """Noise; its generator is seeded from the image, so that a case always gets the same."""

    def score(image: Image, foreground: Mask) -> NDArray[np.float32]:
        seed = int.from_bytes(hashlib.sha256(np.ascontiguousarray(image).data).digest()[:8], "little")
        return np.where(foreground, np.random.default_rng(seed).random(image.shape, dtype=np.float32), 0).astype(
            np.float32
        )

    return score


def prevalence(_statistics: NormalStatistics) -> ScoreMap:
    """The same score everywhere: its average precision is the share of abnormal voxels."""
    return lambda image, foreground: foreground.astype(np.float32)


def intensity_tails(statistics: NormalStatistics) -> ScoreMap:
    """How far out in either tail of the normals' intensities a voxel lies, wherever it is in the body.

    0 at the median, 1 beyond all normal voxels.
    """
    levels = np.linspace(0, 1, statistics.quantiles.size)
    distinct, first = np.unique(statistics.quantiles, return_index=True)

    def score(image: Image, foreground: Mask) -> NDArray[np.float32]:
        rank = np.interp(image, distinct, levels[first], left=0, right=1)
        # Beyond the outermost quantile ranks tie; the distance goes on, so that the ranking does not saturate.
        beyond = np.maximum(image - distinct[-1], 0) + np.maximum(distinct[0] - image, 0)
        return np.where(foreground, np.abs(2 * rank - 1) + beyond, 0).astype(np.float32)

    return score


def mean_image_residual(statistics: NormalStatistics) -> ScoreMap:
    """Absolute difference from the mean training image."""
    return lambda image, foreground: np.where(foreground, np.abs(image - statistics.mean), 0).astype(np.float32)


def blur_residual(_statistics: NormalStatistics) -> ScoreMap:
    """Absolute difference from the case's own image blurred inside its foreground (sigma of 3 voxels)."""

    def score(image: Image, foreground: Mask) -> NDArray[np.float32]:
        weight = ndimage.gaussian_filter(foreground.astype(np.float32), BLUR_SIGMA_VOXELS)
        blurred = ndimage.gaussian_filter(np.where(foreground, image, 0), BLUR_SIGMA_VOXELS) / np.maximum(weight, 1e-3)
        return np.where(foreground, np.abs(image - blurred), 0).astype(np.float32)

    return score


BASELINES: Mapping[str, Callable[[NormalStatistics], ScoreMap]] = {
    "random": random_scores,
    "prevalence": prevalence,
    "voxel_intensity": intensity_tails,
    "mean_image_residual": mean_image_residual,
    "blur_residual": blur_residual,
}
"""Baselines by name, in the order of reports."""
