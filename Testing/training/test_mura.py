"""`cohort mura`: MURA v1.1 as it is published."""

from __future__ import annotations

from pathlib import Path

import pytest
from training.published import write_mura

from AnomalyDetectionLib.cli.main import main
from AnomalyTrainingLib.cohorts.checks import check_cohort
from AnomalyTrainingLib.cohorts.manifest import Cohort, read_manifest


def mura(source: Path, out: Path, *options: str) -> Cohort:
    assert main(["cohort", "mura", str(source), "--out", str(out), *options, "--progress", "none"]) == 0
    return read_manifest(out)


def test_images_have_the_label_of_their_study_and_valid_is_the_test(tmp_path):
    root = write_mura(tmp_path)
    cohort = mura(root, tmp_path / "c.csv", "--split", "--supervised")
    cases = {case.case: case for case in cohort}
    assert len(cases) == 16 and len(list(mura(tmp_path, tmp_path / "d.csv"))) == 16
    first, second = (cases[f"patient00011-elbow-study1-image{number}"] for number in (1, 2))
    assert (first.study, second.order, first.label) == (second.study, 2, 0)
    assert cases["patient00011-elbow-study2-image1"].label == 1 and first.covariates == {"region": "elbow"}
    assert {case.patient for case in cohort.of(split="test")} == {"patient00090", "patient00091"}
    assert {case.split for case in cohort.of(label=0)} == {"train", "calibrate", "validate", "test"}
    assert {"train", "validate"} <= {case.split for case in cohort.of(label=1)}
    check_cohort(cohort)


def test_one_region_can_be_taken_and_missing_images_are_counted(tmp_path, capsys):
    root = write_mura(tmp_path)
    (root / "valid" / "XR_HAND" / "patient00091" / "study1_positive" / "image2.png").unlink()
    cohort = mura(root, tmp_path / "c.csv", "--region", "hand", "--region", "elbow")
    assert {case.covariates["region"] for case in cohort} == {"hand", "elbow"} and len(cohort) == 4
    assert "1 images that the tables list are not in the folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("table", "line", "problem"),
    [
        ("train_image_paths.csv", "MURA-v1.1/train/../../x/image1.png", "not a path as MURA-v1.1/train/XR_WRIST"),
        ("train_image_paths.csv", "MURA-v1.1/valid/XR_WRIST/patient00090/study1_negative/image1.png", "not a path as"),
        ("train_image_paths.csv", "MURA-v1.1/train/XR_WRIST/patient00001/study1_positive/image1.png", "listed twice"),
        ("train_image_paths.csv", "MURA-v1.1/train/XR_WRIST/patient00077/study1_positive/image1.png", "has no label"),
        ("train_labeled_studies.csv", "MURA-v1.1/train/XR_WRIST/patient00001/study1_positive/,0", "and otherwise too"),
        ("train_labeled_studies.csv", "MURA-v1.1/train/XR_WRIST/patient00001/study1_positive/;1", "1 cells"),
        ("train_labeled_studies.csv", "MURA-v1.1/train/XR_WRIST/patient00001/,1", "is no study of train"),
    ],
)
def test_tables_that_are_not_the_published_ones_are_refused(tmp_path, capsys, table, line, problem):
    root = write_mura(tmp_path)
    with (root / table).open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")
    assert main(["cohort", "mura", str(root), "--out", str(tmp_path / "c.csv"), "--progress", "none"]) == 2
    message = capsys.readouterr().err
    assert problem in message and table in message and "Traceback" not in message


def test_a_missing_table_is_named(tmp_path, capsys):
    root = write_mura(tmp_path)
    (root / "valid_labeled_studies.csv").unlink()
    assert main(["cohort", "mura", str(root), "--out", str(tmp_path / "c.csv"), "--progress", "none"]) == 2
    assert "valid_labeled_studies.csv: the table cannot be read" in capsys.readouterr().err
