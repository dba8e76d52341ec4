"""`evaluate`: a model and its baselines on held-out cases, from the command line, on real files."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from evaluation.conftest import Trained
from evaluation.frames import frame, save, write_cohort

from AnomalyDetectionLib import Scorer, load_bundle, read_volume
from AnomalyDetectionLib.cli.main import main
from AnomalyTrainingLib.evaluation.metrics_file import read_metrics

MAPS = ["random", "prevalence", "voxel_intensity", "blur_residual", "mean_image_residual"]


def evaluate(bundle: Path, manifest: Path, out: Path, *more: str, progress: str = "none") -> int:
    arguments = ["evaluate", bundle, "--cohort", manifest, "--out", out, "--resamples", "100", "--progress", progress]
    return main([str(argument) for argument in [*arguments, *more]])


@pytest.fixture(scope="module")
def evaluated(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluated") / "out"
    assert evaluate(trained.bundle, trained.manifest, out, "--artefacts", "quick", "--subgroups", "sex") == 0
    return out


def test_the_model_stands_beside_all_its_baselines(evaluated: Path) -> None:
    document = read_metrics(evaluated)
    assert list(document["methods"]) == ["zscore", *MAPS, "volume_statistics", "metadata"]
    assert {entry["kind"] for entry in document["methods"].values()} == {"model", "baseline"}
    assert {"report.html", "scores.csv", "metrics.json", "roc.png"} <= {path.name for path in evaluated.iterdir()}
    assert {row["baseline"] for row in document["comparisons"]} == set(document["methods"]) - {"zscore"}
    assert "(age, sex, site; fitted to 4 normal and 4" in document["methods"]["metadata"]["description"]
    assert any("untrained is missing" in note for note in document["notes"])
    assert list(document["methods"]["zscore"]["subgroups"]) == ["sex"]


def test_a_score_is_the_one_that_scoring_gives(evaluated: Path, trained: Trained) -> None:
    scorer = Scorer(load_bundle(trained.bundle))
    with (evaluated / "scores.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 10
    for row in rows[3:7]:
        result = scorer.score(read_volume(trained.manifest.parent / f"image{row['case'][1:]}.nii.gz"))
        assert float(row["score"]) == result.volume_score and float(row["p_value"]) == result.p_value


def test_the_lesions_are_found_and_chance_has_the_prevalence(evaluated: Path) -> None:
    methods = read_metrics(evaluated)["methods"]
    precision = {name: entry["voxel"]["average_precision"]["value"] for name, entry in methods.items()}
    assert precision["zscore"] > 0.5 > precision["voxel_intensity"]
    assert precision["prevalence"] == pytest.approx(methods["prevalence"]["voxel"]["prevalence"], rel=1e-3)
    assert methods["zscore"]["lesion"]["found"] == 5
    assert precision["metadata"] is None and methods["metadata"]["volume"]["auroc"]["value"] is not None


def test_artefacts_are_tried_on_normals_beside_the_images_as_they_are(evaluated: Path) -> None:
    rows = read_metrics(evaluated)["artefacts"]
    by_name = {row["artefact"]: row for row in rows}
    assert by_name["none"]["severity"] == 0 and {row["severity"] for row in rows} == {0, 3}
    assert {row["cases"] for row in rows} == {3} and {row["method"] for row in rows} == {"zscore"}
    assert by_name["motion"]["volume_score_mean"] > by_name["none"]["volume_score_mean"]
    assert "missing-slices" not in by_name  # a single image has none to lose; the notes say so
    assert any("missing-slices" in note for note in read_metrics(evaluated)["notes"])


def test_an_evaluation_that_was_killed_goes_on_and_ends_like_one_that_was_not(
    evaluated: Path, trained: Trained, tmp_path: Path
) -> None:
    arguments = ["evaluate", trained.bundle, "--cohort", trained.manifest, "--out", tmp_path / "out"]
    arguments += ["--resamples", "100", "--artefacts", "quick", "--subgroups", "sex", "--progress", "json"]
    command = [sys.executable, "-m", "AnomalyDetectionLib.cli", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    assert process.stdout is not None
    cases = (event for line in process.stdout if (event := json.loads(line))["event"] == "case")
    next(cases), next(cases)
    process.kill()
    process.wait()
    assert not (tmp_path / "out" / "metrics.json").exists()
    assert evaluate(trained.bundle, trained.manifest, tmp_path / "out", "--artefacts", "quick") == 2  # without --resume
    done = [path.name for path in (tmp_path / "out" / "records").iterdir() if not path.name.startswith(".")]
    assert 2 <= len(done) < 10
    before = {name: (tmp_path / "out" / "records" / name).stat().st_mtime_ns for name in done}
    more = ["--artefacts", "quick", "--subgroups", "sex", "--resume"]
    assert evaluate(trained.bundle, trained.manifest, tmp_path / "out", *more) == 0
    assert {name: (tmp_path / "out" / "records" / name).stat().st_mtime_ns for name in done} == before
    one, other = read_metrics(evaluated), read_metrics(tmp_path / "out")
    assert one | {"created": ""} == other | {"created": ""}


def test_a_folder_of_another_evaluation_is_refused(
    evaluated: Path, trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(trained.bundle, trained.manifest, evaluated, "--split", "validate", "--resume") == 2
    assert "had another split" in capsys.readouterr().err


def test_an_external_cohort_without_normals_is_judged_against_the_stored_baselines(
    trained: Trained, tmp_path: Path
) -> None:
    manifest = write_cohort(tmp_path / "elsewhere", {"external": (0, 3)}, first=500)
    assert evaluate(trained.bundle, manifest, tmp_path / "out", "--split", "external") == 0
    document = read_metrics(tmp_path / "out")
    assert list(document["methods"]) == ["zscore", *MAPS, "volume_statistics", "metadata"]
    auroc = document["methods"]["zscore"]["volume"]["auroc"]
    assert auroc["value"] is None and "no normal" in auroc["reason"]
    assert document["methods"]["zscore"]["voxel"]["average_precision"]["value"] > 0.5


def test_the_split_that_supervised_baselines_learn_from_is_judged_out_of_fold(trained: Trained, tmp_path: Path) -> None:
    assert evaluate(trained.bundle, trained.manifest, tmp_path / "out", "--split", "validate") == 0
    rows = read_metrics(tmp_path / "out")["cases"]["volume_statistics"]
    classifier = json.loads((trained.bundle / "baselines" / "baselines.json").read_text())["cases"]["volume_statistics"]
    assert len(rows) == 8 and all(row["p_value"] is None and row["called"] is None for row in rows)
    assert classifier["fitted_on"] == [4, 4]
    test = read_metrics(tmp_path / "out")["methods"]["volume_statistics"]["volume"]
    assert test["auroc"]["value"] is not None


def test_patients_the_model_has_seen_are_not_held_out(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "cohort"
    shutil.copytree(trained.manifest.parent, copy)
    text = trained.manifest.read_text()
    (copy / "cohort.csv").write_text(text.replace("c0,p0,image0.nii.gz,0,,train", "c0,p0,image0.nii.gz,0,,test"))
    assert evaluate(trained.bundle, copy / "cohort.csv", tmp_path / "out") == 2
    assert "1 of 11 patients (p0) were in the split 'train'" in capsys.readouterr().err
    assert evaluate(trained.bundle, trained.manifest, tmp_path / "out", "--split", "calibrate") == 2


def test_an_image_the_model_has_seen_is_recognised_under_another_name(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_cohort(tmp_path / "cohort", {"test": (2, 1)}, first=600)
    shutil.copy(trained.manifest.with_name("image3.nii.gz"), tmp_path / "cohort" / "image601.nii.gz")
    assert evaluate(trained.bundle, manifest, tmp_path / "out") == 2
    assert "c601: the very same image was in the split 'train'" in capsys.readouterr().err


def test_a_case_that_cannot_be_read_is_named_and_the_others_go_on(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_cohort(tmp_path / "cohort", {"test": (3, 2)}, first=700)
    (tmp_path / "cohort" / "image701.nii.gz").write_text("no image")
    assert evaluate(trained.bundle, manifest, tmp_path / "out", progress="json") == 2
    captured = capsys.readouterr()
    assert "1 cases could not be judged" in captured.err and "c701" in captured.err
    assert json.loads(captured.out.splitlines()[-1])["failed"] == ["c701"]
    document = read_metrics(tmp_path / "out")
    assert document["cohort"]["cases"] == 4 and any("c701" in note for note in document["notes"])
    save(frame(701)[0], tmp_path / "cohort" / "image701.nii.gz")
    assert evaluate(trained.bundle, manifest, tmp_path / "out", "--resume") == 0
    assert read_metrics(tmp_path / "out")["cohort"]["cases"] == 5


def test_a_cohort_that_cannot_be_judged_fairly_is_refused_with_all_that_is_wrong_with_it(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_cohort(tmp_path / "cohort", {"test": (3, 2)}, first=900)
    shutil.copy(tmp_path / "cohort" / "image900.nii.gz", tmp_path / "cohort" / "image902.nii.gz")
    save(np.zeros((40, 40), dtype=np.uint8), tmp_path / "cohort" / "mask904.nii.gz")
    assert evaluate(trained.bundle, manifest, tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "2 problems" in said and "cases c900, c902 hold the same pixels but differ in patient" in said
    assert "case c904: the mask is empty, though the case is abnormal" in said
    assert not (tmp_path / "out").exists()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("mine")
    assert evaluate(trained.bundle, manifest, tmp_path / "taken") == 2
    said = capsys.readouterr().err
    assert "holds something else (thesis.txt)" in said and "pixels" not in said, "before any image is read"


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--split", "external"], "no case is in the split 'external' (there are calibrate, test, train, validate)"),
        (["--cluster", "anatomy"], "no value in the column 'anatomy'"),
        (["--subgroups", "sex,hight"], "there is no column 'hight'; the columns are age, sex, site"),
        (["--resamples", "0"], "--resamples is a number from 1"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_no_folder(
    more: list[str], sentence: str, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(trained.bundle, trained.manifest, tmp_path / "out", *more) == 2
    assert sentence in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_volumes_are_refused_by_a_model_of_single_images_in_one_sentence(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import SimpleITK as sitk

    manifest = write_cohort(tmp_path / "cohort", {"test": (1, 0)}, first=800)
    sitk.WriteImage(sitk.GetImageFromArray(np.random.default_rng(0).random((12, 20, 20))), str(tmp_path / "v.nii.gz"))
    shutil.copy(tmp_path / "v.nii.gz", tmp_path / "cohort" / "image800.nii.gz")
    assert evaluate(trained.bundle, manifest, tmp_path / "out") == 2
    assert "made for single images" in capsys.readouterr().err


def test_scoring_needs_no_baselines_and_evaluating_trusts_none_that_were_changed(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained.bundle, tmp_path / "bundle")
    table = tmp_path / "bundle" / "baselines" / "baselines.json"
    table.write_text(table.read_text().replace("0.", "1.", 1))
    assert load_bundle(tmp_path / "bundle").calibration.n == 6
    assert evaluate(tmp_path / "bundle", trained.manifest, tmp_path / "out") == 2
    assert "baselines.json: the file was changed" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "bundle" / "baselines")
    assert load_bundle(tmp_path / "bundle").calibration.n == 6


def test_a_ceiling_is_shown_as_one(trained: Trained, tmp_path: Path) -> None:
    assert evaluate(trained.bundle, trained.manifest, tmp_path / "out", "--ceiling", str(trained.bundle)) == 0
    document = read_metrics(tmp_path / "out")
    name, entry = list(document["methods"].items())[-1]
    assert (name, entry["kind"]) == ("zscore (ceiling)", "ceiling")
    assert entry["volume"]["auroc"] == document["methods"]["zscore"]["volume"]["auroc"]


def test_the_model_is_judged_alone_on_request(evaluated: Path, trained: Trained, tmp_path: Path) -> None:
    assert evaluate(trained.bundle, trained.manifest, tmp_path / "out", "--no-baselines") == 0
    document = read_metrics(tmp_path / "out")
    assert list(document["methods"]) == ["zscore"] and document["comparisons"] == []
    assert document["methods"]["zscore"]["voxel"] == read_metrics(evaluated)["methods"]["zscore"]["voxel"]
