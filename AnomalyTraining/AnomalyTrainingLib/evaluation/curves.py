"""Ranking and decision metrics of cases or slices, for many weightings of them at once.

Weights (rows, n) say how often each case counts: row by row a resample of a bootstrap, ones for the sample as it is.
Ties are one step of a curve, as in scikit-learn.  A metric is NaN in the rows where it is not defined.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.floating]
Rows = NDArray[np.float64]
Columns = NDArray[np.int64]

SPECIFICITY = 0.95
"""Specificity at which the sensitivity is reported."""

MOST_POINTS = 400
"""A curve of more points is thinned out for files and plots."""

_AT_ONCE = 4_000_000
_SLACK = 1e-9


def ranking_metrics(
    labels: NDArray[np.integer], scores: NDArray[np.floating], weights: Weights, of: Columns | None = None
) -> dict[str, Rows]:
    """AUROC, average precision and sensitivity at 95 % specificity.

    Parameters
    ----------
    labels, scores
        (n,), 0 or 1, and higher for more abnormal.
    weights
        (rows, n), or (rows, cases) with `of`.
    of
        (n,), the column of `weights` that each item goes by: the case of a slice.

    Returns
    -------
    `auroc`, `average_precision`, `sensitivity_at_95_specificity`, float64 (rows,).
    """
    parts = [_of_curve(ill, called) for ill, called in _cumulated(labels, scores, weights, of)]
    names = ("auroc", "average_precision", "sensitivity_at_95_specificity")
    return {name: np.concatenate([part[n] for part in parts]) for n, name in enumerate(names)}


def _of_curve(true: Rows, false: Rows) -> tuple[Rows, Rows, Rows]:
    """Metrics of curves: weight of abnormal and normal cases called at each step (rows, steps + 1), from 0 upwards."""
    ill, well = true[:, -1], false[:, -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        area = (np.diff(false) * (true[:, 1:] + true[:, :-1])).sum(axis=1) / (2 * ill * well)
        called = true[:, 1:] + false[:, 1:]
        precision = np.where(called > 0, true[:, 1:] / called, 0)
        average = (np.diff(true) * precision).sum(axis=1) / ill
        allowed = false <= ((1 - SPECIFICITY) * well + _SLACK)[:, None]
        best = np.where(allowed, true, 0).max(axis=1) / ill
        best[well == 0] = np.nan
    return area, average, best


def _cumulated(
    labels: NDArray[np.integer], scores: NDArray[np.floating], weights: Weights, of: Columns | None = None
) -> Iterator[tuple[Rows, Rows]]:
    """Weight of abnormal and of normal items with at least each distinct score, highest first, after a 0."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)) if ordered.size else np.zeros(0, dtype=np.int64)
    columns = order if of is None else of[order]
    groups = [labels[order] > 0, labels[order] <= 0]
    steps = [np.concatenate([[0], np.cumsum(group)[last]]) for group in groups]  # items of the group up to each step
    at_once = max(1, _AT_ONCE // max(1, scores.size))
    for start in range(0, weights.shape[0], at_once):
        rows = weights[start : start + at_once]
        sums = [np.cumsum(rows[:, columns[group]], axis=1, dtype=np.float64) for group in groups]
        true, false = (_from_zero(part)[:, step] for part, step in zip(sums, steps, strict=True))
        yield true, false


def _from_zero(sums: Rows) -> Rows:
    return np.concatenate([np.zeros((sums.shape[0], 1)), sums], axis=1)


def decision_metrics(
    labels: NDArray[np.integer], called: NDArray[np.bool_], weights: Weights, of: Columns | None = None
) -> dict[str, Rows]:
    """Accuracy, sensitivity, specificity, precision and F1 of a fixed decision, float64 (rows,) each.

    The parameters are those of `ranking_metrics`.
    """
    ill = labels > 0
    columns = np.arange(labels.size) if of is None else of

    def weight_of(which: NDArray[np.bool_]) -> Rows:
        per_column = np.bincount(columns[which], minlength=weights.shape[1])
        return np.asarray(weights @ per_column.astype(np.float64), dtype=np.float64)

    hit, missed = weight_of(ill & called), weight_of(ill & ~called)
    false, right = weight_of(~ill & called), weight_of(~ill & ~called)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "accuracy": (hit + right) / (hit + right + missed + false),
            "sensitivity": hit / (hit + missed),
            "specificity": right / (right + false),
            "precision": hit / (hit + false),
            "f1": 2 * hit / (2 * hit + false + missed),
        }


def confusion(labels: NDArray[np.integer], called: NDArray[np.bool_]) -> dict[str, int]:
    """Numbers of true and false positives and negatives."""
    ill = labels > 0
    return {
        "true_positives": int((ill & called).sum()),
        "false_positives": int((~ill & called).sum()),
        "true_negatives": int((~ill & ~called).sum()),
        "false_negatives": int((ill & ~called).sum()),
    }


def roc_points(labels: NDArray[np.integer], scores: NDArray[np.floating]) -> tuple[list[float], list[float]]:
    """False positive rates and sensitivities, from (0, 0) to (1, 1), at most `MOST_POINTS` of them."""
    true, false = next(_cumulated(labels, scores, np.ones((1, scores.size))))
    return _listed(false[0] / false[0, -1]), _listed(true[0] / true[0, -1])


def precision_recall_points(
    labels: NDArray[np.integer], scores: NDArray[np.floating]
) -> tuple[list[float], list[float]]:
    """Recalls and precisions, from the highest score downwards, at most `MOST_POINTS` of them."""
    true, false = next(_cumulated(labels, scores, np.ones((1, scores.size))))
    true, false = true[0, 1:], false[0, 1:]
    return _listed(true / true[-1]), _listed(true / (true + false))


def _listed(values: NDArray[np.float64]) -> list[float]:
    kept = np.unique(np.linspace(0, values.size - 1, MOST_POINTS).round().astype(np.int64))
    return [round(float(value), 5) for value in values[kept]]
