"""The main job from end to end on phantoms of one contrast: cohort, model, calibration, bundle, scores, metrics.

Every step is the function that the command line calls for it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from AnomalyDetectionLib.errors import OutputError
from AnomalyDetectionLib.interop.reports import write_case
from AnomalyDetectionLib.models.bundle import load_bundle
from AnomalyDetectionLib.scoring.model import Model
from AnomalyDetectionLib.scoring.result import ScoreResult
from AnomalyDetectionLib.scoring.scorer import Scorer

from ..cohorts.manifest import Case, Cohort, load_case_volume, read_manifest
from ..synthesis.cohort import PhantomSettings, make_phantom_cohort
from ..synthesis.lesions import LesionRequest
from ..training.config import read_config
from ..training.run import Finish, export, train
from .baselines.fit import attach_baselines
from .outcome import write_outcome
from .run import STATE, Settings, cases_of, judge_cohort

RECIPE = "zscore_brain"
AUTOENCODER_RECIPE = "autoencoder_brain"

CHANGES = (
    "calibration.method=split",  # one detector to fit rather than six
    "baselines=[random, prevalence, voxel_intensity, blur_residual, mean_image_residual]",
)
"""What the demonstration changes in its recipes, to keep its time."""

AUTOENCODER_CHANGES = (
    "calibration.method=split",
    "few_normals=true",  # a plan may have fewer than 20; the model's card then says so
    "baselines=[untrained]",  # the others are those of the z-score model, and that itself
    "input.spacing=[2.0, 2.0, 3.0]",
    "input.size=[112, 96]",
    "options.widths=[8, 16, 32, 64]",
    "options.latent=64",
    "training.epochs=12",
    "training.learning_rate=5.0e-4",  # with more, some seeds end in a network that rebuilds every slice alike
)
"""The paper's network at a quarter of its area, half its widths and a fraction of its epochs, chosen on seeds that the
demonstration does not use: half a minute on one core."""

FITTING_STAGES = {
    "making phantoms": 0.17,
    "building the template": 0.17,
    "statistics": 0.20,
    "calibrating": 0.19,
    "baselines": 0.20,
    "scoring": 0.03,
}
JUDGING_STAGES = {"judging": 0.04}
"""Stages and their shares of the time, measured in processor time."""

AUTOENCODER = "autoencoder, "
AUTOENCODER_STAGES = {
    AUTOENCODER + "preparing": 0.04,
    AUTOENCODER + "training": 0.30,
    AUTOENCODER + "calibrating": 0.04,
    AUTOENCODER + "baselines": 0.06,
    AUTOENCODER + "scoring": 0.02,
}
"""What the autoencoder adds to that, as shares of the same time."""


@dataclass(frozen=True)
class Plan:
    """One demonstration.

    Attributes
    ----------
    contrast
        A name in `synthesis.contrast.CONTRASTS`.
    lesion
        What the held-out abnormal subject has.
    autoencoder
        What is changed in the recipe of an autoencoder that is judged beside the z-score; None trains none.
    training, calibration, normals
        Numbers of normal subjects to fit on, to calibrate on, and held out to be scored.
    """

    contrast: str
    lesion: LesionRequest
    autoencoder: tuple[str, ...] | None = None
    seed: int = 0
    training: int = 20
    calibration: int = 10
    normals: int = 1
    spacing: tuple[float, float, float] = (2.0, 2.0, 2.0)

    @property
    def subjects(self) -> int:
        """All of them, the one with the lesion included."""
        return self.training + self.calibration + self.normals + 1

    @property
    def stages(self) -> dict[str, float]:
        """Its stages in order and their shares of the time of a plan without an autoencoder."""
        learning = {} if self.autoencoder is None else AUTOENCODER_STAGES
        return {**FITTING_STAGES, **learning, **JUDGING_STAGES}

    def with_splits(self, cases: Sequence[Case]) -> list[Case]:
        """The cases by role; every case is another subject."""
        normal_roles = ["train"] * self.training + ["calibrate"] * self.calibration + ["test"] * self.normals
        roles = [*normal_roles, *["test"] * (len(cases) - len(normal_roles))]
        return [replace(case, split=role) for case, role in zip(cases, roles, strict=True)]


@dataclass(frozen=True)
class Outcome:
    """What a demonstration made.

    Attributes
    ----------
    bundles
        Method name to the model's bundle: "zscore", and "autoencoder" where the plan has one.
    evaluation
        Folder of metrics.json, scores.csv, report.html and plots, with all methods side by side.
    metrics
        The content of metrics.json.
    scores
        Case name to the verdict of the z-score model on it: `volume_score`, `p_value`, `findings`, `quality`, `label`.
    overlays
        Title to picture, for every case and, where it has a lesion, for every model.
    example
        The case with a lesion, and what the z-score model made of it.
    """

    contrast: str
    bundles: dict[str, Path]
    evaluation: Path
    metrics: dict[str, Any]
    scores: dict[str, dict[str, Any]]
    overlays: dict[str, Path]
    example: tuple[Case, ScoreResult]
    notes: tuple[str, ...] = field(default=())


def demonstrate(plan: Plan, out: Path, progress: Callable[[str, float], None]) -> Outcome:
    """Do it all in the folder `out`, going on from where an interrupted run with the same plan stopped.

    Parameters
    ----------
    progress
        Called with the stage and the share of the whole that is done.

    Raises
    ------
    InputError
        If `out` holds something made with another plan.
    """
    watch = _Stages(progress, plan.stages)
    cohort = _cohort(plan, out, watch)
    job = _Job(plan, cohort, out, watch)
    model = job.fit(RECIPE, CHANGES, attach_baselines)
    results = job.score(model)
    overlays = {case.case: out / "results" / case.case / "overlay.png" for case, _ in results}
    models = {model.identity.detector: model}
    judged = model
    if plan.autoencoder is not None:
        beside = _Job(plan, cohort, out / "autoencoder", lambda stage, part: watch(AUTOENCODER + stage, part))
        judged = beside.fit(AUTOENCODER_RECIPE, plan.autoencoder, functools.partial(attach_baselines, shared=model))
        models[judged.identity.detector] = judged
        for case, _ in beside.score(judged):
            if case.label:
                overlays[f"{case.case} autoencoder"] = beside.out / "results" / case.case / "overlay.png"
    metrics = _evaluate(judged, cohort, out / "evaluation", watch)
    notes = [model.calibration.warning(), judged.info.get("training", {}).get("warning")]
    return Outcome(
        contrast=plan.contrast,
        bundles={name: made.path for name, made in models.items() if made.path is not None},
        evaluation=out / "evaluation",
        metrics=metrics,
        scores={case.case: _verdict(case, result) for case, result in results},
        overlays=overlays,
        example=next((case, result) for case, result in results if case.label),
        notes=tuple(note for note in notes if note),
    )


def _cohort(plan: Plan, out: Path, watch: Callable[[str, float], None]) -> Cohort:
    make_phantom_cohort(
        out / "cohort" / "cohort.csv",
        subjects=plan.training + plan.calibration + plan.normals,
        settings=PhantomSettings(plan.contrast, plan.spacing, plan.seed),
        lesions=[plan.lesion],
        split=plan.with_splits,
        progress=lambda done, total: watch("making phantoms", done / total),
    )
    return read_manifest(out / "cohort" / "cohort.csv")


@dataclass(frozen=True)
class _Job:
    """One model of a demonstration, from its recipe to its verdicts, in a folder of its own."""

    plan: Plan
    cohort: Cohort
    out: Path
    watch: Callable[[str, float], None]

    def fit(self, recipe: str, changes: Sequence[str], finish: Finish) -> Model:
        """Train, calibrate and export."""
        config = read_config(recipe, changes)
        config = config.model_copy(update={"name": f"quickstart-{config.detector}-{self.plan.contrast}"})
        trained = train(
            config,
            self.cohort,
            self.out / "run",
            seed=self.plan.seed,
            resume=True,
            progress=self.watch,
            finish=finish,
        )
        return _bundle(self.out, trained)

    def score(self, model: Model) -> list[tuple[Case, ScoreResult]]:
        """Score the held-out cases."""
        cases = self.cohort.of(split="test").cases
        found = []
        for done, case in enumerate(cases, start=1):
            found.append((case, _score(model, case, self.out / "results")))
            self.watch("scoring", done / len(cases))
        return found


class _Stages:
    """Turns the share of a stage into the share of the whole."""

    def __init__(self, progress: Callable[[str, float], None], shares: Mapping[str, float]) -> None:
        self.progress, self.shares = progress, shares

    def __call__(self, stage: str, fraction: float) -> None:
        before, total = 0.0, sum(self.shares.values())
        for name, share in self.shares.items():
            if stage.startswith(name):
                self.progress(name, (before + share * fraction) / total)
                return
            before += share


def _bundle(out: Path, trained: Model) -> Model:
    """The bundle of the run, written unless it is there already."""
    path = out / "bundle"
    if not path.exists():
        return export(out / "run", path)
    model = load_bundle(path)
    if model.identity.sha256 != trained.identity.sha256:
        raise OutputError(f"{path}: it holds another model; choose another folder or delete it.")
    return model


def _score(model: Model, case: Case, folder: Path) -> ScoreResult:
    volume = load_case_volume(case)
    result = Scorer(model).score(volume, case=case.case)
    write_case(volume, result, folder / case.case)
    return result


def _evaluate(model: Model, cohort: Cohort, out: Path, watch: Callable[[str, float], None]) -> dict[str, Any]:
    """The content of metrics.json, as `slicer-anomaly evaluate` makes it."""
    settings = Settings()
    out.mkdir(exist_ok=True)
    judged = judge_cohort(
        model,
        cohort,
        out,
        settings,
        resume=(out / STATE).exists(),
        progress=lambda _, part: watch("judging", 0.8 * part),
    )
    return write_outcome(
        judged,
        out,
        model=model.identity,
        cohort=cohort,
        cases=cases_of(cohort, settings),
        split=settings.split,
        cluster=settings.cluster,
        progress=lambda part: watch("judging", 0.8 + 0.2 * part),
    )


def _verdict(case: Case, result: ScoreResult) -> dict[str, Any]:
    return {
        "label": case.label,
        "volume_score": result.volume_score,
        "p_value": result.p_value,
        "calibration_n": result.calibration_n,
        "threshold": result.threshold,
        "findings": len(result.findings),
        "sides": [finding.side for finding in result.findings],
        "quality": result.quality.verdict,
    }
