"""metrics.json and scores.csv: written whole or not at all, and never against the schema."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.write import atomically

from .schema import fault

SCHEMA = "slicer-anomaly/metrics/2"
"""Of metrics.json; see `schemas/metrics.schema.json`."""

UNSPOILT = "none"
"""In `artefacts` of metrics.json: that of the images as they are, at severity 0, which the others are compared with."""

METRICS_NAME, SCORES_NAME = "metrics.json", "scores.csv"

SCORES_COLUMNS = (
    "case",
    "patient",
    "label",
    "score",
    "p_value",
    "cluster",
    "called",
    "findings",
    "false_findings",
    "quality",
)

_MOST_BYTES = 1 << 30


def write_metrics(document: Mapping[str, Any], path: str | Path) -> Path:
    """Write what `judge` made.

    Raises
    ------
    ValueError
        If it does not agree with the schema, or has a number that JSON has not.
    OutputError
        If the file cannot be written.
    """
    path = Path(path)
    text = json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    if found := _fault(json.loads(text)):
        raise ValueError(f"{path.name} would not agree with its schema: {found}")
    return _write(path, text)


def read_metrics(path: str | Path) -> dict[str, Any]:
    """Read a metrics.json, or that of a folder that `evaluate` wrote.

    Raises
    ------
    InputError
        If it is not there, cannot be read, or is not what this version writes.
    """
    path = Path(path)
    path = path / METRICS_NAME if path.is_dir() else path
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: the file is too large for a {METRICS_NAME}; give a folder of `evaluate`.")
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: there is no such file; give a folder that `slicer-anomaly evaluate` wrote."
        ) from error
    except OSError as error:
        raise InputError(f"{path}: the file cannot be read ({error.strerror or error}).") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: this is not JSON; give a folder that `slicer-anomaly evaluate` wrote.") from error
    version = document.get("schema") if isinstance(document, dict) else None
    if version != SCHEMA:
        said = f"its schema is {version!r}" if version else "it names no schema"
        raise InputError(f"{path}: {said} and not {SCHEMA!r}; evaluate again with this version.")
    if found := _fault(document):
        raise InputError(f"{path}: the file is damaged ({found}); evaluate again.")
    return document


def _fault(document: Mapping[str, Any]) -> str:
    """The first disagreement with the schemas of the file and of its shift report, or ""."""
    found = fault(document, "metrics")
    if not found and "shift" in document:
        found = fault(document["shift"], "shift").replace("$", "$.shift", 1)
    return found


def write_scores(cases: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """Write scores.csv from a method's rows of `cases` in metrics.json; what is unknown stays empty.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, SCORES_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "called": None if row["called"] is None else int(row["called"])} for row in cases)
    return _write(Path(path), text.getvalue())


def _write(path: Path, text: str) -> Path:
    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8", newline="")

    return atomically(path, write)
