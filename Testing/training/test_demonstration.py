"""From simulated normals to a judged model in one go, on coarse voxels so that it takes seconds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.interop.reports import FILES
from AnomalyDetectionLib.models.bundle import load_bundle
from AnomalyTrainingLib.cohorts.manifest import read_manifest
from AnomalyTrainingLib.evaluation.baselines.store import stored_baselines
from AnomalyTrainingLib.evaluation.demonstration import Outcome, Plan, demonstrate
from AnomalyTrainingLib.evaluation.metrics_file import read_metrics
from AnomalyTrainingLib.synthesis.lesions import LesionRequest

pytestmark = pytest.mark.slow
PLAN = Plan("flair", LesionRequest("tumour"), seed=77, training=8, calibration=4, normals=1, spacing=(3.0, 3.0, 3.0))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Outcome, list[tuple[str, float]]]:
    out = tmp_path_factory.mktemp("demonstration")
    steps: list[tuple[str, float]] = []
    return out, demonstrate(PLAN, out, lambda stage, share: steps.append((stage, share))), steps


def test_every_output_is_there_and_the_bundle_loads(made):
    out, outcome, _ = made
    for case, picture in outcome.overlays.items():
        assert {path.name for path in picture.parent.iterdir()} == set(FILES), case
    assert load_bundle(outcome.bundle).calibration.n == PLAN.calibration
    assert not list(out.rglob("*.partial*"))


def test_no_subject_has_two_roles_and_only_normals_are_learnt_from(made):
    cohort = read_manifest(made[0] / "cohort" / "cohort.csv")
    assert len({case.patient for case in cohort}) == len(cohort) == PLAN.subjects
    assert [len(cohort.of(split=split)) for split in ("train", "calibrate", "test")] == [8, 4, 2]
    assert {case.split for case in cohort.of(label=1)} == {"test"}


def test_the_tumour_is_found_and_the_model_beats_every_baseline(made):
    methods = made[1].metrics["methods"]
    stored = stored_baselines(load_bundle(made[1].bundle))
    assert stored is not None and list(methods) == ["zscore", *stored.names]
    assert stored.names == ["random", "prevalence", "voxel_intensity", "blur_residual", "mean_image_residual"]
    model = methods["zscore"]
    assert (model["lesion"]["lesions"], model["lesion"]["found"]) == (1, 1)
    for name in stored.names:
        assert value(model, "average_precision") > value(methods[name], "average_precision"), name
        assert value(methods[name], "dice") <= value(methods[name], "dice_oracle") + 1e-9
    share = value(methods["prevalence"], "average_precision")
    assert share == pytest.approx(methods["prevalence"]["voxel"]["prevalence"], rel=1e-3)
    assert value(methods["random"], "average_precision") == pytest.approx(share, rel=0.3)


def value(method: dict, metric: str) -> float:
    return method["voxel"][metric]["value"]


def test_the_evaluation_is_the_one_that_the_command_line_makes(made):
    outcome = made[1]
    assert read_metrics(outcome.evaluation) == json.loads(json.dumps(outcome.metrics))
    assert (outcome.evaluation / "scores.csv").read_text().count("\n") == 1 + 2
    scores = {row["case"]: row["score"] for row in outcome.metrics["cases"]["zscore"]}
    assert scores == {case: verdict["volume_score"] for case, verdict in outcome.scores.items()}


def test_progress_runs_forwards_through_all_stages(made):
    shares = [share for _, share in made[2]]
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1)


def test_a_second_run_keeps_what_is_there_and_another_plan_is_refused(made):
    out, outcome, _ = made
    kept = {path: path.stat().st_mtime_ns for path in (out / "cohort" / "volumes").iterdir()}
    again = demonstrate(PLAN, out, lambda stage, share: None)
    assert again.metrics | {"created": ""} == outcome.metrics | {"created": ""}
    assert {path: path.stat().st_mtime_ns for path in (out / "cohort" / "volumes").iterdir()} == kept
    with pytest.raises(InputError, match="made with other settings"):
        demonstrate(replace(PLAN, seed=78), out, lambda stage, share: None)
