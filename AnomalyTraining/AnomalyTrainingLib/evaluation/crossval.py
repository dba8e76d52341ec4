"""Cross-validation: train and evaluate fold by fold, then judge all cases together, each by the model new to it.

DIR/crossval.json says what the folder belongs to and, in the end, holds the figures; DIR/folds/N/ is a fold: its
cohort.csv, its training run and its evaluation.  Every part can be gone on with.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from AnomalyDetectionLib import __version__
from AnomalyDetectionLib.errors import InputError, OutputError
from AnomalyDetectionLib.scoring.model import Model

from ..cohorts.manifest import Case, Cohort, read_manifest, write_manifest
from ..cohorts.splits import folds
from ..training.config import TrainConfig
from ..training.few_normals import check_enough_normals
from ..training.roles import Roles, check_folds, learns_from_abnormal
from ..training.run import train
from .baselines.fit import attach_baselines
from .intervals import RESAMPLES
from .judge import cohort_facts, judge
from .metrics_file import METRICS_NAME, write_metrics
from .outcome import methods_of, pictured
from .pooling import Fold, mean_and_sd, note_on_scores, pooled
from .report import write_evaluation
from .run import STATE, Judged, Progress, Settings, begin, check_place, judge_cohort, write_json
from .schema import fault
from .summary import METRICS
from .words import METRIC_NAMES

SCHEMA = "slicer-anomaly/crossval/1"
"""Of crossval.json; see `schemas/crossval.schema.json`."""

CROSSVAL_NAME = "crossval.json"
WHAT = "cross-validation"
TRAINING_SHARE = 0.7
"""Of a fold's time."""


@dataclass(frozen=True)
class Plan:
    """A cross-validation.

    Attributes
    ----------
    folds, group
        As `cohorts.splits.folds`.
    seed
        Of the folds, of training and of the bootstrap.
    settings
        Of the evaluation of each fold.
    subgroups
        Covariates to divide the cases by; None takes every one that divides them into a few groups.
    gallery
        How many false positives, and false negatives, of all folds together are pictured.
    left_out
        Cases of the manifest that the cohort is without, because they cannot be read.
    """

    config: TrainConfig
    folds: int
    group: str
    seed: int
    settings: Settings
    resamples: int = RESAMPLES
    subgroups: Sequence[str] | None = None
    gallery: int = 0
    left_out: tuple[str, ...] = ()


