"""`calibrate`: the same detector under the calibration of another site."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cli.conftest import head, save

from AnomalyDetectionLib import load_bundle
from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.models.bundle import write_bundle
from AnomalyTrainingLib.cohorts.manifest import load_case_volume, read_manifest
from AnomalyTrainingLib.evaluation.overlap import Seen


def calibrate(*arguments: object, progress: str = "none") -> int:
    return main(["calibrate", *map(str, arguments), "--progress", progress])


def normals(folder: Path, count: int, label: str = "0") -> Path:
    """A manifest of images of nobody whom the model knows."""
    for n in range(count):
        save(head(200 + n), folder / f"new{n}.nii.gz")
    lines = [f"c{n},new{n}.nii.gz,{label},new-{n},test" for n in range(count)]
    path = folder / "normals.csv"
    path.write_text("\n".join(["case,image,label,patient,split", *lines]) + "\n")
    return path


def test_a_new_calibration_changes_the_map_and_not_the_detector(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (bundle / "anomaly.json").read_bytes()
    arguments = [bundle, "--cohort", normals(tmp_path, 3), "--out", tmp_path / "site"]
    assert calibrate(*arguments, progress="json") == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out.splitlines()[-1])
    old, new = load_bundle(bundle), load_bundle(tmp_path / "site")
    assert (result["event"], result["calibration_normals"], new.calibration.n) == ("result", 3, 3)
    assert result["sha256"] == new.identity.sha256 != old.identity.sha256
    for name, value in old.detector.state_dict().items():
        assert torch.equal(value, new.detector.state_dict()[name])
    assert list(new.calibration.normal_scores) != list(old.calibration.normal_scores)
    assert new.info["calibration"]["normals"] == 3
    assert (bundle / "anomaly.json").read_bytes() == before
    assert "no case can reach p = 0.05 (the least p-value is 0.250)" in captured.err


@pytest.mark.parametrize(
    ("count", "label", "words"),
    [
        (2, "1", "line 2: the label is '1'; calibration takes normals only"),
        (2, "", "line 2: there is no label"),
        (1, "0", "calibration needs at least 2 normals"),
    ],
)
def test_a_cohort_that_is_not_of_normals_is_refused(
    count: int, label: str, words: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = normals(tmp_path, count, label)
    assert calibrate(bundle, "--cohort", manifest, "--out", tmp_path / "site") == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "site").exists()


def test_a_missing_image_is_said_before_any_is_scored(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = normals(tmp_path, 2)
    manifest.write_text(manifest.read_text() + "last,gone.nii.gz,0,new-9,test\n")
    assert calibrate(bundle, "--cohort", manifest, "--out", tmp_path / "site", progress="json") == 2
    captured = capsys.readouterr()
    assert "gone.nii.gz: there is no such file" in captured.err
    assert [json.loads(line)["event"] for line in captured.out.splitlines()] == ["error"]


def test_what_is_there_is_not_overwritten(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "site").mkdir()
    assert calibrate(bundle, "--cohort", normals(tmp_path, 2), "--out", tmp_path / "site") == 2
    assert "there is something already" in capsys.readouterr().err
    assert list((tmp_path / "site").iterdir()) == []


def test_normals_that_a_model_may_have_been_trained_on_are_pointed_out(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = normals(tmp_path, 3)
    table.write_text(table.read_text().replace("new-0,test", "new-0,train").replace("new-1,test", "new-1,calibrate"))
    assert calibrate(bundle, "--cohort", table, "--out", tmp_path / "site") == 0
    assert "1 of 3 cases stand in the split 'train'" in capsys.readouterr().err
    assert calibrate(crossed(bundle, tmp_path), "--cohort", table, "--out", tmp_path / "other") == 0
    assert "2 of 3 cases stand in the split 'train' or 'calibrate'" in capsys.readouterr().err


def crossed(bundle: Path, folder: Path) -> Path:
    """The model as if its calibration had been cross-conformal, and it fitted to those normals too."""
    model = load_bundle(bundle)
    facts = {**model.info["calibration"], "method": "cross-conformal, 2 folds by patient"}
    write_bundle(replace(model, info={**model.info, "calibration": facts}), folder / "crossed")
    return folder / "crossed"


def test_normals_that_a_model_has_learnt_from_are_refused(
    bundle: Path, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the cohort p0 was trained on, p5 calibrated on: learnt from only where calibration was cross-conformal."""
    table = normals(tmp_path, 2)
    known = table.read_text()
    table.write_text(known.replace("new-0", "p0"))
    assert calibrate(bundle, "--cohort", table, "--out", tmp_path / "site") == 2
    assert "1 of 2 cases (c0) are of patients that tiny 1.0.0 has learnt from" in capsys.readouterr().err
    table.write_text(known.replace("new1.nii.gz", str(cohort.with_name("head1.nii.gz"))))
    assert calibrate(bundle, "--cohort", table, "--out", tmp_path / "site") == 2
    assert "c1: tiny 1.0.0 has learnt from the very same image" in capsys.readouterr().err
    table.write_text(known.replace("new-0", "p5"))
    assert calibrate(crossed(bundle, tmp_path), "--cohort", table, "--out", tmp_path / "site") == 2
    assert "(c0) are of patients that tiny 1.0.0 has learnt from" in capsys.readouterr().err
    assert not (tmp_path / "site").exists()
    assert calibrate(bundle, "--cohort", table, "--out", tmp_path / "site") == 0


def test_the_new_calibration_normals_are_not_held_out_and_the_former_ones_are(
    bundle: Path, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = normals(tmp_path, 2)
    assert calibrate(bundle, "--cohort", table, "--out", tmp_path / "site") == 0
    assert main(["evaluate", str(tmp_path / "site"), "--cohort", str(table), "--out", str(tmp_path / "judged")]) == 2
    assert "2 of 2 patients (new-0, new-1) were in the split 'calibrate'" in capsys.readouterr().err
    seen = Seen(load_bundle(tmp_path / "site"), "test")
    new = read_manifest(table).cases[0]
    with pytest.raises(InputError, match="the very same image was in the split 'calibrate'"):
        seen.check_image(new, load_case_volume(new))
    former = read_manifest(cohort).of(split="calibrate").cases
    seen.check_patients(former)
    seen.check_image(former[0], load_case_volume(former[0]))
    assert calibrate(crossed(bundle, tmp_path), "--cohort", table, "--out", tmp_path / "other") == 0
    with pytest.raises(InputError, match=r"2 of 2 patients \(p5, p6\) were in the split 'train'"):
        Seen(load_bundle(tmp_path / "other"), "test").check_patients(former)


def test_patients_that_the_manifest_does_not_name_are_pointed_out_and_their_images_kept(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = normals(tmp_path, 2)
    table.write_text(table.read_text().replace("new-1", ""))
    assert calibrate(bundle, "--cohort", table, "--out", tmp_path / "site") == 0
    assert "1 of 2 cases have no patient in the manifest" in capsys.readouterr().err
    kept = load_bundle(tmp_path / "site").info["used"]["calibrate"]
    assert (len(kept["patients_sha256"]), len(kept["images_sha256"])) == (1, 2)
