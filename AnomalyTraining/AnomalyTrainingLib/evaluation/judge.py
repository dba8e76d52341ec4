"""From the records of all methods to the whole of metrics.json."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from AnomalyDetectionLib import __version__
from AnomalyDetectionLib.scoring.result import ModelIdentity

from ..cohorts.manifest import Case, Cohort
from ..synthesis.cohort import is_phantom
from .calibration_check import Fold, check_folds
from .intervals import LEVEL, RESAMPLES, Bootstrap
from .metrics_file import SCHEMA
from .records import CaseRecord
from .summary import Method, Samples, compare_methods, summarise
from .voxels import average_precision


def judge(
    methods: Sequence[Method],
    *,
    model: ModelIdentity | None,
    cohort: dict[str, Any],
    cluster: str = "patient",
    notes: Sequence[str] = (),
    artefacts: Sequence[dict[str, Any]] = (),
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
    progress: Callable[[float], None] = lambda fraction: None,
) -> dict[str, Any]:
    """All figures of an evaluation, as `metrics_file.write_metrics` takes them.

    Parameters
    ----------
    methods
        At most one of them of kind "model": it is compared with every other, and its p-values are checked.
    cohort
        From `cohort_facts`.
    cluster
        What the clusters of the records are, in a word.
    artefacts
        Rows of the artefact battery.
    progress
        Called with the share that is done.

    Raises
    ------
    ValueError
        If there is no method, a method without a case, two methods of one name, or two models.
    """
    _check(methods)
    records = [record for method in methods for record in method.records]
    bootstrap = Bootstrap.of_records(records, resamples=resamples, level=level, seed=seed)
    samples, entries = {}, {}
    for done, method in enumerate(methods, start=1):
        samples[method.name] = Samples.of(method, bootstrap)
        entries[method.name] = summarise(method, bootstrap, samples[method.name])
        progress(done / len(methods))
    ours = next((method for method in methods if method.kind == "model"), None)
    return {
        "schema": SCHEMA,
        "software": {"name": "slicer-anomaly", "version": __version__},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": None if model is None else vars(model) | {},
        "cohort": cohort,
        "bootstrap": {"resamples": resamples, "level": level, "cluster": cluster, "seed": seed},
        "notes": list(notes),
        "methods": entries,
        "comparisons": [
            row
            for other in methods
            if ours is not None and other is not ours
            for row in compare_methods(ours, other, bootstrap, (samples[ours.name], samples[other.name]))
        ],
        "calibration": None if ours is None else _calibration(ours, level),
        "artefacts": list(artefacts),
        "cases": {method.name: [case_row(record) for record in method.records] for method in methods},
    }


def _check(methods: Sequence[Method]) -> None:
    names = [method.name for method in methods]
    if not methods or any(not method.records for method in methods):
        raise ValueError("every evaluation needs methods, and every method cases")
    if len(set(names)) < len(names) or sum(method.kind == "model" for method in methods) > 1:
        raise ValueError(f"methods need names of their own, and only one may be the model: {', '.join(names)}")


def cohort_facts(cohort: Cohort, cases: Sequence[Case], split: str) -> dict[str, Any]:
    """What metrics.json says of the cohort: the manifest's name and hash, and counts of the judged cases.

    Raises
    ------
    OSError
        If the manifest is no longer there.
    """
    abnormal = [case for case in cases if case.label]
    return {
        "file": cohort.path.name,
        "sha256": hashlib.sha256(cohort.path.read_bytes()).hexdigest(),
        "split": split,
        "cases": len(cases),
        "patients": len({case.patient for case in cases}),
        "normal": len(cases) - len(abnormal),
        "abnormal": len(abnormal),
        "with_mask": sum(case.mask is not None for case in abnormal),
        "simulated": sum(is_phantom(case) for case in cases),
    }


def _calibration(model: Method, level: float) -> dict[str, Any] | None:
    folds = [_checked(fold, n) for fold in model.folds or (model,) if (n := fold.calibration_n) is not None]
    return check_folds(folds, level=level).to_json() if folds else None


def _checked(method: Method, calibration_n: int) -> Fold:
    """The p-values of its normals, and whose they are."""
    normals = [(r.p_value, r.patient) for r in method.records if r.label == 0 and r.p_value is not None]
    return [p_value for p_value, _ in normals], calibration_n, [patient for _, patient in normals]


def case_row(record: CaseRecord) -> dict[str, Any]:
    """One case in `cases` of metrics.json: enough to compare evaluations case by case."""
    voxels = record.voxels
    false_at = record.false_findings_at
    average = None if voxels is None else average_precision(voxels)
    return {
        "case": record.case,
        "patient": record.patient,
        "cluster": record.cluster,
        "label": record.label,
        "score": record.volume_score,
        "p_value": record.p_value,
        "called": record.called,
        "findings": record.findings,
        "false_findings": record.false_findings,
        "false_findings_at": None if false_at is None else _without_last_zeros(false_at.tolist()),
        "average_precision": None if average is None else round(average, 6),
        "dice": None if voxels is None or voxels.dice is None else round(voxels.dice, 6),
        "iou": None if voxels is None or voxels.iou is None else round(voxels.iou, 6),
        "lesions": [
            {
                "size": round(lesion.size_ml, 6),
                "unit": lesion.unit,
                "hit": lesion.hit,
                "highest_level": lesion.highest_level,
            }
            for lesion in record.lesions
        ],
        "quality": record.quality,
        **({} if record.probability is None else {"probability": round(record.probability, 6)}),
    }


def _without_last_zeros(counts: list[int]) -> list[int]:
    last = max((n for n, count in enumerate(counts) if count), default=-1)
    return counts[: last + 1]
