"""A model group by group: what its fixed threshold costs normals, how it ranks, whether its probabilities hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import hypergeom, ks_2samp

from AnomalyDetectionLib.scoring.covariates import as_number

from ..baselines.tables import covariates_of
from ..curves import Rows, Weights, ranking_metrics
from ..intervals import Bootstrap, Figure, clustered_share, effective
from ..records import CaseRecord
from ..subgroups import MOST_STRATA, UNKNOWN

LEAST = 10
"""With fewer cases of a class no figure is given of them."""

AGE = "age"
_AGES = (18, 40, 60, 80)
_YOUNGEST = "under"
_NEWTON_STEPS = 25
_AT_ONCE = 2_000_000


@dataclass(frozen=True, eq=False)
class Judged:
    """The model's records of a cohort and what they are held against.

    Attributes
    ----------
    normal_scores
        float64 (n,), of the model's calibration normals.
    chosen_on
        How many of the normals that the threshold of cases was chosen on it calls abnormal, and how many they are; None
        where that is not known.
    """

    records: Sequence[CaseRecord]
    bootstrap: Bootstrap
    normal_scores: NDArray[np.float64]
    chosen_on: tuple[int, int] | None

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n,), 0 or 1."""
        return np.array([record.label for record in self.records], dtype=np.int64)

    @property
    def scores(self) -> NDArray[np.float64]:
        """(n,)."""
        return np.array([record.volume_score for record in self.records], dtype=np.float64)

    def weights(self) -> Weights:
        """(resamples + 1, n)."""
        return self.bootstrap.weights([record.cluster for record in self.records])


def age_band(value: str) -> str:
    """ "40–59" and the like; `UNKNOWN` for what is no age."""
    years = as_number(value)
    if years is None or years < 0:
        return UNKNOWN
    if years < _AGES[0]:
        return f"{_YOUNGEST} {_AGES[0]}"
    for low, high in pairwise(_AGES):
        if years < high:
            return f"{low}–{high - 1}"
    return f"{_AGES[-1]} and over"


def group_values(records: Sequence[CaseRecord]) -> dict[str, list[str]]:
    """Column to the group of every case, for each column that divides the cases into a few groups.

    Ages are taken in bands.  What identifies people or tells the label is left out.
    """
    allowed = [covariates_of(record.covariates)[0] for record in records]
    found = {}
    for name in sorted({name for row in allowed for name in row}):
        values = [row.get(name, UNKNOWN) for row in allowed]
        if name.casefold() == AGE:
            values = [age_band(value) for value in values]
        if 2 <= len(set(values)) <= MOST_STRATA:
            found[name] = values
    return found


def group_rows(judged: Judged) -> list[dict[str, Any]]:
    """A row for all cases, then one for each value of each column of `group_values`."""
    everyone = np.ones(len(judged.records), dtype=bool)
    rows = [{"column": None, "value": None, **_row(judged, everyone)}]
    for name, values in group_values(judged.records).items():
        column = np.array(values)
        for value in sorted(set(values), key=lambda value: (not value.startswith(_YOUNGEST), value)):
            rows.append({"column": name, "value": value, **_row(judged, column == value)})
    return rows


def _row(judged: Judged, inside: NDArray[np.bool_]) -> dict[str, Any]:
    labels = judged.labels
    counts = {word: int((labels[inside] == label).sum()) for label, word in ((0, "normal"), (1, "abnormal"))}
    patients = {record.patient for record, kept in zip(judged.records, inside, strict=True) if kept}
    area, difference = _discrimination(judged, inside, counts)
    return {
        **counts,
        "patients": len(patients),
        **_false_positives(judged, inside, counts["normal"]),
        "score_shift": score_shift(judged, inside & (labels == 0)),
        "auroc": area.to_json(),
        "auroc_difference": difference.to_json(),
        "calibration": calibration_in_the_large(judged, inside, counts),
    }


def too_small(counts: Mapping[str, int]) -> str:
    """Why no figure of both classes is given, or ""."""
    few = [word for word in ("normal", "abnormal") if counts[word] < LEAST]
    return f"fewer than {LEAST} {' and '.join(few)} cases" if few else ""


def _false_positives(judged: Judged, inside: NDArray[np.bool_], normals: int) -> dict[str, Any]:
    """Share of the normals that are called abnormal, and how likely chance alone calls as many."""
    members = [r for r, kept in zip(judged.records, inside, strict=True) if kept and r.label == 0]
    if normals < LEAST or any(record.called is None for record in members):
        few, no_threshold = f"fewer than {LEAST} normal cases", "the model has no fixed threshold of cases"
        undefined = Figure.undefined(few if normals < LEAST else no_threshold)
        return {"false_positive_rate": undefined.to_json(), "false_positive_p_value": None}
    called, patients = np.array([bool(record.called) for record in members]), [record.patient for record in members]
    chance = None if judged.chosen_on is None else chance_of_more(*effective(called, patients), *judged.chosen_on)
    return {
        "false_positive_rate": clustered_share(called, patients, judged.bootstrap.level).to_json(),
        "false_positive_p_value": None if chance is None else round(chance, 8),
    }


def chance_of_more(called: int, normals: int, called_before: int, normals_before: int) -> float:
    """Chance that a threshold calls so many normals abnormal, or more, if they are like those it was chosen on.

    Those are a sample too: the one-sided exact test of two samples (Fisher, J R Stat Soc 1935).  Where the threshold is
    a place among calibration normals it is the upper tail of the beta-binomial of `calibration_check.check_folds`.  A
    cut of a ROC curve suits the cases it was chosen on, and chance gives a little more than this on others.
    """
    return float(hypergeom.sf(called - 1, normals + normals_before, called + called_before, normals))


