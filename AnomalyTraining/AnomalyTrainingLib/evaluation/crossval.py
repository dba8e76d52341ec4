"""Cross-validation: train and evaluate fold by fold, then judge all cases together, each by the model new to it.

DIR/crossval.json says what the folder belongs to and, in the end, holds the figures; DIR/folds/N/ is a fold: its
cohort.csv, its training run and its evaluation.  Every part can be gone on with.
"""

from __future__ import annotations

import hashlib
import shutil
import statistics
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
from ..training.roles import Roles, learns_from_abnormal
from ..training.run import train
from .baselines.fit import attach_baselines
from .intervals import RESAMPLES
from .judge import cohort_facts, judge
from .metrics_file import METRICS_NAME, write_metrics
from .outcome import methods_of
from .report import write_evaluation
from .run import STATE, Judged, Progress, Settings, begin, check_place, judge_cohort, write_json
from .schema import fault
from .summary import METRICS, Method
from .words import METRIC_NAMES, listed

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
    """

    config: TrainConfig
    folds: int
    group: str
    seed: int
    settings: Settings
    resamples: int = RESAMPLES
    subgroups: Sequence[str] | None = None


@dataclass(frozen=True)
class Fold:
    """What came of one fold: its evaluation, and its content of metrics.json."""

    number: int
    judged: Judged
    document: dict[str, Any]


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
    write_evaluation(document, out)
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
            check_enough_normals(fold, plan.config, Roles.of(fold, plan.config))
    return divided


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

    Raises
    ------
    InputError, OutputError
        As `cross_validate`.
    """
    check_place(out / CROSSVAL_NAME, WHAT, _identity(plan, cohort), resume)


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


def pooled(done: Sequence[Fold], subgroups: Sequence[str] | None = None) -> list[Method]:
    """Every method with the records of all folds.

    A threshold that differs from fold to fold is left out: each record was made at its own.  Log-odds of models that
    were trained apart have no common zero: they are counted from each fold's own threshold, which was chosen on its
    validation cases.  Those of baselines and ablations, which have no threshold of that kind, are taken as they are;
    `note_on_scores` tells the reader.
    """
    by_name: dict[str, list[Method]] = {}
    for fold in done:
        for method in methods_of(fold.judged, subgroups):
            by_name.setdefault(method.name, []).append(_from_its_threshold(method))
    return [
        replace(
            methods[0],
            description=_description(methods),
            records=tuple(record for method in methods for record in method.records),
            threshold=_common([method.threshold for method in methods]),
            volume_threshold=_common([method.volume_threshold for method in methods]),
            calibration_n=None,
            folds=tuple(methods),
        )
        for methods in by_name.values()
    ]


def _from_its_threshold(method: Method) -> Method:
    """A method of log-odds with its scores counted from its threshold, another one as it is."""
    cut = method.volume_threshold
    if cut is None or any(record.probability is None for record in method.records):
        return method
    records = tuple(replace(record, volume_score=record.volume_score - cut) for record in method.records)
    return replace(method, records=records, volume_threshold=0.0)


def mean_and_sd(done: Sequence[Fold]) -> dict[str, Any]:
    """Method to level to figure: `mean` and `sd` (n - 1) over the `folds` in which it is defined."""
    names = dict.fromkeys(name for fold in done for name in fold.document["methods"])
    return {name: {level: _spread(done, name, level) for level in METRICS} for name in names}


def _spread(done: Sequence[Fold], name: str, level: str) -> dict[str, Any]:
    entries = [fold.document["methods"][name][level] for fold in done if name in fold.document["methods"]]
    found = {}
    for metric in METRICS[level]:
        values = [entry[metric]["value"] for entry in entries if entry[metric]["value"] is not None]
        found[metric] = {
            "mean": round(statistics.fmean(values), 6) if values else None,
            "sd": round(statistics.stdev(values), 6) if len(values) > 1 else None,
            "folds": len(values),
        }
    return found


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


def _common(values: Sequence[float | None]) -> float | None:
    return values[0] if len(set(values)) == 1 else None


def _description(methods: Sequence[Method]) -> str:
    """What a method is; that of the first fold, where they differ in what it was fitted to."""
    first, count = methods[0], len(methods)
    if first.kind == "model":
        return f"{first.description}, a new one in each of {count} folds"
    same = all(method.description == first.description for method in methods)
    return first.description if same else f"{first.description}; so in the first of {count} folds"


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
    if said:
        notes.append(f"{name}, mean ± SD over the folds: {', '.join(said)}.")
    notes += note_on_scores(done, summary["mean_sd"])
    fold_notes = dict.fromkeys(note for fold in done for note in fold.judged.notes)
    counts = {note: sum(note in fold.judged.notes for fold in done) for note in fold_notes}
    return notes + [note if count == len(done) else f"In {count} folds: {note}" for note, count in counts.items()]


def note_on_scores(done: Sequence[Fold], mean_sd: Mapping[str, Any]) -> list[str]:
    """How `pooled` put scores of several models on one scale, and what the methods reach without that; [] if not."""
    methods = {method.name: method for fold in done for method in methods_of(fold.judged)}
    counted = [name for name, method in methods.items() if _from_its_threshold(method) is not method]
    if not counted:
        return []
    others = [name for name in methods if name not in counted]
    taken = f", while those of {listed(others)} are taken as they are" if others else ""
    within = [
        f"{name} {figure['mean']:.3f}"
        for name, levels in mean_sd.items()
        if (figure := levels["volume"]["auroc"])["mean"] is not None
    ]
    reached = f" Within the folds, where that plays no part, the mean AUROC of cases is {', '.join(within)}."
    return [
        f"Log-odds of models that were trained apart have no common zero: the scores of {listed(counted)} are counted "
        f"from each fold's own threshold, which is 0 here{taken}." + (reached if within else "")
    ]


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
    }
