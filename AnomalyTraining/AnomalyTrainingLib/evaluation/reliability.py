"""Whether probabilities can be believed: Brier score, expected calibration error, the table of a reliability plot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .curves import Rows, Weights
from .intervals import Bootstrap
from .records import CaseRecord

BINS = 10
"""Of equal width, as Guo et al. (ICML 2017) count the expected calibration error."""


def reliability(records: Sequence[CaseRecord], bootstrap: Bootstrap) -> dict[str, Any] | None:
    """`probability` of a method in metrics.json; None unless every case has one.

    The Brier score (Monthly Weather Review 1950) is the mean squared difference of probability and outcome, the
    expected calibration error the mean difference, over bins of probability, of what was said and what came true.
    """
    if not records or any(record.probability is None for record in records):
        return None
    said = np.array([record.probability for record in records], dtype=np.float64)
    came = np.array([record.label for record in records], dtype=np.float64)
    weights = bootstrap.weights([record.cluster for record in records])
    clusters = len({record.cluster for record in records})
    figures = {"brier": _brier(said, came, weights), "ece": _ece(said, came, weights)}
    return {
        **{
            name: bootstrap.figure(rows, clusters=clusters, undefined="there is no case").to_json()
            for name, rows in figures.items()
        },
        "bins": _bins(said, came),
    }


def _brier(said: NDArray[np.float64], came: NDArray[np.float64], weights: Weights) -> Rows:
    return weights @ (said - came) ** 2 / weights.sum(axis=1)


def _ece(said: NDArray[np.float64], came: NDArray[np.float64], weights: Weights) -> Rows:
    place = _bin_of(said)
    apart = np.zeros(weights.shape[0])
    for number in np.unique(place):
        inside = place == number
        apart += np.abs(weights[:, inside] @ (said - came)[inside])
    return apart / weights.sum(axis=1)


def _bins(said: NDArray[np.float64], came: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Mean probability, share of abnormal cases and number of cases of every bin that has any."""
    place = _bin_of(said)
    return [
        {
            "probability": round(float(said[place == number].mean()), 6),
            "share": round(float(came[place == number].mean()), 6),
            "cases": int((place == number).sum()),
        }
        for number in np.unique(place)
    ]


def _bin_of(said: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.minimum((said * BINS).astype(np.int64), BINS - 1)
