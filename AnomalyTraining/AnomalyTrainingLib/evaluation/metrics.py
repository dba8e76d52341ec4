"""How well a score map finds lesions.

Arrays lie on one common grid (K, J, I).  Voxels outside the foreground count nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

HIT_OVERLAP = 0.10
"""Share of a lesion's voxels that must lie above the threshold for it to count as found."""

_CONNECTED_26 = np.ones((3, 3, 3), dtype=bool)


@dataclass(frozen=True)
class LesionHits:
    """Lesion-level result of one case.

    Attributes
    ----------
    lesions, found
        Number of true lesions (26-connected), and of those hit.
    sizes_voxels, hit
        Per lesion.
    false_findings
        Number of findings that touch no true lesion.
    """

    lesions: int
    found: int
    sizes_voxels: tuple[int, ...]
    hit: tuple[bool, ...]
    false_findings: int


def voxel_average_precision(
    scores: Sequence[NDArray], truths: Sequence[NDArray[np.bool_]], foregrounds: Sequence[NDArray[np.bool_]]
) -> float:
    """Average precision over the foreground voxels of all cases together (step-wise, no interpolation).

    Raises
    ------
    ValueError
        If no foreground voxel is abnormal.
    """
    truth, score = _pooled(scores, truths, foregrounds)
    if not truth.any():
        raise ValueError("average precision is not defined without an abnormal voxel")
    return float(average_precision_score(truth, score))


def auroc(labels: Sequence[int], scores: Sequence[float]) -> float:
    """Area under the ROC curve of case scores.

    Raises
    ------
    ValueError
        If all cases have the same label.
    """
    if len(set(labels)) < 2:
        raise ValueError("AUROC is not defined for one class only")
    return float(roc_auc_score(labels, scores))


def dice(found: NDArray[np.bool_], truth: NDArray[np.bool_], foreground: NDArray[np.bool_]) -> float:
    """Dice overlap inside the foreground; 1 where both are empty."""
    found, truth = found & foreground, truth & foreground
    total = int(found.sum()) + int(truth.sum())
    return 2 * int((found & truth).sum()) / total if total else 1.0


def dice_at(
    scores: Sequence[NDArray],
    truths: Sequence[NDArray[np.bool_]],
    foregrounds: Sequence[NDArray[np.bool_]],
    threshold: float,
) -> float:
    """Mean Dice over cases of the voxels with score >= threshold, a threshold fixed beforehand."""
    cases = zip(scores, truths, foregrounds, strict=True)
    return float(np.mean([dice(score >= threshold, truth, foreground) for score, truth, foreground in cases]))


def best_dice_oracle(
    scores: Sequence[NDArray], truths: Sequence[NDArray[np.bool_]], foregrounds: Sequence[NDArray[np.bool_]]
) -> tuple[float, float]:
    """The highest Dice over the pooled voxels that any one threshold reaches, and that threshold.

    An oracle: it looks at the truth to choose, so it only ever stands beside a Dice at a fixed threshold.
    """
    truth, score = _pooled(scores, truths, foregrounds)
    if not truth.any():
        raise ValueError("the best Dice is not defined without an abnormal voxel")
    precision, recall, thresholds = precision_recall_curve(truth, score)
    overlap = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(np.argmax(overlap[:-1]))
    return float(overlap[best]), float(thresholds[best])


def lesion_hits(labels: NDArray[np.integer], truth: NDArray[np.bool_], foreground: NDArray[np.bool_]) -> LesionHits:
    """Which lesions were found, and how many findings are false.

    A lesion is found if at least `HIT_OVERLAP` of its voxels lie in findings, or the voxel nearest to its centroid.

    Parameters
    ----------
    labels
        (K, J, I) findings as a label map (0 elsewhere), as `ScoreResult.labels`.
    """
    components, count = ndimage.label(truth & foreground, structure=_CONNECTED_26)
    inside = np.where(foreground, labels, 0)
    above = inside > 0
    sizes = np.bincount(components.ravel(), minlength=count + 1)[1:]
    covered = np.bincount(components.ravel(), weights=above.ravel(), minlength=count + 1)[1:]
    hit = covered >= HIT_OVERLAP * sizes
    for number, centroid in enumerate(ndimage.center_of_mass(components > 0, components, range(1, count + 1))):
        hit[number] |= bool(above[tuple(np.round(centroid).astype(int))])
    all_findings = np.unique(inside[above])
    true_findings = np.unique(inside[above & (components > 0)])
    return LesionHits(
        lesions=count,
        found=int(hit.sum()),
        sizes_voxels=tuple(int(size) for size in sizes),
        hit=tuple(bool(h) for h in hit),
        false_findings=int(all_findings.size - true_findings.size),
    )


def threshold_at_false_findings(
    normals: Sequence[NDArray[np.float32]],
    foregrounds: Sequence[NDArray[np.bool_]],
    least_voxels: int,
    allowed: int = 1,
) -> float:
    """The lowest score that leaves each calibration normal at most `allowed` findings: a baseline's threshold.

    It is never below the score that one normal voxel in a hundred reaches, as for a model's default threshold.

    Parameters
    ----------
    normals
        Score maps of normals, (K, J, I).
    least_voxels
        Smaller 26-connected regions are not findings.

    Returns
    -------
    A threshold for `>=`; just above all scores where even the highest leaves more findings.
    """
    pooled = np.concatenate([score[foreground] for score, foreground in zip(normals, foregrounds, strict=True)])
    cut = [_cut_to_foreground(score, inside) for score, inside in zip(normals, foregrounds, strict=True)]
    chosen = float(np.nextafter(pooled.max(), np.float32(np.inf)))
    # Downwards from one voxel in a million to one in a hundred, evenly in rarity.
    for level in np.quantile(pooled, 1 - 10.0 ** -np.arange(6, 1.99, -0.1)):
        too_common = np.count_nonzero(pooled >= level) > 0.0101 * pooled.size
        if too_common or any(count_regions(score >= level, least_voxels) > allowed for score in cut):
            break
        chosen = float(level)
    return chosen


def _cut_to_foreground(score: NDArray[np.float32], foreground: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The box of the foreground, minus infinity outside it."""
    box = ndimage.find_objects(foreground.astype(np.uint8))[0]
    return np.where(foreground[box], score[box], -np.inf)


def count_regions(mask: NDArray[np.bool_], least_voxels: int) -> int:
    """Number of 26-connected regions of at least that many voxels."""
    components, count = ndimage.label(mask, structure=_CONNECTED_26)
    return int((np.bincount(components.ravel(), minlength=count + 1)[1:] >= least_voxels).sum())


def _pooled(
    scores: Sequence[NDArray], truths: Sequence[NDArray[np.bool_]], foregrounds: Sequence[NDArray[np.bool_]]
) -> tuple[NDArray[np.bool_], NDArray]:
    cases = list(zip(scores, truths, foregrounds, strict=True))
    truth = np.concatenate([truth[foreground] for _, truth, foreground in cases])
    score = np.concatenate([score[foreground] for score, _, foreground in cases])
    return truth, score
