"""Raw scores of a volume: prepared for a detector, scored, and brought back into its own geometry."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.template import Template
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.models.devices import choose_device

from .composite import Composite, put_together
from .contract import Detector, InputSpec, Scores
from .covariates import encode
from .findings import Midline, midline_of, midline_of_mask
from .prepare import Prepared, check_fits, prepare
from .quality import assess
from .result import Quality

ProgressCallback = Callable[[str, float], None]
"""Called with the stage's name and the share of the whole case that is done; may raise `Cancelled`."""

POOR_OVERLAP, DOUBTFUL_OVERLAP = 0.75, 0.88
"""Dice of the outlines after alignment below which the result is not to be trusted, or to be checked (simulated heads
with up to 28 degrees of tilt end at 0.97 or above)."""

NOTICEABLE_SHARE = 0.02
"""Share of the patient beyond what the model is given from which on it is said (a rim of voxels always may be)."""

PREPARED = {"template": 0.75, "frame": 0.3, "own": 0.3}
"""Share of the whole that preparing the image takes, by the grid: registration is most of the work where there is one
(70 % of `zscore`'s on a 240 x 240 x 155 head)."""

BACK = 0.85
"""Share of the whole after which a map is brought back into the image's geometry."""

SLICES_AT_ONCE = 16
"""Slices scored in one go: their network activations (224 x 224, about 40 MB a slice) bound the memory."""


@dataclass
class RawScore:
    """Uncalibrated scores of one volume in its own geometry.

    Attributes
    ----------
    raw
        float32 (K, J, I); meaningful where `scored`.
    scored
        bool (K, J, I): the foreground, as far as the detector judges it.
    image
        The case's score by a detector that makes no map: `raw` is then 0 everywhere.  None where there is a map.
    midline
        The plane between the patient's left and right; None where the file does not tell sides.
    """

    raw: NDArray[np.float32]
    scored: NDArray[np.bool_]
    quality: Quality
    device: str
    image: float | None = None
    midline: Midline | None = None
    notes: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Ready:
    """A volume on the grid of a spec and template: what every detector of that spec can score.

    Attributes
    ----------
    shown
        bool (K, J, I): the foreground, as far as the grid of the spec reaches.
    quality
        Of the image, and of its alignment with the template.
    notes
        What whoever reads the result must know of the image.
    timings
        Seconds per stage.
    """

    volume: Volume
    spec: InputSpec
    template: Template | None
    prepared: Prepared
    shown: NDArray[np.bool_]
    quality: Quality
    notes: tuple[str, ...]
    timings: dict[str, float]


class Watch:
    """Seconds per stage."""

    def __init__(self) -> None:
        self.timings: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.timings[name] = self.timings.get(name, 0.0) + time.perf_counter() - start


def unwatched(stage: str, fraction: float) -> None:
    """Progress that nobody watches."""


def score_raw(
    detector: Detector,
    template: Template | None,
    volume: Volume,
    *,
    device: str = "auto",
    progress: ProgressCallback = unwatched,
) -> RawScore:
    """Raw scores of one volume, as calibration and scoring both use them.

    Raises
    ------
    InputError
        If the image does not fit the detector or the memory.
    """
    return score_prepared(detector, template, Preparations(volume), device, progress)


class Preparations:
    """A volume, made ready once for every input that detectors ask for."""

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self._made: list[Ready] = []

    def ready(self, spec: InputSpec, template: Template | None, progress: ProgressCallback = unwatched) -> Ready:
        """The volume for that spec and template; raises as `make_ready` does."""
        for made in self._made:
            if made.spec == spec and made.template is template:
                return made
        self._made.append(make_ready(self.volume, spec, template, progress))
        return self._made[-1]


def score_prepared(
    detector: Detector,
    template: Template | None,
    preparations: Preparations,
    device: str = "auto",
    progress: ProgressCallback = unwatched,
) -> RawScore:
    """`score_raw` of a volume that may have been made ready before.

    The members of a `Composite` are scored one after the other, each on its own grid and on the device that it fits.

    Raises
    ------
    InputError
        As `score_raw`.
    """
    if not isinstance(detector, Composite):
        return score_ready(detector, preparations.ready(detector.spec, template, progress), device, progress)
    raws, count = [], len(detector.members)
    for number, member in enumerate(detector.members):
        told = partial(_told_of_member, progress, number, count)
        raws.append(score_prepared(member.detector, member.template, preparations, device, told))
    return put_together(detector, raws, preparations.volume.name)


def _told_of_member(progress: ProgressCallback, number: int, count: int, stage: str, fraction: float) -> None:
    """Pass on how far a member is, as the share of all of them."""
    progress(f"{stage} ({number + 1} of {count})", (BACK * number + min(fraction, BACK)) / count)


def make_ready(
    volume: Volume, spec: InputSpec, template: Template | None, progress: ProgressCallback = unwatched
) -> Ready:
    """The part of scoring that does not depend on the detector: check, prepare, judge the quality.

    Raises
    ------
    InputError
        If the image does not fit the spec or cannot be aligned with the template.
    """
    watch = Watch()
    note = check_fits(volume, spec)
    with watch.stage("prepare"):
        share = PREPARED[spec.grid]
        prepared = prepare(volume, spec, template, lambda stage, part: progress(stage, share * part))
        shown = prepared.shown()
    with watch.stage("quality"):
        quality = _with_alignment(assess(volume, prepared.foreground), prepared.overlap)
    notes = [*volume.notes, *(said for said in (note, _left_out(prepared, shown)) if said)]
    return Ready(volume, spec, template, prepared, shown, quality, tuple(notes), watch.timings)


