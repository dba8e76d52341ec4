"""The main job from end to end on phantoms of one contrast: cohort, model, calibration, bundle, scores, metrics.

Every step is the function that the command line calls for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from ..training.run import export, train
from .baselines.fit import attach_baselines
from .outcome import write_outcome
from .run import STATE, Settings, cases_of, judge_cohort

RECIPE = "zscore_brain"

STAGES = {
    "making phantoms": 0.17,
    "building the template": 0.17,
    "statistics": 0.20,
    "calibrating": 0.19,
    "baselines": 0.20,
    "scoring": 0.03,
    "judging": 0.04,
}
"""Stages and their shares of the time, measured in processor time."""


@dataclass(frozen=True)
class Plan:
    """One demonstration.

    Attributes
    ----------
    contrast
        A name in `synthesis.contrast.CONTRASTS`.
    lesion
        What the held-out abnormal subject has.
    training, calibration, normals
        Numbers of normal subjects to fit on, to calibrate on, and held out to be scored.
    """

    contrast: str
    lesion: LesionRequest
    seed: int = 0
    training: int = 20
    calibration: int = 10
    normals: int = 1
    spacing: tuple[float, float, float] = (2.0, 2.0, 2.0)

    @property
    def subjects(self) -> int:
        """All of them, the one with the lesion included."""
        return self.training + self.calibration + self.normals + 1

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
    evaluation
        Folder of metrics.json, scores.csv and report.html.
    metrics
        The content of metrics.json.
    scores
        Case name to the model's verdict on it: `volume_score`, `p_value`, `findings`, `quality`, `label`.
    overlays
        Case name to its picture.
    """

    contrast: str
    bundle: Path
    evaluation: Path
    metrics: dict[str, Any]
    scores: dict[str, dict[str, Any]]
    overlays: dict[str, Path]
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
    watch = _Stages(progress)
    make_phantom_cohort(
        out / "cohort" / "cohort.csv",
        subjects=plan.training + plan.calibration + plan.normals,
        settings=PhantomSettings(plan.contrast, plan.spacing, plan.seed),
        lesions=[plan.lesion],
        split=plan.with_splits,
        progress=lambda done, total: watch("making phantoms", done / total),
    )
    cohort = read_manifest(out / "cohort" / "cohort.csv")
    config = read_config(RECIPE, ["calibration.method=split"])  # one detector to fit rather than six
    config = config.model_copy(update={"name": f"quickstart-brain-{plan.contrast}"})
    trained = train(config, cohort, out / "run", seed=plan.seed, resume=True, progress=watch, finish=attach_baselines)
    model = _bundle(out, trained)
    held_out: list[tuple[Case, ScoreResult]] = []
    for done, case in enumerate(cohort.of(split="test"), start=1):
        held_out.append((case, _score(model, case, out / "results")))
        watch("scoring", done / (plan.normals + 1))
    metrics = _evaluate(model, cohort, out / "evaluation", watch)
    warning = model.calibration.warning()
    return Outcome(
        contrast=plan.contrast,
        bundle=out / "bundle",
        evaluation=out / "evaluation",
        metrics=metrics,
        scores={case.case: _verdict(case, result) for case, result in held_out},
        overlays={case.case: out / "results" / case.case / "overlay.png" for case, _ in held_out},
        notes=(warning,) if warning else (),
    )


class _Stages:
    """Turns the share of a stage into the share of the whole."""

    def __init__(self, progress: Callable[[str, float], None]) -> None:
        self.progress = progress

    def __call__(self, stage: str, fraction: float) -> None:
        before = 0.0
        for name, share in STAGES.items():
            if stage.startswith(name):
                self.progress(name, before + share * fraction)
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
