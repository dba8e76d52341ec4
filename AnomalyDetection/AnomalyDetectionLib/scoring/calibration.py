"""From raw scores to rarity: how many normal voxels score as high.

All objects here are fitted on *calibration normals*, scans of normal people that the detector was not trained on,
and are shared by every detector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TAIL_SHARE = 0.005
"""Share of normal voxels above which the empirical distribution is replaced by a fitted Pareto tail."""

MAX_TAIL_SHAPE = 0.5
"""Tail shapes are kept in [0, 0.5]: below 0 the tail would end and saturate, above 0.5 its variance is infinite."""

_KNOTS = 512
_BODY_QUANTILES = 4096
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Sketch:
    """The distribution of one case's raw scores: its top `TAIL_SHARE` twice over exactly, the rest as quantiles.

    `weights` sum to 1, so that every case counts alike whatever its size.
    """

    values: NDArray[np.float32]
    weights: NDArray[np.float64]

    @classmethod
    def of(cls, raw: NDArray[np.float32]) -> Sketch:
        """Sketch of the raw scores of one case's foreground voxels, shape (n,)."""
        if raw.size == 0:
            raise ValueError("a calibration case has no foreground voxel")
        top_count = min(raw.size, max(1, int(np.ceil(2 * TAIL_SHARE * raw.size))))
        ordered = np.partition(raw, raw.size - top_count)
        top, body = ordered[raw.size - top_count :], ordered[: raw.size - top_count]
        if body.size > _BODY_QUANTILES:
            middles = (np.arange(_BODY_QUANTILES) + 0.5) / _BODY_QUANTILES
            # Positions in the sorted body rather than np.quantile: no float64 copy of the case.
            body.sort()
            sample = body[(middles * body.size).astype(np.int64)]
        else:
            sample = body
        weights = np.concatenate(
            [np.full(sample.size, body.size / max(1, sample.size) / raw.size), np.full(top.size, 1 / raw.size)]
        )
        return cls(np.concatenate([sample, top]).astype(np.float32), weights)


