"""The cohort manifest and the splits."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from AnomalyDetectionLib.errors import InputError, OutputError
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.imaging.write import write_labels, write_volume
from AnomalyTrainingLib.cohorts.manifest import (
    Case,
    ImageSource,
    load_case_mask,
    load_case_volume,
    read_manifest,
    write_manifest,
)
from AnomalyTrainingLib.cohorts.splits import assign_splits


def manifest(folder: Path, text: str, *, touch: str = "a.nii.gz b.nii.gz") -> Path:
    for name in touch.split():
        (folder / name).touch()
    path = folder / "cohort.csv"
    path.write_text(text, encoding="utf-8")
    return path


def cases_of(count: int, *, abnormal: int = 0, site: str = "") -> list[Case]:
    source = {"image": ImageSource(Path("/nowhere/a.nii.gz"))}
    covariates = {"site": site} if site else {}
    return [Case(f"{site}c{n}", f"{site}p{n}", source, int(n < abnormal), covariates=covariates) for n in range(count)]


def test_a_manifest_is_read_with_paths_relative_to_its_own_folder(tmp_path):
    path = manifest(
        tmp_path, "case,patient,image,label,split,age,site\nx1,p1,a.nii.gz,0,train,61,\nx2,p2,b.nii.gz,1,test,,B\n"
    )
    cohort = read_manifest(path)
    assert [case.case for case in cohort] == ["x1", "x2"]
    assert cohort.cases[0].image == tmp_path / "a.nii.gz"
    assert cohort.cases[0].covariates == {"age": "61"}
    assert cohort.cases[1].covariates == {"site": "B"}
    assert [case.case for case in cohort.of(label=1)] == ["x2"]
    assert [case.case for case in cohort.of(split="train")] == ["x1"]
    assert [case.case for case in cohort.of(split=("train", "test"), label=1)] == ["x2"]
    assert len(cohort.of(split="external")) == 0


def test_several_channels_are_one_case(tmp_path):
    path = manifest(tmp_path, "case,patient,image_t1,image_flair,label\nx,p,a.nii.gz,b.nii.gz,0\n")
    cohort = read_manifest(path)
    assert cohort.channels == ("t1", "flair")
    assert cohort.cases[0].images["flair"].path == tmp_path / "b.nii.gz"
    with pytest.raises(InputError, match="channels t1, flair; say which"):
        load_case_volume(cohort.cases[0])


def test_what_is_written_is_read_back_the_same(tmp_path):
    (tmp_path / "volumes").mkdir()
    image, mask = tmp_path / "volumes" / "a, with comma.nii.gz", tmp_path / "volumes" / "m.nii.gz"
    image.touch()
    mask.touch()
    cases = [
        Case("x1", "p1", {"image": ImageSource(image)}, 1, mask, "test", 4, "s1", 2, {"sex": "F"}),
        Case("x2", "p2", {"image": ImageSource(tmp_path / "volumes", "1.2.840.5")}, 0),
    ]
    path = write_manifest(cases, tmp_path / "cohort.csv")
    assert list(read_manifest(path)) == cases
    assert str(tmp_path) not in path.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] != [] and not list(tmp_path.glob(".*"))


def test_a_moved_folder_still_finds_its_images(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a.nii.gz").touch()
    write_manifest(
        [Case("x", "p", {"image": ImageSource(tmp_path / "old" / "a.nii.gz")}, 0)], tmp_path / "old" / "c.csv"
    )
    (tmp_path / "old").rename(tmp_path / "new")
    assert read_manifest(tmp_path / "new" / "c.csv").cases[0].image == tmp_path / "new" / "a.nii.gz"


def test_all_problems_are_reported_at_once(tmp_path):
    text = (
        "case,patient,image,label,mask,split,slice\n"
        "x1,p1,a.nii.gz,0,,train,\n"
        "X1,p1,a.nii.gz,1,gone_mask.nii.gz,test,\n"
        "x3,p3,gone.nii.gz,2,,,\n"
        "x4,p4,gone.nii.gz,0,,training,-1\n"
        "../x5,p5,gone.nii.gz,0,,,\n"
    )
    with pytest.raises(InputError) as raised:
        read_manifest(manifest(tmp_path, text))
    message = str(raised.value)
    for problem in (
        "row 4: 'label' is '2'; it must be 0 (normal) or 1 (abnormal)",
        "row 5: 'split' is 'training'; it must be train, calibrate",
        "row 5: 'slice' is '-1'",
        "the case 'x1' occurs 2 times",
        "row 6: 'case' is '../x5'; it must be letters",
        "gone_mask.nii.gz does not exist",
        "case x4: the image",
        "case ../x5: the image",
        "the patient 'p1' stands in test and train",
    ):
        assert problem in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ("case,patient,image,label\n", "lists no case"),
        ("case,image\nx,a.nii.gz\n", "'patient' is missing; the column 'label' is missing"),
        ("case,patient,label\nx,p,0\n", "no column 'image'"),
        ("case;patient;image;label\nx;p;a.nii.gz;0\n", "separated by ';'"),
        ("case,patient,image,label\nx,p,a.nii.gz\n", "row 2 does not have as many cells"),
        ("case,patient,image,label,label\nx,p,a.nii.gz,0,1\n", "'label' occurs twice"),
        ('case,patient,image,label\nx,p,"a.nii.gz,0\n', "not a comma-separated table"),
        ("case,patient,image,label\nx,p,a\x00.nii.gz,0\n", "does not exist"),
        (f"case,patient,image,label\nx,p,{'a' * 5000},0\n", "does not exist"),
        ("case,patient,image,label\nx,p,,0\n", "'image' is empty"),
    ],
)
def test_a_bad_manifest_is_refused_with_one_sentence(tmp_path, text, problem):
    with pytest.raises(InputError, match=problem) as raised:
        read_manifest(manifest(tmp_path, text))
    assert "cohort.csv" in str(raised.value)


def test_a_manifest_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "cohort.csv"
    path.write_bytes(b"\x1f\x8b\x08\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8 text"):
        read_manifest(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_manifest(tmp_path / "none.csv")


def test_a_manifest_from_a_spreadsheet_with_byte_order_mark_is_read(tmp_path):
    path = manifest(tmp_path, "")
    path.write_bytes("case,patient,image,label\r\nx,p,a.nii.gz,0\r\n".encode("utf-8-sig"))
    assert read_manifest(path).cases[0].case == "x"


def test_one_series_of_a_folder_is_addressed_and_a_file_name_may_hold_a_hash_sign(tmp_path):
    (tmp_path / "study").mkdir()
    text = "case,patient,image,label\nx,p,study#1.2.840.1,0\ny,q,a#1.nii.gz,0\n"
    cohort = read_manifest(manifest(tmp_path, text, touch="a#1.nii.gz"))
    assert cohort.cases[0].images["image"] == ImageSource(tmp_path / "study", "1.2.840.1")
    assert cohort.cases[1].images["image"] == ImageSource(tmp_path / "a#1.nii.gz")


def test_the_rows_agree_with_the_schema(tmp_path):
    schema = json.loads((files("AnomalyTrainingLib") / "schemas" / "cohort.schema.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    cases = [replace(case, split="test") for case in cases_of(3, abnormal=1, site="A")]
    path = write_manifest(cases, tmp_path / "cohort.csv")
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    validator.validate(rows)
    assert not validator.is_valid([{**rows[0], "label": "2"}])
    assert not validator.is_valid([{**rows[0], "case": "../x"}])
    assert not validator.is_valid([{k: v for k, v in rows[0].items() if k != "image"}])
    assert validator.is_valid([{k: v for k, v in rows[0].items() if k != "image"} | {"image_t1": "a.nii.gz"}])


def test_nothing_is_left_where_a_manifest_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        write_manifest(cases_of(1), tmp_path / "file" / "cohort.csv")
    with pytest.raises(InputError, match="occurs 2 times"):
        write_manifest(cases_of(1) * 2, tmp_path / "cohort.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_slice_is_taken_in_its_place_and_the_mask_with_it(tmp_path):
    rng = np.random.default_rng(1)
    affine = np.array([[0, -2.0, 0, 5], [3.0, 0, 0, 6], [0, 0, 4.0, -7], [0, 0, 0, 1]])
    volume = Volume(rng.random((5, 6, 7), dtype=np.float32), affine, modality="MR")
    painted = np.zeros(volume.shape, dtype=np.int32)
    painted[3, 2, 4] = 1
    write_volume(volume, tmp_path / "a.nii.gz")
    write_labels(painted, volume.grid, tmp_path / "m.nii.gz")
    case = Case("x", "p", {"image": ImageSource(tmp_path / "a.nii.gz")}, 1, tmp_path / "m.nii.gz", slice=3)
    loaded = load_case_volume(case)
    assert loaded.name == "x"
    np.testing.assert_array_equal(loaded.array, volume.array[3:4])
    np.testing.assert_allclose(loaded.grid.to_ras([4, 2, 0]), volume.grid.to_ras([4, 2, 3]), atol=1e-4)
    mask = load_case_mask(case, loaded)
    assert mask is not None and np.argwhere(mask).tolist() == [[0, 2, 4]]
    whole = load_case_mask(replace(case, slice=None), volume)
    assert whole is not None and np.argwhere(whole).tolist() == [[3, 2, 4]]
    with pytest.raises(InputError, match="slice 9 lies outside the volume, which has 5 slices"):
        load_case_volume(replace(case, slice=9))


def test_a_mask_of_another_place_is_refused(tmp_path):
    volume = Volume(np.ones((4, 4, 4), dtype=np.float32), np.eye(4))
    far = Volume(volume.array, np.array([[1.0, 0, 0, 500], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    write_labels(np.ones(far.shape, dtype=np.int32), far.grid, tmp_path / "m.nii.gz")
    case = Case("x", "p", {"image": ImageSource(tmp_path / "a.nii.gz")}, 1, tmp_path / "m.nii.gz")
    with pytest.raises(InputError, match="does not overlap the image of case x"):
        load_case_mask(case, volume)


def test_splits_keep_their_shares_and_lesions_are_never_learnt_from():
    cases = assign_splits([*cases_of(200, abnormal=20, site="A"), *cases_of(40, site="B")])
    normal = Counter(case.split for case in cases if case.label == 0)
    assert normal == {"train": 110, "calibrate": 44, "validate": 33, "test": 33}
    assert Counter(case.split for case in cases if case.label == 1) == {"validate": 10, "test": 10}
    small = Counter(case.split for case in cases if case.covariates["site"] == "B")
    assert small["train"] == 20 and small["calibrate"] == 8 and small["validate"] == 6 and small["test"] == 6


def test_a_patient_stays_together_and_one_abnormal_case_decides():
    cases = cases_of(40)
    cases += [replace(case, case=f"{case.case}b", label=int(n < 4)) for n, case in enumerate(cases)]
    split = assign_splits(cases)
    of_patient = {case.patient: {c.split for c in split if c.patient == case.patient} for case in split}
    assert all(len(splits) == 1 for splits in of_patient.values())
    assert {*of_patient["p0"], *of_patient["p1"], *of_patient["p2"], *of_patient["p3"]} <= {"validate", "test"}


def test_splits_do_not_depend_on_the_order_of_rows_but_on_the_seed():
    cases = cases_of(60, abnormal=6)
    shuffled = random.Random(3).sample(cases, len(cases))
    by_name = {case.case: case.split for case in assign_splits(cases)}
    assert {case.case: case.split for case in assign_splits(shuffled)} == by_name
    assert {case.case: case.split for case in assign_splits(cases, seed=1)} != by_name


def test_too_few_normals_to_split_are_refused():
    with pytest.raises(InputError, match="3 normal patients are too few to split"):
        assign_splits(cases_of(3))
