"""Thresholds by the ROC curve of validation cases (Youden, Cancer 1950)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from AnomalyDetectionLib.scoring.decision import Decision
from AnomalyDetectionLib.scoring.model import Model
from AnomalyDetectionLib.scoring.scorer import Scorer
from AnomalyDetectionLib.scoring.thresholds import LEVELS
from AnomalyTrainingLib.cohorts.manifest import Case, load_case_mask, load_case_volume

from .statistics import ProgressCallback


def decided_by_roc(
    model: Model, cases: tuple[Case, ...], device: str, progress: ProgressCallback
) -> tuple[Model, str | None]:
    """The model with thresholds chosen on validation cases, and a warning where that was not possible.

    The decision (volume score) is the point of the cases' ROC curve with the largest Youden index.  The threshold of
    findings (rarity) is that of the voxels' curve: voxels of normals and, where masks are given, of abnormal cases;
    without a mask it stays as the calibration normals have it.  The voxels' index knows nothing of how rare lesions
    are: its threshold is low, and what it costs in false findings stands beside it.

    Parameters
    ----------
    cases
        Both normal and abnormal ones.
    """
    scorer = Scorer(model, device)
    scores: list[float] = []
    counts = np.zeros((2, LEVELS.size + 1), dtype=np.int64)  # voxels outside and inside lesions by level reached
    masked = 0
    for done, case in enumerate(cases, 1):
        volume = load_case_volume(case)
        result = scorer.score(volume)
        scores.append(result.volume_score)
        mask = load_case_mask(case, volume) if result.mapped else None
        if result.mapped and (case.label == 0 or mask is not None):
            masked += mask is not None
            truth = np.zeros(volume.shape, dtype=bool) if mask is None else mask
            counts += _by_level(result.rarity.array[result.foreground], truth[result.foreground])
        progress("choosing thresholds", done / len(cases))
    calibration = model.calibration
    decision = youden_decision(np.array([case.label for case in cases]), np.array(scores))
    warning = None
    if decision is None:
        warning = (
            "On the validation cases no volume score tells abnormal cases from normal ones better than chance; cases "
            "are called abnormal beyond the calibration normals instead."
        )
    level = youden_level(counts) if masked else None
    info = {
        **model.info,
        "threshold": {
            "decision": "normals" if decision is None else "ROC of the validation cases",
            "findings": "normals" if level is None else f"ROC of the validation voxels ({masked} cases with masks)",
        },
    }
    calibration = replace(
        calibration,
        decision=decision or calibration.decision,
        threshold=calibration.threshold if level is None else replace(calibration.threshold, default=level),
    )
    return replace(model, calibration=calibration, info=info), warning


def youden_decision(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> Decision | None:
    """The cut with the largest sensitivity + specificity - 1, or None if no cut is better than chance.

    Parameters
    ----------
    labels, scores
        (n,); label 0 or 1, both present.
    """
    false_positives, sensitivity, cuts = roc_curve(labels, scores, drop_intermediate=False)
    best = int(np.argmax(sensitivity - false_positives))
    if sensitivity[best] <= false_positives[best]:
        return None
    normals = int(np.count_nonzero(labels == 0))
    return Decision(
        float(cuts[best]),
        "roc",
        float(sensitivity[best]),
        float(1 - false_positives[best]),
        normals,
        labels.size - normals,
    )


def youden_level(counts: NDArray[np.int64]) -> float | None:
    """The rarity of `LEVELS` with the largest Youden index of voxels, or None if none is better than chance.

    Parameters
    ----------
    counts
        (2, levels + 1): voxels outside and inside lesions that reach so many levels and no more.
    """
    reached = counts[:, ::-1].cumsum(axis=1)[:, ::-1]  # voxels that reach at least so many levels
    if not counts[1].any() or not counts[0].any():
        return None
    false_positives, sensitivity = reached / reached[:, :1]
    index = (sensitivity - false_positives)[1:]
    best = int(np.argmax(index))
    return float(LEVELS[best]) if index[best] > 0 else None


def _by_level(rarity: NDArray[np.float32], truth: NDArray[np.bool_]) -> NDArray[np.int64]:
    levels = np.searchsorted(LEVELS, rarity, side="right")
    size = LEVELS.size + 1
    return np.stack([np.bincount(levels[truth == inside], minlength=size) for inside in (False, True)])
