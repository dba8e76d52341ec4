"""`cohort brats`: the names of all releases, masks of the whole tumour, and slices with and without tumour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from training.published import write_nifti

from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.imaging.read import read_volume
from AnomalyTrainingLib.cohorts.checks import check_cohort
from AnomalyTrainingLib.cohorts.manifest import Cohort, load_case_mask, load_case_volume, read_manifest
from AnomalyTrainingLib.cohorts.published import natural

SHAPE = (16, 24, 24)


def write_scan(
    folder: Path, name: str, labels: dict[int, slice], parts: str = "_flair", ending: str = ".nii.gz", seed: int = 0
) -> None:
    """A brain of noise in slices 2 to 13 with a square of each label in these slices; no seg if labels is empty."""
    image = np.zeros(SHAPE, dtype=np.float32)
    image[2:14, 4:20, 4:20] = np.random.default_rng(seed).uniform(50, 200, (12, 16, 16))
    for number, part in enumerate(parts.split()):
        write_nifti(folder / f"{name}{part}{ending}", image + number * (image > 0))
    if labels:
        seg = np.zeros(SHAPE, dtype=np.uint8)
        for label, where in labels.items():
            seg[where, 6 + label : 14 + label, 6:14] = label
        write_nifti(folder / f"{name}{parts.split()[0][0]}seg{ending}", seg)


def brats(source: Path, out: Path, *options: object) -> Cohort:
    assert main(["cohort", "brats", str(source), "--out", str(out), *map(str, options), "--progress", "none"]) == 0
    return read_manifest(out)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main(["cohort", "brats", *map(str, arguments), "--progress", "none"]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error.splitlines()[-1]


def test_scans_of_every_release_get_patient_time_point_site_and_grade(tmp_path, capsys):
    tumour, source = {1: slice(5, 8), 2: slice(6, 9)}, tmp_path / "src"
    for seed, (folder, name, parts, ending) in enumerate(
        (
            ("2018/HGG/Brats18_CBICA_AAB_1", "Brats18_CBICA_AAB_1", "_flair", ".nii.gz"),
            ("2019/LGG/BraTS19_TCIA10_103_1", "BraTS19_TCIA10_103_1", "_flair", ".nii.gz"),
            ("2020/a/BraTS20_Training_001", "BraTS20_Training_001", "_flair", ".nii"),
            ("2021/BraTS2021_00000", "BraTS2021_00000", "_flair", ".nii.gz"),
            ("2023/BraTS-GLI-00005-000", "BraTS-GLI-00005-000", "-t2f", ".nii.gz"),
            ("2023/BraTS-GLI-00005-001", "BraTS-GLI-00005-001", "-t2f", ".nii.gz"),
        )
    ):
        write_scan(source / folder, name, tumour, parts, ending, seed)
    write_scan(source / "2020" / "BraTS20_Validation_001", "BraTS20_Validation_001", {})
    case_355 = source / "2020" / "BraTS20_Training_355"
    write_scan(case_355, "BraTS20_Training_355", tumour, seed=9)
    (case_355 / "BraTS20_Training_355_seg.nii.gz").rename(case_355 / "W39_1998.09.19_Segm.nii.gz")
    years = ("2018", "2019", "2020", "2021", "2023")
    cohorts = [brats(source / year, tmp_path / f"{year}.csv") for year in years]
    assert "1 scans have no segmentation" in capsys.readouterr().err
    assert [(case.case, case.patient, case.order) for cohort in cohorts for case in cohort] == [
        ("Brats18_CBICA_AAB_1", "Brats18_CBICA_AAB", 1),
        ("BraTS19_TCIA10_103_1", "BraTS19_TCIA10_103", 1),
        ("BraTS20_Training_001", "BraTS20_Training_001", None),
        ("BraTS20_Training_355", "BraTS20_Training_355", None),
        ("BraTS2021_00000", "BraTS2021_00000", None),
        ("BraTS-GLI-00005-000", "BraTS-GLI-00005", 0),
        ("BraTS-GLI-00005-001", "BraTS-GLI-00005", 1),
    ]
    said = {case.case: case.covariates for cohort in cohorts for case in cohort}
    assert said["Brats18_CBICA_AAB_1"] == {"modality": "MR", "site": "CBICA", "grade": "HGG"}
    assert said["BraTS19_TCIA10_103_1"]["grade"] == "LGG" and said["BraTS-GLI-00005-000"]["task"] == "GLI"
    for cohort in cohorts:
        check_cohort(cohort)


def test_gliomas_of_two_releases_are_refused_and_other_tasks_may_stand_beside_them(tmp_path, capsys):
    source, out = tmp_path / "s", tmp_path / "c.csv"
    for seed, name in enumerate(("BraTS-GLI-00001-000", "BraTS-PED-00001-000", "BraTS-SSA-00001-000")):
        write_scan(source, name, {1: slice(5, 8)}, "-t2f", seed=seed)
    write_scan(source, "BraTS2021_00001", {})
    assert {case.covariates["task"] for case in brats(source, out)} == {"GLI", "PED", "SSA"}
    for name in ("BraTS2021_00000", "BraTS20_Training_001", "BraTS19_TCIA10_103_1"):
        write_scan(source / name, name, {1: slice(5, 8)}, seed=9)
        message = refusal(capsys, source, "--out", tmp_path / "d.csv")
        assert (
            f"there are gliomas of 2 releases ({', '.join(sorted((name, 'BraTS-GLI-00001-000'), key=natural))})"
            in message
        )
        (source / name).rename(tmp_path / name)


def test_the_mask_is_the_whole_tumour_in_binary_and_label_4_is_what_the_release_says(tmp_path):
    write_scan(tmp_path / "2021", "BraTS2021_00000", {2: slice(5, 7), 4: slice(8, 9)})
    write_scan(tmp_path / "2024", "BraTS-GLI-00001-000", {2: slice(5, 7), 4: slice(8, 9)}, "-t2f", seed=1)
    write_scan(tmp_path / "2024", "BraTS-PED-00001-000", {2: slice(5, 7), 4: slice(8, 9)}, "-t2f", seed=2)
    for options, counts in ((["--cavity"], (192, 192, 192)), ([], (192, 128, 192))):
        out = tmp_path / f"{len(options)}"
        cases = [case for year in ("2021", "2024") for case in brats(tmp_path / year, out / f"{year}.csv", *options)]
        masks = {case.case: read_volume(case.mask).array for case in cases if case.mask}
        assert all(set(np.unique(mask)) == {0, 1} for mask in masks.values())
        names = ("BraTS2021_00000", "BraTS-GLI-00001-000", "BraTS-PED-00001-000")
        assert tuple(np.count_nonzero(masks[name]) for name in names) == counts


def test_each_manifest_has_masks_of_its_own_and_a_split_that_cannot_be_writes_none(tmp_path, capsys):
    write_scan(tmp_path / "s", "BraTS-GLI-00001-000", {2: slice(5, 7), 4: slice(8, 9)}, "-t2f")
    tumour = brats(tmp_path / "s", tmp_path / "a.csv").cases[0].mask
    assert tumour == tmp_path / "a-masks" / "BraTS-GLI-00001-000.nii.gz"
    before = tumour.read_bytes()
    brats(tmp_path / "s", tmp_path / "b.csv", "--cavity")
    assert tumour.read_bytes() == before
    for options in ([], ["--slices"], ["--supervised"]):
        assert "too few" in refusal(capsys, tmp_path / "s", "--split", *options, "--out", tmp_path / "c.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-masks", "a.csv", "b-masks", "b.csv", "s"]


def test_slices_are_normal_away_from_what_is_marked_and_abnormal_with_enough_of_it(tmp_path):
    write_scan(tmp_path / "s", "BraTS-MEN-00000-000", {1: slice(6, 8)}, "-t2f")
    write_scan(tmp_path / "s", "BraTS-GLI-00001-000", {1: slice(6, 7), 4: slice(11, 12)}, "-t2f", seed=1)
    cohort = brats(tmp_path / "s", tmp_path / "c.csv", "--slices", "--margin", 1)
    labels = {name: {} for name in ("BraTS-MEN-00000-000", "BraTS-GLI-00001-000")}
    for case in cohort:
        labels[case.case[:-4]][case.slice] = case.label
    assert labels["BraTS-MEN-00000-000"] == {2: 0, 3: 0, 4: 0, 6: 1, 7: 1, 9: 0, 10: 0, 11: 0, 12: 0, 13: 0}
    assert labels["BraTS-GLI-00001-000"] == {2: 0, 3: 0, 4: 0, 6: 1, 8: 0, 9: 0, 13: 0}  # 11 has only a cavity
    for case in cohort:
        volume = load_case_volume(case)
        assert volume.is_slice and volume.array.flags.writeable
        mask = load_case_mask(case, volume)
        assert (mask is not None and mask.sum() == 64) == bool(case.label)
    whole = read_volume(cohort.cases[0].image).array
    assert np.array_equal(load_case_volume(cohort.cases[0]).array[0], whole[cohort.cases[0].slice])
    check_cohort(cohort)
    thin = brats(tmp_path / "s", tmp_path / "d.csv", "--slices", "--least-tumour", 65, "--every", 2)
    assert {case.label for case in thin} == {0} and {case.slice % 2 for case in thin} == {0}


def test_slices_of_a_patient_share_a_split_and_normal_ones_are_in_all(tmp_path):
    for number in range(8):
        name = f"BraTS-GLI-{number // 2:05d}-{number % 2:03d}"
        write_scan(tmp_path / "s", name, {1: slice(6, 8)}, "-t2f", seed=number)
    cohort = brats(tmp_path / "s", tmp_path / "c.csv", "--slices", "--split")
    assert {case.split for case in cohort.of(label=0)} == {"train", "calibrate", "validate", "test"}
    assert len({(case.patient, case.split) for case in cohort}) == 4
    external = brats(tmp_path / "s", tmp_path / "e.csv", "--external")
    assert {case.split for case in external} == {"external"}


def test_several_contrasts_are_channels_of_one_case(tmp_path, capsys):
    write_scan(tmp_path / "2021", "BraTS2021_00000", {1: slice(6, 8)}, "_flair _t1ce _t1 _t2")
    write_scan(tmp_path / "2021", "BraTS2021_00001", {1: slice(6, 8)}, "_flair", seed=2)
    write_scan(tmp_path / "2023", "BraTS-GLI-00001-000", {1: slice(6, 8)}, "-t2f -t1c", seed=1)
    images = {}
    for year in ("2021", "2023"):
        cohort = brats(tmp_path / year, tmp_path / f"{year}.csv", "--modality", "t1c", "--modality", "flair")
        assert cohort.channels == ("t1c", "flair") and len(cohort) == 1
        images |= {case.case: case.images["t1c"].path.name for case in cohort}
    assert "1 scans lack one of t1c, flair" in capsys.readouterr().err
    assert images["BraTS2021_00000"] == "BraTS2021_00000_t1ce.nii.gz"
    assert images["BraTS-GLI-00001-000"] == "BraTS-GLI-00001-000-t1c.nii.gz"


def test_what_is_no_brats_is_refused(tmp_path, capsys):
    out, source = tmp_path / "c.csv", tmp_path / "s"
    source.mkdir()
    assert "there is no BraTS scan with a segmentation and flair" in refusal(capsys, source, "--out", out)
    write_scan(source, "BraTS2021_00000", {1: slice(6, 8)})
    assert "0 normal patients are too few" in refusal(capsys, source, "--split", "--out", out)
    assert "1 patients are too few" in refusal(capsys, source, "--slices", "--split", "--out", out)
    assert "at least 1 pixel" in refusal(capsys, source, "--slices", "--least-tumour", 0, "--out", out)
    assert "leave --split out" in refusal(capsys, source, "--external", "--split", "--out", out)
    write_scan(source / "copy", "BraTS2021_00000", {1: slice(6, 8)})
    assert "remove one of them" in refusal(capsys, source, "--out", out)
    (source / "copy" / "BraTS2021_00000_seg.nii.gz").write_bytes(b"cut short")
    assert "BraTS2021_00000_seg.nii.gz" in refusal(capsys, source / "copy", "--out", out)
    write_nifti(source / "copy" / "BraTS2021_00000_seg.nii.gz", np.full(SHAPE, 7, dtype=np.uint8))
    assert "this is no BraTS segmentation" in refusal(capsys, source / "copy", "--out", out)
    write_nifti(source / "copy" / "BraTS2021_00000_seg.nii.gz", np.ones((3, 24, 24), dtype=np.uint8))
    assert "has shape (3, 24, 24), the image (16, 24, 24)" in refusal(capsys, source / "copy", "--slices", "--out", out)
    assert not out.exists()