def _left_out(prepared: Prepared, shown: NDArray[np.bool_]) -> str | None:
    """A sentence where a noticeable share of the patient lies beyond the detector's grid."""
    whole = np.count_nonzero(prepared.foreground)
    left = whole - np.count_nonzero(shown)
    if left == 0 or left < NOTICEABLE_SHARE * whole:
        return None
    width, depth, height = np.array(prepared.grid.shape[::-1]) * prepared.grid.spacing
    return (
        f"{left / whole:.0%} of the patient lies outside the {width:.0f} x {depth:.0f} x {height:.0f} mm "
        "(left to right, back to front, bottom to top) that the model takes, and was not judged."
    )


def score_ready(
    detector: Detector, ready: Ready, device: str = "auto", progress: ProgressCallback = unwatched
) -> RawScore:
    """The part of scoring that is the detector's: its map, brought back into the image's geometry.

    A detector that judges whole images gives `image` instead, and no voxel a score.

    Raises
    ------
    InputError
        If the memory does not suffice, or the detector has no score for any part of the image.
    """
    watch, volume, prepared = Watch(), ready.volume, ready.prepared
    share = PREPARED[detector.spec.grid]
    notes = list(ready.notes)
    at_once = min(SLICES_AT_ONCE, prepared.batch.image.shape[0])
    clinical = None
    if detector.columns:
        numbers, said = encode(detector.columns, volume.covariates)
        clinical = torch.from_numpy(numbers)
        notes += said
    choice = choose_device(device, detector.memory_bytes(at_once * prepared.batch.image[0, 0].numel()))
    if choice.note:
        notes.append(choice.note)
    with watch.stage("score"), torch.inference_mode():
        detector.eval().to(choice.device)
        scores = _score_items(
            detector, prepared, clinical, choice.device, lambda part: progress("scoring", share + (BACK - share) * part)
        )
    image = None
    if scores.map is None:
        image = _case_score(detector, scores, volume)
        raw, scored = np.zeros(volume.shape, dtype=np.float32), ready.shown
    else:
        progress("bringing the map back", BACK)
        with watch.stage("back"):
            raw = prepared.to_input(prepared.whole(scores.map.numpy()))
            scored = ready.shown
            if scores.scored is not None:
                scored = scored & prepared.to_input(prepared.whole(scores.scored.numpy()))
    if not scored.any():
        raise InputError(
            f"{volume.name}: no part of the image lies where the model can judge it; is it the right part of the body?"
        )
    midline = _midline(volume, prepared, ready.template)
    timings = ready.timings | watch.timings
    return RawScore(raw, scored, ready.quality, str(choice.device), image, midline, notes, timings)


def _case_score(detector: Detector, scores: Scores, volume: Volume) -> float:
    """The score of a case by a detector that makes no map."""
    if scores.image is None:
        raise TypeError(f"{type(detector).__name__} answered neither a map nor a score of the image")
    score = float(detector.pooled(scores.image))
    if not np.isfinite(score):
        raise InputError(f"{volume.name}: the model's score of the image is no number; are its intensities usable?")
    return score


def _midline(volume: Volume, prepared: Prepared, template: Template | None) -> Midline | None:
    """The template's midline where the image was aligned with it, for a head may be turned."""
    if not volume.orientation_known or prepared.overlap is None or prepared.overlap < POOR_OVERLAP or template is None:
        return midline_of(volume, prepared.foreground)
    midline = midline_of_mask(template.grid, template.foreground)
    return midline.moved(prepared.to_source) if midline is not None else None


def _score_items(
    detector: Detector,
    prepared: Prepared,
    clinical: torch.Tensor | None,
    device: torch.device,
    progress: Callable[[float], None],
) -> Scores:
    """Map, scored region and scores of all items of a case, on the CPU; a few items at a time.

    Parameters
    ----------
    clinical
        float32 (F,) of the case, for a detector with clinical columns.
    """
    count, done = prepared.batch.image.shape[0], 0
    maps: list[torch.Tensor] = []
    scored: list[torch.Tensor] = []
    images: list[torch.Tensor] = []
    for batch in prepared.chunks(SLICES_AT_ONCE):
        progress(done / count)
        if clinical is not None:
            batch.covariates = clinical.expand(batch.image.shape[0], -1)
        batch = batch.to(device)
        batch.progress = partial(_told_within, progress, done / count, batch.image.shape[0] / count)
        scores = detector.score(batch)
        if scores.map is not None:
            maps.append(scores.map.float().cpu())
        if scores.scored is not None:
            scored.append(scores.scored.cpu())
        if scores.image is not None:
            images.append(scores.image.float().cpu())
        done += batch.image.shape[0]
    return Scores(*(torch.cat(parts) if parts else None for parts in (maps, images, scored)))


def _told_within(progress: Callable[[float], None], start: float, size: float, share: float) -> None:
    """Pass on the share of a part, as the share of the whole."""
    progress(start + size * share)


def _with_alignment(quality: Quality, overlap: float | None) -> Quality:
    if overlap is None or overlap >= DOUBTFUL_OVERLAP:
        return quality
    poor = overlap < POOR_OVERLAP
    reason = f"The outline agrees with the template to {overlap:.0%} only: "
    if poor:
        reason += "the alignment failed, part of the body is missing, or the skull is in the one and not in the other."
    else:
        reason += "check the alignment and the field of view."
    verdict = "poor" if poor or quality.verdict == "poor" else "check"
    return Quality(verdict, (*quality.reasons, reason))
