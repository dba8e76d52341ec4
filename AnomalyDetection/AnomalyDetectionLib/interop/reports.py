"""The files of a scored case, and whether they are all there."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from AnomalyDetectionLib import __version__
from AnomalyDetectionLib.errors import OutputError
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.imaging.write import write_labels, write_volume
from AnomalyDetectionLib.scoring.result import Finding, ScoreResult

from .overlay import write_overlay

REPORT_SCHEMA = "slicer-anomaly/report/1"
REPORT_NAME = "report.json"
FILES = ("score.nii.gz", "labels.nii.gz", "findings.csv", "overlay.png", REPORT_NAME)
"""In the order in which they are put in place: the report is last, so that a case with a report is complete."""
ATTRIBUTION_NAME = "attribution.nii.gz"
"""A sixth file, of a classifier's score that was explained; the report says so (`attribution`)."""

FINDINGS_COLUMNS = (
    "case",
    "label",
    "side",
    "size",
    "size_unit",
    "extent_r_mm",
    "extent_a_mm",
    "extent_s_mm",
    "centroid_r",
    "centroid_a",
    "centroid_s",
    "centroid_i",
    "centroid_j",
    "centroid_k",
    "peak_rarity",
    "mean_rarity",
)

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def plain_cell(text: str) -> str:
    """Text that a spreadsheet shows rather than runs: an apostrophe before a formula (OWASP, "CSV Injection")."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def findings_rows(result: ScoreResult) -> list[dict[str, Any]]:
    """One row a finding, with the keys `FINDINGS_COLUMNS`; extents in pixels where `size_unit` is px."""
    return [_row(result.case, finding) for finding in result.findings]


def _row(case: str, finding: Finding) -> dict[str, Any]:
    values = (
        plain_cell(case),
        finding.label,
        finding.side,
        round(finding.size, 4),
        finding.size_unit,
        *(round(v, 2) for v in finding.extent_mm),
        *(round(v, 2) for v in finding.centroid_ras),
        *finding.centroid_ijk,
        round(finding.peak, 4),
        round(finding.mean, 4),
    )
    return dict(zip(FINDINGS_COLUMNS, values, strict=True))


def findings_csv(result: ScoreResult) -> str:
    """The text of findings.csv; the header stands there also when nothing was found."""
    text = io.StringIO()
    writer = csv.DictWriter(text, FINDINGS_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(findings_rows(result))
    return text.getvalue()


def report(volume: Volume, result: ScoreResult) -> dict[str, Any]:
    """report.json as plain values: a result without its arrays, and what was scored (`schemas/report.schema.json`)."""
    return {
        "schema": REPORT_SCHEMA,
        "software": {"name": "slicer-anomaly", "version": __version__},
        "disclaimer": "Research use only; not a medical device.",
        "case": result.case,
        "input": {
            "name": volume.name,
            "modality": volume.modality,
            "units": volume.units,
            "shape_kji": list(volume.shape),
            "spacing_ijk_mm": list(volume.spacing),
            "ijk_to_ras": volume.ijk_to_ras.tolist(),
            "spacing_known": volume.spacing_known,
            "orientation_known": volume.orientation_known,
            "sha256": volume.sha256(),
            "notes": list(volume.notes),
        },
        "model": asdict(result.model),
        "device": result.device,
        "volume_score": result.volume_score,
        "p_value": result.p_value,
        "calibration_n": result.calibration_n,
        "decision": None if result.decision is None else {"abnormal": result.abnormal, **result.decision.to_json()},
        "mapped": result.mapped,
        "probability": result.probability,
        "covariates": dict(result.covariates),
        "attribution": None if result.attribution is None else {**result.attribution.facts(), "file": ATTRIBUTION_NAME},
        "threshold": result.threshold,
        "false_findings_per_normal": result.false_findings_per_normal,
        "foreground_voxels": int(result.foreground.sum()),
        "findings": [asdict(finding) for finding in result.findings],
        "quality": {"verdict": result.quality.verdict, "reasons": list(result.quality.reasons)},
        "notes": list(result.notes),
        "timings_s": {stage: round(seconds, 4) for stage, seconds in result.timings.items()},
    }


def write_case(volume: Volume, result: ScoreResult, folder: str | os.PathLike[str]) -> Path:
    """Write score.nii.gz, labels.nii.gz, findings.csv, overlay.png and report.json, and attribution.nii.gz if there is.

    All are written to a temporary folder beside `folder` (`.NAME.*.partial`), which then becomes `folder` in one step.
    Where `folder` exists, the files are moved into it one by one, the report last: a run that is killed leaves either a
    complete case or one without a report (see `is_complete`).

    Parameters
    ----------
    volume
        The image that was scored.
    folder
        The case's folder; made if missing, files of an earlier result in it are replaced.

    Raises
    ------
    OutputError
        If something cannot be written; nothing of this case is then left under a temporary name.
    """
    target, attribution = Path(folder), result.attribution
    writers: dict[str, Callable[[Path], object]] = {
        "score.nii.gz": lambda path: write_volume(result.rarity, path),
        "labels.nii.gz": lambda path: write_labels(result.labels, volume.grid, path),
        "findings.csv": lambda path: path.write_text(findings_csv(result), encoding="utf-8", newline=""),
        "overlay.png": lambda path: write_overlay(volume, result, path),
        REPORT_NAME: lambda path: path.write_text(_json(report(volume, result)), encoding="utf-8"),
    }
    names: tuple[str, ...] = FILES
    if attribution is not None:
        writers[ATTRIBUTION_NAME] = lambda path: write_volume(attribution.map, path)
        names = (ATTRIBUTION_NAME, *FILES)
    partial: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
        whole = partial / "case"  # mkdtemp's own folder is for this user only; the case's has the usual permissions
        whole.mkdir()
        for name in names:
            writers[name](whole / name)
        if not target.exists():
            whole.rename(target)
            return target
        (target / REPORT_NAME).unlink(missing_ok=True)  # from here until the end the case is not complete
        (target / ATTRIBUTION_NAME).unlink(missing_ok=True)  # of an earlier result
        for name in names:
            (whole / name).replace(target / name)
    except OSError as error:
        raise OutputError(
            f"{target.name}: the results cannot be written ({error.strerror or error}); check the folder, its "
            "permissions and the free space."
        ) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
    return target


def _json(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def is_complete(
    folder: str | os.PathLike[str],
    model_sha256: str | None = None,
    threshold: float | None = None,
    input_sha256: str | None = None,
) -> bool:
    """Whether a folder holds all files of a case, made with this model, threshold and input.

    The attribution is one of them where the report names it.

    Parameters
    ----------
    model_sha256, threshold, input_sha256
        What the report must say; None for anything.
    """
    path = Path(folder)
    try:
        data = json.loads((path / REPORT_NAME).read_text(encoding="utf-8"))
        whole = data["schema"] == REPORT_SCHEMA
        names = FILES if data.get("attribution") is None else (ATTRIBUTION_NAME, *FILES)
        whole = whole and all((path / name).stat().st_size > 0 for name in names)
        return (
            whole
            and (model_sha256 is None or data["model"]["sha256"] == model_sha256)
            and (threshold is None or math.isclose(float(data["threshold"]), threshold, rel_tol=1e-9))
            and (input_sha256 is None or data["input"]["sha256"] == input_sha256)
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False
