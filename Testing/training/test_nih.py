"""`cohort nih`: ChestX-ray14 as it is published, and what may be wrong with a copy of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from training.published import NIH_2017, NIH_2020, NIH_BOXES, nih_row, write_nih, write_picture, write_text

from AnomalyDetectionLib.cli.main import main
from AnomalyTrainingLib.cohorts.checks import check_cohort
from AnomalyTrainingLib.cohorts.manifest import load_case_mask, load_case_volume, read_manifest

ROWS = [
    nih_row("00000001_000.png", "Cardiomegaly"),
    nih_row("00000001_001.png", "Cardiomegaly|Emphysema", "58"),
    nih_row("00000002_000.png", "No Finding", "80", sex="F", view="AP"),
    nih_row("00000003_000.png", "Mass", "414"),
    nih_row("00000004_000.png", "No Finding", "012M"),
]
BOXES = ["00000003_000.png,Mass,256,512,256,128,,,", "00000001_000.png,Infiltrate,0,0,512,512,,,"]


def nih(*arguments: object) -> int:
    return main(["cohort", "nih", *map(str, arguments)])


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert nih(*arguments, "--progress", "none") == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error.splitlines()[-1]


@pytest.mark.parametrize(("header", "end"), [(NIH_2020, ""), (NIH_2017, ",")])
def test_both_releases_give_cases_with_all_that_the_table_says(tmp_path, header, end, capsys):
    write_nih(tmp_path, [row + end for row in ROWS], header=header, boxes=BOXES)
    assert nih(tmp_path, "--out", tmp_path / "c.csv") == 0
    cases = {case.case: case for case in read_manifest(tmp_path / "c.csv")}
    assert {name: (case.patient, case.order, case.label) for name, case in cases.items()} == {
        "00000001_000": ("00000001", 0, 1),
        "00000001_001": ("00000001", 1, 1),
        "00000002_000": ("00000002", 0, 0),
        "00000003_000": ("00000003", 0, 1),
        "00000004_000": ("00000004", 0, 0),
    }
    said = cases["00000002_000"].covariates
    assert (said["findings"], said["age"], said["sex"], said["view"]) == ("No Finding", "80", "F", "AP")
    assert "age" not in cases["00000003_000"].covariates and cases["00000004_000"].covariates["age"] == "1"
    assert cases["00000003_000"].covariates["boxes"] == "256 512 256 128"
    assert "1 ages are beyond 120 years" in capsys.readouterr().err
    check_cohort(read_manifest(tmp_path / "c.csv"))


def test_the_official_test_stays_the_test_and_no_patient_is_shared(tmp_path):
    rows = [nih_row(f"{number:08d}_000.png", "No Finding" if number % 3 else "Mass|Nodule") for number in range(60)]
    test = [row.split(",")[0] for row in rows[::4]]
    write_nih(tmp_path, rows, test=test)
    made = []
    for options in ([], ["--split"], ["--split", "--supervised"], ["--split", "--own-test"]):
        out = tmp_path / f"{len(made)}.csv"
        assert nih(tmp_path, *options, "--out", out) == 0
        made.append(read_manifest(out))
    plain, split, supervised, own = made
    assert {case.split for case in plain} == {""}
    for cohort in (split, supervised):
        assert {f"{case.case}.png" for case in cohort.of(split="test")} == set(test)
        assert {case.split for case in cohort.of(label=0)} == {"train", "calibrate", "validate", "test"}
    assert {case.split for case in split.of(label=1)} == {"validate", "test"}
    assert {case.split for case in supervised.of(label=1)} == {"train", "validate", "test"}
    assert {f"{case.case}.png" for case in own.of(split="test")} != set(test)


def test_one_finding_can_be_told_from_normals_or_from_all_others(tmp_path):
    write_nih(tmp_path, ROWS)
    labels = {}
    for name, options in (("alone", []), ("rest", ["--others-normal"])):
        assert nih(tmp_path, "--finding", "mass", *options, "--out", tmp_path / f"{name}.csv") == 0
        labels[name] = {case.case: case.label for case in read_manifest(tmp_path / f"{name}.csv")}
    assert labels["alone"] == {"00000002_000": 0, "00000003_000": 1, "00000004_000": 0}
    assert labels["rest"] == {**labels["alone"], "00000001_000": 0, "00000001_001": 0}
    assert nih(tmp_path, "--view", "AP", "--out", tmp_path / "ap.csv") == 0
    assert [case.case for case in read_manifest(tmp_path / "ap.csv")] == ["00000002_000"]


def test_boxes_become_masks_on_the_grid_of_the_image_they_were_resampled_to(tmp_path):
    write_nih(tmp_path, ROWS, boxes=BOXES)
    assert nih(tmp_path, "--box-masks", "--out", tmp_path / "c.csv") == 0
    cases = {case.case: case for case in read_manifest(tmp_path / "c.csv")}
    assert {name for name, case in cases.items() if case.mask} == {"00000001_000", "00000003_000"}
    painted = load_case_mask(cases["00000003_000"], load_case_volume(cases["00000003_000"]))
    assert painted is not None and painted.shape == (1, 64, 64)
    expected = np.zeros((64, 64), dtype=bool)
    expected[32:40, 16:32] = True  # 64 of 1024 pixels: a sixteenth
    assert np.array_equal(painted[0], expected)
    check_cohort(read_manifest(tmp_path / "c.csv"))


def test_masks_of_boxes_are_of_one_manifest_and_written_once_it_can_be_split(tmp_path, capsys):
    boxes = ["00000001_000.png,Mass,0,0,512,512,,,", "00000001_000.png,Nodule,512,512,256,256,,,"]
    write_nih(tmp_path / "nih", [nih_row("00000001_000.png", "Mass|Nodule")], boxes=boxes)
    painted = []
    for name in ("mass", "nodule"):
        assert nih(tmp_path / "nih", "--finding", name, "--box-masks", "--out", tmp_path / f"{name}.csv") == 0
    for name in ("mass", "nodule"):
        (case,) = read_manifest(tmp_path / f"{name}.csv")
        painted.append(int(load_case_mask(case, load_case_volume(case)).sum()))
    assert painted == [32 * 32, 16 * 16]
    message = refusal(capsys, tmp_path / "nih", "--box-masks", "--split", "--out", tmp_path / "split.csv")
    assert "too few to split" in message and not list(tmp_path.glob("split*"))


def test_missing_images_are_counted_in_one_sentence_and_images_may_lie_anywhere(tmp_path, capsys):
    places = {"00000001_000.png": "images", "00000002_000.png": "images", "00000004_000.png": "images_012/images"}
    write_nih(tmp_path, ROWS, images=places)
    assert nih(tmp_path, "--out", tmp_path / "c.csv", "--progress", "none") == 0
    said = capsys.readouterr().err
    assert "2 images that Data_Entry_2017_v2020.csv lists are not in the folder" in said and said.count("\n") == 1
    assert len(read_manifest(tmp_path / "c.csv")) == 3
    write_picture(tmp_path / "copy" / "00000001_000.png")
    assert "name the folder of one of them with --images" in refusal(capsys, tmp_path, "--out", tmp_path / "d.csv")
    assert nih(tmp_path, "--images", tmp_path / "images", "--out", tmp_path / "d.csv") == 0
    assert len(read_manifest(tmp_path / "d.csv")) == 2


def damaged(folder: Path, table: list[str]) -> Path:
    write_nih(folder, ROWS)
    write_text(folder / "Data_Entry_2017_v2020.csv", *table)
    return folder


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ([NIH_2020.replace("Finding Labels", "Finding Label"), *ROWS], "no column 'Finding Labels'; the nearest is"),
        ([NIH_2020.replace(",", ";"), *ROWS], "separated by semicolons; save the table with commas"),
        ([NIH_2020, ROWS[0], ROWS[1][:40]], "row 3 has 3 cells, the header names 11 columns; the table was cut short"),
        ([NIH_2020, ROWS[0], ROWS[0]], "row 3: the image 00000001_000.png is listed twice"),
        ([NIH_2020, ROWS[0].replace("00000001_000", "../../1_000")], "not a name as 00000001_000.png"),
        ([NIH_2020, ROWS[0].replace(",0,1,", ",0,7,")], "of patient 00000001, 'Patient ID' says '7'"),
        ([NIH_2020, ROWS[0].replace("Cardiomegaly", "Cardiomegali")], "the nearest is 'Cardiomegaly'"),
        ([NIH_2020, ROWS[0].replace(",57,", ",old,")], "'Patient Age' is 'old'"),
        ([NIH_2020, ROWS[0].replace(",0,1,", ",first,1,")], "'Follow-up #' is 'first'"),
        ([NIH_2020], "the table has no rows"),
        ([], "the table is empty"),
        ([NIH_2020, ROWS[0] + ',"'], "no table with commas"),
    ],
)
def test_a_table_that_is_not_the_published_one_is_refused(tmp_path, capsys, table, problem):
    message = refusal(capsys, damaged(tmp_path / "nih", table), "--out", tmp_path / "c.csv")
    assert problem in message and "Data_Entry_2017_v2020.csv" in message
    assert not (tmp_path / "c.csv").exists()


def test_lists_boxes_and_options_that_do_not_fit_are_refused(tmp_path, capsys):
    folder, out = write_nih(tmp_path / "nih", ROWS, test=["00000002_000.png"], boxes=BOXES), tmp_path / "c.csv"
    assert "the nearest is 'Mass'" in refusal(capsys, folder, "--finding", "Masss", "--out", out)
    assert "add --split" in refusal(capsys, folder, "--supervised", "--out", out)
    assert "there is no such folder" in refusal(capsys, tmp_path / "none", "--out", out)
    assert "there is no Data_Entry_2017_v2020.csv" in refusal(capsys, folder / "images_001", "--out", out)
    (folder / "BBox_List_2017.csv").write_text("Image Index,Finding Label,x,y,w,h\n", encoding="utf-8")
    assert "no column 'Bbox [x'" in refusal(capsys, folder, "--out", out)
    write_text(folder / "BBox_List_2017.csv", NIH_BOXES, "00000003_000.png,Mass,1,2,nan,4")
    assert "row 2 is not a box" in refusal(capsys, folder, "--out", out)
    (folder / "BBox_List_2017.csv").unlink()
    assert "masks of boxes need it" in refusal(capsys, folder, "--box-masks", "--out", out)
    write_text(folder / "train_val_list.txt", "00000001_000.png", "00000002_000.png")
    assert "stand both in test_list.txt and in train_val_list.txt" in refusal(capsys, folder, "--out", out)
    write_text(folder / "train_val_list.txt", "00000001_000.png")
    assert "stand neither in test_list.txt nor in train_val_list.txt" in refusal(capsys, folder, "--out", out)
    write_text(folder / "test_list.txt", "../00000002_000.png")
    assert "not an image name" in refusal(capsys, folder, "--out", out)
