"""`slicer-anomaly cohort`: folders, DICOM trees and phantoms become manifests."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from label_maps import write_head, write_plaque_masks
from pydicom.data import get_testdata_file
from synthetic_dicom import save_all, slices

from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.imaging.read import read_volume
from AnomalyTrainingLib.cli import cohort as cohort_verb
from AnomalyTrainingLib.cohorts import dicom
from AnomalyTrainingLib.cohorts.manifest import load_case_mask, load_case_volume, read_manifest
from AnomalyTrainingLib.cohorts.schema import columns
from AnomalyTrainingLib.synthesis import ANATOMY_NAMES, CONTRAST_NAMES, LESION_NAMES
from AnomalyTrainingLib.synthesis.anatomy import ANATOMIES
from AnomalyTrainingLib.synthesis.cohort import PhantomSettings, make_phantom_cohort
from AnomalyTrainingLib.synthesis.contrast import CONTRASTS
from AnomalyTrainingLib.synthesis.lesions import KINDS, LesionRequest

COARSE = PhantomSettings("flair", (4.0, 4.0, 4.0))


def image_files(folder: Path, names: str) -> None:
    for name in names.split():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def cohort(*arguments: object) -> int:
    return main(["cohort", *(str(argument) for argument in arguments)])


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one sentence a refused command says."""
    capsys.readouterr()
    assert cohort(*arguments, "--progress", "none") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error
    return error


def test_classes_give_labels_and_every_file_is_a_patient_of_its_own(tmp_path, capsys):
    image_files(tmp_path / "set", "normal/s1_a.nii.gz normal/s2_a.nrrd abnormal/s3_a.nii.gz abnormal/notes.txt")
    assert cohort("folder", tmp_path / "set", "--out", tmp_path / "c.csv") == 0
    cases = read_manifest(tmp_path / "c.csv").cases
    assert {c.case: (c.patient, c.label) for c in cases} == {
        "s1_a": ("s1_a", 0),
        "s2_a": ("s2_a", 0),
        "s3_a": ("s3_a", 1),
    }
    assert "3 cases of 3 patients, 2 normal, 1 abnormal" in capsys.readouterr().out


def test_a_flat_folder_is_all_normal_and_a_pattern_finds_patients(tmp_path):
    image_files(tmp_path / "set", "s1_t0.nii.gz s1_t1.nii.gz s2_t0.nii.gz .hidden.nii.gz")
    out = tmp_path / "c.csv"
    assert cohort("folder", tmp_path / "set", "--patient-pattern", "(s[0-9]+)_", "--out", out) == 0
    cases = read_manifest(out).cases
    assert [(c.case, c.patient, c.label) for c in cases] == [("s1_t0", "s1", 0), ("s1_t1", "s1", 0), ("s2_t0", "s2", 0)]


def test_files_of_one_name_in_two_classes_stay_apart_and_masks_are_found(tmp_path):
    image_files(tmp_path, "set/normal/1.nii.gz set/abnormal/1.nii.gz set/abnormal/2.nii.gz masks/1.nrrd")
    assert cohort("folder", tmp_path / "set", "--masks", tmp_path / "masks", "--out", tmp_path / "c.csv") == 0
    cases = {c.case: c for c in read_manifest(tmp_path / "c.csv")}
    assert set(cases) == {"normal-1", "abnormal-1", "abnormal-2"}
    assert cases["abnormal-1"].mask == tmp_path / "masks" / "1.nrrd"
    assert cases["abnormal-2"].mask is None and cases["normal-1"].mask is None


def test_a_mask_lies_under_the_path_of_its_image_below_the_source_the_part_or_the_class(tmp_path, capsys):
    image_files(tmp_path / "set", "good/000.png crack/000.png hole/000.png hole/001.png masks/crack/000.png")
    image_files(tmp_path / "set" / "masks", "hole/000.nii.gz 001.png good/000.png hole/002.png")
    image_files(tmp_path / "parts", " ".join(f"{part}/{kind}/a.png" for part in ("train", "test") for kind in "ng"))
    image_files(tmp_path / "parts", "train/n/b.png masks/train/n/a.png masks/test/n/a.png masks/n/b.png")

    def masks_of(name: str, normal: str) -> dict[str, str]:
        options = ["--normal", normal, "--masks", tmp_path / name / "masks", "--out", tmp_path / f"{name}.csv"]
        assert cohort("folder", tmp_path / name, *options) == 0
        cases = read_manifest(tmp_path / f"{name}.csv").cases
        below = tmp_path / name / "masks"
        return {case.case: case.mask.relative_to(below).as_posix() if case.mask else "" for case in cases}

    assert masks_of("set", "good") == {
        "good-000": "",
        "crack-000": "crack/000.png",
        "hole-000": "hole/000.nii.gz",
        "hole-001": "001.png",
    }
    assert "1 of 5 masks fit no image; they are not used (hole/002.png)" in capsys.readouterr().err
    assert masks_of("parts", "g") == {
        "train-g-a": "",
        "train-n-a": "train/n/a.png",
        "train-n-b": "n/b.png",
        "test-g-a": "",
        "test-n-a": "test/n/a.png",
    }


