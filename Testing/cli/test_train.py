"""`train` and `export`: from a manifest to a bundle, and sentences for what cannot be trained."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from AnomalyDetectionLib.cli.folder import OutputFolder
from AnomalyDetectionLib.cli.main import main


def train(*arguments: object, progress: str = "none") -> int:
    return main(["train", *map(str, arguments), "--progress", progress])


def test_a_run_becomes_a_bundle_that_verifies(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from AnomalyDetectionLib import load_bundle

    model = load_bundle(bundle)
    assert model.identity.detector == "zscore"
    assert model.calibration.n == 2
    assert main(["doctor", str(bundle), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["models"]
    assert (found["id"], found["calibration_normals"], found["problem"]) == ("tiny", 2, None)


def test_a_run_that_has_ended_is_resumed_at_once_and_not_repeated(
    run_folder: Path, cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [cohort.with_name("config.yaml"), "--cohort", cohort, "--out", run_folder]
    assert train(*arguments) == 2
    assert "continue it with --resume" in capsys.readouterr().err
    before = (run_folder / "model" / "models" / "model.pt").stat().st_mtime_ns
    assert train(*arguments, "--resume", progress="json") == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["event"], result["training_normals"], result["calibration_normals"]) == ("result", 5, 2)
    assert (run_folder / "model" / "models" / "model.pt").stat().st_mtime_ns == before
    assert train(*arguments, "--resume", "--seed", 1) == 2
    assert "had another seed" in capsys.readouterr().err


def test_two_runs_do_not_train_into_one_folder(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with OutputFolder(tmp_path / "run"):
        assert train(cohort.with_name("config.yaml"), "--cohort", cohort, "--out", tmp_path / "run") == 2
    assert "another run writes into this folder" in capsys.readouterr().err


def test_a_run_killed_after_its_template_goes_on_from_there(cohort: Path, tmp_path: Path) -> None:
    arguments = ["train", cohort.with_name("config.yaml"), "--cohort", cohort, "--out", tmp_path / "run"]
    command = [sys.executable, "-m", "AnomalyDetectionLib.cli", *map(str, arguments), "--progress", "json"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line).get("stage", "").startswith("statistics"):
            break
    process.kill()
    process.wait()
    template = tmp_path / "run" / "template.npz"
    assert template.exists()
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    stages = {json.loads(line).get("stage", "") for line in done.stdout.splitlines()}
    assert "building the template" not in stages and any(stage.startswith("statistics") for stage in stages)
    assert not template.exists(), "the template is kept until the model holds it"
    assert (tmp_path / "run" / "model" / "anomaly.json").exists()


def test_a_recipe_that_is_misspelt_names_the_nearest(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("zscore_brian", "--cohort", cohort, "--out", tmp_path / "run") == 2
    assert "did you mean zscore_brain?" in capsys.readouterr().err


def test_a_key_that_is_misspelt_names_the_nearest(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("name: x\ndetecter: zscore\n")
    assert train(config, "--cohort", cohort, "--out", tmp_path / "run") == 2
    assert "did you mean 'detector'?" in capsys.readouterr().err


def test_a_negative_seed_is_refused(cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("zscore_brain", "--cohort", cohort, "--out", tmp_path / "run", "--seed", "-1") == 2
    assert "--seed is a whole number from 0, not -1" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_settings_of_training_by_gradient_are_refused_for_a_detector_fitted_by_statistics(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("name: x\ndetector: zscore\ntraining: {epochs: 3}\n")
    assert train(config, "--cohort", cohort, "--out", tmp_path / "run") == 2
    assert "zscore is fitted by statistics; take the section 'training' out" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def manifest(cohort: Path, folder: Path, change) -> Path:
    """A changed copy of the cohort's manifest beside copies of its images."""
    shutil.copytree(cohort.parent, folder)
    copy = folder / cohort.name
    copy.write_text(change(copy.read_text()))
    return copy


def test_a_cohort_without_calibration_normals_is_refused(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = manifest(cohort, tmp_path / "cohort", lambda text: text.replace(",calibrate", ",test"))
    split = ("--set", "calibration.method=split")
    assert train("zscore_brain", *split, "--cohort", copy, "--out", tmp_path / "run") == 2
    assert "no normal case (label 0) in the split 'calibrate'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_image_that_cannot_be_read_leaves_no_run(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = manifest(cohort, tmp_path / "cohort", str)
    (copy.parent / "head0.nii.gz").write_text("no image")
    assert train(copy.with_name("config.yaml"), "--cohort", copy, "--out", tmp_path / "run") == 2
    assert "head0.nii.gz" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_taken_is_refused_before_any_image_is_read(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = manifest(cohort, tmp_path / "cohort", str)
    (copy.parent / "head0.nii.gz").write_text("no image")
    out = tmp_path / "taken"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    places = ("--cohort", copy, "--out", out)
    assert train(copy.with_name("config.yaml"), *places) == 2
    said = capsys.readouterr().err
    assert "holds something other than a training run" in said and "head0" not in said
    words = ["crossval", copy.with_name("config.yaml"), *places, "--folds", "2", "--progress", "none"]
    assert main([str(word) for word in words]) == 2
    said = capsys.readouterr().err
    assert "holds something else (thesis.txt)" in said and "head0" not in said
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_what_is_no_run_cannot_be_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "bundle")]) == 2
    assert "not a training run" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_is_exported_is_the_model_of_the_run_to_the_last_byte(run_folder: Path, bundle: Path) -> None:
    from AnomalyDetectionLib import load_bundle

    assert load_bundle(bundle).identity.sha256 == load_bundle(run_folder / "model").identity.sha256
    assert (bundle / "docs" / "README.md").read_bytes() == (run_folder / "model" / "docs" / "README.md").read_bytes()


def test_a_bundle_is_not_overwritten(run_folder: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (bundle / "anomaly.json").stat().st_mtime_ns
    assert main(["export", str(run_folder), "--out", str(bundle)]) == 2
    assert "there is something already" in capsys.readouterr().err
    assert (bundle / "anomaly.json").stat().st_mtime_ns == before
