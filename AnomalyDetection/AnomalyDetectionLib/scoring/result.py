"""What scoring a volume yields: the same object for every door."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib.imaging.volume import Volume

if TYPE_CHECKING:
    from .decision import Decision
    from .explaining import Attribution
    from .findings import Midline
    from .thresholds import Threshold


@dataclass(frozen=True)
class Finding:
    """One connected region above the threshold.

    Attributes
    ----------
    label
        Its value in the label map, 1 = the finding with the highest peak.
    size, size_unit
        "mL" for volumes, "mm²" for single images, "px" where the pixel spacing is unknown.
    extent_mm
        Extent along the image's axes nearest to right, anterior, superior (mm; pixels where the spacing is unknown).
    centroid_ras, peak_ras
        Patient millimetres (right, anterior, superior).
    centroid_ijk
        The voxel (i, j, k) nearest to the centroid.
    side
        "left" or "right" of the patient, "midline", or "unknown" where the file does not tell.
    peak, mean
        Rarity.
    """

    label: int
    size: float
    size_unit: str
    extent_mm: tuple[float, float, float]
    centroid_ras: tuple[float, float, float]
    peak_ras: tuple[float, float, float]
    centroid_ijk: tuple[int, int, int]
    side: str
    peak: float
    mean: float


@dataclass(frozen=True)
class Quality:
    """Whether the image is one the model can be trusted on.

    `verdict` is "good", "check" or "poor"; `reasons` says in full sentences why it is not "good".
    """

    verdict: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelIdentity:
    """Which model produced a result."""

    id: str
    version: str
    sha256: str
    detector: str


@dataclass(frozen=True)
class ScoreResult:
    """A calibrated map and what follows from it.

    Attributes
    ----------
    rarity
        float32 in the input's geometry; -log10 of the share of normal foreground voxels that score at least as high,
        0 outside the foreground.
    labels
        int32 (K, J, I), the findings' labels, 0 elsewhere.
    foreground
        bool (K, J, I): where the volume was scored.
    volume_score
        One number for the case (the model's reducer over the rarity map).
    p_value, calibration_n
        Conformal p-value and the number of calibration normals behind it; it cannot be below 1 / (n + 1).
    threshold
        Rarity above which voxels are findings.
    false_findings_per_normal
        What that threshold costs on the calibration normals, or None where that is unknown.
    timings
        Seconds per stage.
    decision
        From which volume score on the model calls a case abnormal; None for a result that no model made.
    thresholds
        What any other threshold costs on the calibration normals, and the least size of a finding.
    midline
        The plane that tells the patient's left from right; None where the file does not tell sides.
    mapped
        False for a model that judges whole images: `rarity` and `labels` are then 0 everywhere and mean nothing, there
        are no findings, and `volume_score` is in the detector's own units (log-odds) instead of rarity.
    probability
        That the case is abnormal, by a supervised model whose log-odds were calibrated; None for any other.
    covariates
        What the model was told of the patient beside the image.
    attribution
        What moved a classifier's score, where that was asked for: not a segmentation, and no findings come of it.
    """

    rarity: Volume
    labels: NDArray[np.int32]
    foreground: NDArray[np.bool_]
    volume_score: float
    p_value: float
    calibration_n: int
    threshold: float
    false_findings_per_normal: float | None
    findings: tuple[Finding, ...]
    quality: Quality
    model: ModelIdentity
    device: str
    thresholds: Threshold
    midline: Midline | None
    timings: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    case: str = "case"
    decision: Decision | None = None
    mapped: bool = True
    probability: float | None = None
    covariates: Mapping[str, str] = field(default_factory=dict)
    attribution: Attribution | None = None

    @property
    def abnormal(self) -> bool | None:
        """Whether the model calls the case abnormal; None where nothing was decided."""
        return None if self.decision is None else self.decision.calls(self.volume_score)
