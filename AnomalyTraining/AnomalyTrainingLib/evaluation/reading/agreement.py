"""Agreement of readers beyond chance, for many weightings of the cases at once.

Weights (rows, n) say how often each case counts: row by row a resample of a bootstrap, ones for the sample as it is.
That is why these are written here: scikit-learn's `cohen_kappa_score` takes one weighting at a time, and agrees.
A coefficient is NaN in the rows where it is not defined, as where everybody always says the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..curves import Rows, Weights

Codes = NDArray[np.int64]
"""Verdicts as 0 ... categories - 1, -1 where there is none."""

MISSING = -1
_SLACK = 1e-12


def cohen_kappa(one: Codes, other: Codes, weights: Weights, categories: int) -> Rows:
    """Kappa of two readers (Cohen, Educational and Psychological Measurement 1960), float64 (rows,).

    Parameters
    ----------
    one, other
        (n,), without a missing one.
    """
    weights = np.asarray(weights, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        total = weights.sum(axis=1)
        agreed = weights @ (one == other) / total
        shares = [weights @ _indicators(codes, categories) / total[:, None] for codes in (one, other)]
        return _beyond_chance(agreed, (shares[0] * shares[1]).sum(axis=1))


def fleiss_kappa(verdicts: Codes, weights: Weights, categories: int) -> Rows:
    """Kappa of several readers who have all read every case (Fleiss, Psychological Bulletin 1971), float64 (rows,).

    Parameters
    ----------
    verdicts
        (n, readers), two readers or more, without a missing verdict.
    """
    weights = np.asarray(weights, dtype=np.float64)
    readers = verdicts.shape[1]
    counts = _counts(verdicts, categories)
    pairs = ((counts**2).sum(axis=1) - readers) / (readers * (readers - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        total = weights.sum(axis=1)
        shares = weights @ counts / (total * readers)[:, None]
        return _beyond_chance(weights @ pairs / total, (shares**2).sum(axis=1))


def krippendorff_alpha(verdicts: Codes, weights: Weights, categories: int) -> Rows:
    """Alpha for nominal verdicts, of which some may be missing (Krippendorff, Content Analysis, 2004), float64 (rows,).

    Parameters
    ----------
    verdicts
        (n, readers); cases with fewer than two verdicts do not count.
    """
    counts = _counts(verdicts, categories)
    read = counts.sum(axis=1)
    paired = read > 1
    counts, read, kept = counts[paired], read[paired], np.asarray(weights, dtype=np.float64)[:, paired]
    alike = (counts * (counts - 1)).sum(axis=1) / (read - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        total, of_each = kept @ read, kept @ counts
        disagreed = 1 - kept @ alike / total
        by_chance = 1 - (of_each * (of_each - 1)).sum(axis=1) / (total * (total - 1))
        return np.where(by_chance > _SLACK, 1 - disagreed / by_chance, np.nan)


def _beyond_chance(agreed: Rows, by_chance: Rows) -> Rows:
    return np.where(1 - by_chance > _SLACK, (agreed - by_chance) / (1 - by_chance), np.nan)


def _indicators(codes: Codes, categories: int) -> NDArray[np.float64]:
    return (codes[:, None] == np.arange(categories)).astype(np.float64)


def _counts(verdicts: Codes, categories: int) -> NDArray[np.float64]:
    """How many readers gave each verdict, (n, categories)."""
    return (verdicts[:, :, None] == np.arange(categories)).sum(axis=1).astype(np.float64)
