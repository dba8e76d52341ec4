"""What is fitted to validation cases: thresholds by their ROC curve (Youden, Cancer 1950), and probabilities."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.metrics import roc_curve

from AnomalyDetectionLib.scoring.decision import Decision
from AnomalyDetectionLib.scoring.model import Model
from AnomalyDetectionLib.scoring.probability import Probability
from AnomalyDetectionLib.scoring.scorer import Scorer
from AnomalyDetectionLib.scoring.thresholds import LEVELS
from AnomalyTrainingLib.cohorts.manifest import Case, load_case_mask, load_case_volume

from .config import ThresholdSection
from .statistics import ProgressCallback

HOTTEST = 100.0
"""Temperatures are sought between this and its inverse."""


def decided(
    model: Model, settings: ThresholdSection, cases: tuple[Case, ...], device: str, progress: ProgressCallback
) -> tuple[Model, str | None]:
    """The model with what is fitted to validation cases, and a warning where that was not possible.

    Log-odds get the temperature with which they are the likeliest (`scoring.probability`).  With `method: roc` the
    decision (volume score) is the point of the cases' ROC curve with the largest Youden index, or that reaches the
    sensitivity or specificity that is asked for.  The threshold of
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
    labels = np.array([case.label for case in cases])
    if model.detector.gives_log_odds:
        model = replace(
            model, calibration=replace(model.calibration, probability=fitted_probability(labels, np.array(scores)))
        )
    if settings.method != "roc":
        return model, None
    calibration = model.calibration
    decision = roc_decision(labels, np.array(scores), settings.sensitivity, settings.specificity)
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


def fitted_probability(labels: NDArray[np.int64], log_odds: NDArray[np.float64]) -> Probability:
    """The temperature with the least cross-entropy; labels 0 and 1, both present."""

    def cross_entropy(logarithm: float) -> float:
        scaled = log_odds / np.exp(logarithm)
        return float(np.mean(np.logaddexp(0, scaled) - labels * scaled))

    limit = float(np.log(HOTTEST))
    found = minimize_scalar(cross_entropy, bounds=(-limit, limit), method="bounded", options={"xatol": 1e-6})
    normals = int(np.count_nonzero(labels == 0))
    return Probability(float(np.exp(found.x)), normals, labels.size - normals)


def roc_decision(
    labels: NDArray[np.int64],
    scores: NDArray[np.float64],
    target_sensitivity: float | None = None,
    target_specificity: float | None = None,
) -> Decision | None:
    """A cut by the ROC curve, or None if it is not better than chance.

    Parameters
    ----------
    labels, scores
        (n,); label 0 or 1, both present.
    target_sensitivity, target_specificity
        What the cut must reach, with the best of the other; None for the largest sensitivity + specificity - 1.
    """
    false_positives, sensitivity, cuts = roc_curve(labels, scores, drop_intermediate=False)
    index, target = sensitivity - false_positives, None
    if target_sensitivity is not None:
        index = np.where(sensitivity >= target_sensitivity - 1e-12, -false_positives, -np.inf)
        target = f"sensitivity {target_sensitivity:g}"
    elif target_specificity is not None:
        index = np.where(1 - false_positives >= target_specificity - 1e-12, sensitivity, -np.inf)
        target = f"specificity {target_specificity:g}"
    best = int(np.argmax(index))
    if sensitivity[best] <= false_positives[best] or not np.isfinite(cuts[best]):
        return None
    normals = int(np.count_nonzero(labels == 0))
    return Decision(
        float(cuts[best]),
        "roc",
        float(sensitivity[best]),
        float(1 - false_positives[best]),
        normals,
        labels.size - normals,
        target,
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
