"""How sure a figure is: bootstrap over patient clusters, and exact intervals of counts.

Every method of an evaluation is resampled with the same draws, so that differences between methods are paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from .records import CaseRecord

RESAMPLES = 2000
LEVEL = 0.95

LEAST_CLUSTERS = 6
"""Fewer clusters than this show no difference: flipping signs, the sharpest paired test, has p = 2 / 2^n at best with n
clusters, and that falls below 0.05 from six on."""

_CONSTANT = 1e-12


@dataclass(frozen=True)
class Figure:
    """A figure with its interval.

    Attributes
    ----------
    value
        None where the figure is not defined.
    low, high
        Ends of the interval, None where there is none.
    reason
        Why something is None, else "".
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; the reason is left out where there is nothing to explain."""
        data: dict[str, Any] = {"value": _plain(self.value), "low": _plain(self.low), "high": _plain(self.high)}
        return data | ({"reason": self.reason} if self.reason else {})

    @classmethod
    def undefined(cls, reason: str) -> Figure:
        """No value."""
        return cls(None, reason=reason)


def _plain(value: float | None) -> float | None:
    return None if value is None else round(float(value), 6)


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Draws of whole clusters with replacement, within strata.

    The strata are the clusters with normal cases only, those with abnormal cases only and those with both, so that no
    draw lacks a class.

    Attributes
    ----------
    counts
        float32 (resamples + 1, clusters): how often each cluster is drawn.  Row 0 is the sample as it is.
    index
        Cluster name to its column.
    level
        Of the intervals.
    seed
        The same seed and clusters give the same draws.
    """

    counts: NDArray[np.float32]
    index: Mapping[str, int]
    level: float = LEVEL
    seed: int = 0

    @classmethod
    def of(
        cls,
        clusters: Sequence[str],
        labels: Sequence[int],
        *,
        resamples: int = RESAMPLES,
        level: float = LEVEL,
        seed: int = 0,
    ) -> Bootstrap:
        """Draws for cases with these clusters and labels (0, 1), one of each a case.

        Raises
        ------
        ValueError
            If there is no case, or the number of resamples or the level makes no sense.
        """
        if not clusters or resamples < 1 or not 0 < level < 1:
            raise ValueError("a bootstrap needs cases, at least one resample and a level between 0 and 1")
        kinds: dict[str, set[int]] = {}
        for cluster, label in sorted(zip(clusters, labels, strict=True)):
            kinds.setdefault(cluster, set()).add(label)
        index = {cluster: n for n, cluster in enumerate(kinds)}
        counts = np.zeros((resamples + 1, len(index)), dtype=np.float32)
        counts[0] = 1
        rng = np.random.default_rng(seed)
        for stratum in ({0}, {1}, {0, 1}):
            members = np.array([index[c] for c, kind in kinds.items() if kind == stratum], dtype=np.int64)
            if members.size:
                share = np.full(members.size, 1 / members.size)
                counts[1:, members] = rng.multinomial(members.size, share, size=resamples)
        return cls(counts, index, level, seed)

    @classmethod
    def of_records(cls, records: Sequence[CaseRecord], **settings: Any) -> Bootstrap:
        """Draws for these cases."""
        return cls.of([r.cluster for r in records], [r.label for r in records], **settings)

    @property
    def resamples(self) -> int:
        """Number of draws."""
        return self.counts.shape[0] - 1

    def weights(self, clusters: Sequence[str]) -> NDArray[np.float32]:
        """How often each case is drawn, (resamples + 1, cases), given the cluster of each."""
        return self.counts[:, [self.index[cluster] for cluster in clusters]]

    def figure(self, sample: NDArray[np.floating], *, clusters: int, undefined: str, bounded: bool = False) -> Figure:
        """The figure of a sample (resamples + 1,): row 0 is its value, the others give the percentile interval.

        Parameters
        ----------
        clusters
            Number of clusters behind the figure, of the class that has fewer where it needs both.
        undefined
            Why the figure is not defined, where row 0 is NaN.
        bounded
            Whether it is a share of independent decisions, or an AUROC.  If all resamples then agree on 0 or 1, the
            interval is the exact one of as many right (wrong) answers as there are clusters: that many independent
            decisions, or normal-abnormal pairs, went the same way.
        """
        if not np.isfinite(sample[0]):
            return Figure.undefined(undefined)
        value = float(sample[0])
        drawn = sample[1:][np.isfinite(sample[1:])]
        if clusters < 2 or drawn.size == 0:
            return Figure(value, reason="one patient cluster has no interval")
        if np.ptp(drawn) < _CONSTANT and abs(drawn[0] - value) < _CONSTANT:
            if bounded and value in (0.0, 1.0):
                low, high = clopper_pearson(round(value * clusters), clusters, self.level)
                return Figure(value, low, high)
            return Figure(value, reason="all resamples give the same value, so there is no interval")
        tail = (1 - self.level) / 2
        low, high = np.quantile(drawn, [tail, 1 - tail])
        return Figure(value, float(low), float(high))

    def difference_of_constants(
        self, ours: NDArray[np.floating], theirs: NDArray[np.floating], *, clusters: int
    ) -> Figure:
        """Difference of two samples (resamples + 1,) that no resample changes, such as AUROCs of 1 and of 0.5.

        Its interval goes from end to end of the exact intervals of the two, which is wide: no pairing narrows it.  A
        sample that is constant at another value than 0 or 1 is so by its nature, and has no spread.
        """
        one, other = (self.figure(s, clusters=clusters, undefined="", bounded=True) for s in (ours, theirs))
        varied = max(np.ptp(ours), np.ptp(theirs)) > _CONSTANT
        if varied or one.value is None or other.value is None or (one.low is None and other.low is None):
            return self.figure(ours - theirs, clusters=clusters, undefined="not defined for both")
        low, high = (one.value, one.value) if one.low is None or one.high is None else (one.low, one.high)
        under, over = (other.value, other.value) if other.low is None or other.high is None else (other.low, other.high)
        return Figure(one.value - other.value, low - over, high - under)