@pytest.mark.parametrize(
    ("images", "masks", "complaint"),
    [
        ("good/0.png crack/0.png hole/0.png", "0.png", "0.png fits both {set}/crack/0.png and {set}/hole/0.png; name"),
        ("good/0.png crack/0.png hole/0.png", "0.png hole/0.png", "as in {masks}/crack/0.png"),
        ("train/good/0.png train/hole/1.png test/good/0.png test/hole/1.png", "hole/1.png", "1.png fits both"),
        ("good/0.png hole/hole/0.png hole/0.png", "hole/0.png", "0.png fits both"),
        ("good/0.png hole/1.png", "hole/1.png hole/1.nii.gz", "1.nii.gz and {masks}/hole/1.png would be masks of the"),
        (
            "good/0.png hole/1.png",
            "hole/1_mask.png",
            "none of 1 masks fits an abnormal image; that of {set}/hole/1.png",
        ),
        ("good/0.png", "0.png", "none of 1 masks fits an abnormal image; no image is abnormal"),
        ("good/0.png hole/1.png", "../set/hole/1.png", "the folder of masks holds the images too"),
    ],
)
def test_masks_that_are_not_clearly_of_one_image_are_refused(tmp_path, capsys, images, masks, complaint):
    image_files(tmp_path / "set", images)
    (tmp_path / "masks").mkdir()
    image_files(tmp_path / "masks", masks)
    folder = tmp_path if ".." in masks else tmp_path / "masks"
    options = ["--normal", "good", "--masks", folder, "--out", tmp_path / "c.csv"]
    expected = complaint.format(set=tmp_path / "set", masks=tmp_path / "masks")
    assert expected in refusal(capsys, "folder", tmp_path / "set", *options)


def test_folders_of_any_classes_become_labels_and_a_test_that_is_there_stays_the_test(tmp_path, capsys):
    train = " ".join(f"train/NORMAL/p{n}.jpeg val/NORMAL/v{n}.jpeg train/PNEUMONIA/q{n}.jpeg" for n in range(4))
    image_files(tmp_path / "set", f"{train} test/NORMAL/p0.jpeg test/PNEUMONIA/t1.jpeg test/.x/y.png")
    out = tmp_path / "c.csv"
    assert cohort("folder", tmp_path / "set", "--normal", "NORMAL", "--split", "--supervised", "--out", out) == 0
    cases = {c.case: c for c in read_manifest(out)}
    assert {name for name, case in cases.items() if case.split == "test"} == {"test-NORMAL-p0", "test-PNEUMONIA-t1"}
    assert {(c.covariates["class"], c.label) for c in cases.values()} == {("NORMAL", 0), ("PNEUMONIA", 1)}
    assert {c.split for c in cases.values() if c.label == 0} == {"train", "calibrate", "validate", "test"}
    message = refusal(capsys, "folder", tmp_path / "set", "--normal", "healthy", "--out", tmp_path / "d.csv")
    assert "no folder 'healthy' of normals; there are NORMAL, PNEUMONIA" in message


def test_names_in_any_script_become_distinct_cases(tmp_path):
    image_files(tmp_path / "set", "Müller.nii.gz 脑.nii.gz 肺.nii.gz Кот_1.nii.gz")
    assert cohort("folder", tmp_path / "set", "--out", tmp_path / "c.csv") == 0
    names = {c.image.name: c.case for c in read_manifest(tmp_path / "c.csv")}
    assert names["Müller.nii.gz"] == "Muller" and len(set(names.values())) == 4
    assert cohort("folder", tmp_path / "set", "--out", tmp_path / "again.csv") == 0
    assert {c.image.name: c.case for c in read_manifest(tmp_path / "again.csv")} == names


def test_a_split_is_assigned_on_request(tmp_path, capsys):
    image_files(tmp_path / "set", " ".join(f"normal/{n}.png" for n in range(40)) + " abnormal/x.png abnormal/y.png")
    assert cohort("folder", tmp_path / "set", "--split", "--out", tmp_path / "c.csv", "--progress", "json") == 0
    event = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert event["event"] == "result" and event["abnormal"] == 2
    assert event["splits"] == {"train": 20, "calibrate": 8, "validate": 7, "test": 7}
    assert {c.split for c in read_manifest(tmp_path / "c.csv").of(label=1)} == {"validate", "test"}


