"""Splits by patient: train, calibrate, validate and test never share one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from AnomalyDetectionLib.errors import InputError

from .manifest import Case

NORMAL_SHARES: Mapping[str, float] = {"train": 0.50, "calibrate": 0.20, "validate": 0.15, "test": 0.15}
"""Shares of the normal patients: 70/15/15, the calibration normals cut from the 70."""

ABNORMAL_SHARES: Mapping[str, float] = {"test": 0.5, "validate": 0.5}
"""Patients with any abnormal case are only ever judged, never learnt from; an odd one is for the test."""

LEARNT_SHARES: Mapping[str, float] = {"train": 0.70, "validate": 0.15, "test": 0.15}
"""Shares of the abnormal patients where a detector learns from labels or masks."""

NORMALS_BESIDE: Mapping[str, float] = {"train": 0.60, "calibrate": 0.10, "validate": 0.15, "test": 0.15}
"""Shares of the normal patients there: fewer for calibration, which serves p-values alone."""


def _rest(shares: Mapping[str, float]) -> dict[str, float]:
    """Shares of the groups that are not held out for the test."""
    return {split: share / (1 - shares["test"]) for split, share in shares.items() if split != "test"}


STRATA = ("site", "region", "lesion")
"""Columns whose values are spread evenly over the splits, as are labels and masks."""

_Stratum = tuple[int, tuple[str, ...], bool]
"""Label, values of `STRATA`, whether there is a mask."""


def assign_splits(cases: Iterable[Case], *, seed: int = 0, supervised: bool = False) -> list[Case]:
    """The same cases with a split each, by patient and stratified by label, site, region, lesion and having a mask.

    A patient is abnormal if any of their cases is.  The outcome depends on what is stratified by, the patients'
    identifiers and the seed only, not on the order of the rows.

    Parameters
    ----------
    supervised
        Abnormal patients are learnt from too, by labels or masks (`LEARNT_SHARES`, `NORMALS_BESIDE`).

    Raises
    ------
    InputError
        If there are too few normal (or, supervised, abnormal) patients for every split to have one.
    """
    cases = list(cases)
    patients = _strata(cases, lambda case: case.patient)
    normal = [patient for patient, (label, _, _) in patients.items() if label == 0]
    if len(normal) < len(NORMAL_SHARES) and (normal or not supervised):
        raise InputError(
            f"{len(normal)} normal patients are too few to split: each of {', '.join(NORMAL_SHARES)} needs one; "
            "name the splits in the manifest's 'split' column instead."
        )
    ill = patients.keys() - set(normal)
    if supervised and len(ill) < len(LEARNT_SHARES):
        raise InputError(
            f"{len(ill)} abnormal patients are too few to learn from: each of {', '.join(LEARNT_SHARES)} needs one."
        )
    assigned = _spread(normal, patients, NORMALS_BESIDE if supervised else NORMAL_SHARES, seed)
    assigned |= _spread(ill, patients, LEARNT_SHARES if supervised else ABNORMAL_SHARES, seed)
    return [replace(case, split=assigned[case.patient]) for case in cases]


def assign_mixed(cases: Iterable[Case], *, seed: int = 0) -> list[Case]:
    """The same cases with a split each, by patient, for patients who have normal and abnormal cases alike.

    That is so for slices of tumour patients, whose tumour-free slices serve as the normals: all patients are dealt out
    in `NORMAL_SHARES`, and of those in train and calibrate a detector that learns normals takes the normal cases.

    Raises
    ------
    InputError
        If there are fewer patients than splits.
    """
    cases = list(cases)
    patients = _strata(cases, lambda case: case.patient)
    if len(patients) < len(NORMAL_SHARES):
        raise InputError(
            f"{len(patients)} patients are too few to split: each of {', '.join(NORMAL_SHARES)} needs one."
        )
    assigned = _spread(patients, patients, NORMAL_SHARES, seed)
    return [replace(case, split=assigned[case.patient]) for case in cases]


def complete_splits(
    cases: Iterable[Case], *, seed: int = 0, supervised: bool = False, more_normals: bool = False
) -> list[Case]:
    """The same cases, the patients of the split test as they are, the others dealt to the other splits.

    For data sets that come with a test set of their own.  The shares of the others are those of `assign_splits`
    without the test; where no case has the split test, it is `assign_splits`.

    Parameters
    ----------
    more_normals
        The published test set has too few normals to judge by: further ones go to the test, as in `assign_splits`.

    Raises
    ------
    InputError
        If a patient is in the test set and outside, or too few normal patients are left.
    """
    cases = list(cases)
    held = {case.patient for case in cases if case.split == "test"}
    if shared := sorted({case.patient for case in cases if case.split != "test"} & held):
        raise InputError(f"The patient {shared[0]!r} has cases in the published test set and outside it.")
    if not held:
        return assign_splits(cases, seed=seed, supervised=supervised)
    patients = _strata((case for case in cases if case.patient not in held), lambda case: case.patient)
    normal = {patient for patient, (label, _, _) in patients.items() if label == 0}
    shares = NORMALS_BESIDE if supervised else NORMAL_SHARES
    shares = shares if more_normals else _rest(shares)
    if len(normal) < len(shares):
        raise InputError(
            f"{len(normal)} normal patients outside the published test set are too few to split: each of "
            f"{', '.join(shares)} needs one."
        )
    ill = _rest(LEARNT_SHARES) if supervised else {"validate": 1.0}
    assigned = _spread(normal, patients, shares, seed) | _spread(patients.keys() - normal, patients, ill, seed)
    return [replace(case, split=assigned.get(case.patient, "test")) for case in cases]


def folds(
    cases: Iterable[Case], k: int, *, group: str = "patient", seed: int = 0, supervised: bool = False
) -> list[list[Case]]:
    """The cases k times over, each time with another k-th of the groups in the split test and the rest in the others.

    Groups are held out whole, spread evenly by label and by what `assign_splits` stratifies by.  The normal patients of
    the other groups go to train, calibrate and validate, group by group, in the shares of `assign_splits`; the abnormal
    ones, who are never learnt from, to validate; supervised, they go to train and validate.  Cases in the split
    external are left out.

    Parameters
    ----------
    group
        "patient", or a column of the manifest whose values are held out whole, such as site or anatomy.
    supervised
        As in `assign_splits`.

    Raises
    ------
    InputError
        If there are too few groups, a case is in none, or a patient is in two; supervised, if a fold lacks a class.
    """
    cases = [case for case in cases if case.split != "external"]
    group_of = _groups(cases, group)
    patients = _strata(cases, lambda case: case.patient)
    groups = _strata(cases, lambda case: group_of[case.patient])
    if not 2 <= k <= len(groups):
        raise InputError(f"{len(groups)} groups ({group}) cannot make {k} folds: take from 2 to {len(groups)}.")
    ill = [name for name, (label, _, _) in groups.items() if label]
    shares = {str(number): 1 / k for number in range(k)}
    fold_of = _spread(groups.keys() - set(ill), groups, shares, seed) | _spread(ill, groups, shares, seed)
    made = []
    for number in range(k):
        held = {name for name in groups if fold_of[name] == str(number)}
        normal = {group_of[p] for p, (label, _, _) in patients.items() if not label} - held
        if len(normal) < len(_rest(NORMAL_SHARES)) - 1:
            raise InputError(
                f"Fold {number + 1} of {k} leaves {len(normal)} groups ({group}) with normal patients; one to train on "
                "and one to calibrate on are needed."
            )
        ill_groups = {group_of[p] for p, (label, _, _) in patients.items() if label} - held
        role = _spread(normal, groups, _rest(NORMALS_BESIDE if supervised else NORMAL_SHARES), seed)
        role_of_ill = _spread(ill_groups, groups, _rest(LEARNT_SHARES) if supervised else {"validate": 1.0}, seed)

        def split(
            patient: str, held: set[str] = held, role: dict[str, str] = role, role_of_ill: dict[str, str] = role_of_ill
        ) -> str:
            if group_of[patient] in held:
                return "test"
            return role_of_ill[group_of[patient]] if patients[patient][0] else role[group_of[patient]]

        made.append([replace(case, split=split(case.patient)) for case in cases])
        if supervised:
            _check_classes(made[-1], number + 1, k)
    return made


def fold_of_patients(cases: Iterable[Case], k: int, *, seed: int) -> dict[str, int]:
    """Patient to one of k folds (from 0), spread evenly by label and by what `assign_splits` stratifies by.

    No fold is empty where there are k patients or more.
    """
    patients = _strata(cases, lambda case: case.patient)
    shares = {str(number): 1 / k for number in range(k)}
    return {patient: int(number) for patient, number in _spread(patients, patients, shares, seed).items()}


def _check_classes(cases: Sequence[Case], number: int, count: int) -> None:
    """Refuse a fold that has but one class to learn from, to choose on or to judge."""
    for split in ("train", "validate", "test"):
        for label, word in ((0, "normal"), (1, "abnormal")):
            if not any(case.split == split and case.label == label for case in cases):
                raise InputError(
                    f"Fold {number} of {count} has no {word} case in the split {split!r}, and a detector that learns "
                    "from labels needs both classes there; make fewer folds, or add cases of more patients."
                )


def _groups(cases: Sequence[Case], group: str) -> dict[str, str]:
    """The group of every patient."""
    found: dict[str, str] = {}
    for case in cases:
        name = case.patient if group == "patient" else case.covariates.get(group, "")
        if not name:
            known = sorted({column for other in cases for column in other.covariates})
            raise InputError(
                f"The case {case.case} has no value in the column {group!r}, by which the folds are made; the columns "
                f"are {', '.join(['patient', *known])}."
            )
        if found.setdefault(case.patient, name) != name:
            raise InputError(
                f"The patient {case.patient!r} is in {found[case.patient]!r} and in {name!r} of the column {group!r}; "
                "folds would share this patient."
            )
    return found


def _strata(cases: Iterable[Case], name_of: Callable[[Case], str]) -> dict[str, _Stratum]:
    """What each patient (or group) is stratified by: abnormal if any case is."""
    found: dict[str, _Stratum] = {}
    for case in cases:
        name = name_of(case)
        label, values, masked = found.get(name, (0, ("",) * len(STRATA), False))
        own = (case.covariates.get(column, "") for column in STRATA)
        values = tuple(max(pair) for pair in zip(values, own, strict=True))
        found[name] = (max(label, case.label), values, masked or case.mask is not None)
    return found


def _spread(
    names: Iterable[str], patients: Mapping[str, _Stratum], shares: Mapping[str, float], seed: int
) -> dict[str, str]:
    """Deal out patients, stratum by stratum in hashed order."""
    return dealt(sorted(names, key=lambda name: (patients[name], hashed(name, seed))), shares)


def hashed(name: str, seed: int) -> bytes:
    """What names are ordered by at random: a function of name and seed only."""
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def dealt(order: Sequence[str], shares: Mapping[str, float]) -> dict[str, str]:
    """Give each name in turn to the split that lags furthest behind its share.

    The last ones go to splits that have none, where there are any.
    """
    counts = dict.fromkeys(shares, 0)
    assigned = {}
    for number, name in enumerate(order, start=1):
        empty = [split for split, count in counts.items() if count == 0]
        choice = empty if len(order) - number < len(empty) else list(shares)
        split = max(choice, key=lambda candidate: round(shares[candidate] * number - counts[candidate], 9))
        counts[split] += 1
        assigned[name] = split
    return assigned