def score_shift(judged: Judged, normals: NDArray[np.bool_]) -> dict[str, Any]:
    """How the scores of normals lie beside those of the calibration normals.

    Returns
    -------
    `distance` (Kolmogorov-Smirnov, over all normals), `p_value` (of the same test on one image a patient, for images of
    one patient are not independent), `median` and `reference_median`; nulls and a `reason` with too few of either.
    """
    members = [(r.patient, r.volume_score) for r, kept in zip(judged.records, normals, strict=True) if kept]
    reference = judged.normal_scores
    nothing = dict.fromkeys(("distance", "p_value", "median", "reference_median"))
    if len(members) < LEAST or reference.size < LEAST:
        whose = "normal" if len(members) < LEAST else "calibration normal"
        return {**nothing, "reason": f"fewer than {LEAST} {whose} cases"}
    scores = np.array([score for _, score in members])
    one_each = list(dict(reversed(members)).values())  # the first of each patient
    return {
        "distance": round(float(ks_2samp(scores, reference).statistic), 6),
        "p_value": round(float(ks_2samp(one_each, reference).pvalue), 8),
        "median": round(float(np.median(scores)), 6),
        "reference_median": round(float(np.median(reference)), 6),
    }


def _discrimination(judged: Judged, inside: NDArray[np.bool_], counts: Mapping[str, int]) -> tuple[Figure, Figure]:
    """AUROC of a group, and by how much it differs from that of all other cases."""
    if why := too_small(counts):
        return Figure.undefined(why), Figure.undefined(why)
    area = _area(judged, inside)
    figure = judged.bootstrap.figure(area, clusters=_clusters(judged, inside), undefined="", bounded=True)
    rest = ~inside
    if not rest.any():
        return figure, Figure.undefined("there are no other cases")
    others = {word: int((judged.labels[rest] == label).sum()) for label, word in ((0, "normal"), (1, "abnormal"))}
    if why := too_small(others):
        return figure, Figure.undefined(f"the other cases are {why}")
    least = min(_clusters(judged, inside), _clusters(judged, rest))
    return figure, judged.bootstrap.figure(area - _area(judged, rest), clusters=least, undefined="")


def _area(judged: Judged, inside: NDArray[np.bool_]) -> Rows:
    return ranking_metrics(judged.labels[inside], judged.scores[inside], judged.weights()[:, inside])["auroc"]


def _clusters(judged: Judged, inside: NDArray[np.bool_]) -> int:
    """Of the class that has fewer."""
    members = [record for record, kept in zip(judged.records, inside, strict=True) if kept]
    return min(len({record.cluster for record in members if record.label == label}) for label in (0, 1))


def calibration_in_the_large(
    judged: Judged, inside: NDArray[np.bool_], counts: Mapping[str, int]
) -> dict[str, Any] | None:
    """Whether probabilities are right on the whole; None where the model gives none.

    Returns
    -------
    `expected` (mean probability) and `observed` share of abnormal cases, their `difference` (observed - expected), and
    the `intercept`: what must be added to the log-odds for the two to agree (Steyerberg, Clinical Prediction Models,
    2019, ch. 15), 0 where they do.
    """
    members = [record for record, kept in zip(judged.records, inside, strict=True) if kept]
    if not members or any(record.probability is None for record in members):
        return None
    probability = np.array([record.probability for record in members], dtype=np.float64)
    labels = np.array([record.label for record in members], dtype=np.float64)
    table: dict[str, Any] = {
        "expected": round(float(probability.mean()), 6),
        "observed": round(float(labels.mean()), 6),
    }
    if why := too_small(counts):
        undefined = Figure.undefined(why).to_json()
        return {**table, "difference": undefined, "intercept": undefined}
    weights = judged.weights()[:, inside].astype(np.float64)
    total = weights.sum(axis=1)
    total[total == 0] = np.nan
    clusters = _clusters(judged, inside)
    samples = {
        "difference": weights @ (labels - probability) / total,
        "intercept": _intercepts(probability, labels, weights),
    }
    figures = {
        name: judged.bootstrap.figure(sample, clusters=clusters, undefined="").to_json()
        for name, sample in samples.items()
    }
    return {**table, **figures}


def _intercepts(probability: NDArray[np.float64], labels: NDArray[np.float64], weights: NDArray[np.float64]) -> Rows:
    """By Newton's method, for many rows of weights at once; NaN in rows that lack a class."""
    odds = logit(np.clip(probability, 1e-6, 1 - 1e-6))
    at_once = max(1, _AT_ONCE // max(1, labels.size))
    parts = [_newton(odds, labels, weights[start : start + at_once]) for start in range(0, weights.shape[0], at_once)]
    return np.concatenate(parts)


def _newton(odds: NDArray[np.float64], labels: NDArray[np.float64], weights: NDArray[np.float64]) -> Rows:
    observed, total = weights @ labels, weights.sum(axis=1)
    found = np.zeros(weights.shape[0])
    for _ in range(_NEWTON_STEPS):
        expected = expit(odds[None, :] + found[:, None])
        slope = np.maximum((weights * expected * (1 - expected)).sum(axis=1), 1e-9)
        step = (observed - (weights * expected).sum(axis=1)) / slope
        found += np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-9:
            break
    found[(observed <= 0) | (observed >= total)] = np.nan
    return found