def cross_validate(
    plan: Plan,
    cohort: Cohort,
    out: Path,
    *,
    resume: bool = False,
    progress: Progress = lambda stage, fraction: None,
    event: Callable[..., None] = lambda name, **fields: None,
    warn: Callable[[str], None] = lambda sentence: None,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """Train and evaluate every fold, pool the cases and write all files.

    Parameters
    ----------
    out
        The folder; exists, and this run is the only one at work in it.
    event
        Called with "training" and "case" events, each with its `fold`.
    warn
        Called with the sentences that `train` warns with, each with its fold.

    Returns
    -------
    The contents of crossval.json and of metrics.json (of the pooled cases), and case name to sentence for every case
    that could not be judged.

    Raises
    ------
    InputError
        If the folds cannot be made, a fold cannot be trained or judged, or the folder holds another cross-validation.
    """
    divided = divide(plan, cohort)
    identity = _identity(plan, cohort)
    begin(out / CROSSVAL_NAME, WHAT, identity, resume)
    for sentence in one_sided(divided):
        warn(sentence)
    try:
        done = _all_folds(plan, divided, out, progress, event, warn)
    except InputError:
        _take_away_if_nothing_was_made(out)
        raise
    failed = {case: sentence for fold in done for case, sentence in fold.judged.failed.items()}
    summary = {**identity, "per_fold": [_figures(fold) for fold in done], "mean_sd": mean_and_sd(done)}
    document = judge(
        pooled(done, plan.subgroups),
        model=None,
        cohort=cohort_facts(cohort, [case for case in divided[0] if case.case not in failed], "out of fold"),
        cluster=plan.settings.cluster,
        notes=_notes(plan, done, summary),
        resamples=plan.resamples,
        seed=plan.seed,
    )
    parts = [fold.judged for fold in done]
    write_evaluation(document, out, pictured(parts, document, cohort, out, plan.gallery, plan.settings.device))
    write_summary(summary, out / CROSSVAL_NAME)
    return summary, document, failed


def divide(plan: Plan, cohort: Cohort) -> list[list[Case]]:
    """The cases of every fold, each with its split; a fold that cannot be trained is refused before any is.

    Raises
    ------
    InputError
        If the folds cannot be made, or one leaves too few cases for a role, or normals to learn from.
    """
    supervised = learns_from_abnormal(plan.config)
    divided = folds(cohort, plan.folds, group=plan.group, seed=plan.seed, supervised=supervised)
    for number, cases in enumerate(divided, 1):
        with _named(number, plan):
            fold = replace(cohort, cases=tuple(cases))
            roles = Roles.of(fold, plan.config)
            check_folds(fold, roles, plan.seed)
            check_enough_normals(fold, plan.config, roles)
    return divided


def one_sided(divided: Sequence[Sequence[Case]]) -> list[str]:
    """A sentence for each fold that has but one class to judge: what needs both is not known of it."""
    said = []
    for number, cases in enumerate(divided, 1):
        there = {case.label for case in cases if case.split == "test"}
        for label in sorted({0, 1} - there):
            word = ("normal", "abnormal")[label]
            said.append(
                f"Fold {number} of {len(divided)} has no {word} case to judge: its AUROC is not defined, and means "
                "over the folds are of the others."
            )
    return said


@contextmanager
def _named(number: int, plan: Plan) -> Iterator[None]:
    """Say of bad input in which fold it was met."""
    try:
        yield
    except OutputError:
        raise
    except InputError as error:
        raise InputError(f"Fold {number} of {plan.folds}: {error}") from error


def check_folder(plan: Plan, cohort: Cohort, out: Path, *, resume: bool) -> None:
    """Refuse a folder that `cross_validate` would refuse, before anything that takes time.

    Which cases cannot be read is not known by then: of those left out, `cross_validate` alone takes note.

    Raises
    ------
    InputError, OutputError
        As `cross_validate`.
    """
    identity = _identity(plan, cohort)
    del identity["left_out"]
    check_place(out / CROSSVAL_NAME, WHAT, identity, resume)


def write_summary(summary: Mapping[str, Any], path: Path) -> None:
    """Write crossval.json with its figures.

    Raises
    ------
    ValueError
        If it does not agree with its schema.
    OutputError
        If the file cannot be written.
    """
    if found := fault(summary, "crossval"):
        raise ValueError(f"{path.name} would not agree with its schema: {found}")
    write_json(path, dict(summary))


def _all_folds(
    plan: Plan,
    divided: Sequence[Sequence[Case]],
    out: Path,
    progress: Progress,
    event: Callable[..., None],
    warn: Callable[[str], None],
) -> list[Fold]:
    done = []
    for number, cases in enumerate(divided, 1):

        def watch(stage: str, part: float, number: int = number) -> None:
            progress(f"fold {number}: {stage}", (number - 1 + part) / plan.folds)

        def warn_of(sentence: str, number: int = number) -> None:
            warn(f"Fold {number} of {plan.folds}: {sentence}")

        with _named(number, plan):
            done.append(_fold(plan, number, cases, out, watch, event, warn_of))
    return done


def _take_away_if_nothing_was_made(out: Path) -> None:
    """After bad input: what mends it makes another cross-validation, which the folder would then refuse."""
    if not any(out.glob("folds/*/run/model")):
        shutil.rmtree(out / "folds", ignore_errors=True)
        (out / CROSSVAL_NAME).unlink(missing_ok=True)


def _fold(
    plan: Plan,
    number: int,
    cases: Sequence[Case],
    out: Path,
    progress: Progress,
    event: Callable[..., None],
    warn: Callable[[str], None],
) -> Fold:
    """Train and evaluate one fold, or what is left of it to do."""
    folder = out / "folds" / str(number)
    manifest = folder / "cohort.csv"
    if not manifest.exists():
        write_manifest(cases, manifest)
    cohort = read_manifest(manifest)
    model = train(
        plan.config,
        cohort,
        folder / "run",
        device=plan.settings.device,
        seed=plan.seed,
        resume=(folder / "run" / "run.json").exists(),
        progress=lambda stage, _: progress(stage, 0.0),
        events=lambda fields: event("training", fold=number, **fields),
        warn=warn,
        finish=attach_baselines,
    )
    place = folder / "evaluation"
    place.mkdir(exist_ok=True)
    judged = judge_cohort(
        model,
        cohort,
        place,
        plan.settings,
        resume=(place / STATE).exists(),
        progress=lambda stage, part: progress(stage, TRAINING_SHARE + (1 - TRAINING_SHARE) * part),
        event=lambda name, **fields: event(name, fold=number, **fields),
    )
    return Fold(number, judged, _document(plan, model, cohort, judged, place))


def _document(plan: Plan, model: Model, cohort: Cohort, judged: Judged, place: Path) -> dict[str, Any]:
    held_out = [case for case in cohort.of(split="test") if case.case not in judged.failed]
    document = judge(
        methods_of(judged, plan.subgroups),
        model=model.identity,
        cohort=cohort_facts(cohort, held_out, "test"),
        cluster=plan.settings.cluster,
        notes=judged.notes,
        resamples=plan.resamples,
        seed=plan.seed,
    )
    write_metrics(document, place / METRICS_NAME)
    return document


def _figures(fold: Fold) -> dict[str, Any]:
    methods = fold.document["methods"]
    return {
        "fold": fold.number,
        "cases": fold.document["cohort"]["cases"],
        "normal": fold.document["cohort"]["normal"],
        "abnormal": fold.document["cohort"]["abnormal"],
        "model": fold.document["model"]["sha256"],
        "methods": {
            name: {level: {m: entry[level][m]["value"] for m in names} for level, names in METRICS.items()}
            for name, entry in methods.items()
        },
    }


def _notes(plan: Plan, done: Sequence[Fold], summary: Mapping[str, Any]) -> list[str]:
    name, levels = next(iter(summary["mean_sd"].items()))
    said = [
        f"{METRIC_NAMES[level, metric]} {figure['mean']:.3f} ± {figure['sd']:.3f}"
        for level, metric in (("volume", "auroc"), ("volume", "average_precision"), ("voxel", "dice"))
        if (figure := levels[level][metric])["sd"] is not None
    ]
    notes = [
        f"{plan.folds} folds by {plan.group}: every case was judged by the one model that was not fitted to its fold; "
        "thresholds are each fold's own."
    ]
    if plan.left_out:
        notes.append(f"Left out, for they cannot be read: {', '.join(plan.left_out)}.")
    if said:
        notes.append(f"{name}, mean ± SD over the folds: {', '.join(said)}.")
    notes += note_on_scores(done, summary["mean_sd"])
    fold_notes = dict.fromkeys(note for fold in done for note in fold.judged.notes)
    counts = {note: sum(note in fold.judged.notes for fold in done) for note in fold_notes}
    return notes + [note if count == len(done) else f"In {count} folds: {note}" for note, count in counts.items()]


def _identity(plan: Plan, cohort: Cohort) -> dict[str, Any]:
    """What must agree for a cross-validation to be continued."""
    return {
        "schema": SCHEMA,
        "software": __version__,
        "config": plan.config.model_dump(mode="json"),
        "cohort": hashlib.sha256(cohort.path.read_bytes()).hexdigest(),
        "folds": plan.folds,
        "group": plan.group,
        "seed": plan.seed,
        "left_out": list(plan.left_out),  # other cases make other folds
    }
