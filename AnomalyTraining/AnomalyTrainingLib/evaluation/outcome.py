"""From what became of the cases to the files of an evaluation: metrics.json, scores.csv, plots, report.html."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from AnomalyDetectionLib.scoring.result import ModelIdentity

from ..cohorts.channels import channel_of_model
from ..cohorts.manifest import Case, Cohort
from .battery import refusals, summarise_battery
from .gallery import Shown, make_gallery
from .intervals import Bootstrap
from .judge import cohort_facts, judge
from .plots import model_name
from .records import CaseRecord
from .report import write_evaluation
from .run import Judged
from .shift.reference import CohortSummary
from .shift.report import shift_report
from .summary import Method

RESAMPLING_SHARE = 0.5
"""Of the time, where failures are pictured afterwards."""


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
    shift_from: CohortSummary | None = None,
    gallery: int = 0,
    device: str = "auto",
    progress: Callable[[float], None] = lambda fraction: None,
) -> dict[str, Any]:
    """Work out all figures, write them and return the content of metrics.json.

    Parameters
    ----------
    cases
        Those that were to be judged.
    subgroups
        Covariates to divide the cases by; None takes every one that divides them into a few groups.
    shift_from
        The cohort that the model was made with, as far as it is known: what the shift report compares this one with,
        which is made where the images were described.
    gallery
        How many false positives, and false negatives, are pictured.

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
        progress=lambda part: progress(part * (RESAMPLING_SHARE if gallery else 1)),
    )
    if judged.images:
        document["shift"] = _shift(judged, cases, document, subgroups, shift_from)
    write_evaluation(
        document,
        out,
        pictured(
            [judged],
            document,
            replace(cohort, cases=tuple(cases)),
            out,
            gallery,
            device,
            lambda part: progress(RESAMPLING_SHARE + (1 - RESAMPLING_SHARE) * part),
        ),
    )
    return document


def pictured(
    parts: Sequence[Judged],
    document: Mapping[str, Any],
    cohort: Cohort,
    out: Path,
    most: int,
    device: str,
    progress: Callable[[float], None] = lambda share: None,
) -> list[Shown]:
    """The gallery of one evaluation, or of the folds of a cross-validation, each case by the model that judged it.

    Parameters
    ----------
    cohort
        The cases that were to be judged.
    most
        False positives, and false negatives.

    Raises
    ------
    OutputError
        If a picture cannot be written.
    """
    models = {
        record.case: first.model
        for part in parts
        for first in part.candidates[:1]
        for record in part.records[first.name]
        if first.model is not None
    }
    rows = document["cases"].get(model_name(document), [])
    channels = next(iter(models.values())).detector.spec.channels
    cases = {case.case: case for case in channel_of_model(cohort, channels)}
    return make_gallery(rows, cases, models.__getitem__, out, most=most, device=device, progress=progress)


def _shift(
    judged: Judged,
    cases: Sequence[Case],
    document: Mapping[str, Any],
    subgroups: Sequence[str] | None,
    reference: CohortSummary | None,
) -> dict[str, Any]:
    """The shift report, by the same draws as the figures."""
    ours = methods_of(judged, subgroups)[0]
    model = judged.candidates[0].model
    assert model is not None
    settings = {name: document["bootstrap"][name] for name in ("resamples", "level", "seed")}
    bootstrap = Bootstrap.of_records(ours.records, **settings)
    known = [case for case in cases if case.case in judged.images]
    return shift_report(model, reference, known, ours.records, judged.images, bootstrap)


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
