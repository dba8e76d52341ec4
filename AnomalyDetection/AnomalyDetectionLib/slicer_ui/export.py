"""Results of the scene as files, laid out as the command line lays them out."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.write import atomically
from AnomalyDetectionLib.scoring.decision import Decision
from AnomalyDetectionLib.scoring.relabel import find_regions
from AnomalyDetectionLib.scoring.result import ModelIdentity, Quality, ScoreResult

from .attributions import attribution_of
from .reviews import Review
from .volumes import volume_of

if TYPE_CHECKING:
    from .results import Results

REVIEW_NAME = "review.csv"


def export(results: Results, folder: Path | str) -> Path:
    """Write a case into a folder: the files of `interop.reports.write_case`, and `review.csv` where there is one.

    Raises
    ------
    InputError
        If the volume or a part of the results is gone.
    OutputError
        If something cannot be written.
    """
    from AnomalyDetectionLib.interop.reports import plain_cell, write_case

    if results.input is None:
        raise InputError(_("The volume that was scored is not in the scene any more; load and score it again."))
    result = as_result(results)
    target = write_case(volume_of(results.input), result, folder)
    reviews = results.reviews.in_order(result.findings)
    if any(review != Review() for review in reviews):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("case", "label", "review", "comment"))
        for finding, review in zip(result.findings, reviews, strict=True):
            writer.writerow((plain_cell(result.case), finding.label, review.decision, plain_cell(review.comment)))
        atomically(target / REVIEW_NAME, lambda path: _write(path, text.getvalue()))
    else:
        (target / REVIEW_NAME).unlink(missing_ok=True)
    return target


def as_result(results: Results) -> ScoreResult:
    """Results of the scene as scoring would give them at the present threshold.

    Raises
    ------
    InputError
        If the user has deleted what is needed.
    """
    if results.foreground is None:
        raise InputError(
            _("{name}: its scored area was deleted; score the volume again.").format(name=results.score.GetName())
        )
    rarity = results.rarity()
    thresholds, verdict = results.thresholds, results.verdict()
    labels, findings = find_regions(rarity, verdict.threshold, thresholds.least_size, results.midline)
    facts = json.loads(results.fact("Report"))
    return ScoreResult(
        rarity=rarity,
        labels=labels,
        foreground=slicer.util.arrayFromVolume(results.foreground) > 0,
        volume_score=verdict.volume_score,
        p_value=verdict.p_value,
        calibration_n=verdict.calibration_n,
        threshold=verdict.threshold,
        false_findings_per_normal=verdict.false_findings_per_normal,
        findings=findings,
        quality=Quality(verdict.quality, verdict.reasons),
        model=ModelIdentity(*(results.fact(key) for key in ("ModelId", "ModelVersion", "ModelSha256", "Detector"))),
        device=results.fact("Device"),
        thresholds=thresholds,
        midline=results.midline,
        timings=facts["timings"],
        notes=verdict.notes,
        case=facts["case"],
        decision=None if facts["decision"] is None else Decision.from_json(facts["decision"]),
        mapped=verdict.mapped,
        probability=verdict.probability,
        covariates=facts.get("covariates", {}),
        attribution=None if results.attribution is None else attribution_of(results.attribution, rarity),
    )


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="")
