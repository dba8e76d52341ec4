"""A baseline while it is fitted: its detector, and where it is calibrated out of fold those that left a fold out."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from AnomalyDetectionLib.imaging.template import Template
from AnomalyDetectionLib.scoring.contract import Batch, Detector

from ...cohorts.manifest import Case
from ...training.roles import folds_of

FOLD_SEED = 0


@dataclass(frozen=True)
class Folds:
    """Which fold each normal is left out of; empty where the calibration normals are held out.

    Attributes
    ----------
    count
        0 where there are none.
    of_case
        Case name to fold, from 0.
    """

    count: int = 0
    of_case: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, cases: Sequence[Case], count: int) -> Folds:
        """So many folds by patient, or fewer where there are fewer patients; none for a single one."""
        count = min(count, len({case.patient for case in cases}))
        if count < 2:
            return cls()
        divided = enumerate(folds_of(tuple(cases), count, FOLD_SEED))
        return cls(count, {case.case: number for number, (_, held) in divided for case in held})


@dataclass(eq=False)
class Contender:
    """A baseline on its way.

    Attributes
    ----------
    learns
        Whether it is still to learn from normals; one that knows all it needs scores every normal itself.
    left_out
        Where normals are used both to learn from and to calibrate on: fold to the detector that did not see it.
    """

    detector: Detector
    template: Template | None
    learns: bool = False
    left_out: list[Detector] = field(default_factory=list)

    @classmethod
    def learner(cls, detector: Detector, template: Template | None, folds: Folds) -> Contender:
        """One that is to learn."""
        return cls(detector, template, True, [copy.deepcopy(detector) for _ in range(folds.count)])

    def absorb(self, batch: Batch, fold: int | None) -> None:
        """Learn from a normal; the detector that leaves its fold out does not."""
        self.detector.absorb(batch)
        for number, detector in enumerate(self.left_out):
            if number != fold:
                detector.absorb(batch)

    def finish(self) -> None:
        """As `Detector.finish`, of all detectors."""
        for detector in self.detectors():
            detector.finish()

    def detectors(self) -> Iterator[Detector]:
        """All of them, that of all normals first."""
        yield self.detector
        yield from self.left_out

    def judge_of(self, fold: int | None) -> Detector:
        """The detector that a calibration normal of this fold is new to."""
        return self.detector if fold is None or not self.left_out else self.left_out[fold]
