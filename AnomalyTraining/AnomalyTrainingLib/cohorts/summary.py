"""A cohort in a table: who stands in which split, and what the images are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .checks import Report, spacings
from .facts import Contents
from .manifest import SPLITS, Case

COLUMNS = ("split", "cases", "patients", "normal", "abnormal", "masks", "modality", "voxels (mm)")


def rows(report: Report) -> list[dict[str, Any]]:
    """One row for every split that has cases, and one for all; keys are `COLUMNS`."""
    of_split = {split: list(report.cohort.of(split=split)) for split in (*SPLITS, "")}
    parts = [(split or "(none)", cases) for split, cases in of_split.items() if cases]
    if len(parts) != 1:
        parts.append(("all", list(report.cohort)))
    return [_row(name, cases, report.contents) for name, cases in parts]


def _row(name: str, cases: Sequence[Case], contents: Mapping[str, Contents]) -> dict[str, Any]:
    read = [(case, contents[case.case]) for case in cases if case.case in contents]
    modalities = sorted({facts.modality for _, held in read for facts in held.images.values() if facts.modality})
    values = (
        name,
        len(cases),
        len({case.patient for case in cases}),
        sum(case.label == 0 for case in cases),
        sum(case.label == 1 for case in cases),
        sum(case.mask is not None for case in cases),
        ", ".join(modalities) or "not said",
        _range([sizes for _, sizes in spacings(read)]),
    )
    return dict(zip(COLUMNS, values, strict=True))


def _range(sizes: Sequence[tuple[float, ...]]) -> str:
    """'0.9–1 × 1 × 3', least axis first."""
    axes = min(map(len, sizes), default=0)
    if not axes:
        return "not said"
    spans = []
    for axis in range(axes):
        low, high = (f"{bound(one[axis] for one in sizes):.3g}" for bound in (min, max))
        spans.append(low if low == high else f"{low}–{high}")
    return " × ".join(spans)


def table(report: Report) -> str:
    """The rows as aligned text."""
    lines = [COLUMNS, *(tuple(str(value) for value in row.values()) for row in rows(report))]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    numbers = range(1, 6)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
