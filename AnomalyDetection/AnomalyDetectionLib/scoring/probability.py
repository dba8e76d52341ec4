"""From a supervised detector's log-odds to the probability that a case is abnormal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Probability:
    """Temperature scaling (Guo et al., ICML 2017): the log-odds are divided by one number; their ranking stays.

    The probability holds where abnormal cases are as frequent as among the validation cases.

    Attributes
    ----------
    temperature
        Above 1 where the network was too sure of itself.
    normals, abnormals
        Validation cases that it was fitted to.
    """

    temperature: float
    normals: int
    abnormals: int

    def __call__(self, log_odds: float) -> float:
        """Probability of a case with those log-odds."""
        scaled = log_odds / self.temperature
        return 1 / (1 + math.exp(-scaled)) if scaled >= 0 else math.exp(scaled) / (1 + math.exp(scaled))

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Probability:
        """The inverse of `to_json`; raises ValueError, TypeError or KeyError for what is none."""
        found = cls(float(data["temperature"]), int(data["normals"]), int(data["abnormals"]))
        if not (math.isfinite(found.temperature) and found.temperature > 0):
            raise ValueError("the temperature is no number above 0")
        return found
