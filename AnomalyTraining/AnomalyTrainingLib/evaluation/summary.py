"""All figures of an evaluation from the records of its cases: per method, and the model against each other method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .curves import (
    Columns,
    Rows,
    Weights,
    confusion,
    decision_metrics,
    precision_recall_points,
    ranking_metrics,
    roc_points,
)
from .froc import FALSE_POSITIVES, froc_curve, froc_name, lesion_metrics, recall_by_size
from .intervals import Bootstrap, verdict
from .records import CaseRecord
from .reliability import reliability
from .subgroups import groupings, subgroup
from .voxels import voxel_metrics

KINDS = ("model", "baseline", "ceiling", "ablation")

RANKING = ("auroc", "average_precision", "sensitivity_at_95_specificity")
DECISION = ("accuracy", "sensitivity", "specificity", "precision", "f1")
VOXEL = ("average_precision", "dice", "iou", "dice_oracle")
LESION = ("froc_mean", *(froc_name(rate) for rate in FALSE_POSITIVES), "recall", "false_findings_per_normal")

METRICS = {"volume": (*RANKING, *DECISION), "slice": (*RANKING, *DECISION), "voxel": VOXEL, "lesion": LESION}
"""The figures of each level."""

BOUNDED = {("volume", "auroc"), ("lesion", "recall")}
"""Compared figures that have an exact interval where all resamples agree on 0 or 1 (see `Bootstrap.figure`)."""

LOWER_IS_BETTER = {"false_findings_per_normal"}


class Compared(NamedTuple):
    """A figure in which two methods are compared."""

    level: str
    metric: str


COMPARED = (
    Compared("volume", "auroc"),
    Compared("volume", "average_precision"),
    Compared("slice", "auroc"),
    Compared("slice", "average_precision"),
    Compared("voxel", "average_precision"),
    Compared("voxel", "dice"),
    Compared("lesion", "froc_mean"),
    Compared("lesion", "recall"),
    Compared("lesion", "false_findings_per_normal"),
)
"""What the model is compared with each other method in."""


@dataclass(frozen=True, eq=False)
class Method:
    """A method and its records.

    Attributes
    ----------
    kind
        "model", "baseline", "ceiling" (one that has seen what the model may not, such as lesions) or "ablation" (the
        model without a part of what it is told).
    description
        What it is, in a phrase.
    threshold
        Rarity from which voxels are findings, fixed on calibration normals; None without a map.
    volume_threshold
        Volume score from which a case is called abnormal; None without a decision.
    calibration_n
        Calibration normals behind its p-values; None where it has none, and where every fold has its own.
    folds
        What it was put together from, each with p-values of its own; () where it is one model.
    """

    name: str
    kind: str
    description: str
    records: tuple[CaseRecord, ...]
    threshold: float | None = None
    volume_threshold: float | None = None
    calibration_n: int | None = None
    folds: tuple[Method, ...] = ()

    def of_cases(self, names: set[str]) -> Method:
        """The same method on some of its cases, in the order of their names."""
        kept = sorted((r for r in self.records if r.case in names), key=lambda record: record.case)
        return replace(self, records=tuple(kept))


@dataclass(frozen=True, eq=False)
class Samples:
    """All figures of a method, resampled.

    Attributes
    ----------
    rows
        (level, metric) to float64 (resamples + 1,).
    oracle_threshold
        Rarity at which the oracle's Dice is reached.
    """

    rows: dict[tuple[str, str], Rows]
    oracle_threshold: float | None

    @classmethod
    def of(cls, method: Method, bootstrap: Bootstrap) -> Samples:
        """Resample a method's records."""
        records = method.records
        weights = bootstrap.weights([record.cluster for record in records])
        rows = {("volume", name): sample for name, sample in _detection(*_volume_columns(records), weights).items()}
        labels, scores, called, case = _slice_columns(method)
        sliced = _detection(labels, scores, called, weights, case)
        rows |= {("slice", name): sample for name, sample in sliced.items()}
        ill = [n for n, record in enumerate(records) if record.voxels is not None and record.voxels.dice is not None]
        voxels, oracle = voxel_metrics([v for n in ill if (v := records[n].voxels) is not None], weights[:, ill])
        rows |= {("voxel", name): sample for name, sample in voxels.items()}
        known = [n for n, record in enumerate(records) if record.false_findings_at is not None]
        lesions = lesion_metrics([records[n] for n in known], weights[:, known])
        rows |= {("lesion", name): sample for name, sample in lesions.items()}
        return cls(rows, oracle)