def test_bad_folders_and_options_are_refused_with_one_sentence(tmp_path, capsys):
    empty, out = tmp_path / "empty", tmp_path / "c.csv"
    image_files(tmp_path, "set/a.nii.gz empty/readme.txt twice/a_b.nii.gz twice/a_b.nrrd")
    assert "no image was found" in refusal(capsys, "folder", empty, "--out", out)
    assert "no such folder" in refusal(capsys, "folder", tmp_path / "none", "--out", out)
    assert "no such folder" in refusal(capsys, "dicom", tmp_path / "none", "--out", out)
    assert "does not match" in refusal(capsys, "folder", tmp_path / "set", "--patient-pattern", "p[0-9]", "--out", out)
    assert "regular expression" in refusal(capsys, "folder", tmp_path / "set", "--patient-pattern", "(", "--out", out)
    assert "ends in .csv" in refusal(capsys, "folder", tmp_path / "set", "--out", tmp_path / "c.txt")
    assert "would both be called" in refusal(capsys, "folder", tmp_path / "twice", "--out", out)
    assert "too few to split" in refusal(capsys, "folder", tmp_path / "set", "--split", "--out", out)
    assert not out.exists()
    out.write_text("edited by hand", encoding="utf-8")
    assert "there is such a file already" in refusal(capsys, "folder", tmp_path / "set", "--out", out)
    assert out.read_text(encoding="utf-8") == "edited by hand"


@pytest.fixture(scope="module")
def dicom_tree(tmp_path_factory) -> Path:
    """Two patients of pydicom's test files: series that share a folder, single radiographs, two CTs."""
    tree = tmp_path_factory.mktemp("tree")
    root = Path(get_testdata_file("DICOMDIR")).parent
    for name in ("77654033/CR1", "77654033/CR2", "98892003/MR1", "98892001/CT5N"):
        shutil.copytree(root / name, tree / name)
    together = tree / "together"
    together.mkdir()
    for folder in ("98892003/MR2", "98892001/CT2N"):
        for number, file in enumerate(sorted((root / folder).iterdir())):
            shutil.copy(file, together / f"{folder.replace('/', '-')}-{number}")
    return tree


def test_every_series_of_a_dicom_tree_is_a_case_that_can_be_read(dicom_tree, tmp_path):
    assert cohort("dicom", dicom_tree, "--out", tmp_path / "c.csv") == 0
    cases = read_manifest(tmp_path / "c.csv").cases
    assert len({c.patient for c in cases}) == 2
    sources = [c.images["image"] for c in cases]
    assert any(s.series for s in sources) and any(not s.series for s in sources)
    for case in cases:
        assert load_case_volume(case).modality == case.covariates["modality"]
    shared = [c for c in cases if c.image.name == "together" and c.covariates["modality"] == "MR"]
    assert len({load_case_volume(c).sha256() for c in shared}) == len(shared) > 1


def test_series_are_chosen_by_modality_and_description(dicom_tree, tmp_path, capsys):
    assert cohort("dicom", dicom_tree, "--modality", "cr", "--label", 1, "--out", tmp_path / "cr.csv") == 0
    cases = read_manifest(tmp_path / "cr.csv").cases
    assert len(cases) == 2 and {c.label for c in cases} == {1} and {c.covariates["view"] for c in cases} == {"AP", "LL"}
    assert all(c.image.is_file() for c in cases)
    message = refusal(capsys, "dicom", dicom_tree, "--modality", "PT", "--out", tmp_path / "pt.csv")
    assert "none of the" in message and "MR '" in message


def test_series_under_a_folder_of_abnormals_are_abnormal(dicom_tree, tmp_path):
    shutil.copytree(dicom_tree / "77654033" / "CR1", tmp_path / "tree" / "normal" / "a")
    shutil.copytree(dicom_tree / "98892003" / "MR1", tmp_path / "tree" / "Abnormal" / "b")
    assert cohort("dicom", tmp_path / "tree", "--out", tmp_path / "c.csv") == 0
    assert {(c.covariates["modality"], c.label) for c in read_manifest(tmp_path / "c.csv")} == {("CR", 0), ("MR", 1)}


