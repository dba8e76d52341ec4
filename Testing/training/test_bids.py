"""`cohort bids`: subjects, sessions, labels, masks and sidecars of a BIDS data set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from training.published import write_nifti, write_text

from AnomalyDetectionLib.cli.main import main
from AnomalyTrainingLib.cohorts.bids import Name
from AnomalyTrainingLib.cohorts.checks import check_cohort
from AnomalyTrainingLib.cohorts.manifest import Cohort, read_manifest

SHAPE = (6, 8, 8)


def write_scan(path: Path, seed: int = 0) -> Path:
    return write_nifti(path, np.random.default_rng(seed).uniform(10, 200, SHAPE))


def write_lesion(path: Path) -> Path:
    painted = np.zeros(SHAPE, dtype=np.uint8)
    painted[2:4, 2:5, 2:5] = 1
    return write_nifti(path, painted)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "ds"
    write_text(
        root / "participants.tsv",
        "participant_id\tage\tsex\tgroup",
        "sub-01\t34\tf\tcontrol",
        "sub-02\t89+\tMale\tpatient",
        "sub-03\tn/a\tn/a\tcontrol",
        "sub-04\t50\tM\tn/a",
    )
    write_scan(root / "sub-01" / "ses-10" / "anat" / "sub-01_ses-10_T1w.nii.gz", 1)
    write_scan(root / "sub-01" / "ses-2" / "anat" / "sub-01_ses-2_run-1_T1w.nii", 2)
    write_scan(root / "sub-02" / "anat" / "sub-02_acq-highres_T1w.nii.gz", 3)
    write_scan(root / "sub-02" / "anat" / "sub-02_acq-highres_FLAIR.nii.gz", 4)
    write_scan(root / "sub-03" / "anat" / "sub-03_T1w.nii.gz", 5)
    write_scan(root / "sub-04" / "anat" / "sub-04_T1w.nii.gz", 6)
    derived = root / "derivatives" / "tracing" / "sub-02" / "anat"
    write_lesion(derived / "sub-02_acq-highres_space-orig_label-lesion_mask.nii.gz")
    write_lesion(derived / "sub-02_acq-highres_desc-brain_mask.nii.gz")
    write_scan(derived / "sub-02_acq-highres_desc-preproc_T1w.nii.gz", 7)
    (root / "T1w.json").write_text(json.dumps({"Modality": "MR", "MagneticFieldStrength": 3}), encoding="utf-8")
    sidecar = {"MagneticFieldStrength": 1.5, "Manufacturer": "GE"}
    (root / "sub-03" / "anat" / "sub-03_T1w.json").write_text(json.dumps(sidecar), encoding="utf-8")
    return root


def bids(root: Path, *options: str) -> Cohort:
    out = root.parent / f"{len(list(root.parent.iterdir()))}.csv"
    assert main(["cohort", "bids", str(root), "--out", str(out), *options, "--progress", "none"]) == 0
    return read_manifest(out)


def refusal(capsys: pytest.CaptureFixture[str], root: Path, *options: str) -> str:
    capsys.readouterr()
    out = str(root.parent / "refused.csv")
    assert main(["cohort", "bids", str(root), "--out", out, *options, "--progress", "none"]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error.splitlines()[-1]


def test_the_column_of_participants_labels_subjects_and_their_facts_come_along(root, capsys):
    cohort = bids(root, "--label-column", "group", "--normal", "control")
    cases = {case.case: case for case in cohort}
    assert {name: (case.patient, case.label) for name, case in cases.items()} == {
        "sub-01_ses-2_run-1": ("sub-01", 0),
        "sub-01_ses-10": ("sub-01", 0),
        "sub-02_acq-highres": ("sub-02", 1),
        "sub-03": ("sub-03", 0),
    }
    assert "1 subjects have no value in 'group'; they are left out (sub-04)" in capsys.readouterr().err
    assert (cases["sub-01_ses-2_run-1"].order, cases["sub-01_ses-10"].order) == (1, 2)
    assert cases["sub-01_ses-10"].study == "ses-10"
    ill = cases["sub-02_acq-highres"]
    assert ill.mask is not None and ill.mask.name == "sub-02_acq-highres_space-orig_label-lesion_mask.nii.gz"
    assert ill.covariates == {"age": "89", "sex": "M", "group": "patient", "modality": "MR", "field_strength": "3"}
    nearer = cases["sub-03"].covariates
    assert (nearer["field_strength"], nearer["manufacturer"]) == ("1.5", "GE")
    assert not {"age", "sex"} & nearer.keys()
    check_cohort(cohort)


def test_without_a_column_whoever_has_a_lesion_mask_is_abnormal(root):
    cohort = bids(root)
    assert {case.patient for case in cohort.of(label=1)} == {"sub-02"} and len(cohort) == 5
    assert [case.label for case in bids(root, "--lesion", "plaque")] == [0] * 5


def test_sessions_with_dates_are_ordered_by_them(root):
    write_text(
        root / "sub-01" / "sub-01_sessions.tsv",
        "session_id\tacq_time",
        "ses-10\t2009-06-15T13:45:30",
        "ses-2\t2010-06-15T13:45:30",
    )
    assert {case.study: case.order for case in bids(root) if case.study} == {"ses-10": 1, "ses-2": 2}


def test_several_suffixes_are_channels_and_entities_choose_scans(root, capsys):
    cohort = bids(root, "--suffix", "T1w", "--suffix", "FLAIR")
    assert cohort.channels == ("T1w", "FLAIR") and [case.patient for case in cohort] == ["sub-02"]
    assert "4 scans lack one of T1w, FLAIR" in capsys.readouterr().err
    assert [case.patient for case in bids(root, "--entity", "acq-highres")] == ["sub-02"]


def unfetch(file: Path) -> None:
    file.unlink(missing_ok=True)
    file.symlink_to("../../.git/annex/objects/x")


def test_links_to_data_that_was_not_fetched_are_counted(root, capsys):
    unfetch(root / "sub-03" / "anat" / "sub-03_T1w.nii.gz")
    assert "sub-03" not in {case.patient for case in bids(root)}
    assert "1 scans are links to data that is not here" in capsys.readouterr().err


def test_a_scan_whose_lesion_mask_was_not_fetched_is_never_normal(root, capsys):
    mask = "sub-02_acq-highres_space-orig_label-lesion_mask.nii.gz"
    unfetch(root / "derivatives" / "tracing" / "sub-02" / "anat" / mask)
    cohort = bids(root)
    assert len(cohort) == 4 and "sub-02" not in {case.patient for case in cohort}
    assert "1 scans have a lesion mask that is a link to data that is not here" in (said := capsys.readouterr().err)
    assert "they are left out (sub-02_acq-highres)" in said
    (ill,) = bids(root, "--label-column", "group", "--normal", "control").of(label=1)
    assert (ill.patient, ill.mask) == ("sub-02", None)
    assert "they are taken without it (sub-02_acq-highres)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("scan", "mask"),
    [
        ("sub-03/anat/sub-03_acq-sag_FLAIR.nii.gz", "anat/sub-03_acq-sag_label-lesion_mask.nii.gz"),
        ("sub-03/anat/sub-03_acq-sag_FLAIR.nii.gz", "anat/sub-03_acq-sag_FLAIR_roi.nii.gz"),
        ("sub-03/anat/sub-03_run-2_T1w.nii.gz", "anat/sub-03_run-2_desc-tumour_mask.nii.gz"),
        ("sub-03/dwi/sub-03_acq-b0_dwi.nii.gz", "anat/sub-03_acq-b0_label-lesion_mask.nii.gz"),
        ("sub-03/dwi/sub-03_dwi.nii.gz", "dwi/sub-03_label-lesion_mask.nii.gz"),
    ],
)
def test_a_scan_is_left_out_where_the_mask_is_of_another_image_of_the_subject(root, capsys, scan, mask):
    write_scan(root / scan, 8)
    write_lesion(root / "derivatives" / "tracing" / "sub-03" / mask)
    assert "sub-03" not in {case.patient for case in bids(root).of(label=0)}
    said = capsys.readouterr().err
    assert "1 scans have no lesion mask, while another image of the subject has one; they are left out (sub-03)" in said
    of_the_table = bids(root, "--label-column", "group", "--normal", "control")
    assert {case.label for case in of_the_table if case.patient == "sub-03"} == {0}
    assert (
        "count as normal and get no mask, though there is a lesion mask of the subject (sub-03"
        in capsys.readouterr().err
    )


def test_of_two_scans_of_a_session_the_one_without_a_mask_is_left_out_also_if_chosen_by_an_entity(root, capsys):
    write_scan(root / "sub-02" / "anat" / "sub-02_acq-fast_T1w.nii.gz", 8)
    write_scan(root / "sub-03" / "anat" / "sub-03_acq-fast_T1w.nii.gz", 9)
    assert [case.patient for case in bids(root, "--entity", "acq-fast")] == ["sub-03"]
    assert "they are left out (sub-02_acq-fast)" in capsys.readouterr().err
    assert [case.case for case in bids(root, "--entity", "acq-highres")] == ["sub-02_acq-highres"]
    assert [case.case for case in bids(root) if case.patient == "sub-02"] == ["sub-02_acq-highres"]
    assert "they are left out (sub-02_acq-fast)" in capsys.readouterr().err


def test_another_session_without_a_mask_is_normal_and_said_to_be(root, capsys):
    write_lesion(root / "derivatives" / "t" / "sub-01" / "ses-10" / "anat" / "sub-01_ses-10_label-lesion_mask.nii.gz")
    labels = {case.case: case.label for case in bids(root) if case.patient == "sub-01"}
    assert labels == {"sub-01_ses-2_run-1": 0, "sub-01_ses-10": 1}
    said = capsys.readouterr().err
    assert (
        "1 scans count as normal and get no mask, though there is a lesion mask of the subject (sub-01_ses-2_run-1)"
        in said
    )


@pytest.mark.parametrize("options", [[], ["--label-column", "group", "--normal", "control"]])
def test_a_mask_that_belongs_to_no_image_of_its_subject_is_refused(root, capsys, options):
    derived = root / "derivatives" / "tracing" / "sub-02" / "anat"
    (derived / "sub-02_acq-highres_space-orig_label-lesion_mask.nii.gz").rename(
        derived / "sub-02_label-lesion_mask.nii"
    )
    message = refusal(capsys, root, *options)
    assert "derivatives/tracing/sub-02/anat/sub-02_label-lesion_mask.nii: there is no image of the subject" in message
    write_lesion(root / "derivatives" / "tracing" / "sub-99" / "anat" / "sub-99_label-lesion_mask.nii.gz")
    assert len(bids(root, "--entity", "run-1")) == 1, "subjects that are not taken may have any masks"


@pytest.mark.parametrize("column", ["study", "order", "slice", "split", "image", "image_t1"])
def test_a_column_of_labels_may_have_the_name_of_one_of_the_manifest(root, column):
    write_text(
        root / "participants.tsv", f"participant_id\t{column}", *(f"sub-0{n}\tgroup{n > 2}" for n in range(1, 5))
    )
    cohort = bids(root, "--label-column", column, "--normal", "groupFalse")
    assert {case.covariates[f"participant_{column}"] for case in cohort.of(label=0)} == {"groupFalse"}
    assert {case.patient for case in cohort.of(label=1)} == {"sub-03", "sub-04"}


def test_names_are_read_by_their_entities():
    name = Name.of("sub-00001_ses-2_acq-T2sel_run-1_FLAIR_roi")
    assert name is not None and name.suffixes == ("FLAIR", "roi")
    assert dict(name.entities) == {"sub": "00001", "ses": "2", "acq": "T2sel", "run": "1"}
    for wrong in ("T1w", "ses-1_sub-01_T1w", "sub-01_sub-02_T1w", "sub-01", "sub-01_Acq-x_T1w"):
        assert Name.of(wrong) is None


def test_what_contradicts_itself_or_does_not_exist_is_refused(root, capsys):
    assert "the nearest is 'group'" in refusal(capsys, root, "--label-column", "groups", "--normal", "control")
    assert "the nearest is 'control'" in refusal(capsys, root, "--label-column", "group", "--normal", "controls")
    assert "needs --normal" in refusal(capsys, root, "--label-column", "group")
    assert "there is no scan sub-*/[ses-*/]anat/*_PDw" in refusal(capsys, root, "--suffix", "PDw")
    assert "--entity is KEY-VALUE" in refusal(capsys, root, "--entity", "acq")
    assert "not a regular expression" in refusal(capsys, root, "--lesion", "(")
    sidecar = root / "sub-03" / "anat" / "sub-03_T1w.json"
    sidecar.write_text("{", encoding="utf-8")
    assert "the sidecar is not JSON" in refusal(capsys, root)
    sidecar.unlink()
    write_text(root / "participants.tsv", "participant_id,group", "sub-01,control")
    assert "separated by commas; save the table with tabs" in refusal(capsys, root)
    write_text(root / "participants.tsv", "participant_id\tgroup", "sub-01\tcontrol", "sub-01\tpatient")
    assert "sub-01 is listed twice" in refusal(capsys, root)
    (root / "participants.tsv").unlink()
    assert "there is no such table" in refusal(capsys, root, "--label-column", "group", "--normal", "control")
    write_scan(root / "sub-03" / "anat" / "sub-01_T1w.nii.gz")
    assert "do not agree on the sub-" in refusal(capsys, root)