def summarise(method: Method, bootstrap: Bootstrap, samples: Samples | None = None) -> dict[str, Any]:
    """The entry of a method in metrics.json.

    Parameters
    ----------
    bootstrap
        Of the cases of the evaluation; the same for all its methods.
    samples
        Those of this method and bootstrap, where they have been made already.
    """
    samples = samples or Samples.of(method, bootstrap)
    records = method.records
    return {
        "kind": method.kind,
        "description": method.description,
        "threshold": method.threshold,
        "volume_threshold": method.volume_threshold,
        "volume": _volume_section(records, samples, bootstrap),
        "slice": _slice_section(method, samples, bootstrap),
        "voxel": _voxel_section(records, samples, bootstrap),
        "lesion": _lesion_section(records, samples, bootstrap),
        "subgroups": {name: subgroup(records, name, bootstrap) for name in groupings(records)},
        **({} if (probability := reliability(records, bootstrap)) is None else {"probability": probability}),
    }


def compare_methods(
    model: Method, other: Method, bootstrap: Bootstrap, made: tuple[Samples, Samples] | None = None
) -> list[dict[str, Any]]:
    """Paired differences, model minus other, of each figure that both have, on their common cases.

    Parameters
    ----------
    made
        The samples of both, where they have been made already; used where both have the same cases.

    Returns
    -------
    Rows of `comparisons` in metrics.json.
    """
    ours, theirs = {r.case for r in model.records}, {r.case for r in other.records}
    if ours != theirs or made is None:
        model, other = model.of_cases(ours & theirs), other.of_cases(ours & theirs)
        if not model.records:
            return []
        made = Samples.of(model, bootstrap), Samples.of(other, bootstrap)
    rows = []
    for level, metric in COMPARED:
        difference = made[0].rows[level, metric] - made[1].rows[level, metric]
        if np.isfinite(difference[0]):
            clusters = clusters_behind(model.records, level, metric)
            figure = bootstrap.figure(difference, clusters=clusters, undefined="")
            if figure.low is None and (level, metric) in BOUNDED:
                figure = bootstrap.difference_of_constants(*(s.rows[level, metric] for s in made), clusters=clusters)
            better = verdict(figure, clusters=clusters, higher_is_better=metric not in LOWER_IS_BETTER)
            rows.append(
                {
                    "baseline": other.name,
                    "level": level,
                    "metric": metric,
                    "difference": figure.to_json(),
                    "clusters": clusters,
                    "verdict": better,
                }
            )
    return rows


def clusters_behind(records: Sequence[CaseRecord], level: str, metric: str) -> int:
    """Number of clusters that a figure, or a difference in it, rests on.

    Of the class that has fewer where it takes both: however many normals there are, a single abnormal patient is in
    every draw, and no interval shows what another one would have changed.
    """
    if level == "voxel":
        return len({r.cluster for r in records if r.voxels is not None and r.voxels.dice is not None})
    if level == "lesion":
        known = [record for record in records if record.false_findings_at is not None]
        of_normals = metric == "false_findings_per_normal"
        return len({record.cluster for record in known if (record.label == 0 if of_normals else record.lesions)})
    found: tuple[set[str], set[str]] = (set(), set())  # normal and abnormal
    for record in records:
        for label in {record.label} if level == "volume" else {ill for ill, _ in record.slices}:
            found[label].add(record.cluster)
    normal, abnormal = map(len, found)
    of_some = {"accuracy": len(found[0] | found[1]), "sensitivity": abnormal, "specificity": normal}
    return of_some.get(metric, min(normal, abnormal))


# -- the columns of each level


def _detection(
    labels: NDArray[np.int64],
    scores: NDArray[np.float64],
    called: NDArray[np.bool_] | None,
    weights: Weights,
    of: Columns | None = None,
) -> dict[str, Rows]:
    ranking = ranking_metrics(labels, scores, weights, of)
    if called is None:
        return ranking | dict.fromkeys(DECISION, np.full(weights.shape[0], np.nan))
    return ranking | decision_metrics(labels, called, weights, of)


def _volume_columns(
    records: Sequence[CaseRecord],
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_] | None]:
    """Label, score and decision of every case; no decisions unless all have one."""
    decided = bool(records) and all(record.called is not None for record in records)
    return (
        np.array([record.label for record in records], dtype=np.int64),
        np.array([record.volume_score for record in records], dtype=np.float64),
        np.array([bool(record.called) for record in records]) if decided else None,
    )


