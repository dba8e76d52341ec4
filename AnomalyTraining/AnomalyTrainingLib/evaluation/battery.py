"""What artefacts do to a method: false findings and scores on normals that were spoilt on purpose."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.scoring.scorer import Scorer

from ..cohorts.manifest import Case
from ..synthesis.artefacts import ARTEFACTS, SEVERITIES, degrade
from .candidates import Candidate
from .metrics_file import UNSPOILT

SCOPES = ("none", "quick", "full")
QUICK_SEVERITY, QUICK_NORMALS = 3, 3
JUDGED = ("zscore",)
"""Baselines that are put to it beside the model."""


def battery_candidates(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The methods that are put to the battery: the model, the ceiling and the atlas z-score."""
    return [c for c in candidates if c.model is not None and (c.kind in ("model", "ceiling") or c.name in JUDGED)]


def battery_cases(cases: Sequence[Case], scope: str) -> list[Case]:
    """The normals that are spoilt; one of each patient before a second one of any."""
    normals = [case for case in cases if case.label == 0]
    first: dict[str, Case] = {}
    for case in normals:
        first.setdefault(case.patient, case)
    ordered = [*first.values(), *(case for case in normals if first[case.patient] is not case)]
    return ordered[:QUICK_NORMALS] if scope == "quick" else [] if scope == "none" else ordered


def spoilt(scope: str) -> Iterable[tuple[str, int]]:
    """(artefact, severity) of a scope, the unspoilt image first."""
    yield UNSPOILT, 0
    severities = (QUICK_SEVERITY,) if scope == "quick" else SEVERITIES
    yield from ((name, severity) for name in ARTEFACTS for severity in severities)


def battery_of_case(
    candidates: Sequence[Candidate],
    volume: Volume,
    scope: str,
    *,
    device: str = "auto",
    seed: int = 0,
    progress: Callable[[float], None] = lambda fraction: None,
) -> list[dict[str, Any]]:
    """One row for every artefact, severity and method of one normal.

    An artefact that the image cannot have (missing slices in a single image) or that a method will not score leaves a
    row with a `refused` reason.
    """
    rows: list[dict[str, Any]] = []
    wanted = list(spoilt(scope))
    for done, (artefact, severity) in enumerate(wanted, 1):
        try:
            image = volume if artefact == UNSPOILT else degrade(volume, artefact, severity, seed=seed)
        except InputError as error:
            refused = {"artefact": artefact, "severity": severity, "refused": str(error)}
            rows += [{**refused, "method": candidate.name} for candidate in candidates]
        else:
            rows += [_row(candidate, image, artefact, severity, device) for candidate in candidates]
        progress(done / len(wanted))
    return rows


def _row(candidate: Candidate, image: Volume, artefact: str, severity: int, device: str) -> dict[str, Any]:
    assert candidate.model is not None
    row: dict[str, Any] = {"artefact": artefact, "severity": severity, "method": candidate.name}
    try:
        result = Scorer(candidate.model, device).score(image)
    except InputError as error:
        return {**row, "refused": str(error)}
    threshold = candidate.volume_threshold
    return {
        **row,
        "false_findings": len(result.findings),
        "volume_score": result.volume_score,
        "called": None if threshold is None else bool(result.volume_score >= threshold),
        "poor": result.quality.verdict == "poor",
    }


def summarise_battery(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`artefacts` of metrics.json: per artefact, severity and method over the normals that could be scored."""
    groups: dict[tuple[str, int, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if "refused" not in row:
            groups[row["artefact"], row["severity"], row["method"]].append(row)
    return [
        {
            "artefact": artefact,
            "severity": severity,
            "method": method,
            "cases": len(group),
            "false_findings_per_case": float(np.mean([row["false_findings"] for row in group])),
            "volume_score_mean": float(np.mean([row["volume_score"] for row in group])),
            "share_called": float(np.mean([bool(row["called"]) for row in group])),
            "share_poor_quality": float(np.mean([row["poor"] for row in group])),
        }
        for (artefact, severity, method), group in groups.items()
    ]


def refusals(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """One sentence for every artefact that some normal could not be scored with."""
    said: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        if "refused" in row:
            said[row["artefact"], row["method"]].append(row["refused"])
    return [
        f"artefact {artefact}: {len(reasons)} images could not be scored by {method} ({reasons[0].rstrip('.')})."
        for (artefact, method), reasons in said.items()
    ]
