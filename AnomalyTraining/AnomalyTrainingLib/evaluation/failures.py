"""Which cases a method gets wrong, the worst first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

MOST = 10
"""Cases that a report names of each kind."""


class Failures(NamedTuple):
    """Rows of `cases` in metrics.json, the worst first, and lesions with the case they are in.

    Attributes
    ----------
    false_positives
        Normal cases that are called abnormal (without a decision: the highest scores), highest first.
    false_negatives
        Abnormal cases that are not called (without a decision: the lowest scores), lowest first.
    most_false_findings
        Cases with false findings, most first.
    missed_lesions
        (case, size, unit) of lesions not found at the threshold, largest first.
    """

    false_positives: list[Mapping[str, Any]]
    false_negatives: list[Mapping[str, Any]]
    most_false_findings: list[Mapping[str, Any]]
    missed_lesions: list[tuple[str, float, str]]


def failures(rows: Sequence[Mapping[str, Any]], most: int = MOST) -> Failures:
    """The worst failures among a method's rows of `cases`."""
    normal = sorted((r for r in rows if r["label"] == 0 and r["called"] is not False), key=lambda r: -r["score"])
    ill = sorted((r for r in rows if r["label"] == 1 and r["called"] is not True), key=lambda r: r["score"])
    noisy = sorted((r for r in rows if r["false_findings"]), key=lambda r: -r["false_findings"])
    missed = [(r["case"], lesion["size"], lesion["unit"]) for r in rows for lesion in r["lesions"] if not lesion["hit"]]
    missed.sort(key=lambda lesion: -lesion[1])
    return Failures(normal[:most], ill[:most], noisy[:most], missed[:most])
