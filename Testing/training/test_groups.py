"""Splits by a column: no anatomy, site or scanner on two sides."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from AnomalyDetectionLib.errors import InputError
from AnomalyTrainingLib.cohorts.groups import assign_groups, assign_named_groups
from AnomalyTrainingLib.cohorts.manifest import Case, ImageSource


def cases_of(anatomies: int, each: int = 4) -> list[Case]:
    """`each` normals and an abnormal case of every anatomy."""
    source = {"image": ImageSource(Path("/nowhere/a.nii.gz"))}
    return [
        Case(f"{name}-{n}", f"{name}-{n}", source, label=int(n == each), covariates={"anatomy": name})
        for name in (f"head_{number:02d}" for number in range(1, anatomies + 1))
        for n in range(each + 1)
    ]


@pytest.mark.parametrize("anatomies", [4, 7, 12, 30])
def test_all_cases_of_an_anatomy_are_in_one_split_and_every_split_has_one(anatomies):
    cases = assign_groups(cases_of(anatomies), "anatomy", seed=3)
    normals = {(case.covariates["anatomy"], case.split) for case in cases if not case.label}
    assert len(normals) == anatomies
    counts = Counter(split for _, split in normals)
    assert set(counts) == {"train", "calibrate", "validate", "test"}
    assert counts["train"] >= max(counts.values()) * 0.9
    assert {case.split for case in cases if case.label} <= {"validate", "test", ""}
    judged = {name for name, split in normals if split in ("validate", "test")}
    assert {case.covariates["anatomy"] for case in cases if case.label and case.split} == judged


def test_the_split_depends_on_names_and_seed_only():
    cases = cases_of(12)
    chosen = {case.case: case.split for case in assign_groups(cases, "anatomy", seed=1)}
    assert chosen == {case.case: case.split for case in assign_groups(cases[::-1], "anatomy", seed=1)}
    assert chosen != {case.case: case.split for case in assign_groups(cases, "anatomy", seed=2)}


def test_lesions_of_the_training_anatomies_are_learnt_from_on_request_only() -> None:
    named = {"train": ["head_01"], "calibrate": ["head_02"], "validate": ["head_03"], "test": ["head_04"]}
    for supervised, split in ((False, ""), (True, "train")):
        cases = assign_named_groups(cases_of(5), "anatomy", named, supervised=supervised)
        ill = {case.covariates["anatomy"]: case.split for case in cases if case.label}
        expected = {"head_01": split, "head_02": "", "head_03": "validate", "head_04": "test", "head_05": ""}
        assert ill == expected


def test_splits_can_be_named_by_patterns():
    named = {"train": ["head_0[1-7]"], "calibrate": ["head_09"], "validate": ["head_08"], "test": ["head_1[01]"]}
    cases = assign_named_groups(cases_of(12), "anatomy", named)
    normals = {case.covariates["anatomy"]: case.split for case in cases if not case.label}
    assert Counter(normals.values()) == {"train": 7, "test": 2, "calibrate": 1, "validate": 1, "": 1}
    assert normals["head_12"] == ""
    abnormal = {case.covariates["anatomy"]: case.split for case in cases if case.label}
    assert abnormal["head_08"] == "validate" and abnormal["head_01"] == abnormal["head_09"] == ""


@pytest.mark.parametrize(
    ("named", "problem"),
    [
        ({"training": ["head_01"]}, "no split 'training'; known are train, calibrate"),
        ({"train": ["head_99"]}, "No anatomy fits 'head_99'; there are head_01"),
        ({"train": ["head_0*"], "test": ["head_03"]}, "'head_03' cannot be in both train and test"),
    ],
)
def test_names_that_cannot_be_followed_are_refused(named, problem):
    with pytest.raises(InputError, match=problem):
        assign_named_groups(cases_of(4), "anatomy", named)


def test_too_few_groups_or_cases_without_one_are_refused():
    with pytest.raises(InputError, match="3 different values of 'anatomy' are too few"):
        assign_groups(cases_of(3), "anatomy")
    with pytest.raises(InputError, match="has no 'scanner' to split by"):
        assign_groups(cases_of(4), "scanner")