def _slice_columns(
    method: Method,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_] | None, NDArray[np.int64]]:
    """Label, score, decision (score at or above the voxel threshold) and number of the case of every slice."""
    rows = [(ill, score, n) for n, record in enumerate(method.records) for ill, score in record.slices]
    table = np.array(rows, dtype=np.float64).reshape(-1, 3)
    called = None if method.threshold is None else table[:, 1] >= method.threshold
    return table[:, 0].astype(np.int64), table[:, 1], called, table[:, 2].astype(np.int64)


# -- the sections of a method's entry


def _volume_section(records: Sequence[CaseRecord], samples: Samples, bootstrap: Bootstrap) -> dict[str, Any]:
    labels, scores, called = _volume_columns(records)
    return _detection_section("volume", labels, scores, called, records, samples, bootstrap)


def _slice_section(method: Method, samples: Samples, bootstrap: Bootstrap) -> dict[str, Any]:
    labels, scores, called, _ = _slice_columns(method)
    return _detection_section("slice", labels, scores, called, method.records, samples, bootstrap)


def _detection_section(
    level: str,
    labels: NDArray[np.int64],
    scores: NDArray[np.float64],
    called: NDArray[np.bool_] | None,
    records: Sequence[CaseRecord],
    samples: Samples,
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    counts = [int((labels == label).sum()) for label in (0, 1)]
    what = "case" if level == "volume" else "slice of known truth"
    missing = [name for name, count in zip(("normal", "abnormal"), counts, strict=True) if not count]
    why = f"there is no {' and no '.join(missing)} {what}" if missing else "there is nothing to rank"
    no_decision = "the method has no fixed threshold for this decision"
    figures = {}
    for name in METRICS[level]:
        undefined = why if missing or name in RANKING else "nothing is called abnormal"
        figures[name] = bootstrap.figure(
            samples.rows[level, name],
            clusters=clusters_behind(records, level, name),
            undefined=no_decision if called is None and name in DECISION else undefined,
            bounded=level == "volume" and name in ("auroc", "accuracy", "sensitivity", "specificity"),
        ).to_json()
    both = not missing
    false, true = roc_points(labels, scores) if both else (None, None)
    recall, precision = precision_recall_points(labels, scores) if counts[1] else (None, None)
    return {
        "normal": counts[0],
        "abnormal": counts[1],
        **figures,
        "confusion": None if called is None else confusion(labels, called),
        "roc": {"false_positive_rate": false, "sensitivity": true} if both else None,
        "precision_recall": {"recall": recall, "precision": precision} if both else None,
    }


def _voxel_section(records: Sequence[CaseRecord], samples: Samples, bootstrap: Bootstrap) -> dict[str, Any]:
    ill = [record for record in records if record.voxels is not None and record.voxels.dice is not None]
    why = "no case has a map and a mask of its lesions"
    figures = {
        name: bootstrap.figure(
            samples.rows["voxel", name], clusters=clusters_behind(ill, "voxel", name), undefined=why
        ).to_json()
        for name in VOXEL
    }
    lesion = sum(int(r.voxels.lesion.sum()) for r in ill if r.voxels is not None)
    judged = lesion + sum(int(r.voxels.healthy.sum()) for r in ill if r.voxels is not None)
    return {
        "cases": len(ill),
        "prevalence": round(lesion / judged, 8) if judged else None,
        **figures,
        "dice_oracle_threshold": samples.oracle_threshold,
    }


def _lesion_section(records: Sequence[CaseRecord], samples: Samples, bootstrap: Bootstrap) -> dict[str, Any]:
    known = [record for record in records if record.false_findings_at is not None]
    lesions = [lesion for record in known for lesion in record.lesions]
    figures = {}
    for name in LESION:
        clusters = clusters_behind(known, "lesion", name)
        why = "there is no normal case with a map" if name in LOWER_IS_BETTER else "no lesion is known"
        sample = samples.rows["lesion", name]
        figures[name] = bootstrap.figure(sample, clusters=clusters, undefined=why, bounded=name == "recall").to_json()
    return {
        "images": len(known),
        "lesions": len(lesions),
        "found": sum(lesion.hit for lesion in lesions),
        **figures,
        "froc": _froc_points(known) if lesions else None,
        "recall_by_size": recall_by_size(known, bootstrap.level),
    }


def _froc_points(records: Sequence[CaseRecord]) -> dict[str, list[float]]:
    """The curve from the highest level down, as `sensitivity_at` reads it: no level costs less than one above it."""
    false, sensitivity = froc_curve(records, np.ones((1, len(records))))
    most = np.maximum.accumulate(false[0, ::-1])
    return {
        "false_positives_per_image": [round(float(value), 5) for value in most],
        "sensitivity": [round(float(value), 5) for value in sensitivity[0, ::-1]],
    }
