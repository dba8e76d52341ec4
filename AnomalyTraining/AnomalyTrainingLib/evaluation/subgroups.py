"""Metrics by a covariate: view, sex, site, scanner, kind of lesion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .curves import Rows, Weights, decision_metrics, ranking_metrics
from .intervals import Bootstrap, clustered_share
from .records import CaseRecord

MOST_STRATA = 12
"""A covariate with more values than this is a measurement or a name, not a grouping."""

UNKNOWN = "(not given)"


def groupings(records: Sequence[CaseRecord]) -> list[str]:
    """Covariates that divide the cases into 2 to `MOST_STRATA` strata, by name."""
    names = sorted({name for record in records for name in record.covariates})
    return [name for name in names if 2 <= len(_strata(records, name)[0]) <= MOST_STRATA]


def _strata(records: Sequence[CaseRecord], covariate: str) -> tuple[list[str], bool]:
    """Values of a covariate, and whether only abnormal cases have it: then normals belong to every stratum."""
    values = [[r.covariates.get(covariate, UNKNOWN) for r in records if r.label == label] for label in (0, 1)]
    shared = set(values[0]) == {UNKNOWN}
    return sorted(set(values[1] if shared else values[0] + values[1])), shared


def subgroup(records: Sequence[CaseRecord], covariate: str, bootstrap: Bootstrap) -> dict[str, Any]:
    """Figures of one method within each value of a covariate, and the AUROC over pairs of the same value.

    A covariate that no normal has, such as the kind of lesion, divides the abnormal cases only; each stratum is then
    compared with all normals.

    Returns
    -------
    `auroc_stratified` (pairs of a normal and an abnormal case of the same stratum, so that a covariate that goes with
    the label cannot lift it) and `strata`, one row a value.
    """
    values = np.array([record.covariates.get(covariate, UNKNOWN) for record in records])
    labels = np.array([record.label for record in records])
    strata, shared = _strata(records, covariate)
    weights = bootstrap.weights([record.cluster for record in records])
    rows, won, pairs = [], np.zeros(weights.shape[0]), np.zeros(weights.shape[0])
    for value in strata:
        inside = (values == value) | (shared & (labels == 0))
        members = [record for record, kept in zip(records, inside, strict=True) if kept]
        row, area, count = _stratum(members, weights[:, inside], bootstrap)
        rows.append({"value": value, **row})
        won += np.where(count > 0, np.nan_to_num(area) * count, 0)
        pairs += count
    with np.errstate(divide="ignore", invalid="ignore"):
        stratified = won / pairs
    figure = bootstrap.figure(
        stratified,
        clusters=_least_clusters(records),
        undefined="no stratum has both normal and abnormal cases",
    )
    return {"auroc_stratified": figure.to_json(), "normals_shared": shared, "strata": rows}


def _stratum(
    records: Sequence[CaseRecord], weights: Weights, bootstrap: Bootstrap
) -> tuple[dict[str, Any], Rows, Rows]:
    """The row of a stratum, its AUROC and its pairs in each resample."""
    labels = np.array([record.label for record in records])
    scores = np.array([record.volume_score for record in records])
    area = ranking_metrics(labels, scores, weights)["auroc"]
    pairs = weights[:, labels == 1].sum(axis=1, dtype=np.float64) * weights[:, labels == 0].sum(
        axis=1, dtype=np.float64
    )
    row: dict[str, Any] = {
        "normal": int((labels == 0).sum()),
        "abnormal": int((labels == 1).sum()),
        "auroc": bootstrap.figure(
            area, clusters=_least_clusters(records), undefined="the stratum has one class only", bounded=True
        ).to_json(),
    }
    decided = all(record.called is not None for record in records)
    decisions = decision_metrics(labels, np.array([bool(record.called) for record in records]), weights)
    for name, label in (("sensitivity", 1), ("specificity", 0)):
        sample = decisions[name] if decided else np.full(weights.shape[0], np.nan)
        why = "the stratum has no such case" if decided else "the method has no volume threshold"
        clusters = len({record.cluster for record in records if record.label == label})
        row[name] = bootstrap.figure(sample, clusters=clusters, undefined=why, bounded=True).to_json()
    hits = np.array([lesion.hit for record in records for lesion in record.lesions], dtype=bool)
    whose = [record.cluster for record in records for _ in record.lesions]
    row |= {"lesions": hits.size, "recall": clustered_share(hits, whose, bootstrap.level).to_json()}
    return row, area, pairs


def _least_clusters(records: Sequence[CaseRecord]) -> int:
    """Clusters of the class that has fewer."""
    return min(len({record.cluster for record in records if record.label == label}) for label in (0, 1))
