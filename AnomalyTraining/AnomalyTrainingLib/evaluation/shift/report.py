"""The shift report of an evaluation: `shift` of metrics.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from AnomalyDetectionLib.scoring.model import Model

from ...cohorts.manifest import Case
from ..intervals import Bootstrap
from ..records import CaseRecord
from .groups import Judged, group_rows
from .mix import image_rows, mix_rows
from .reference import CohortSummary, ImageRow
from .words import sentences


def shift_report(
    model: Model,
    reference: CohortSummary | None,
    cases: Sequence[Case],
    records: Sequence[CaseRecord],
    images: Mapping[str, ImageRow],
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    """How a cohort differs from the one a model was made with, and how the model fares in each of its groups.

    Parameters
    ----------
    reference
        Of the cohort the model was made with; None where nothing is known of it.
    cases, records, images
        The judged cases, the model's records of them, and by case name what `image_row` made of their images.
    bootstrap
        Of the records' clusters.
    """
    here = CohortSummary.of(cases, images, "this cohort")
    expected = expected_false_positives(model)
    rows = group_rows(Judged(records, bootstrap, model.calibration.normal_scores, chosen_on(model)))
    report: dict[str, Any] = {
        "reference": None if reference is None else _facts(reference),
        "prevalence": {"reference": None if reference is None else _prevalence(reference), "here": _prevalence(here)},
        "mix": [] if reference is None else mix_rows(reference, here, bootstrap.level),
        "images": [] if reference is None else image_rows(reference, here, bootstrap.level),
        "calibration_n": int(model.calibration.normal_scores.size),
        "expected_false_positive_rate": None if expected is None else round(expected, 6),
        "groups": rows,
        "worst": worst(rows),
    }
    return {**report, "sentences": sentences(report)}


def expected_false_positives(model: Model) -> float | None:
    """Share of normals that the model's threshold of cases calls abnormal, by the cases it was chosen on."""
    decision, scores = model.calibration.decision, model.calibration.normal_scores
    if decision.specificity is not None:
        return 1 - decision.specificity
    # A new normal is as likely to take any place among the calibration normals, each as every other.
    return float((np.sum(scores >= decision.score) + 1) / (scores.size + 1)) if scores.size else None


def chosen_on(model: Model) -> tuple[int, int] | None:
    """How many of the normals that the model's threshold of cases was chosen on it calls abnormal, of how many."""
    decision, scores = model.calibration.decision, model.calibration.normal_scores
    if decision.specificity is not None and decision.normals is not None:
        return round((1 - decision.specificity) * decision.normals), decision.normals
    return (int(np.sum(scores >= decision.score)), scores.size) if scores.size else None


def worst(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The group with the least AUROC, and of how many; None with fewer than two that are large enough."""
    large = [row for row in rows if row["column"] is not None and row["auroc"]["value"] is not None]
    if len(large) < 2:
        return None
    least = min(large, key=lambda row: row["auroc"]["value"])
    return {"column": least["column"], "value": least["value"], "of": len(large)}


def _facts(reference: CohortSummary) -> dict[str, Any]:
    return {
        "source": reference.source,
        "normal": reference.normal.cases,
        "abnormal": reference.abnormal.cases,
    }


def _prevalence(summary: CohortSummary) -> float | None:
    cases = summary.normal.cases + summary.abnormal.cases
    return round(summary.abnormal.cases / cases, 6) if cases else None
