"""Fits the baselines of a model on the normals that the model itself was fitted to and calibrated on.

Those that need a place for every voxel (`zscore`, `mean_image_residual`) work on the model's template.  Where a model
judges images on their own grid there is none: then volumes are aligned with a template built from the training normals,
and single images stretched onto one frame, for these two alone.

A model that was calibrated out of fold has no held-out normals, and neither have its baselines.  Those that learn
(`voxel_intensity`, `mean_image_residual`, `zscore`) learn from all normals of train and calibrate and are calibrated on
the same, each scored by a detector that did not see its fold; the others score every normal themselves.  Of the
supervised ones each normal is scored by a regression that saw nobody of its fold.  What all folds share is the template
that images are aligned with.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import torch

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.template import Template
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.models.seen import joined_used, patient_hash, pixel_hash
from AnomalyDetectionLib.scoring.calibrate import Gathering
from AnomalyDetectionLib.scoring.composite import Composite
from AnomalyDetectionLib.scoring.contract import Batch, InputSpec
from AnomalyDetectionLib.scoring.model import Model
from AnomalyDetectionLib.scoring.prepare import LEAST_SLICES, as_normal, check_fits, prepare
from AnomalyDetectionLib.scoring.raw import Ready, make_ready, score_ready
from AnomalyDetectionLib.scoring.registry import build

from ...cohorts.manifest import Case, Cohort, load_case_volume
from ...training.config import TrainConfig
from ...training.statistics import DEFAULT_TEMPLATE_MM, ProgressCallback, make_template
from ..shift.reference import NAME as SUMMARY
from ..shift.reference import CohortSummary, ImageRow, image_row
from . import DESCRIPTIONS, MAPS
from .contender import Contender, Folds
from .maps import CLASSES, MeanImageResidual, untrained
from .store import UNTRAINED_SEED, Baselines, baseline_model, stored_baselines
from .tables import CaseClassifier, Row, covariates_of, scores_as_new, statistics_of

ROLES = ("train", "calibrate", "validate")
"""Splits whose cases a model has seen in one way or another."""

FRAME_PIXELS = (224, 224)
FRAME_SMOOTH = 2.0
"""Smoothing of `zscore` for single images, in pixels, as in its radiograph recipe."""

_FEW = "the cohort has fewer than 2 calibration normals"


def attach_baselines(
    config: TrainConfig,
    cohort: Cohort,
    model: Model,
    device: str,
    progress: ProgressCallback,
    *,
    shared: Model | None = None,
) -> Model:
    """The model with what its bundle shall hold beside it: fitted baselines, and hashes of all that it has seen.

    Parameters
    ----------
    shared
        Another model, fitted to and calibrated on the same normals, that is itself one of the baselines (`zscore`): it
        and the baselines in its bundle are taken over rather than fitted again.

    Raises
    ------
    InputError
        If a case cannot be read or prepared.
    ValueError
        If the other model is no baseline.
    """
    fitting = Fitting(model, cohort, config.baselines, device, progress)
    baselines = fitting.run()
    if shared is not None:
        baselines = _with_shared(baselines, shared)
    facts = {"stored": ", ".join(baselines.names) or "none", "calibrated on": fitting.calibrated_on()}
    facts |= {f"{name} is missing": reason for name, reason in baselines.missing.items()}
    used = joined_used(model.info.get("used", {}), fitting.used())  # members of a fusion have seen others
    info = {**model.info, "used": used, "baselines": facts}
    files = {**baselines.to_files(model), SUMMARY: fitting.summary().to_bytes()}
    return replace(model, attachments=files, info=info)


def _with_shared(own: Baselines, other: Model) -> Baselines:
    """Baselines with another model and those that it holds; the own ones come first."""
    detector = other.identity.detector
    if detector not in CLASSES:
        raise ValueError(f"{other.identity.id} is no baseline: {detector} is none of {', '.join(CLASSES)}")
    stored = stored_baselines(other) or Baselines()
    missing = {name: reason for name, reason in stored.missing.items() if name not in own.maps}
    return Baselines(
        {**stored.maps, detector: other, **own.maps}, {**stored.cases, **own.cases}, {**missing, **own.missing}
    )


def fit_baselines(
    model: Model,
    cohort: Cohort,
    names: Collection[str] = tuple(DESCRIPTIONS),
    device: str = "auto",
    progress: ProgressCallback = lambda stage, fraction: None,
) -> Baselines:
    """Fit and calibrate baselines on the train and calibrate normals of a cohort, and the supervised ones on validate.

    Beside a model that learns from abnormal cases the supervised ones learn from train and validate.

    They are calibrated out of fold where the model was.  What cannot be fitted is named in `Baselines.missing` with the
    reason.

    Raises
    ------
    InputError
        If a case cannot be read or prepared.
    """
    return Fitting(model, cohort, names, device, progress).run()


@dataclass(frozen=True, eq=False)
class Atlas:
    """Grid and template of the baselines that need a place for every voxel."""

    spec: InputSpec
    template: Template


@dataclass
class Fitting:
    """One round of fitting: a pass over the training normals, one over the calibration normals, one over validate."""

    model: Model
    cohort: Cohort
    names: Collection[str]
    device: str
    progress: ProgressCallback
    missing: dict[str, str] = field(default_factory=dict)
    images: dict[str, set[str]] = field(default_factory=lambda: {role: set() for role in ROLES})
    numbers: dict[str, Row] = field(default_factory=dict)  # case to the statistics of its image
    described: dict[str, ImageRow] = field(default_factory=dict)  # case to what the bundle's summary takes of it

    def __post_init__(self) -> None:
        self.train = self.cohort.of(split="train", label=0).cases
        self.calibrate = self.cohort.of(split="calibrate", label=0).cases
        self.validate = self.cohort.of(split="validate").cases
        labelled = self.model.detector.supervision in ("labels", "masks")
        self.ill = self.cohort.of(split="train", label=1).cases if labelled else ()
        both = (*self.train, *self.calibrate)
        self.folds = Folds.of(both, self.model.info.get("calibration", {}).get("folds", 0))
        if self.folds.count:
            self.train = self.calibrate = both
        # Beside a model that learns from abnormal cases, the supervised ones learn from as many.
        self.labelled = (*self.train, *self.ill, *self.validate) if labelled else self.validate
        self.total = len(self.train) + 2 * len(self.calibrate) + len(self.validate)

    def run(self) -> Baselines:
        """Fit all that can be fitted."""
        wanted = [name for name in MAPS if name in self.names and name != self.model.identity.detector]
        maps = self._calibrated(self._fitted(wanted))
        cases = {
            name: classifier
            for name, rows in (("volume_statistics", self._statistics), ("metadata", self._metadata))
            if name in self.names and (classifier := self._classifier(name, rows)) is not None
        }
        self.progress("baselines", 1.0)
        return Baselines(maps, cases, self.missing)

    def used(self) -> dict[str, dict[str, list[str]]]:
        """Hashes of the patients and images of each role, by which a later evaluation tells that it is held out."""
        return {
            role: {
                "patients_sha256": sorted({patient_hash(case.patient) for case in self._seen() if case.split == role}),
                "images_sha256": sorted(self.images[role]),
            }
            for role in ROLES
        }

    def summary(self) -> CohortSummary:
        """How the cases that the model was made with are distributed, and their images as far as they were read."""
        return CohortSummary.of(self._seen(), self.described)

    def _seen(self) -> list[Case]:
        return list({case.case: case for case in (*self.train, *self.ill, *self.calibrate, *self.validate)}.values())

    def calibrated_on(self) -> str:
        """In a phrase."""
        if self.folds.count:
            return f"the normals they were fitted to, out of fold ({self.folds.count} folds by patient)"
        return "held-out normals"

    # -- the training normals

    def _fitted(self, wanted: Sequence[str]) -> dict[str, Contender]:
        """The baselines, those that learn having learnt; training normals are read whatever is wanted, for `used`."""
        model = self.model
        found = {
            name: Contender(CLASSES[name](_alone(model.detector.spec)), model.template)
            for name in wanted
            if name in ("random", "prevalence", "blur_residual")
        }
        if "voxel_intensity" in wanted:
            intensity = CLASSES["voxel_intensity"](_alone(model.detector.spec))
            found["voxel_intensity"] = Contender.learner(intensity, model.template, self.folds)
        if "untrained" in wanted:
            fused = isinstance(model.detector, Composite)
            if fused or model.detector.passes > 0 or not any(True for _ in model.detector.parameters()):
                self.missing["untrained"] = f"{model.identity.detector} has no network that training changes"
            else:
                network = untrained(model.detector, model.identity.detector, UNTRAINED_SEED)
                found["untrained"] = Contender(network, model.template)
        placed = [name for name in ("mean_image_residual", "zscore") if name in wanted]
        atlas = self._atlas() if placed and len(self.calibrate) >= 2 else _FEW
        if isinstance(atlas, str):
            self.missing |= dict.fromkeys(placed, atlas)
        elif placed:
            smooth = {"smooth": FRAME_SMOOTH} if atlas.spec.grid == "frame" else {}
            if "zscore" in placed:
                zscore = build("zscore", atlas.spec, smooth)
                found["zscore"] = Contender.learner(zscore, atlas.template, self.folds)
            if "mean_image_residual" in placed:
                found["mean_image_residual"] = self._mean_image(atlas)
        self._absorb(found)
        return {name: found[name] for name in wanted if name in found}

    def _mean_image(self, atlas: Atlas) -> Contender:
        """Out of fold it must learn; else the template is that mean, and no image need be aligned once more."""
        detector = MeanImageResidual(atlas.spec, shape=atlas.template.image.shape)
        if self.folds.count:
            return Contender.learner(detector, atlas.template, self.folds)
        detector.mean = torch.from_numpy(atlas.template.image)
        return Contender(detector, atlas.template)

    def _absorb(self, found: dict[str, Contender]) -> None:
        learning = {name: contender for name, contender in found.items() if contender.learns}
        for done, case in enumerate(self.train, 1):
            volume = self._read(case)
            placed = _Placed(volume)
            for contender in learning.values():
                contender.absorb(placed.batch(contender), self.folds.of_case.get(case.case))
            self.progress("baselines", done / self.total)
        for case in self.ill:
            self._read(case)
        for name, contender in learning.items():
            try:
                if not self.train:
                    raise InputError("the cohort has no training normals")
                contender.finish()
            except InputError as error:
                self.missing[name] = str(error).rstrip(".")
                del found[name]

    def _atlas(self) -> Atlas | str:
        """Where every voxel has a place, or the reason why there is none."""
        spec, template = _alone(self.model.detector.spec), self.model.template
        if template is not None:
            return Atlas(spec if spec.kind == "volume" else replace(spec, kind="volume", size=None), template)
        if not self.train:
            return "the cohort has no training normals"
        first = load_case_volume(self.train[0])
        if first.is_slice:
            size = (spec.size[-2], spec.size[-1]) if spec.size else FRAME_PIXELS
            placed = replace(spec, kind="volume", grid="frame", spacing=None, size=size)
        elif min(first.shape) < LEAST_SLICES:
            return f"{min(first.shape)} slices are too few to align volumes with each other"
        else:
            finest = min(first.spacing)  # a template finer than every axis of the images would only cost time
            x, y, z = (max(size, finest) for size in DEFAULT_TEMPLATE_MM)
            placed = replace(spec, kind="volume", grid="template", spacing=(x, y, z), size=None)
        try:
            return Atlas(
                placed, make_template(placed, self.train, lambda _, part: self.progress("baselines: atlas", part))
            )
        except InputError as error:
            return f"the training normals cannot be aligned with each other ({str(error).rstrip('.')})"

    # -- the calibration normals

    def _calibrated(self, found: dict[str, Contender]) -> dict[str, Model]:
        if len(self.calibrate) < 2:
            self.missing |= dict.fromkeys(found, _FEW)
            return {}
        before = self.model.calibration
        with ExitStack() as stack:
            gatherings = {
                name: stack.enter_context(Gathering(before.reducer, before.threshold.least_size)) for name in found
            }
            for done, case in enumerate(self.calibrate, 1):
                volume = self._read(case)
                fold = self.folds.of_case.get(case.case)
                for ready, names in self._ready(volume, found):
                    for name in names:
                        judge = found[name].judge_of(fold)
                        gatherings[name].add(volume, score_ready(judge, ready, self.device))
                        judge.cpu()
                self.progress("baselines", (len(self.train) + done) / self.total)
            maps = {}
            for done, (name, contender) in enumerate(found.items(), 1):
                calibration = gatherings[name].calibration()
                maps[name] = baseline_model(name, self.model, contender.detector.cpu(), contender.template, calibration)
                finished = len(self.train) + len(self.calibrate) * (1 + done / len(found))
                self.progress("baselines", finished / self.total)
        return maps

    def _ready(self, volume: Volume, found: dict[str, Contender]) -> Iterable[tuple[Ready, list[str]]]:
        """The volume made ready once for every grid, with the names of the baselines on it."""
        grids: list[tuple[InputSpec, Template | None, list[str]]] = []
        for name, contender in found.items():
            for spec, known, names in grids:
                if spec == contender.detector.spec and known is contender.template:
                    names.append(name)
                    break
            else:
                grids.append((contender.detector.spec, contender.template, [name]))
        for spec, template, names in grids:
            yield make_ready(volume, spec, template), names

    # -- the supervised ones

    def _classifier(self, name: str, rows: Callable[[str, Sequence[Case]], list[Row]]) -> CaseClassifier | None:
        try:
            lacking = [word for word, label in (("normal", 0), ("abnormal", 1)) if label not in self._labels()]
            if lacking:
                raise ValueError(
                    f"it learns from both classes, and the split validate has no {' and no '.join(lacking)} case"
                )
            learnt, normals = rows("validate", self.labelled), rows("calibrate", self.calibrate)
            fitted = CaseClassifier.fit(learnt, self._labels(), normals)
            if not self.folds.count:
                return fitted
            patients = [case.patient for case in self.labelled]
            new = [
                (row, case.patient, self.folds.of_case[case.case])
                for row, case in zip(normals, self.calibrate, strict=True)
            ]
            return replace(fitted, normal_scores=scores_as_new(learnt, self._labels(), patients, new))
        except (ValueError, InputError) as error:
            self.missing[name] = str(error).rstrip(".")
            return None

    def _labels(self) -> list[int]:
        return [case.label for case in self.labelled]

    def _statistics(self, role: str, cases: Sequence[Case]) -> list[Row]:
        for case in cases:
            self._read(case)
        return [self.numbers[case.case] for case in cases]

    def _metadata(self, role: str, cases: Sequence[Case]) -> list[Row]:
        rows: list[Row] = [covariates_of(case.covariates)[0] for case in cases]
        if not any(rows) and role == "validate":
            raise ValueError("the manifest has no column such as age or sex")
        return rows

    def _read(self, case: Case) -> Volume:
        volume = load_case_volume(case)
        check_fits(volume, self.model.detector.spec)
        self.images[case.split].add(pixel_hash(volume))
        if case.case not in self.numbers:
            statistics = statistics_of(volume, self.model.detector.spec)
            self.numbers[case.case] = statistics
            self.described[case.case] = image_row(volume, self.model.detector.spec, statistics)
        return volume


def _alone(spec: InputSpec) -> InputSpec:
    """The spec without neighbours or sequence: a baseline looks at each slice by itself."""
    return replace(spec, kind="slices", neighbours=0) if spec.kind in ("2.5d", "sequence") else spec


class _Placed:
    """A normal as baselines learn from it, aligned once for all of one grid; intensities alone need no alignment."""

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self._batches: list[tuple[InputSpec, Template | None, Batch]] = []

    def batch(self, contender: Contender) -> Batch:
        spec, template = contender.detector.spec, contender.template
        if isinstance(contender.detector, CLASSES["voxel_intensity"]):
            image, foreground, _ = as_normal(self.volume, spec)
            return Batch(torch.from_numpy(image)[None, None], torch.from_numpy(foreground)[None, None])
        for known, of, batch in self._batches:
            if known == spec and of is template:
                return batch
        batch = prepare(self.volume, spec, template).batch
        self._batches.append((spec, template, batch))
        return batch
