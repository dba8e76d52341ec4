"""From what became of the cases to the files of an evaluation: metrics.json, scores.csv, plots, report.html."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from AnomalyDetectionLib.scoring.result import ModelIdentity

from ..cohorts.manifest import Case, Cohort
from .battery import refusals, summarise_battery
from .judge import cohort_facts, judge
from .records import CaseRecord
from .report import write_evaluation
from .run import Judged
from .summary import Method


def write_outcome(
    judged: Judged,
    out: Path,
    *,
    model: ModelIdentity,
    cohort: Cohort,
    cases: Sequence[Case],
    split: str,
    cluster: str,
    subgroups: Sequence[str] | None = None,
    resamples: int = 2000,
    seed: int = 0,
    progress: Callable[[float], None] = lambda fraction: None,
) -> dict[str, Any]:
    """Work out all figures, write them and return the content of metrics.json.

    Parameters
    ----------
    cases
        Those that were to be judged.
    subgroups
        Covariates to divide the cases by; None takes every one that divides them into a few groups.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    document = judge(
        methods_of(judged, subgroups),
        model=model,
        cohort=cohort_facts(cohort, [case for case in cases if case.case not in judged.failed], split),
        cluster=cluster,
        notes=[*judged.notes, *refusals(judged.rows)],
        artefacts=summarise_battery(judged.rows),
        resamples=resamples,
        seed=seed,
        progress=progress,
    )
    write_evaluation(document, out)
    return document


def methods_of(judged: Judged, subgroups: Sequence[str] | None = None) -> list[Method]:
    """The methods that judged any case, with their records."""
    return [
        Method(
            name=candidate.name,
            kind=candidate.kind,
            description=candidate.description,
            records=tuple(_with_covariates(record, subgroups) for record in judged.records[candidate.name]),
            threshold=candidate.threshold,
            volume_threshold=candidate.volume_threshold,
            calibration_n=candidate.normal_scores.size or None,
        )
        for candidate in judged.candidates
        if judged.records[candidate.name]
    ]


def _with_covariates(record: CaseRecord, names: Sequence[str] | None) -> CaseRecord:
    if names is None:
        return record
    return replace(record, covariates={name: value for name, value in record.covariates.items() if name in names})
