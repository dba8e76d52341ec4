"""What a reader decides of each finding; kept with the results in the scene."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from AnomalyDetectionLib.scoring.result import Finding

    from .results import Results

ATTRIBUTE = "AnomalyDetection.Reviews"
DECISIONS = ("accept", "unsure", "reject")


@dataclass(frozen=True)
class Review:
    """A reader's decision on a finding ("" for none yet, or one of `DECISIONS`) and a comment."""

    decision: str = ""
    comment: str = ""


class Reviews:
    """The reviews of one volume's findings.

    A finding is known again by its rarest voxel: that stays the same at any threshold, while numbers and outlines
    change.
    """

    def __init__(self, results: Results) -> None:
        self._results = results

    def of(self, finding: Finding) -> Review:
        """The review of a finding; an empty one where there is none."""
        return self._all().get(self._key(finding), Review())

    def set(self, finding: Finding, review: Review) -> None:
        """Keep a review; an empty one takes the former away.

        Raises
        ------
        ValueError
            If the decision is none.
        """
        if review.decision not in ("", *DECISIONS):
            raise ValueError(f"{review.decision!r} is no decision")
        kept = self._all()
        kept.pop(self._key(finding), None)
        if review != Review():
            kept[self._key(finding)] = review
        data = {key: [review.decision, review.comment] for key, review in sorted(kept.items())}
        self._results.score.SetAttribute(ATTRIBUTE, json.dumps(data, ensure_ascii=False))

    def in_order(self, findings: Iterable[Finding]) -> list[Review]:
        """The reviews of some findings."""
        kept = self._all()
        return [kept.get(self._key(finding), Review()) for finding in findings]

    def copy_to(self, score: Any) -> None:
        """Give the reviews to another rarity map of the same volume: a reader's work outlives a second score."""
        score.SetAttribute(ATTRIBUTE, self._results.score.GetAttribute(ATTRIBUTE))

    def _all(self) -> dict[str, Review]:
        data = json.loads(self._results.score.GetAttribute(ATTRIBUTE) or "{}")
        return {key: Review(*values) for key, values in data.items()}

    def _key(self, finding: Finding) -> str:
        """Index (i,j,k) of the rarest voxel: a place in the image, whatever transform it is under."""
        i, j, k = np.round(self._results.rarity().grid.to_ijk(np.array(finding.peak_ras))).astype(int)
        return f"{i},{j},{k}"
