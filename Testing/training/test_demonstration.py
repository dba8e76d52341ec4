"""From simulated normals to a judged model in one go, on coarse voxels so that it takes seconds."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.interop.reports import FILES
from AnomalyDetectionLib.models.bundle import load_bundle
from AnomalyTrainingLib.cohorts.manifest import read_manifest
from AnomalyTrainingLib.evaluation.baselines import BASELINES
from AnomalyTrainingLib.evaluation.demonstration import Outcome, Plan, demonstrate
from AnomalyTrainingLib.evaluation.evaluate import SCHEMA, Judged, judge
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
    metrics = made[1].metrics
    assert list(metrics) == ["zscore", *BASELINES]
    model = metrics["zscore"]
    assert (model["lesions"], model["lesions_found"]) == (1, 1)
    for name in BASELINES:
        assert model["voxel_average_precision"] > metrics[name]["voxel_average_precision"], name
        assert metrics[name]["dice"] <= metrics[name]["dice_oracle"] + 1e-9
    share = metrics["prevalence"]["voxel_average_precision"]
    assert metrics["random"]["voxel_average_precision"] == pytest.approx(share, rel=0.3)


def test_the_figures_agree_with_the_schema(made):
    _, outcome, _ = made
    schema = json.loads((files("AnomalyTrainingLib") / "schemas" / "metrics-1.schema.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    contrasts = {outcome.contrast: {"methods": outcome.metrics, "cases": outcome.scores}}
    data = {"schema": SCHEMA, "software": {"name": "x", "version": "1"}, "data": "x", "contrasts": contrasts}
    validator.validate(json.loads(json.dumps(data, allow_nan=False)))
    assert not validator.is_valid({**data, "contrasts": {}})


def test_progress_runs_forwards_through_all_stages(made):
    shares = [share for _, share in made[2]]
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1)


def test_a_second_run_keeps_what_is_there_and_another_plan_is_refused(made):
    out, outcome, _ = made
    kept = {path: path.stat().st_mtime_ns for path in (out / "cohort" / "volumes").iterdir()}
    again = demonstrate(PLAN, out, lambda stage, share: None)
    assert again.metrics == outcome.metrics
    assert {path: path.stat().st_mtime_ns for path in (out / "cohort" / "volumes").iterdir()} == kept
    with pytest.raises(InputError, match="made with other settings"):
        demonstrate(replace(PLAN, seed=78), out, lambda stage, share: None)


def test_a_lesion_outside_what_the_model_judges_counts_as_missed():
    truth = np.zeros((6, 6, 6), dtype=bool)
    truth[1:3, 1:3, 1:3] = True
    nothing = np.zeros(truth.shape, dtype=np.float32)
    normal = Judged("n", nothing, nothing.astype(np.int32), np.zeros_like(truth), ~truth)
    figures = judge([Judged("a", nothing, nothing.astype(np.int32), truth, np.ones_like(truth)), normal], 1.0)
    assert (figures["lesions"], figures["lesions_found"], figures["dice"]) == (1, 0, 0.0)
    assert figures["false_findings_per_normal"] == 0
    only_normal = judge([normal], 1.0)
    assert only_normal["dice"] is None and only_normal["voxel_average_precision"] is None
