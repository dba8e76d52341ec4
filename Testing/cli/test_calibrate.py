"""`calibrate`: the same detector under the calibration of another site."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from AnomalyDetectionLib import load_bundle
from AnomalyDetectionLib.cli.main import main


def calibrate(*arguments: object, progress: str = "none") -> int:
    return main(["calibrate", *map(str, arguments), "--progress", progress])


def normals(cohort: Path, folder: Path, count: int, label: str = "0") -> Path:
    """A manifest of the first images of the cohort."""
    lines = [f"c{n},{cohort.parent / f'head{n}.nii.gz'},{label}" for n in range(count)]
    path = folder / "normals.csv"
    path.write_text("\n".join(["case,image,label", *lines]) + "\n")
    return path


def test_a_new_calibration_changes_the_map_and_not_the_detector(
    bundle: Path, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (bundle / "anomaly.json").read_bytes()
    arguments = [bundle, "--cohort", normals(cohort, tmp_path, 3), "--out", tmp_path / "site"]
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
    count: int, label: str, words: str, bundle: Path, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = normals(cohort, tmp_path, count, label)
    assert calibrate(bundle, "--cohort", manifest, "--out", tmp_path / "site") == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "site").exists()


def test_a_missing_image_is_said_before_any_is_scored(
    bundle: Path, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = normals(cohort, tmp_path, 2)
    manifest.write_text(manifest.read_text() + "last,gone.nii.gz,0\n")
    assert calibrate(bundle, "--cohort", manifest, "--out", tmp_path / "site", progress="json") == 2
    captured = capsys.readouterr()
    assert "gone.nii.gz: there is no such file" in captured.err
    assert [json.loads(line)["event"] for line in captured.out.splitlines()] == ["error"]


def test_what_is_there_is_not_overwritten(
    bundle: Path, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "site").mkdir()
    assert calibrate(bundle, "--cohort", normals(cohort, tmp_path, 2), "--out", tmp_path / "site") == 2
    assert "there is something already" in capsys.readouterr().err
    assert list((tmp_path / "site").iterdir()) == []


def test_normals_that_a_model_may_have_been_trained_on_are_pointed_out(
    bundle: Path, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = normals(cohort, tmp_path, 3)
    header, first, *others = table.read_text().splitlines()
    table.write_text("\n".join([f"{header},split", f"{first},train", *(f"{line},calibrate" for line in others)]) + "\n")
    assert calibrate(bundle, "--cohort", table, "--out", tmp_path / "site") == 0
    assert "1 of 3 cases stand in the split 'train'" in capsys.readouterr().err
