"""What the nodes of a result say of it in their attributes."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib import __version__
from AnomalyDetectionLib.scoring.findings import Midline
from AnomalyDetectionLib.scoring.result import ScoreResult

SHARED = (
    "ModelId",
    "ModelVersion",
    "ModelSha256",
    "Detector",
    "Software",
    "Threshold",
    "VolumeScore",
    "PValue",
    "CalibrationN",
    "Abnormal",
    "Quality",
)
"""Attributes that every node carries, not the rarity map alone."""


def facts_of(result: ScoreResult) -> dict[str, str]:
    """What the rarity map has as attributes (after `results.PREFIX`)."""
    midline = result.midline
    return {
        "ModelId": result.model.id,
        "ModelVersion": result.model.version,
        "ModelSha256": result.model.sha256,
        "Detector": result.model.detector,
        "Software": f"slicer-anomaly {__version__}",
        "VolumeScore": repr(float(result.volume_score)),
        "PValue": repr(float(result.p_value)),
        "CalibrationN": str(result.calibration_n),
        "Abnormal": "" if result.abnormal is None else str(int(result.abnormal)),
        "Quality": result.quality.verdict,
        "QualityReasons": json.dumps(list(result.quality.reasons), ensure_ascii=False),
        "Notes": json.dumps(list(result.notes), ensure_ascii=False),
        "Thresholds": json.dumps(result.thresholds.to_json()),
        "Midline": json.dumps(None if midline is None else [midline.point.tolist(), midline.right.tolist()]),
        "ScoredIjkToRas": json.dumps(result.rarity.ijk_to_ras.tolist()),
        "SpacingKnown": "1" if result.rarity.spacing_known else "0",
        "OrientationKnown": "1" if result.rarity.orientation_known else "0",
        "Device": result.device,
        "Report": json.dumps(
            {
                "case": result.case,
                "timings": result.timings,
                "decision": None if result.decision is None else result.decision.to_json(),
                "mapped": result.mapped,
                "probability": result.probability,
                "covariates": dict(result.covariates),
                "attribution": None if result.attribution is None else result.attribution.facts(),
            },
            ensure_ascii=False,
        ),
    }


def midline_at(fact: Callable[[str], str], ijk_to_ras: NDArray[np.float64]) -> Midline | None:
    """The midline of what `facts_of` wrote: it goes with the voxels, wherever a transform has taken them since.

    Parameters
    ----------
    fact
        Gives an attribute, "" where it is missing (in scenes that older versions saved: where they were scored).
    ijk_to_ras
        Present place of the voxels, 4 x 4, (i, j, k) to RAS mm.
    """
    plane, scored = (json.loads(fact(key) or "null") for key in ("Midline", "ScoredIjkToRas"))
    if plane is None:
        return None
    midline = Midline(np.array(plane[0]), np.array(plane[1]))
    return midline if scored is None else midline.moved(ijk_to_ras @ np.linalg.inv(scored))
