"""From simulated normals to a judged model in one go, on coarse voxels so that it takes seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from project.cmake_lists import CHECKOUT

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.interop.reports import FILES
from AnomalyDetectionLib.models.bundle import load_bundle
from AnomalyDetectionLib.scoring.scorer import Scorer
from AnomalyTrainingLib.cohorts.manifest import load_case_volume, read_manifest
from AnomalyTrainingLib.evaluation import scene, showcase
from AnomalyTrainingLib.evaluation.baselines.store import stored_baselines
from AnomalyTrainingLib.evaluation.demonstration import AUTOENCODER_CHANGES, Outcome, Plan, demonstrate
from AnomalyTrainingLib.evaluation.metrics_file import read_metrics
from AnomalyTrainingLib.evaluation.showcase import against_plain_intensity, share_of_all
from AnomalyTrainingLib.synthesis.lesions import LesionRequest

pytestmark = pytest.mark.slow
PLAN = Plan(
    "flair",
    LesionRequest("tumour"),
    autoencoder=(*AUTOENCODER_CHANGES, "training.epochs=1", "input.spacing=[4, 4, 4]", "input.size=[64, 48]"),
    seed=77,
    training=8,
    calibration=4,
    normals=1,
    spacing=(3.0, 3.0, 3.0),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Outcome, list[tuple[str, float]]]:
    out = tmp_path_factory.mktemp("demonstration")
    steps: list[tuple[str, float]] = []
    return out, demonstrate(PLAN, out, lambda stage, share: steps.append((stage, share))), steps


def test_every_output_is_there_and_the_bundle_loads(made):
    out, outcome, _ = made
    for case, picture in outcome.overlays.items():
        assert {path.name for path in picture.parent.iterdir()} == set(FILES), case
    assert {name: load_bundle(path).calibration.n for name, path in outcome.bundles.items()} == {
        "zscore": PLAN.calibration,
        "autoencoder": PLAN.calibration,
    }
    assert len(outcome.overlays) == 3, "one a case, and the lesion once more as the autoencoder sees it"
    assert not list(out.rglob("*.partial*"))


def test_no_subject_has_two_roles_and_only_normals_are_learnt_from(made):
    cohort = read_manifest(made[0] / "cohort" / "cohort.csv")
    assert len({case.patient for case in cohort}) == len(cohort) == PLAN.subjects
    assert [len(cohort.of(split=split)) for split in ("train", "calibrate", "test")] == [8, 4, 2]
    assert {case.split for case in cohort.of(label=1)} == {"test"}


def test_the_tumour_is_found_and_the_zscore_beats_every_baseline(made):
    methods = made[1].metrics["methods"]
    stored = stored_baselines(load_bundle(made[1].bundles["zscore"]))
    assert stored is not None
    assert stored.names == ["random", "prevalence", "voxel_intensity", "blur_residual", "mean_image_residual"]
    model = methods["zscore"]
    assert (model["lesion"]["lesions"], model["lesion"]["found"]) == (1, 1)
    for name in stored.names:
        assert value(model, "average_precision") > value(methods[name], "average_precision"), name
        assert value(methods[name], "dice") <= value(methods[name], "dice_oracle") + 1e-9
    share = value(methods["prevalence"], "average_precision")
    assert share == pytest.approx(methods["prevalence"]["voxel"]["prevalence"], rel=1e-3)
    assert value(methods["random"], "average_precision") == pytest.approx(share, rel=0.3)


def test_the_autoencoder_stands_beside_the_zscore_and_its_baselines_as_its_bundle_holds_them(made):
    outcome = made[1]
    model = load_bundle(outcome.bundles["autoencoder"])
    stored = stored_baselines(model)
    assert stored is not None and stored.maps.keys() == outcome.metrics["methods"].keys() - {"autoencoder"}
    assert [name for name, entry in outcome.metrics["methods"].items() if entry["kind"] == "model"] == ["autoencoder"]
    zscore = load_bundle(outcome.bundles["zscore"])
    assert stored.maps["zscore"].calibration.to_json() == zscore.calibration.to_json()
    assert model.info["used"] == zscore.info["used"] and model.info["used"]["train"]["patients_sha256"]
    (row,) = (row for row in outcome.metrics["cases"]["zscore"] if row["label"])
    volume = load_case_volume(read_manifest(made[0] / "cohort" / "cohort.csv").of(split="test", label=1).cases[0])
    assert row["score"] == pytest.approx(Scorer(zscore).score(volume).volume_score, abs=1e-6)


def test_the_closing_words_say_which_model_beats_plain_intensity(made):
    methods = json.loads(json.dumps(made[1].metrics["methods"]))

    def said(zscore: float, autoencoder: float) -> list[str]:
        for name, figure in (("zscore", zscore), ("autoencoder", autoencoder), ("voxel_intensity", 0.5)):
            methods[name]["voxel"]["average_precision"]["value"] = figure
        return against_plain_intensity(replace(made[1], metrics={"methods": methods}))

    assert said(0.9, 0.1)[:2] == [
        "zscore beats plain intensity here: AP 0.900 against 0.500.",
        "autoencoder does not beat plain intensity here: AP 0.100 against 0.500.",
    ]
    assert said(0.5, 0.6)[:2] == [
        "zscore does not beat plain intensity here: AP 0.500 against 0.500.",
        "autoencoder beats plain intensity here: AP 0.600 against 0.500.",
    ]


def test_the_share_of_all_is_that_of_the_slowest_job_where_all_run_at_once():
    times = {"a": 1.0, "b": 1.5}
    assert share_of_all({"a": 0.0, "b": 0.0}, times, 2) == 0
    assert share_of_all({"a": 1.0, "b": 0.5}, times, 2) == pytest.approx(0.5)
    assert share_of_all({"a": 0.5, "b": 1.0}, times, 2) == pytest.approx(1 - 0.5 / 1.5)
    assert share_of_all({"a": 1.0, "b": 0.0}, times, 1) == pytest.approx(0.4)
    assert share_of_all({"a": 1.0, "b": 1.0}, times, 2) == share_of_all({"a": 1.0, "b": 1.0}, times, 1) == 1


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


READ_SCENE = """\
import json, sys
import harness
harness.start()
import slicer
from AnomalyDetectionLib.slicer_ui.results import PREFIX, Results
from AnomalyDetectionLib.slicer_ui.volumes import ijk_to_world
slicer.util.loadScene(sys.argv[1])
(results,) = Results.all()
tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
display, segmentation = results.score.GetDisplayNode(), results.segmentation.GetSegmentation()
function = display.GetColorNode().GetColorTransferFunction()
segment = slicer.util.arrayFromSegmentBinaryLabelmap(
    results.segmentation, segmentation.GetNthSegmentID(0), results.input
)
composite = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceCompositeNodeRed")
print(json.dumps({
    "ijk_to_ras": [ijk_to_world(node).tolist() for node in (results.input, results.score, results.labels)],
    "image": slicer.util.arrayFromVolume(results.input).tolist(),
    "rarity": slicer.util.arrayFromVolume(results.score).tolist(),
    "labels": slicer.util.arrayFromVolume(results.labels).tolist(),
    "first segment": int(segment.sum()),
    "terminology": segmentation.GetNthSegment(0).GetTerminology(),
    "segments": segmentation.GetNumberOfSegments(),
    "rows": results.table.GetNumberOfRows(),
    "folders": [tree.GetItemName(tree.GetItemParent(tree.GetItemByDataNode(node))) for node in results.nodes()],
    "model": [node.GetAttribute(PREFIX + "ModelSha256") for node in results.nodes()],
    "verdict": results.verdict().sentences(),
    "document": results.document.GetText(),
    "window": [display.GetWindowLevelMin(), display.GetWindowLevelMax(), display.GetLowerThreshold()],
    "lightness": [sum(function.GetColor(rarity)) for rarity in (2.0, 3.0, 4.0, 5.0, 6.0)],
    "legend": bool(slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(results.score).GetVisibility()),
    "modality": results.input.GetAttribute(PREFIX + "Modality"),
    "layers": [composite.GetBackgroundVolumeID() == results.input.GetID(),
               composite.GetForegroundVolumeID() == results.score.GetID(), composite.GetForegroundOpacity()],
    "outlines": bool(results.segmentation.GetDisplayVisibility()),
}))
"""


def test_the_scene_opens_with_volume_heat_findings_and_verdict_as_the_module_shows_them(made, tmp_path):
    case, result = made[1].example
    assert case.label == 1
    path = scene.write_case_scene([made[1].example], tmp_path / "scene.mrb")
    assert list(tmp_path.iterdir()) == [path]
    folders = [str(CHECKOUT / name) for name in ("AnomalyDetection", "Testing")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
    command = [sys.executable, "-c", READ_SCENE, str(path)]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    read = json.loads(told.stdout.splitlines()[-1])
    volume = load_case_volume(case)
    for affine in read["ijk_to_ras"]:
        np.testing.assert_allclose(affine, volume.ijk_to_ras, atol=1e-4)
    for name, array in (("image", volume.array), ("rarity", result.rarity.array), ("labels", result.labels)):
        np.testing.assert_allclose(read[name], array, rtol=1e-6, err_msg=name)
    assert read["first segment"] == (result.labels == 1).sum() > 0
    assert "SCT^4147007^Mass" in read["terminology"]
    assert read["segments"] == read["rows"] == len(result.findings)
    assert read["folders"] == [f"{case.case} - anomalies"] * 5 and read["model"] == [result.model.sha256] * 5
    share = f"a share of p = {result.p_value:.3f} scores as high."
    assert f"Of {PLAN.calibration} normal scans, together with this one, {share}" in read["verdict"]
    assert f"Scored by the model {result.model.id}, version {result.model.version} " in read["document"]
    assert read["window"] == [2.0, 6.0, 2.0] and read["legend"] and read["outlines"]
    assert read["lightness"] == sorted(read["lightness"])
    assert read["modality"] == volume.modality or (read["modality"] is None and not volume.modality)
    assert read["layers"] == [True, True, 0.6]


def test_without_slicers_libraries_one_sentence_says_that_there_is_no_scene(made, tmp_path, monkeypatch):
    monkeypatch.setattr(scene, "PACKAGE", "slicer_core_of_another_computer")
    (tmp_path / "scene.mrb").write_text("of an earlier run")
    reason = showcase._write_scene(tmp_path / "scene.mrb", [made[1]])
    assert reason.startswith("No scene.mrb was written: the package slicer-core is not installed")
    assert reason.count(". ") == 0 and not list(tmp_path.iterdir())
    assert reason in showcase.closing_words(made[0].parent, [made[1]], reason)
    assert "scene.mrb   the cases with lesions" in showcase.closing_words(made[0].parent, [made[1]])
