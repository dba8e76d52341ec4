"""What the statistics need of one case under one method, small enough to keep for thousands of cases.

Everything after reads only these: no map is kept.  Voxels are histograms over `RARITY_BINS`, which pool by adding, so
that a bootstrap over patients adds up histograms instead of voxels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.scoring.findings import LeastSize, voxel_size
from AnomalyDetectionLib.scoring.result import ScoreResult

from ..cohorts.manifest import Case
from .lesions import Lesions, count_at_levels, false_findings

RARITY_BINS = np.linspace(0.0, 20.0, 4097)
"""Edges of the 4,096 bins of rarity; the last bin is open upwards.  Their width, 0.005, moves an average precision by
less than 0.001."""

Reduce = Callable[[NDArray[np.float32]], float]
"""From the rarity of some voxels (n,) to one score: a model's `Reducer`."""


@dataclass(frozen=True)
class LesionRecord:
    """One true lesion.

    Attributes
    ----------
    size_ml
        Its size in `unit`.
    hit
        Whether a finding at the method's fixed threshold hits it.
    highest_level
        The highest of `scoring.thresholds.LEVELS` at which it is still hit; 0 if at none.
    unit
        "mL" for volumes, "mm²" for single images, "px" where the pixel spacing is unknown.
    """

    size_ml: float
    hit: bool
    highest_level: float
    unit: str = "mL"


@dataclass(frozen=True, eq=False)
class VoxelRecord:
    """The judged voxels of one case: the scored foreground and all of the truth.

    Attributes
    ----------
    lesion, healthy
        int64 (4096,), number of voxels in each of `RARITY_BINS`.
    dice, iou
        Overlap of the voxels at or above the fixed threshold with the truth; None for a case without a lesion.
    """

    lesion: NDArray[np.int64]
    healthy: NDArray[np.int64]
    dice: float | None
    iou: float | None


@dataclass(frozen=True, eq=False)
class CaseRecord:
    """One case under one method.

    Attributes
    ----------
    cluster
        What is drawn as a whole in the bootstrap: the patient, or the anatomy of a phantom.
    volume_score, p_value
        Higher is more abnormal; the p-value is the conformal one, None where the method has none.
    called
        Whether the method calls the case abnormal (score at or above its volume threshold); None without one.
    findings, false_findings
        At the fixed threshold; false ones None where the truth is unknown.
    false_findings_at
        int32 per `scoring.thresholds.LEVELS`, with the regions labelled anew at each; None where the truth is unknown.
    voxels
        None where the truth is unknown or the method makes no map.
    slices
        (has a lesion, score) of every slice with foreground or lesion, for volumes of known truth.
    quality
        "good", "check" or "poor".
    probability
        That the case is abnormal; None where the method gives none.
    """

    case: str
    patient: str
    cluster: str
    label: int
    volume_score: float
    p_value: float | None = None
    called: bool | None = None
    findings: int | None = None
    false_findings: int | None = None
    false_findings_at: NDArray[np.int32] | None = None
    voxels: VoxelRecord | None = None
    lesions: tuple[LesionRecord, ...] = ()
    slices: tuple[tuple[int, float], ...] = ()
    quality: str = "good"
    covariates: Mapping[str, str] = field(default_factory=dict)
    probability: float | None = None