def test_no_patient_name_or_id_reaches_the_manifest_and_a_salt_repeats_names(dicom_tree, tmp_path):
    for number, salt in enumerate((["--salt", "a"], ["--salt", "a"], ["--salt", "b"], [])):
        assert cohort("dicom", dicom_tree / "77654033", *salt, "--out", tmp_path / f"{number}.csv") == 0
    texts = [(tmp_path / f"{number}.csv").read_text(encoding="utf-8") for number in range(4)]
    assert texts[0] == texts[1] and len(set(texts)) == 3
    first = next(path for path in (dicom_tree / "77654033").rglob("*") if path.is_file())
    dataset = pydicom.dcmread(first)
    for case in read_manifest(tmp_path / "0.csv"):
        columns = " ".join([case.case, case.patient, case.study, *case.covariates.values()])
        for value in (dataset.PatientID, dataset.PatientName.family_name, dataset.StudyInstanceUID):
            assert str(value) not in columns


def test_studies_of_a_patient_are_numbered_in_time_and_ages_are_in_years(dicom_tree, tmp_path):
    assert cohort("dicom", dicom_tree, "--out", tmp_path / "c.csv") == 0
    orders = {}
    for case in read_manifest(tmp_path / "c.csv"):
        orders.setdefault(case.patient, {})[case.study] = case.order
        assert 40 < float(case.covariates["age"]) < 50
    assert all(sorted(of_patient.values()) == list(range(1, len(of_patient) + 1)) for of_patient in orders.values())


def test_a_series_that_lies_in_two_places_is_refused(dicom_tree, tmp_path, capsys):
    shutil.copytree(dicom_tree / "98892001", tmp_path / "tree" / "a")
    shutil.copytree(dicom_tree / "98892001", tmp_path / "tree" / "b")
    message = refusal(capsys, "dicom", tmp_path / "tree", "--out", tmp_path / "c.csv")
    assert "remove one of the copies" in message
    (tmp_path / "empty").mkdir()
    message = refusal(capsys, "dicom", tmp_path / "empty", "--out", tmp_path / "c.csv")
    assert "no DICOM image in this folder" in message


def test_twice_the_series_take_twice_the_steps_and_only_what_lies_alone_goes_by_its_folder(tmp_path):
    def steps(count: int) -> int:
        """Calls of functions and turns of generators in the module that makes cases of series."""
        folder, taken = tmp_path / str(count), 0
        for n in range(count):
            place = folder / f"p{n}" if n else folder / "p1" / "inner"
            save_all(slices([0, 3], seed=n, SeriesInstanceUID=f"1.2.{n}", PatientID=f"p{n}"), place)

        def count_step(frame, event, _) -> None:
            nonlocal taken
            taken += event == "call" and frame.f_code.co_filename == dicom.__file__

        before = sys.getprofile()
        sys.setprofile(count_step)
        try:
            cases = dicom.cases_of_dicom(folder)
        finally:
            sys.setprofile(before)
        named = {case.image.relative_to(folder).as_posix() for case in cases if case.images["image"].series}
        assert len(cases) == count and named == {"p1"}
        return taken

    assert steps(24) < 2.5 * steps(12)


@pytest.mark.slow
def test_a_phantom_cohort_is_written_split_and_continued(tmp_path, capsys):
    out = tmp_path / "c" / "cohort.csv"
    options = ["--contrast", "flair", "--spacing", "4", "--split", "--workers", "2", "--out", out]
    assert cohort("phantom", "icbm152", "--subjects", 8, "--lesions", "tumour=1", "plaques=1", *options) == 0
    found = read_manifest(out)
    assert len(found) == 10 and len({case.patient for case in found}) == 10
    assert {case.split for case in found.of(label=0)} == {"train", "calibrate", "validate", "test"}
    assert {case.split for case in found.of(label=1)} == {"validate", "test"}
    for case in found.of(label=1):
        volume = load_case_volume(case)
        mask = load_case_mask(case, volume)
        assert mask is not None and mask.any() and (volume.array[mask] > 0).all()
    before = {path: path.stat().st_mtime_ns for path in (out.parent / "volumes").glob("*.nii.gz")}
    (out.parent / "volumes" / "sub-0003_normal_flair.nii.gz").unlink()
    assert cohort("phantom", "icbm152", "--subjects", 8, "--lesions", "tumour=1", "plaques=1", *options) == 0
    after = {path: path.stat().st_mtime_ns for path in (out.parent / "volumes").glob("*.nii.gz")}
    assert after.keys() == before.keys() and sum(after[path] != before[path] for path in before) == 1
    message = refusal(capsys, "phantom", "icbm152", "--subjects", 8, "--seed", 5, *options)
    assert "made with other settings" in message


