"""A detector that is put together of fitted, calibrated ones, each with a grid of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.template import Template

from .calibration import Calibrator
from .contract import Detector
from .result import ModelIdentity, Quality

if TYPE_CHECKING:
    from .raw import RawScore

VERDICTS = ("good", "check", "poor")


@dataclass(frozen=True)
class Member:
    """One of the detectors of a `Composite`, and what brings an image to it and its scores to rarity."""

    identity: ModelIdentity
    detector: Detector
    template: Template | None
    calibrator: Calibrator


class Composite(Detector):
    """Base class of detectors whose raw score is worked out from the rarity maps of others.

    It is neither trained nor given a batch: `raw` lets every member score the image on that member's own grid,
    brings the maps back into the image's geometry, calibrates each by the member's own curve, and hands them to
    `combine` where all members have a score.  Its `spec` is that of the first member, but for the modalities: those
    that all members take.
    """

    @property
    def members(self) -> Sequence[Member]:
        """The fitted members, in the order of `combine`'s rows."""
        raise NotImplementedError(f"{type(self).__name__} has no members")

    def combine(self, rarity: NDArray[np.float32]) -> NDArray[np.float32]:
        """Raw scores, float32 (voxels,), from the members' rarity, float32 (members, voxels)."""
        raise NotImplementedError(f"{type(self).__name__} does not combine")

    def memory_bytes(self, voxels: int) -> int:
        """The most that a member needs for as many voxels: they score one after the other."""
        return max((member.detector.memory_bytes(voxels) for member in self.members), default=0)


def put_together(composite: Composite, raws: Sequence[RawScore], name: str) -> RawScore:
    """The raw score of a case by a composite, from those of its members; the first one's map is reused.

    Parameters
    ----------
    raws
        One for each member, in the geometry of the image.
    name
        Of the image, for messages.

    Raises
    ------
    InputError
        If there is no place that all members judge.
    """
    scored = np.logical_and.reduce([raw.scored for raw in raws])
    if not scored.any():
        raise InputError(f"{name}: no part of the image lies where all members of the fused model can judge it.")
    rarity = np.stack([member.calibrator(raw.raw[scored]) for member, raw in zip(composite.members, raws, strict=True)])
    first = raws[0]
    first.raw.fill(0)
    first.raw[scored] = composite.combine(rarity)
    aligned = (raw for member, raw in zip(composite.members, raws, strict=True) if member.detector.spec.grid != "own")
    timings: dict[str, float] = {}
    for raw in raws:
        for stage, seconds in raw.timings.items():
            timings[stage] = timings.get(stage, 0.0) + seconds
    return replace(
        first,
        scored=scored,
        quality=_worst([raw.quality for raw in raws]),
        device=", ".join(dict.fromkeys(raw.device for raw in raws)),
        midline=next(aligned, first).midline,
        notes=list(dict.fromkeys(note for raw in raws for note in raw.notes)),
        timings=timings,
    )


def _worst(qualities: Sequence[Quality]) -> Quality:
    """The worst verdict, with every reason once."""
    reasons = tuple(dict.fromkeys(reason for quality in qualities for reason in quality.reasons))
    return Quality(max((quality.verdict for quality in qualities), key=VERDICTS.index), reasons)