def clopper_pearson(successes: int, trials: int, level: float = LEVEL) -> tuple[float, float]:
    """Exact interval of a share (Clopper & Pearson, Biometrika 1934).

    Raises
    ------
    ValueError
        If there is no trial or more successes than trials.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} of {trials} is no share")
    tail = (1 - level) / 2
    low = beta.ppf(tail, successes, trials - successes + 1) if successes else 0.0
    high = beta.ppf(1 - tail, successes + 1, trials - successes) if successes < trials else 1.0
    return float(low), float(high)


def share(successes: int, trials: int, level: float = LEVEL) -> Figure:
    """A share with its exact interval; undefined without a trial."""
    if trials == 0:
        return Figure.undefined("there is none to count")
    return Figure(successes / trials, *clopper_pearson(successes, trials, level))


def effective(successes: NDArray[np.bool_], clusters: Sequence[str]) -> tuple[int, int]:
    """How many independent trials, and successes among them, decisions on clusters of cases are worth.

    Divided by the design effect: how much more the share varies when whole clusters are drawn than it would with as
    many independent cases (Rao & Scott, Biometrics 1992), but at least 1.  Where all decisions are alike, or all
    of one cluster, nothing tells how they go together, and each cluster counts once.

    Parameters
    ----------
    successes
        bool (n,), one a case.
    clusters
        The patient of each.

    Returns
    -------
    Successes and trials; as they are where every case has a cluster of its own.
    """
    count, trials = int(successes.sum()), successes.size
    index = np.unique(list(clusters), return_inverse=True)[1] if trials else np.zeros(0, dtype=np.int64)
    number = int(index.max()) + 1 if trials else 0
    if number == trials:
        return count, trials
    rate = count / trials
    if rate in (0, 1) or number == 1:
        return round(rate * number), number
    residuals = np.bincount(index, weights=successes - rate)
    variance = number / (number - 1) * float((residuals**2).sum()) / trials**2
    effect = max(1.0, variance * trials / (rate * (1 - rate)))
    kept = max(1, round(trials / effect))
    return min(kept, round(rate * kept)), kept


def clustered_share(successes: NDArray[np.bool_], clusters: Sequence[str], level: float = LEVEL) -> Figure:
    """A share with the exact interval of as many independent trials as the cases are worth (`effective`)."""
    if successes.size == 0:
        return Figure.undefined("there is none to count")
    return Figure(float(successes.mean()), *clopper_pearson(*effective(successes, clusters), level))


def verdict(difference: Figure, *, clusters: int, higher_is_better: bool = True) -> str:
    """ "better", "worse" or "not shown": whether the interval of a difference excludes 0.

    With fewer than `LEAST_CLUSTERS` clusters nothing is shown.
    """
    if difference.low is None or difference.high is None or clusters < LEAST_CLUSTERS:
        return "not shown"
    if difference.low > 0:
        return "better" if higher_is_better else "worse"
    if difference.high < 0:
        return "worse" if higher_is_better else "better"
    return "not shown"
