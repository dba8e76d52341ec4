"""The folds of a cross-validation taken together: all cases of a method on one scale, and the spread of its figures."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .outcome import methods_of
from .run import Judged
from .summary import METRICS, Method
from .words import listed


@dataclass(frozen=True)
class Fold:
    """What came of one fold: its evaluation, and its content of metrics.json."""

    number: int
    judged: Judged
    document: dict[str, Any]


def pooled(done: Sequence[Fold], subgroups: Sequence[str] | None = None) -> list[Method]:
    """Every method with the records of all folds.

    A threshold that differs from fold to fold is left out: each record was made at its own.  Log-odds of models that
    were trained apart have no common zero: they are counted from each fold's own threshold, which was chosen on its
    validation cases.  Those of baselines and ablations, which have no threshold of that kind, are taken as they are;
    `note_on_scores` tells the reader.
    """
    by_name: dict[str, list[Method]] = {}
    for fold in done:
        for method in methods_of(fold.judged, subgroups):
            by_name.setdefault(method.name, []).append(_from_its_threshold(method))
    return [
        replace(
            methods[0],
            description=_description(methods),
            records=tuple(record for method in methods for record in method.records),
            threshold=_common([method.threshold for method in methods]),
            volume_threshold=_common([method.volume_threshold for method in methods]),
            calibration_n=None,
            folds=tuple(methods),
        )
        for methods in by_name.values()
    ]


def _from_its_threshold(method: Method) -> Method:
    """A method of log-odds with its scores counted from its threshold, another one as it is."""
    cut = method.volume_threshold
    if cut is None or any(record.probability is None for record in method.records):
        return method
    records = tuple(replace(record, volume_score=record.volume_score - cut) for record in method.records)
    return replace(method, records=records, volume_threshold=0.0)


def mean_and_sd(done: Sequence[Fold]) -> dict[str, Any]:
    """Method to level to figure: `mean` and `sd` (n - 1) over the `folds` in which it is defined."""
    names = dict.fromkeys(name for fold in done for name in fold.document["methods"])
    return {name: {level: _spread(done, name, level) for level in METRICS} for name in names}


def _spread(done: Sequence[Fold], name: str, level: str) -> dict[str, Any]:
    entries = [fold.document["methods"][name][level] for fold in done if name in fold.document["methods"]]
    found = {}
    for metric in METRICS[level]:
        values = [entry[metric]["value"] for entry in entries if entry[metric]["value"] is not None]
        found[metric] = {
            "mean": round(statistics.fmean(values), 6) if values else None,
            "sd": round(statistics.stdev(values), 6) if len(values) > 1 else None,
            "folds": len(values),
        }
    return found


def _common(values: Sequence[float | None]) -> float | None:
    return values[0] if len(set(values)) == 1 else None


def _description(methods: Sequence[Method]) -> str:
    """What a method is; that of the first fold, where they differ in what it was fitted to."""
    first, count = methods[0], len(methods)
    if first.kind == "model":
        return f"{first.description}, a new one in each of {count} folds"
    same = all(method.description == first.description for method in methods)
    return first.description if same else f"{first.description}; so in the first of {count} folds"


def note_on_scores(done: Sequence[Fold], mean_sd: Mapping[str, Any]) -> list[str]:
    """How `pooled` put scores of several models on one scale, and what the methods reach without that; [] if not."""
    methods = {method.name: method for fold in done for method in methods_of(fold.judged)}
    counted = [name for name, method in methods.items() if _from_its_threshold(method) is not method]
    if not counted:
        return []
    others = [name for name in methods if name not in counted]
    taken = f", while those of {listed(others)} are taken as they are" if others else ""
    within = [
        f"{name} {figure['mean']:.3f}"
        for name, levels in mean_sd.items()
        if (figure := levels["volume"]["auroc"])["mean"] is not None
    ]
    reached = f" Within the folds, where that plays no part, the mean AUROC of cases is {', '.join(within)}."
    return [
        f"Log-odds of models that were trained apart have no common zero: the scores of {listed(counted)} are counted "
        f"from each fold's own threshold, which is 0 here{taken}." + (reached if within else "")
    ]