@dataclass(frozen=True)
class Calibrator:
    """Strictly increasing map from raw score to rarity.

    Rarity is -log10 of the share of normal foreground voxels that score at least as high: 0 is ordinary, 2 one in a
    hundred, 4 one in ten thousand.  Up to the `TAIL_SHARE` quantile the share is the empirical one (linear between
    `knots`); above it follows a generalised Pareto distribution (Pickands 1975; fitted by probability-weighted moments,
    Hosking & Wallis, Technometrics 1987), so that the ranking of voxels is never lost to saturation; below the least
    calibration score rarity falls off towards 0 without reaching it.

    Attributes
    ----------
    knots, rarity
        float64 (m,), both strictly increasing.
    tail_scale, tail_shape
        Of the Pareto distribution of the excess over the last knot, in units of the raw score.
    """

    knots: NDArray[np.float64]
    rarity: NDArray[np.float64]
    tail_scale: float
    tail_shape: float

    @classmethod
    def fit(cls, sketches: Sequence[Sketch]) -> Calibrator:
        """Fit on the calibration normals' sketches, one per case."""
        values = np.concatenate([s.values for s in sketches]).astype(np.float64)
        weights = np.concatenate([s.weights for s in sketches]) / len(sketches)
        order = np.argsort(values, kind="stable")
        values, weights = values[order], weights[order]
        share = np.cumsum(weights[::-1])[::-1]  # share of normal voxels that score at least values[n]
        share = np.minimum(share / share[0], 1.0)
        # Ties share the largest share among them: that of their first occurrence.
        first = np.concatenate([[True], np.diff(values) > 0])
        unique, unique_share = values[first], share[first]
        last = max(1, int(np.searchsorted(-unique_share, -TAIL_SHARE, side="right")) - 1) if unique.size > 1 else 0
        pick = np.unique(np.concatenate([_evenly_in_rarity(unique_share[: last + 1]), [0, last]]))
        knots = unique[pick]
        # Half a voxel's share is taken off so that the least score already has a rarity above 0.
        rarity = -np.log10(unique_share[pick] * (1 - 1e-6))
        scale, shape = _pareto_tail(values[values > knots[-1]] - knots[-1], weights[values > knots[-1]])
        if scale <= 0:  # nothing above the last knot: continue with the slope of the body
            scale = max(float(knots[-1] - knots[0]), abs(float(knots[-1])), 1e-6) / 10
        return cls(knots, rarity, scale, shape)

    def __call__(self, raw: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rarity of raw scores, any shape, float32; works in pieces to keep memory at one extra array."""
        flat = np.ascontiguousarray(raw, dtype=np.float32).ravel()
        out = np.empty_like(flat)
        for start in range(0, flat.size, _CHUNK):
            out[start : start + _CHUNK] = self._rarity(flat[start : start + _CHUNK].astype(np.float64))
        return out.reshape(raw.shape)

    def _rarity(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        body = np.interp(raw, self.knots, self.rarity)
        below = raw < self.knots[0]
        if below.any():
            width = max(self.tail_scale, 1e-12)
            body[below] = self.rarity[0] / (1 + (self.knots[0] - raw[below]) / width)
        above = raw > self.knots[-1]
        if above.any():
            excess = (raw[above] - self.knots[-1]) / self.tail_scale
            if self.tail_shape > 1e-6:
                tail = np.log10(1 + self.tail_shape * excess) / self.tail_shape
            else:
                tail = excess / np.log(10)
            body[above] = self.rarity[-1] + tail
        return body

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "knots": self.knots.tolist(),
            "rarity": self.rarity.tolist(),
            "tail_scale": self.tail_scale,
            "tail_shape": self.tail_shape,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Calibrator:
        """The inverse of `to_json`.

        Raises
        ------
        ValueError
            If the knots are not strictly increasing or the tail is not a distribution.
        """
        knots, rarity = np.asarray(data["knots"], dtype=np.float64), np.asarray(data["rarity"], dtype=np.float64)
        scale, shape = float(data["tail_scale"]), float(data["tail_shape"])
        increasing = knots.ndim == 1 and knots.shape == rarity.shape and (np.diff(knots) > 0).all()
        finite = np.isfinite(knots).all() and np.isfinite(rarity).all() and np.isfinite([scale, shape]).all()
        if (
            knots.size == 0
            or not increasing
            or not finite
            or not (np.diff(rarity) > 0).all()
            or scale <= 0
            or shape < 0
        ):
            raise ValueError("the calibration curve is not strictly increasing")
        return cls(knots, rarity, scale, shape)


def _evenly_in_rarity(share: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices of up to `_KNOTS` entries of a falling share, evenly spaced in -log10(share)."""
    rarity = -np.log10(share)
    return np.searchsorted(rarity, np.linspace(rarity[0], rarity[-1], _KNOTS)).clip(0, share.size - 1)


def _pareto_tail(excess: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[float, float]:
    """Scale and shape of a generalised Pareto distribution from weighted excesses sorted upwards.

    Probability-weighted moments (Hosking & Wallis 1987, eq. 10, in the sign convention shape = -k).
    """
    if excess.size < 10:
        return (float(np.average(excess, weights=weights)) if excess.size else 0.0), 0.0
    weights = weights / weights.sum()
    above = np.cumsum(weights[::-1])[::-1] - weights / 2
    a0 = float((weights * excess).sum())
    a1 = float((weights * above * excess).sum())
    if a0 <= 0 or a0 - 2 * a1 <= 1e-12 * a0:
        return max(a0, 0.0), 0.0
    shape = 2 - a0 / (a0 - 2 * a1)
    clipped = float(np.clip(shape, 0.0, MAX_TAIL_SHAPE))
    return a0 * (1 - clipped), clipped  # the mean excess, scale / (1 - shape), is kept


@dataclass(frozen=True)
class Reducer:
    """From a rarity map to one number a case.

    `fraction` of the foreground with the highest rarity is averaged (at least `least_voxels` voxels); 0.001 of a brain
    is about 1.4 mL, the size of a small lesion, and is not moved by a single noisy voxel.
    """

    fraction: float = 0.001
    least_voxels: int = 10

    def __call__(self, rarity: NDArray[np.float32]) -> float:
        """Volume score of the rarity of the foreground voxels, shape (n,)."""
        count = min(rarity.size, max(self.least_voxels, round(self.fraction * rarity.size)))
        return float(np.partition(rarity, rarity.size - count)[rarity.size - count :].mean(dtype=np.float64))

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"fraction": self.fraction, "least_voxels": self.least_voxels}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Reducer:
        """The inverse of `to_json`."""
        reducer = cls(float(data["fraction"]), int(data["least_voxels"]))
        if not 0 < reducer.fraction <= 1 or reducer.least_voxels < 1:
            raise ValueError("the reducer's fraction is not in (0, 1]")
        return reducer


def conformal_p_value(score: float, normal_scores: NDArray[np.float64]) -> float:
    """Share of normals, the case itself counted, that score at least as high (Vovk et al. 2005).

    With n calibration normals it cannot fall below 1 / (n + 1).
    """
    return (1 + int(np.count_nonzero(normal_scores >= score))) / (normal_scores.size + 1)
