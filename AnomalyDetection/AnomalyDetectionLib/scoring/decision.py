"""Which cases are called abnormal: a cut through the volume scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Method = Literal["normals", "roc"]

SIGNIFICANCE = 0.05
"""Share of normal people that `normals` lets be called abnormal."""


@dataclass(frozen=True)
class Decision:
    """A case is called abnormal from a certain volume score on.

    Attributes
    ----------
    score
        The least volume score that is called abnormal.
    method
        "normals": the conformal p-value is 0.05 or less (with fewer than 19 calibration normals, which cannot show
        that: the score exceeds that of every one of them); "roc": the point of the ROC curve of validation cases with
        the largest Youden index (sensitivity + specificity - 1; Youden, Cancer 1950).
    sensitivity, specificity, normals, abnormals
        For "roc": what that cut achieved on the validation cases, and their numbers.  It was chosen on them, so on new
        cases both are likely lower.  None for "normals".
    target
        For "roc": what the point was chosen for instead of the largest Youden index, such as "sensitivity 0.95" (of all
        points that reach it, the one with the highest specificity).
    """

    score: float
    method: Method = "normals"
    sensitivity: float | None = None
    specificity: float | None = None
    normals: int | None = None
    abnormals: int | None = None
    target: str | None = None

    @classmethod
    def by_normals(cls, scores: NDArray[np.float64]) -> Decision:
        """From the volume scores of the calibration normals, shape (n,), n >= 1.

        Examples
        --------
        >>> decision = Decision.by_normals(np.arange(1.0, 40.0))  # p = 0.05 is 2 of 40: the case itself and one normal
        >>> decision.calls(39.0), decision.calls(38.0)
        (True, False)
        """
        ordered = np.sort(scores)[::-1]
        # A case with p <= 0.05 has fewer than 0.05 (n + 1) normals at or above it; 1e-9 is for 0.05 * 20 = 1.
        allowed = max(0, int(SIGNIFICANCE * (ordered.size + 1) + 1e-9) - 1)
        return cls(float(np.nextafter(ordered[allowed], np.inf)))

    def calls(self, volume_score: float) -> bool:
        """Whether a case with that volume score is called abnormal."""
        return volume_score >= self.score

    def describe(self) -> str:
        """In words, for cards and reports."""
        said = f"a case is called abnormal from a volume score of {self.score:.3g} on"
        if self.method == "normals":
            return f"{said} (beyond the calibration normals)"
        chosen = f"chosen for {self.target}" if self.target else "chosen"
        return (
            f"{said} ({chosen} on {self.normals} normal and {self.abnormals} abnormal validation cases, where it has "
            f"sensitivity {self.sensitivity:.2f} and specificity {self.specificity:.2f})"
        )

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Decision:
        """The inverse of `to_json`; raises ValueError, TypeError or KeyError for what cannot be a decision."""
        kinds = {"sensitivity": float, "specificity": float, "normals": int, "abnormals": int}
        measured: dict[str, Any] = {
            name: None if data.get(name) is None else kind(data[name]) for name, kind in kinds.items()
        }
        target = None if data.get("target") is None else str(data["target"])
        decision = cls(float(data["score"]), data["method"], **measured, target=target)
        if decision.method not in get_args(Method) or not np.isfinite(decision.score):
            raise ValueError("the decision threshold is not one")
        if decision.method == "roc" and None in measured.values():
            raise ValueError("the decision threshold does not say what it achieved")
        return decision
