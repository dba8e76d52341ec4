"""What the studies share: calls of the command line that are not repeated, and tables in Markdown."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def anomaly(*words: object) -> None:
    """Run the command line; ends the study where it fails."""
    command = [sys.executable, "-m", "AnomalyDetectionLib.cli", *map(str, words)]
    print("slicer-anomaly", *command[3:], flush=True)
    code = subprocess.call(command)
    if code:
        sys.exit(code)


def once(bundle: Path, run: Path, *command: object) -> None:
    """Train into the folder `run` and export it to `bundle`, unless that is there."""
    if not bundle.exists():
        anomaly(*command, "--out", run, "--resume")
        anomaly("export", run, "--out", bundle)


def judge(model: Path, cohort: Path, out: Path, *options: object) -> None:
    """Evaluate a model, unless it is done."""
    if not (out / "metrics.json").exists():
        anomaly("evaluate", model, "--cohort", cohort, "--out", out, "--resume", *options)


def cross_validate(recipe: str, changes: Sequence[str], cohort: Path, out: Path, *options: object) -> None:
    """Cross-validate a recipe with changed settings, unless it is done."""
    if not (out / "metrics.json").exists():
        sets = [word for change in changes for word in ("--set", change)]
        anomaly("crossval", recipe, "--cohort", cohort, "--out", out, "--resume", *options, *sets)


def metrics_of(folder: Path) -> dict:
    """metrics.json of an evaluation or a cross-validation."""
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown."""
    return [" | ".join(("", *cells, "")).strip() for cells in (headings, ["---"] * len(headings), *rows)]


def figure(found: dict) -> str:
    """'0.81 (0.70 to 0.90)', or a dash where it is not defined."""
    if found["value"] is None:
        return "–"
    interval = f" ({found['low']:.2f} to {found['high']:.2f})" if found["low"] is not None else ""
    return f"{found['value']:.2f}{interval}"
