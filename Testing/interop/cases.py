"""A real brain in several geometries, with a lesion in the patient's left, scored by hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from AnomalyDetectionLib.imaging.foreground import foreground
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.scoring.decision import Decision
from AnomalyDetectionLib.scoring.findings import LeastSize, midline_of
from AnomalyDetectionLib.scoring.relabel import find_regions
from AnomalyDetectionLib.scoring.result import ModelIdentity, Quality, ScoreResult
from AnomalyDetectionLib.scoring.thresholds import Threshold

LESION_RAS = np.array([-35.0, -45.0, 25.0])
"""In the patient's left hemisphere."""
THRESHOLD = 3.0
ONE_VOXEL = LeastSize(ml=1e-6, mm2=1e-6, px=1.0)


@dataclass
class Scored:
    volume: Volume
    result: ScoreResult


def scored(volume: Volume, lesions: list[tuple[np.ndarray, float, float]], case: str = "sub-01") -> Scored:
    """A result with the given lesions (RAS centre, radius in mm, peak rarity) and a background of rarity 0.5."""
    inside = foreground(volume)
    index = np.moveaxis(np.indices(volume.shape)[::-1], 0, -1)
    places = volume.grid.to_ras(index)
    rarity = np.where(inside, np.float32(0.5), np.float32(0))
    for centre, radius, peak in lesions:
        distance = np.linalg.norm(places - centre, axis=-1)
        rarity = np.maximum(rarity, np.where(inside & (distance < radius), peak - distance / 100, 0)).astype(np.float32)
    mapped, midline = volume.with_array(rarity, units="rarity"), midline_of(volume, inside)
    labels, findings = find_regions(mapped, THRESHOLD, ONE_VOXEL, midline)
    result = ScoreResult(
        rarity=mapped,
        labels=labels,
        foreground=inside,
        volume_score=float(rarity.max()),
        p_value=1 / 41,
        calibration_n=40,
        threshold=THRESHOLD,
        false_findings_per_normal=None,
        findings=findings,
        quality=Quality("check", ("The slices are thick (6.5 mm): small lesions are missed.",)),
        model=ModelIdentity("brain-t1", "1.0.0", "0123456789abcdef" * 4, "zscore"),
        device="cpu",
        thresholds=Threshold(THRESHOLD, np.array([2.0, 4.0]), np.array([3.0, 0.5]), ONE_VOXEL),
        midline=midline,
        timings={"score": 0.25},
        notes=("A note.",),
        case=case,
        decision=Decision.by_normals(np.linspace(1.0, 2.0, 40)),
    )
    return Scored(volume, result)


def _oblique() -> np.ndarray:
    a, b = np.radians(12), np.radians(-9)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return about_z @ about_x


GEOMETRIES: dict[str, np.ndarray] = {
    "RAS": np.eye(3),
    "LAS, left-handed": np.diag([-1.0, 1, 1]),
    "LPS": np.diag([-1.0, -1, 1]),
    "sagittal slices (PIR-like)": np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]),
    "oblique": _oblique(),
    "oblique, left-handed": _oblique() @ np.diag([1.0, -1, 1]),
}
"""Columns: directions of i, j, k in RAS."""
