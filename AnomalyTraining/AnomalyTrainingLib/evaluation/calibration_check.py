"""Whether p-values mean what they say: on normals, a share of alpha should have p <= alpha."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom

from .intervals import LEVEL, Figure, effective, share

NOMINAL = (0.05, 0.10, 0.20)
"""Rates that are checked."""

LEAST_NORMALS = 20
"""Below this number of normals the check is too blunt to pass anything."""

_SLACK = 1e-9


@dataclass(frozen=True)
class Rate:
    """The check at one nominal rate.

    Attributes
    ----------
    nominal
        The rate alpha.
    count, realised
        Normals with p <= alpha, and their share with its exact binomial interval, wider where some are of one patient.
    expected
        What exact conformal p-values with this many calibration normals realise on average; below `nominal` where p
        cannot take the values in between.
    verdict
        "agrees", "too small" (too many normals below alpha) or "too large".
    """

    nominal: float
    count: int
    realised: Figure
    expected: float
    verdict: str

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "nominal": self.nominal,
            "count": self.count,
            "realised": self.realised.to_json(),
            "expected": round(self.expected, 6),
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class CalibrationCheck:
    """The check of all nominal rates.

    Attributes
    ----------
    normals
        Held-out normals that were judged.
    calibration_n, least_p
        Calibration normals behind the p-values, the fewest where folds differ, and the least p that any can have.
    verdict
        "agrees", "too small", "too large" or "cannot tell".
    sentence
        The verdict in words, with figures.
    """

    normals: int
    calibration_n: int
    least_p: float
    rates: tuple[Rate, ...]
    verdict: str
    sentence: str

    @property
    def passed(self) -> bool:
        """Whether the p-values agree with what they say."""
        return self.verdict == "agrees"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "normals": self.normals,
            "calibration_n": self.calibration_n,
            "least_p": round(self.least_p, 6),
            "verdict": self.verdict,
            "sentence": self.sentence,
            "rates": [rate.to_json() for rate in self.rates],
        }


def check_calibration(p_values: Sequence[float], calibration_n: int, *, level: float = LEVEL) -> CalibrationCheck:
    """Check the conformal p-values of held-out normals, all against one sample of calibration normals.

    Parameters and errors as of `check_folds`.
    """
    return check_folds([(p_values, calibration_n)], level=level)


Fold = tuple[Sequence[float], int] | tuple[Sequence[float], int, Sequence[str]]
"""P-values of normals, the number of calibration normals behind them and, if patients have several, whose each is."""


def check_folds(folds: Sequence[Fold], *, level: float = LEVEL) -> CalibrationCheck:
    """Check the conformal p-values of held-out normals, fold by fold against calibration normals of its own.

    With n calibration normals, of m further ones from the same population the number with p <= alpha is beta-binomial
    with floor(alpha (n + 1)) and the rest as parameters: the binomial spread of the m and that of the calibration
    sample (Vovk, ACML 2012).  The numbers of the folds add up as independent ones.  A rate disagrees where the count
    lies in either tail of (1 - level) / 2 of that.  Images of one patient count as fewer, by what they have in common
    (`intervals.effective`).

    Parameters
    ----------
    folds
        Of each, the p-values of its normals, one a case, the number of calibration normals behind them and, unless all
        are independent, the patient of each case.

    Raises
    ------
    ValueError
        If there is no fold, or one has no calibration normal.
    """
    if not folds or any(fold[1] < 1 for fold in folds):
        raise ValueError("conformal p-values need calibration normals")
    counted = [_Counted.of(*fold) for fold in folds]
    normals = sum(fold.values.size for fold in counted)
    fewest, most = min(fold.calibration_n for fold in counted), max(fold.calibration_n for fold in counted)
    rates = tuple(_rate(counted, nominal, level) for nominal in NOMINAL)
    verdict = _overall(rates, normals)
    return CalibrationCheck(
        normals, fewest, 1 / (most + 1), rates, verdict, _sentence(rates, verdict, normals, fewest, most)
    )


@dataclass(frozen=True, eq=False)
class _Counted:
    """A fold: the p-values (n,) of its normals and whose they are."""

    values: NDArray[np.float64]
    calibration_n: int
    patients: Sequence[str]

    @classmethod
    def of(cls, p_values: Sequence[float], calibration_n: int, patients: Sequence[str] = ()) -> _Counted:
        values = np.asarray(p_values, dtype=np.float64)
        return cls(values, calibration_n, patients or [str(n) for n in range(values.size)])


def _rate(folds: Sequence[_Counted], nominal: float, level: float) -> Rate:
    count, below_all, of_all, expected = 0, 0, 0, []
    chances = np.ones(1)  # of 0, 1, ... normals at or below the rate
    for fold in folds:
        at_or_below = fold.values <= nominal + _SLACK
        count += int(at_or_below.sum())
        successes, trials = effective(at_or_below, fold.patients)
        below_all, of_all = below_all + successes, of_all + trials
        reach = int(np.floor(nominal * (fold.calibration_n + 1) + _SLACK))
        expected.append(reach / (fold.calibration_n + 1))
        if reach:
            spread = betabinom(trials, reach, fold.calibration_n + 1 - reach)
            chances = np.convolve(chances, spread.pmf(np.arange(trials + 1)))
    sizes = [fold.values.size for fold in folds]
    mean = float(np.average(expected, weights=sizes if any(sizes) else None))
    tail = (1 - level) / 2
    if chances[below_all:].sum() < tail:  # of a count that no fold can reach, nothing
        verdict = "too small"
    elif chances[: below_all + 1].sum() < tail:
        verdict = "too large"
    else:
        verdict = "agrees"
    realised = share(below_all, of_all, level)
    if sum(sizes):
        realised = replace(realised, value=count / sum(sizes))
    return Rate(nominal, count, realised, mean, verdict)


def _overall(rates: Sequence[Rate], normals: int) -> str:
    found = {rate.verdict for rate in rates}
    if "too small" in found:  # also with few normals: what fails even then is wrong
        return "too small"
    if normals < LEAST_NORMALS:
        return "cannot tell"
    return "too large" if "too large" in found else "agrees"


def percent(value: float | None) -> str:
    """ "3.3 %"."""
    return "–" if value is None else f"{100 * value:.3g} %"


def _sentence(rates: Sequence[Rate], verdict: str, normals: int, fewest: int, most: int) -> str:
    if normals == 0:
        return "There is no held-out normal, so the p-values could not be checked."
    worst = next((rate for rate in rates if rate.verdict == verdict), rates[1])
    figure = worst.realised
    said = (
        f"{worst.count} of {normals} held-out normals have p ≤ {worst.nominal:g} "
        f"({percent(figure.value)}, 95 % interval {percent(figure.low)} to {percent(figure.high)}; "
        f"{percent(worst.expected)} expected)"
    )
    behind = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    least = f" With {behind} calibration normals no p-value is below {1 / (most + 1):.3g}."
    if verdict == "too small":
        return (
            f"The p-values are too small: {said}. The model must be calibrated again on normals like these before its "
            f"p-values are used.{least}"
        )
    if verdict == "too large":
        return f"The p-values are too large, on the safe side: {said}.{least}"
    if verdict == "cannot tell":
        return f"There are too few held-out normals to confirm the p-values: {said}.{least}"
    return f"The p-values agree with what they say: {said}.{least}"
