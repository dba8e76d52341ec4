"""`cohort mood`: the folders of the Medical Out-of-Distribution challenge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from training.published import write_nifti, write_text

from AnomalyDetectionLib.cli.main import main
from AnomalyTrainingLib.cohorts.checks import check_cohort
from AnomalyTrainingLib.cohorts.manifest import read_manifest


def write_mood(folder: Path, anatomy: str = "brain", scans: int = 8) -> Path:
    generator, shape = np.random.default_rng(0), (8, 8, 8)
    for number in range(scans):
        write_nifti(folder / f"{anatomy}_train" / f"{number:05d}.nii.gz", generator.uniform(0, 1, shape))
    for number, (label, painted) in enumerate(((1, 20), (0, 0), (1, 0))):
        write_nifti(folder / "toy" / f"toy_{number}.nii.gz", generator.uniform(0, 1, shape))
        mask = np.zeros(512, dtype=np.float32)
        mask[:painted] = 1
        write_nifti(folder / "toy_label" / "pixel" / f"toy_{number}.nii.gz", mask.reshape(shape))
        write_text(folder / "toy_label" / "sample" / f"toy_{number}.nii.gz.txt", str(label))
    return folder


def test_training_scans_are_the_normals_and_toy_cases_the_test_that_normals_join(tmp_path, capsys):
    source = write_mood(tmp_path / "brain")
    out = tmp_path / "c.csv"
    assert main(["cohort", "mood", str(source), "--split", "--out", str(out), "--progress", "none"]) == 0
    cohort = read_manifest(out)
    cases = {case.case: case for case in cohort}
    assert (len(cohort.of(label=0)), len(cohort.of(label=1))) == (9, 2)
    assert {case.case for case in cohort.of(split="test")} > {"brain-toy_0", "brain-toy_1", "brain-toy_2"}
    assert {case.split for case in cohort.of(label=0)} == {"train", "calibrate", "validate", "test"}
    assert cases["brain-toy_0"].mask is not None and cases["brain-toy_1"].mask is None
    assert cases["brain-toy_2"].mask is None and "no voxel marked" in capsys.readouterr().err
    assert {case.covariates["modality"] for case in cohort} == {"MR"}
    check_cohort(cohort)


def test_the_abdomen_is_ct_and_may_come_without_toy_cases(tmp_path, capsys):
    source = write_mood(tmp_path / "abdom", "abdom")
    (source / "toy").rename(tmp_path / "away")
    out = tmp_path / "c.csv"
    assert main(["cohort", "mood", str(source), "--out", str(out), "--progress", "none"]) == 0
    assert {(case.covariates["modality"], case.label) for case in read_manifest(out)} == {("CT", 0)}
    assert "nothing abnormal is in the cohort" in capsys.readouterr().err


def test_what_is_no_mood_folder_is_refused(tmp_path, capsys):
    source, out = write_mood(tmp_path / "data" / "brain"), str(tmp_path / "c.csv")

    def refusal(folder: Path) -> str:
        assert main(["cohort", "mood", str(folder), "--out", out, "--progress", "none"]) == 2
        return capsys.readouterr().err

    assert f"such as {source}" in refusal(tmp_path / "data")
    assert "none of the folders brain_train" in refusal(source / "toy")
    label = source / "toy_label" / "sample" / "toy_0.nii.gz.txt"
    label.write_text("yes", encoding="utf-8")
    assert "the label is 'yes'; it must be 0 or 1" in refusal(source)
    label.unlink()
    assert "fetch toy_label again" in refusal(source)


@pytest.mark.parametrize("name", ["00000.nii"])
def test_a_scan_that_lies_there_packed_and_unpacked_is_refused(tmp_path, capsys, name):
    source = write_mood(tmp_path / "brain")
    write_nifti(source / "brain_train" / name, np.ones((4, 4, 4)))
    assert main(["cohort", "mood", str(source), "--out", str(tmp_path / "c.csv"), "--progress", "none"]) == 2
    assert "remove one of them" in capsys.readouterr().err
