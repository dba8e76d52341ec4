"""Lesion metrics: FROC, recall and false findings, for many weightings of the cases at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib.scoring.thresholds import LEVELS

from .curves import Rows, Weights
from .intervals import clustered_share
from .records import CaseRecord

FALSE_POSITIVES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)
"""False positives per image at which the FROC is reported (LUNA16, CAMELYON16)."""

SIZES = {"mL": (0.1, 0.5, 2.0, 10.0, 50.0), "mm²": (25.0, 100.0, 400.0, 1600.0), "px": (25.0, 100.0, 400.0, 1600.0)}
"""Where the size bins of the recall part, by unit."""


def froc_curve(records: Sequence[CaseRecord], weights: Weights) -> tuple[Rows, Rows]:
    """False positives per image and sensitivity at each of `LEVELS`, (rows, levels) each.

    Images are all cases with known truth, normal or not.
    """
    false = np.stack([_false_at(record) for record in records]).astype(np.float64)
    highest = [np.array([lesion.highest_level for lesion in record.lesions]) for record in records]
    # A lesion hit at a level is hit at every lower one.
    hits = np.stack([(levels[:, None] >= LEVELS - 1e-6).sum(axis=0) for levels in highest]).astype(np.float64)
    number = np.array([levels.size for levels in highest], dtype=np.float64)
    rows = weights.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return rows @ false / rows.sum(axis=1)[:, None], rows @ hits / (rows @ number)[:, None]


def _false_at(record: CaseRecord) -> NDArray[np.int32]:
    if record.false_findings_at is None:
        raise ValueError(f"{record.case}: its truth is unknown")
    return record.false_findings_at


def sensitivity_at(false: Rows, sensitivity: Rows, allowed: float) -> Rows:
    """Sensitivity at the lowest level down to which none has more than `allowed` false positives per image; (rows,).

    Going on below it would reach levels where regions merge, and false positives get fewer again, only because
    everything is one finding.
    """
    within = np.logical_and.accumulate(false[:, ::-1] <= allowed + 1e-9, axis=1)
    last = within.sum(axis=1)  # number of levels from the top that are within
    chosen = np.take_along_axis(sensitivity[:, ::-1], np.maximum(last - 1, 0)[:, None], axis=1)[:, 0]
    return np.where(last > 0, chosen, np.where(np.isfinite(chosen), 0.0, np.nan))


def lesion_metrics(records: Sequence[CaseRecord], weights: Weights) -> dict[str, Rows]:
    """FROC at each of `FALSE_POSITIVES`, their mean, and recall and false findings at the fixed threshold.

    Parameters
    ----------
    records
        Cases with known truth, (n,).
    weights
        (rows, n).

    Returns
    -------
    `froc_mean`, `froc_0.125` ... `froc_8`, `recall`, `false_findings_per_normal`, float64 (rows,).
    """
    if not records:
        names = ["froc_mean", *map(froc_name, FALSE_POSITIVES), "recall", "false_findings_per_normal"]
        return dict.fromkeys(names, np.full(weights.shape[0], np.nan))
    false, sensitivity = froc_curve(records, weights)
    froc = {froc_name(rate): sensitivity_at(false, sensitivity, rate) for rate in FALSE_POSITIVES}
    return {"froc_mean": np.mean(list(froc.values()), axis=0), **froc, **fixed_threshold_metrics(records, weights)}


def fixed_threshold_metrics(records: Sequence[CaseRecord], weights: Weights) -> dict[str, Rows]:
    """`recall` and `false_findings_per_normal` at the fixed threshold, of cases with known truth."""
    rows = weights.astype(np.float64)
    lesions = np.array([len(record.lesions) for record in records], dtype=np.float64)
    hits = np.array([sum(lesion.hit for lesion in record.lesions) for record in records], dtype=np.float64)
    normal = np.array([record.label == 0 for record in records], dtype=np.float64)
    findings = np.array([record.false_findings or 0 for record in records], dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "recall": rows @ hits / (rows @ lesions),
            "false_findings_per_normal": rows @ (findings * normal) / (rows @ normal),
        }


def froc_name(rate: float) -> str:
    """The metric's name: "froc_0.125"."""
    return f"froc_{rate:g}"


def recall_by_size(records: Sequence[CaseRecord], level: float) -> list[dict[str, Any]]:
    """Lesions, hits and recall with its exact interval, by size; bins without a lesion are left out.

    Lesions of one cluster count as fewer in the interval, by what they have in common.
    """
    lesions = [(lesion, record.cluster) for record in records for lesion in record.lesions]
    rows = []
    for unit, inner in SIZES.items():
        edges = [0.0, *inner, np.inf]
        for low, high in pairwise(edges):
            members = [(x.hit, cluster) for x, cluster in lesions if x.unit == unit and low <= x.size_ml < high]
            if members:
                hits = np.array([hit for hit, _ in members])
                rows.append(
                    {
                        "from": low,
                        "to": None if np.isinf(high) else high,
                        "unit": unit,
                        "lesions": len(members),
                        "found": int(hits.sum()),
                        "recall": clustered_share(hits, [cluster for _, cluster in members], level).to_json(),
                    }
                )
    return rows
