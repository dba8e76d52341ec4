"""Splits by patient: train, calibrate, validate and test never share one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace

from AnomalyDetectionLib.errors import InputError

from .manifest import Case

NORMAL_SHARES: Mapping[str, float] = {"train": 0.50, "calibrate": 0.20, "validate": 0.15, "test": 0.15}
"""Shares of the normal patients: 70/15/15, the calibration normals cut from the 70."""

ABNORMAL_SHARES: Mapping[str, float] = {"validate": 0.5, "test": 0.5}
"""Patients with any abnormal case are only ever judged, never learnt from."""


def assign_splits(cases: Iterable[Case], *, seed: int = 0) -> list[Case]:
    """The same cases with a split each, by patient and stratified by label and site.

    A patient is abnormal if any of their cases is.  The outcome depends on the patients' identifiers, labels and sites
    and on the seed only, not on the order of the rows.

    Raises
    ------
    InputError
        If there are too few normal patients for every split to have one.
    """
    cases = list(cases)
    patients: dict[str, tuple[int, str]] = {}
    for case in cases:
        label, site = patients.get(case.patient, (0, ""))
        patients[case.patient] = (max(label, case.label), max(site, case.covariates.get("site", "")))
    normal = [patient for patient, (label, _) in patients.items() if label == 0]
    assigned = _spread(normal, patients, NORMAL_SHARES, seed)
    if missing := set(NORMAL_SHARES) - set(assigned.values()):
        raise InputError(
            f"{len(normal)} normal patients are too few to split: none is left for {', '.join(sorted(missing))}; "
            "name the splits in the manifest's 'split' column instead."
        )
    assigned |= _spread(patients.keys() - set(normal), patients, ABNORMAL_SHARES, seed)
    return [replace(case, split=assigned[case.patient]) for case in cases]


def _spread(
    names: Iterable[str], patients: Mapping[str, tuple[int, str]], shares: Mapping[str, float], seed: int
) -> dict[str, str]:
    """Give each patient, site by site in hashed order, to the split that lags furthest behind its share."""
    order = sorted(names, key=lambda name: (patients[name][1], hashlib.sha256(f"{seed}:{name}".encode()).digest()))
    counts = dict.fromkeys(shares, 0)
    assigned = {}
    for number, name in enumerate(order, start=1):
        split = max(shares, key=lambda candidate: round(shares[candidate] * number - counts[candidate], 9))
        counts[split] += 1
        assigned[name] = split
    return assigned
