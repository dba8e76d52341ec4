"""Clinical columns of the training cases: how they become numbers, and whether their absence gives the label away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.scoring.covariates import ClinicalColumn, as_number
from AnomalyTrainingLib.cohorts.manifest import Case

MOST_CATEGORIES = 20
"""A column of more different words than that is a name or a report."""

NUMBERS_SHARE = 0.8
"""A column is one of numbers if at least that share of its values are; the others then count as missing."""

LEVEL = 0.95


def fit_columns(names: Sequence[str], cases: Sequence[Case]) -> tuple[ClinicalColumn, ...]:
    """The columns as the training cases have them: mean and standard deviation of numbers, categories of words.

    Raises
    ------
    InputError
        If a column is named twice, is empty in all of these cases, says the same in all, or is one of names.
    """
    if len(set(names)) < len(names):
        raise InputError(f"options.clinical names a column twice: {', '.join(names)}.")
    return tuple(_column(name, cases) for name in names)


def _column(name: str, cases: Sequence[Case]) -> ClinicalColumn:
    values = [value for case in cases if (value := case.covariates.get(name, "").strip())]
    if not values:
        known = sorted({column for case in cases for column in case.covariates})
        raise InputError(
            f"The clinical column {name!r} is missing in all {len(cases)} training cases; take it out of "
            f"options.clinical (the columns of the manifest are {', '.join(known) or 'none'})."
        )
    numbers = [number for value in values if (number := as_number(value)) is not None]
    if len(numbers) >= NUMBERS_SHARE * len(values):
        centre, scale = float(np.mean(numbers)), float(np.std(numbers))
        return ClinicalColumn(name, centre=centre, scale=scale if scale > 1e-9 * max(1.0, abs(centre)) else 1.0)
    words = Counter(value.casefold() for value in values)
    if len(words) > MOST_CATEGORIES:
        raise InputError(
            f"The clinical column {name!r} has {len(words)} different values in the training cases; a column of words "
            f"may have {MOST_CATEGORIES} at most: take it out of options.clinical."
        )
    return ClinicalColumn(name, tuple(sorted({value.upper() for value in values})))


def missingness_warnings(names: Sequence[str], cases: Sequence[Case]) -> list[str]:
    """A sentence for each column of which the mere absence tells abnormal cases from normal ones.

    The AUROC of "is missing" against the label has the interval of Hanley & McNeil (Radiology 1982) over patients, each
    counted once; a column is named where 0.5 lies outside.
    """
    first = {case.patient: case for case in reversed(cases)}.values()
    labels = np.array([case.label for case in first])
    said = []
    for name in names:
        missing = np.array([float(not case.covariates.get(name, "").strip()) for case in first])
        if len(set(labels)) < 2 or len(set(missing)) < 2:
            continue
        low, area, high = area_with_interval(labels, missing)
        if low > 0.5 or high < 0.5:
            said.append(
                f"Whether {name} is missing tells the label: AUROC {area:.2f} ({low:.2f} to {high:.2f}, {len(labels)} "
                "patients); a model that is told so learns how the cohort was put together, not the disease."
            )
    return said


def area_with_interval(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float, float]:
    """Lower end, value and upper end of an AUROC at `LEVEL`; labels 0 and 1, both present."""
    area = float(roc_auc_score(labels, scores))
    ill, well = int(labels.sum()), int((labels == 0).sum())
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (ill - 1) * (q1 - area**2) + (well - 1) * (q2 - area**2)
    half = float(norm.ppf((1 + LEVEL) / 2)) * np.sqrt(max(variance, 0) / (ill * well))
    return max(0.0, area - half), area, min(1.0, area + half)