def test_processes_and_repetition_do_not_change_a_volume(tmp_path):
    for name in ("a", "b"):
        make_phantom_cohort(tmp_path / name / "c.csv", subjects=1, settings=COARSE, lesions=[LesionRequest("plaques")])
    for case_a, case_b in zip(
        read_manifest(tmp_path / "a" / "c.csv"), read_manifest(tmp_path / "b" / "c.csv"), strict=True
    ):
        assert case_a.image.read_bytes() == case_b.image.read_bytes()
    mask = read_manifest(tmp_path / "a" / "c.csv").of(label=1).cases[0].mask
    assert mask is not None and set(np.unique(read_volume(mask).array)) == {0, 1}


@pytest.mark.slow
def test_subjects_are_spread_over_the_heads_of_a_folder_and_split_by_them(tmp_path, capsys):
    for name, width in (("anna", 1.0), ("bert", 0.92)):
        write_head(tmp_path / "maps" / f"{name}.nii.gz", width)
    masks = write_plaque_masks(tmp_path / "masks")
    out = tmp_path / "c" / "cohort.csv"
    options = ["--contrast", "flair", "--spacing", "5", "--workers", "2", "--out", out, "--plaque-shapes", masks]
    options += ["--split-anatomies", "train=an*", "test=bert", "--subjects", 2, "--lesions", "plaques=2"]
    assert cohort("phantom", tmp_path / "maps", *options) == 0
    found = read_manifest(out)
    described = [(case.patient, case.covariates["anatomy"], case.label, case.split) for case in found]
    assert described == [
        ("sub-0001", "anna", 0, "train"),
        ("sub-0002", "bert", 0, "test"),
        ("sub-0003", "anna", 1, ""),  # never learnt from, and not judged on an anatomy that was
        ("sub-0004", "bert", 1, "test"),
    ]
    for case in found:
        volume = load_case_volume(case)
        assert (volume.array > 0).all()  # a whole head: noise in the air
        mask = load_case_mask(case, volume)
        assert (mask is not None and mask.any()) == bool(case.label)
    assert "made with other settings" in refusal(capsys, "phantom", tmp_path / "maps", *options, "--stripped")
    write_plaque_masks(tmp_path / "masks", count=1)
    (tmp_path / "masks" / "mask_2.nii.gz").unlink()
    assert "made with other settings" in refusal(capsys, "phantom", tmp_path / "maps", *options)


def test_unusable_options_of_heads_are_refused(tmp_path, capsys):
    maps, out = tmp_path / "maps", tmp_path / "c.csv"
    maps.mkdir()
    for name in ("a", "b", "c"):
        (maps / f"{name}.nii.gz").write_bytes(b"not an image")
    for source, options, problem in (
        ("mni305", [], "mni305: there is no such file or folder; name label maps of heads, or 'icbm152'"),
        ("icbm152", ["--split-anatomies", "train=a"], "needs label maps of several heads"),
        (maps, ["--split-anatomies", "train"], "--split-anatomies is SPLIT=NAME,NAME"),
        (maps, ["--supervised", "--split"], "--supervised says what --split-anatomies does"),
        (maps, ["--split-anatomies", "train=z"], "No anatomy fits 'z'; there are a, b, c"),
        (maps, ["--split"], "3 different values of 'anatomy' are too few"),
        (maps, ["--plaque-shapes", tmp_path / "absent", "--lesions", "plaques=1"], "no such folder of lesion masks"),
        (maps, ["--workers", 1], "a.nii.gz"),
    ):
        assert problem in refusal(capsys, "phantom", source, "--subjects", 3, *options, "--out", out)
    assert not out.exists()


def test_unusable_phantom_settings_are_refused(tmp_path, capsys):
    out = tmp_path / "c.csv"
    for options, problem in (
        (["--subjects", 0], "has 1 to 10000 subjects"),
        (["--spacing", "two"], "--spacing is one voxel size"),
        (["--spacing", "0.01"], "voxels of 0.8 to 6.0 mm"),
        (["--lesions", "cyst=2"], "--lesions is KIND=COUNT"),
        (["--seed", -1], "whole number from 0"),
    ):
        assert problem in refusal(capsys, "phantom", "icbm152", *options, "--out", out)
    assert not out.exists()


def test_the_names_in_the_help_are_those_of_the_tables():
    assert tuple(ANATOMIES) == ANATOMY_NAMES
    assert tuple(CONTRASTS) == CONTRAST_NAMES
    assert tuple(KINDS) == LESION_NAMES


def test_the_help_names_every_column_of_the_schema():
    assert [name for name in columns().named if name not in (cohort_verb.__doc__ or "")] == []
