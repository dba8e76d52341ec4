"""Fitting of detectors trained by gradient: prepare, train."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.template import Template
from AnomalyDetectionLib.models.devices import choose_device
from AnomalyDetectionLib.scoring.contract import Batch, Detector, InputSpec
from AnomalyDetectionLib.scoring.registry import build
from AnomalyTrainingLib.cohorts.manifest import Case

from .config import TrainConfig, TrainingSection
from .data import Batches, PreparedCases, TrainingSlices, ValidationSlices
from .engine import LAST, Events, fit_by_gradient
from .kept import ContextOf
from .labelled import WholeVolumes, WithLabels, label_facts, with_fitted_options
from .patches import Patches
from .probing import probe
from .seeds import seed_of
from .sequences import Sequences
from .statistics import Fitted, ProgressCallback, make_template, rebuilt, training_facts
from .synthetic_data import WithSyntheticLesions

VALIDATION_PATCHES = 4
"""Least number of crops of each validation case, so that one epoch's loss can be told from another's."""

LEAST_PROGRESS = 1e-3
"""Share of the first validation loss by which it must have fallen for anything to have been learnt."""


def fit_gradient(
    config: TrainConfig,
    cases: tuple[Case, ...],
    validation: tuple[Case, ...],
    folder: Path,
    slices: Path,
    *,
    device: str = "auto",
    seed: int = 0,
    template: Template | None = None,
    on_template: Callable[[Template], None] = lambda template: None,
    progress: ProgressCallback = lambda stage, fraction: None,
    events: Events = lambda fields: None,
) -> Fitted:
    """Train a detector that has a loss.

    Parameters
    ----------
    cases
        Normals, and abnormal cases where the detector learns from these.
    validation
        Those to tell when to stop; without any (normal or abnormal), a share of the training patients is kept for it.
    folder
        Takes the checkpoints and logs, or holds those of a stopped run, which are gone on from.
    slices
        Takes the prepared slices; they can be shared by trainings whose template is the same.

    Raises
    ------
    InputError
        If a case cannot be read, or there is nobody to validate on.
    """
    spec = config.input.spec()
    training, validation = split_by_label(cases, validation, config, seed)
    detector = _initial(with_fitted_options(config, training), spec, seed)
    labelled = detector.supervision == "labels"
    check_trainable(spec, labelled)
    if template is None and spec.grid != "own":
        template = make_template(spec, tuple(case for case in training if case.label == 0), progress)
        on_template(template)
    count = len(training) + len(validation)

    masks = detector.supervision == "masks"

    def prepared(cases: tuple[Case, ...], before: int) -> PreparedCases:
        def told(done: int) -> None:
            progress("preparing", (before + done) / count)

        return PreparedCases(cases, spec, template, slices, told, masks, context_of(detector))

    kept, kept_for_validation = prepared(training, 0), prepared(validation, len(training))
    learnt_from, judged_by = batches(spec, kept, kept_for_validation, config.training, seed, detector.context_images)
    if labelled:
        learnt_from = WithLabels(learnt_from, kept, training, detector.columns)
        judged_by = WithLabels(judged_by, kept_for_validation, validation, detector.columns)
    if detector.supervision == "synthetic":
        shown = (spec.neighbours, detector.context_images)
        learnt_from = WithSyntheticLesions(learnt_from, seed, "train", *shown)
        judged_by = WithSyntheticLesions(judged_by, 0, "choose", *shown)  # the same for every run
    device_used = choose_device(device, 0).device
    if config.training.probe_epochs and not (folder / LAST).exists():
        unchanged = WithLabels(batches(spec, kept, kept, config.training, seed)[1], kept, training, detector.columns)
        probe(detector, unchanged, judged_by, config.training, device=device_used, seed=seed, progress=progress)
    summary = fit_by_gradient(
        detector,
        learnt_from,
        judged_by,
        config.training,
        folder,
        device=device_used,
        seed=seed,
        progress=progress,
        events=events,
    )
    facts = {
        **training_facts(training),
        **detector.facts(),
        "validation normals": sum(case.label == 0 for case in validation),
        **(label_facts(detector, training, validation) if labelled else {}),
        "seed": seed,
        **{name.replace("_", " "): value for name, value in summary.items()},
    }
    # Where probing went before, the first epoch's loss is that of layers that have learnt already.
    if not config.training.probe_epochs and has_learnt_nothing(summary, detector.warmup_epochs):
        facts["warning"] = (
            "The validation loss never fell after the first epoch: the network has learnt nothing of the normals, and "
            "its map is little more than the image's own brightness; lower training.learning_rate or change the seed."
            if not labelled
            else "The validation loss never fell after the first epoch: the network has learnt nothing that helps with "
            "new cases; change training.learning_rate, or train longer."
        )
    return Fitted(rebuilt(config, detector), template, facts)


def context_of(detector: Detector) -> ContextOf | None:
    """What works out the context of a whole case, for detectors of patches that want any."""
    if detector.context_channels == 0:
        return None

    def context(batch: Batch) -> Tensor:
        found = detector.context(batch)
        assert found is not None and found.shape[1] == detector.context_channels
        return found

    return context


def check_trainable(spec: InputSpec, labelled: bool = False) -> None:
    """Refuse inputs that batches cannot be made of.

    Raises
    ------
    InputError
        For whole volumes and sequences, unless each has a label, and patches without a size.
    """
    if spec.kind in ("volume", "sequence") and not labelled:
        raise InputError(f"Training by gradient takes `input.kind: slices`, `2.5d` or `patches`, not {spec.kind!r}.")
    if spec.kind == "patches" and (spec.size is None or len(spec.size) != 3 or spec.grid == "frame"):
        raise InputError("`input.kind: patches` needs `size: [slices, rows, columns]`, and a grid that is not 'frame'.")


def batches(
    spec: InputSpec,
    training: PreparedCases,
    validation: PreparedCases,
    settings: TrainingSection,
    seed: int,
    context_images: int = 0,
) -> tuple[Batches, Batches]:
    """What is learnt from, changed at random, and what epochs are judged by, the same for all of them and all runs."""
    if spec.kind == "volume":
        return WholeVolumes(training, settings.augment, seed), WholeVolumes(validation, None, seed)
    if spec.kind == "sequence":
        return Sequences(training, settings.augment, seed), Sequences(validation, None, seed)
    if spec.kind != "patches":
        return TrainingSlices(training, settings.augment, seed), ValidationSlices(validation)
    assert spec.size is not None
    return (
        Patches(training, spec.size, settings.patches_per_case, seed, settings.augment, context_images=context_images),
        Patches(validation, spec.size, max(VALIDATION_PATCHES, settings.patches_per_case), 0, fixed=True),
    )


def has_learnt_nothing(summary: Mapping[str, Any], warmup_epochs: int) -> bool:
    """Whether no epoch of `fit_by_gradient` was noticeably better than the first that counts.

    An autoencoder that has collapsed rebuilds every slice alike; its error then finds bright lesions all the same,
    which must not pass for something learnt.
    """
    counting = summary["curve"][warmup_epochs:]
    first, best = counting[0][1], summary["validation_loss"]
    return len(counting) > 1 and first - best < LEAST_PROGRESS * abs(first)


def split_by_label(
    training: tuple[Case, ...], validation: tuple[Case, ...], config: TrainConfig, seed: int
) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """`validation_split` of normals and of abnormal cases; no patient is left on both sides."""
    kept: list[Case] = []
    held: list[Case] = []
    for label in sorted({case.label for case in training}):
        alike = [tuple(case for case in cases if case.label == label) for cases in (training, validation)]
        learnt_from, judged_by = validation_split(alike[0], alike[1], config, seed)
        kept += learnt_from
        held += judged_by
    patients = {case.patient for case in held}
    return tuple(case for case in kept if case.patient not in patients), tuple(held)


def validation_split(
    training: tuple[Case, ...], validation: tuple[Case, ...], config: TrainConfig, seed: int
) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Cases to train on and to validate on: the split validate, or a seeded share of the training patients."""
    if validation:
        return training, validation
    patients = sorted({case.patient for case in training})
    if len(patients) < 2:
        what = "abnormal cases" if training and training[0].label else "normals"
        raise InputError(
            f"Training needs {what} of at least 2 patients, one of them to tell when to stop; add more to the split "
            "'train', or one to 'validate'."
        )
    count = min(len(patients) - 1, max(1, round(config.training.validate_share * len(patients))))
    chosen = np.random.default_rng(seed_of("validation", seed)).choice(len(patients), count, replace=False)
    held = {patients[index] for index in chosen}
    return (
        tuple(case for case in training if case.patient not in held),
        tuple(case for case in training if case.patient in held),
    )


def _initial(config: TrainConfig, spec: InputSpec, seed: int) -> Detector:
    """The detector with weights that are a function of the seed, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of("weights", seed))
        return build(config.detector, spec, config.options)
