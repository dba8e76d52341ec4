"""Records of made-up methods: lesions of known sizes, maps of known quality, no image anywhere."""

from __future__ import annotations

import numpy as np

from AnomalyDetectionLib.scoring.thresholds import LEVELS
from AnomalyTrainingLib.evaluation.records import CaseRecord, LesionRecord, VoxelRecord, rarity_histogram
from AnomalyTrainingLib.evaluation.summary import Method

THRESHOLD = 4.0
VOLUME_THRESHOLD = 1.6


def records(
    quality: float,
    *,
    normals: int = 30,
    abnormals: int = 30,
    seed: int = 0,
    masks: bool = True,
    maps: bool = True,
    calibration_n: int = 59,
    shift: float = 0.0,
    cluster_size: int = 1,
) -> tuple[CaseRecord, ...]:
    """Cases under a method that separates them by `quality` standard deviations; `shift` lifts the normals' scores."""
    # The difficulty of a case is its own, so that methods agree on it to some degree: differences are paired.
    hard = np.random.default_rng(seed).standard_normal(normals + abnormals)
    rng = np.random.default_rng([seed, round(1000 * quality)])
    calibration = np.sort(rng.standard_normal(calibration_n))
    made = []
    for n in range(normals + abnormals):
        label = int(n >= normals)
        score = 0.7 * hard[n] + 0.7 * rng.standard_normal() + (quality if label else shift)
        p_value = (1 + int((calibration >= score).sum())) / (calibration_n + 1)
        lesions = _lesions(rng, quality) if label and masks else ()
        known = maps and (masks or not label)
        false = _false_findings(rng, quality)
        made.append(
            CaseRecord(
                case=f"{'abnormal' if label else 'normal'}-{n:03d}",
                patient=f"p{n:03d}",
                cluster=f"p{n // cluster_size:03d}",
                label=label,
                volume_score=float(score),
                p_value=p_value,
                called=bool(score >= VOLUME_THRESHOLD),
                findings=int(false[_index()]) + sum(lesion.hit for lesion in lesions) if maps else None,
                false_findings=int(false[_index()]) if known else None,
                false_findings_at=false if known else None,
                voxels=_voxels(rng, quality, sum(lesion.size_ml for lesion in lesions)) if known else None,
                lesions=lesions if known else (),
                slices=_slices(rng, quality, label) if known else (),
                covariates={"sex": "FM"[n % 2], "age": str(30 + n)} | ({"lesion": "tumour"} if label else {}),
            )
        )
    return tuple(made)


def method(name: str, quality: float, kind: str = "baseline", **settings) -> Method:
    """A method with such records."""
    description = f"separates by {quality:g}"
    return Method(name, kind, description, records(quality, **settings), THRESHOLD, VOLUME_THRESHOLD, 59)


def _index() -> int:
    return int(np.searchsorted(LEVELS, THRESHOLD - 1e-6))


def _false_findings(rng: np.random.Generator, quality: float) -> np.ndarray:
    """Fewer at higher levels."""
    peaks = 1 + rng.exponential(1.6 / (0.5 + quality), rng.poisson(12))
    return (peaks[:, None] >= LEVELS).sum(axis=0).astype(np.int32)


def _lesions(rng: np.random.Generator, quality: float) -> tuple[LesionRecord, ...]:
    found = []
    for size in np.exp(rng.normal(1.0, 1.5, rng.integers(1, 4))):
        peak = max(0.0, 1.5 + quality * 1.2 + 0.5 * np.log(size) + rng.normal())
        highest = float(LEVELS[LEVELS <= peak][-1]) if peak >= LEVELS[0] else 0.0
        found.append(LesionRecord(float(size), highest >= THRESHOLD, highest))
    return tuple(found)


def _voxels(rng: np.random.Generator, quality: float, ml: float) -> VoxelRecord:
    healthy = rng.exponential(1 / np.log(10), 20_000).astype(np.float32)
    lesion = np.maximum(rng.normal(1 + 1.2 * quality, 1.5, round(ml * 125)), 0).astype(np.float32)
    if lesion.size == 0:
        return VoxelRecord(rarity_histogram(lesion), rarity_histogram(healthy), None, None)
    hit, false = int((lesion >= THRESHOLD).sum()), int((healthy >= THRESHOLD).sum())
    dice, iou = 2 * hit / (hit + false + lesion.size), hit / (false + lesion.size)
    return VoxelRecord(rarity_histogram(lesion), rarity_histogram(healthy), dice, iou)


def _slices(rng: np.random.Generator, quality: float, label: int) -> tuple[tuple[int, float], ...]:
    return tuple((ill, float(2 + ill * quality + rng.normal())) for ill in [0] * 8 + [label] * 2)
