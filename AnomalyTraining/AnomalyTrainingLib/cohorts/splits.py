"""Splits by patient: train, calibrate, validate and test never share one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace

from AnomalyDetectionLib.errors import InputError

from .manifest import Case

NORMAL_SHARES: Mapping[str, float] = {"train": 0.50, "calibrate": 0.20, "validate": 0.15, "test": 0.15}
"""Shares of the normal patients: 70/15/15, the calibration normals cut from the 70."""

ABNORMAL_SHARES: Mapping[str, float] = {"test": 0.5, "validate": 0.5}
"""Patients with any abnormal case are only ever judged, never learnt from; an odd one is for the test."""

STRATA = ("site", "lesion")
"""Columns whose values are spread evenly over the splits, as are labels and masks."""

_Stratum = tuple[int, tuple[str, ...], bool]
"""Label, values of `STRATA`, whether there is a mask."""


def assign_splits(cases: Iterable[Case], *, seed: int = 0) -> list[Case]:
    """The same cases with a split each, by patient and stratified by label, site, kind of lesion and having a mask.

    A patient is abnormal if any of their cases is.  The outcome depends on what is stratified by, the patients'
    identifiers and the seed only, not on the order of the rows.

    Raises
    ------
    InputError
        If there are too few normal patients for every split to have one.
    """
    cases = list(cases)
    patients: dict[str, _Stratum] = {}
    for case in cases:
        label, values, masked = patients.get(case.patient, (0, ("",) * len(STRATA), False))
        own = (case.covariates.get(name, "") for name in STRATA)
        values = tuple(max(pair) for pair in zip(values, own, strict=True))
        patients[case.patient] = (max(label, case.label), values, masked or case.mask is not None)
    normal = [patient for patient, (label, _, _) in patients.items() if label == 0]
    if len(normal) < len(NORMAL_SHARES):
        raise InputError(
            f"{len(normal)} normal patients are too few to split: each of {', '.join(NORMAL_SHARES)} needs one; "
            "name the splits in the manifest's 'split' column instead."
        )
    assigned = _spread(normal, patients, NORMAL_SHARES, seed)
    assigned |= _spread(patients.keys() - set(normal), patients, ABNORMAL_SHARES, seed)
    return [replace(case, split=assigned[case.patient]) for case in cases]


def _spread(
    names: Iterable[str], patients: Mapping[str, _Stratum], shares: Mapping[str, float], seed: int
) -> dict[str, str]:
    """Give each patient, stratum by stratum in hashed order, to the split that lags furthest behind its share.

    The last ones go to splits that have none, where there are any.
    """
    order = sorted(names, key=lambda name: (patients[name], hashlib.sha256(f"{seed}:{name}".encode()).digest()))
    counts = dict.fromkeys(shares, 0)
    assigned = {}
    for number, name in enumerate(order, start=1):
        empty = [split for split, count in counts.items() if count == 0]
        choice = empty if len(order) - number < len(empty) else list(shares)
        split = max(choice, key=lambda candidate: round(shares[candidate] * number - counts[candidate], 9))
        counts[split] += 1
        assigned[name] = split
    return assigned