def record_of(
    case: Case,
    volume: Volume,
    result: ScoreResult,
    truth: NDArray[np.bool_] | None,
    *,
    cluster: str,
    reducer: Reduce,
    volume_threshold: float | None,
    least_size: LeastSize | None = None,
    conformal: bool = True,
) -> CaseRecord:
    """Record of a case that a method has made a rarity map of.

    Parameters
    ----------
    truth
        bool (K, J, I), the abnormal voxels; None where they are unknown.  A normal case needs none, and an abnormal one
        with an empty mask counts as unknown.  Truth outside the scored foreground counts as missed, with rarity 0.
    reducer
        The method's reducer, for the scores of single slices.
    volume_threshold
        Volume score from which the method calls a case abnormal.
    least_size
        Of a finding; the default one if None.
    conformal
        Whether `result.p_value` is a conformal p-value that the calibration check should judge.

    Raises
    ------
    InputError
        If the case is labelled normal and has abnormal voxels.
    """
    record = record_of_score(
        case,
        result.volume_score,
        cluster=cluster,
        volume_threshold=volume_threshold,
        p_value=result.p_value if conformal else None,
        findings=len(result.findings) if result.mapped else None,
        quality=result.quality.verdict,
        probability=result.probability,
    )
    known = _known_truth(case, volume, truth)
    if known is None or not result.mapped:
        return record
    lesions = Lesions.of(known)
    least = (least_size or LeastSize()).voxels(volume)
    counts = count_at_levels(result.rarity.array, lesions, least)
    hits = lesions.hit_by(result.labels > 0)
    unit_size, unit = voxel_size(volume)
    details = {
        "false_findings": false_findings(result.labels, known),
        "false_findings_at": counts.false_findings,
        "voxels": _voxels(result, known),
        "lesions": tuple(
            LesionRecord(float(size * unit_size), bool(hit), float(highest), unit)
            for size, hit, highest in zip(lesions.sizes, hits, counts.highest, strict=True)
        ),
        "slices": () if volume.is_slice else _slices(result, known, reducer),
    }
    return CaseRecord(**{**vars(record), **details})


def record_of_score(
    case: Case,
    volume_score: float,
    *,
    cluster: str,
    volume_threshold: float | None,
    p_value: float | None = None,
    findings: int | None = None,
    quality: str = "good",
    probability: float | None = None,
) -> CaseRecord:
    """Record of a case by a method that makes no map, such as the metadata alone."""
    return CaseRecord(
        case=case.case,
        patient=case.patient,
        cluster=cluster,
        label=case.label,
        volume_score=float(volume_score),
        p_value=p_value,
        called=None if volume_threshold is None else bool(volume_score >= volume_threshold),
        findings=findings,
        quality=quality,
        covariates=dict(case.covariates),
        probability=probability,
    )


def rarity_histogram(rarity: NDArray[np.float32]) -> NDArray[np.int64]:
    """Voxels (n,) per bin of `RARITY_BINS`."""
    count = RARITY_BINS.size - 1
    index = (rarity * np.float32(count / RARITY_BINS[-1])).astype(np.int64)
    return np.bincount(np.clip(index, 0, count - 1), minlength=count)


def _known_truth(case: Case, volume: Volume, truth: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    if case.label == 0:
        if truth is not None and truth.any():
            raise InputError(
                f"{case.case}: the case is labelled normal (0) and its mask has {int(truth.sum())} abnormal voxels; "
                "mend the label or leave out the mask."
            )
        return np.zeros(volume.shape, dtype=bool)
    return truth if truth is not None and truth.any() else None


def _voxels(result: ScoreResult, truth: NDArray[np.bool_]) -> VoxelRecord:
    rarity = result.rarity.array
    scored = np.where(result.foreground[truth], rarity[truth], np.float32(0))
    lesion = rarity_histogram(scored)
    healthy = rarity_histogram(rarity[result.foreground & ~truth])
    if scored.size == 0:
        return VoxelRecord(lesion, healthy, None, None)
    hit = int(np.count_nonzero(scored >= result.threshold))
    found = int(np.count_nonzero((rarity >= result.threshold) & result.foreground))
    return VoxelRecord(lesion, healthy, 2 * hit / (found + scored.size), hit / (found + scored.size - hit))


def _slices(result: ScoreResult, truth: NDArray[np.bool_], reducer: Reduce) -> tuple[tuple[int, float], ...]:
    rows = []
    for k in range(truth.shape[0]):
        inside, ill = result.foreground[k], bool(truth[k].any())
        if inside.any():
            rows.append((int(ill), float(reducer(result.rarity.array[k][inside]))))
        elif ill:
            rows.append((1, 0.0))  # a lesion where the method does not judge is missed
    return tuple(rows)
