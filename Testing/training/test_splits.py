"""What holds for every split, whatever the cohort, and that the reader follows the manifest's schema to the letter."""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from importlib.resources import files
from pathlib import Path

import jsonschema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from AnomalyDetectionLib.errors import InputError
from AnomalyTrainingLib.cohorts.manifest import Case, ImageSource, parse_manifest, read_manifest, write_manifest
from AnomalyTrainingLib.cohorts.splits import ABNORMAL_SHARES, NORMAL_SHARES, assign_splits

IMAGE = {"image": ImageSource(Path("/nowhere/a.nii.gz"))}
SCHEMA = json.loads((files("AnomalyTrainingLib") / "schemas" / "cohort.schema.json").read_text(encoding="utf-8"))

in_a_shared_folder = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def cohorts(draw: st.DrawFn) -> list[Case]:
    """Cases of up to 60 patients with one to three cases each, some abnormal, at up to four sites; any order."""
    cases = []
    for patient in range(draw(st.integers(4, 60))):
        site = draw(st.sampled_from(["", "A", "B", "C"]))
        for number in range(draw(st.integers(1, 3))):
            label = int(patient >= 4 and draw(st.integers(0, 3)) == 0)
            mask = Path("/nowhere/m.nii.gz") if label and draw(st.booleans()) else None
            covariates = {"site": site} if site else {}
            cases.append(Case(f"c{patient}-{number}", f"p{patient}", IMAGE, label, mask, covariates=covariates))
    return draw(st.permutations(cases))


@given(cases=cohorts(), seed=st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_no_patient_ever_stands_in_two_splits_and_nothing_abnormal_is_learnt_from(cases, seed):
    assigned = assign_splits(cases, seed=seed)
    assert [case.case for case in assigned] == [case.case for case in cases]
    splits, ill = defaultdict(set), set()
    for case in assigned:
        splits[case.patient].add(case.split)
        ill |= {case.patient} if case.label else set()
    assert all(len(found) == 1 for found in splits.values())
    assert all(splits[patient] <= {"validate", "test"} for patient in ill)
    assert {found for patient in splits.keys() - ill for found in splits[patient]} == set(NORMAL_SHARES)


@given(cases=cohorts(), seed=st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_every_site_has_its_share_of_every_split_to_within_two_patients(cases, seed):
    labels, sites = defaultdict(int), {}
    for case in cases:
        labels[case.patient] |= case.label
        sites[case.patient] = case.covariates.get("site", "")
    split_of = {case.patient: case.split for case in assign_splits(cases, seed=seed)}
    for label, shares in ((0, NORMAL_SHARES), (1, ABNORMAL_SHARES)):
        for site in set(sites.values()):
            patients = [patient for patient in split_of if labels[patient] == label and sites[patient] == site]
            counts = Counter(split_of[patient] for patient in patients)
            for split, share in shares.items():
                assert abs(counts[split] - share * len(patients)) <= 2


def test_four_normals_are_enough_for_a_split_each_and_one_abnormal_patient_is_for_the_test():
    cases = [Case(f"c{n}", f"p{n}", IMAGE, int(n == 4)) for n in range(5)]
    for seed in range(20):
        split = {case.case: case.split for case in assign_splits(cases, seed=seed)}
        assert split.pop("c4") == "test"
        assert sorted(split.values()) == sorted(NORMAL_SHARES)


def test_masks_and_kinds_of_lesion_are_spread_over_both_splits():
    cases = [Case(f"n{n}", f"n{n}", IMAGE, 0) for n in range(4)]
    for kind in ("tumour", "plaques"):
        for n in range(4):
            mask = Path("/nowhere/m.nii.gz") if n < 2 else None
            cases.append(Case(f"{kind}{n}", f"{kind}{n}", IMAGE, 1, mask, covariates={"lesion": kind}))
    for seed in range(20):
        found = Counter(
            (case.split, case.covariates["lesion"], case.mask is not None)
            for case in assign_splits(cases, seed=seed)
            if case.label
        )
        assert set(found.values()) == {1} and len(found) == 8


cells = st.text(st.sampled_from("ab019-._ /#é"), max_size=6).map(str.strip)


@given(
    row=st.fixed_dictionaries(
        {
            "case": cells,
            "patient": cells,
            "image": st.sampled_from(["a.nii.gz", ""]),
            "label": st.sampled_from(["0", "1", "2", "", "normal"]),
            "split": st.sampled_from(["", "train", "external", "Test", "none"]),
            "slice": st.sampled_from(["", "0", "12", "-1", "1.0", "1234567890"]),
            "order": st.sampled_from(["", "3", "first"]),
            "site": cells,
        }
    )
)
@in_a_shared_folder
def test_the_reader_takes_exactly_what_the_schema_takes(row, tmp_path):
    (tmp_path / "a.nii.gz").touch()
    path = tmp_path / "cohort.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(row))
        writer.writeheader()
        writer.writerow(row)
    valid = jsonschema.Draft202012Validator(SCHEMA).is_valid([row])
    _, problems = parse_manifest(path)
    assert (not problems) == valid, problems


@given(cases=cohorts(), splits=st.lists(st.sampled_from(["train", "test"]), min_size=200, max_size=200))
@in_a_shared_folder
def test_a_manifest_is_refused_exactly_where_a_patient_stands_in_two_splits(cases, splits, tmp_path):
    (tmp_path / "a.nii.gz").touch()
    image = {"image": ImageSource(tmp_path / "a.nii.gz")}
    listed = [
        Case(case.case, case.patient, image, case.label, split=split)
        for case, split in zip(cases, splits, strict=False)
    ]
    path = write_manifest(listed, tmp_path / "cohort.csv")
    torn = len({(case.patient, case.split) for case in listed}) > len({case.patient for case in listed})
    try:
        read_manifest(path)
        assert not torn
    except InputError as error:
        assert torn and "all cases of a patient belong to one split" in str(error)
