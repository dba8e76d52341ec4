"""A model ready to score: what a bundle holds once it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib.imaging.template import Template

from .calibration import Calibrator, Reducer, conformal_p_value
from .contract import Detector
from .decision import Decision
from .probability import Probability
from .result import ModelIdentity
from .thresholds import Threshold


@dataclass(frozen=True)
class Calibration:
    """Everything that was fitted on calibration normals.

    Attributes
    ----------
    normal_scores
        float64 (n,): volume score of every calibration normal.
    decision
        From which volume score on a case is called abnormal.
    probability
        From a supervised detector's log-odds to a probability; None for any other detector.
    """

    calibrator: Calibrator
    reducer: Reducer
    threshold: Threshold
    normal_scores: NDArray[np.float64]
    decision: Decision
    probability: Probability | None = None

    @property
    def n(self) -> int:
        """Number of calibration normals."""
        return int(self.normal_scores.size)

    @property
    def least_p_value(self) -> float:
        """No case can have a smaller p-value than 1 / (n + 1)."""
        return 1 / (self.n + 1)

    def p_value(self, volume_score: float) -> float:
        """Conformal p-value of a case."""
        return conformal_p_value(volume_score, self.normal_scores)

    def warning(self) -> str | None:
        """A sentence for the user where there are too few calibration normals to reach significance."""
        if self.least_p_value <= 0.05:
            return None
        return (
            f"The model was calibrated on {self.n} normals: no case can reach p = 0.05 "
            f"(the least p-value is {self.least_p_value:.3f}); calibrate on at least 19."
        )

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "calibrator": self.calibrator.to_json(),
            "reducer": self.reducer.to_json(),
            "threshold": self.threshold.to_json(),
            "normal_scores": self.normal_scores.tolist(),
            "decision": self.decision.to_json(),
            **({} if self.probability is None else {"probability": self.probability.to_json()}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Calibration:
        """The inverse of `to_json`; raises ValueError or KeyError for what cannot be a calibration.

        Bundles made before there were decisions get the one by their calibration normals.
        """
        scores = np.asarray(data["normal_scores"], dtype=np.float64)
        if scores.ndim != 1 or scores.size == 0 or not np.isfinite(scores).all():
            raise ValueError("the calibration normals' scores are not a list of numbers")
        return cls(
            Calibrator.from_json(data["calibrator"]),
            Reducer.from_json(data["reducer"]),
            Threshold.from_json(data["threshold"]),
            scores,
            Decision.from_json(data["decision"]) if "decision" in data else Decision.by_normals(scores),
            Probability.from_json(data["probability"]) if "probability" in data else None,
        )


@dataclass(frozen=True)
class Model:
    """A fitted detector with its template and calibration.

    Attributes
    ----------
    info
        Training provenance, metrics and required packages, as stored in `anomaly.json`.
    path
        The bundle's folder, or None for a model that was never written.
    attachments
        Further files of a bundle that is to be written, by their names in it; scoring needs none of them, and a bundle
        that was read has them on disk only (`models.manifest.read_attachments`).
    """

    identity: ModelIdentity
    detector: Detector
    calibration: Calibration
    template: Template | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None
    attachments: Mapping[str, bytes] = field(default_factory=dict)
