"""Fitting of detectors trained by gradient: prepare, train, calibrate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.template import Template
from AnomalyDetectionLib.models.devices import choose_device
from AnomalyDetectionLib.scoring.contract import Detector, InputSpec
from AnomalyDetectionLib.scoring.model import Model
from AnomalyDetectionLib.scoring.registry import build
from AnomalyTrainingLib.cohorts.manifest import Case, Cohort

from .config import TrainConfig
from .data import PreparedCases, TrainingSlices, ValidationSlices, seed_of
from .engine import Events, fit_by_gradient
from .statistics import ProgressCallback, Roles, calibrated_model, make_template


def fit_gradient(
    config: TrainConfig,
    cohort: Cohort,
    out: Path,
    *,
    device: str = "auto",
    seed: int = 0,
    template: Template | None = None,
    on_template: Callable[[Template], None] = lambda template: None,
    progress: ProgressCallback = lambda stage, fraction: None,
    events: Events = lambda fields: None,
) -> Model:
    """Train and calibrate a detector that has a loss.

    Parameters
    ----------
    out
        The run's folder: `prepared/` and `checkpoints/` in it are made, or gone on from.

    Raises
    ------
    InputError
        If a split is empty, a case cannot be read, or there is nobody to validate on.
    """
    roles = Roles.of(cohort)
    spec = config.input.spec()
    if spec.kind != "slices":
        raise InputError(f"Training by gradient takes `input.kind: slices`, not {spec.kind!r}.")
    training, validation = validation_split(roles.train, tuple(cohort.of(split="validate", label=0)), config, seed)
    detector = _initial(config, spec, seed)
    if template is None and spec.grid != "own":
        template = make_template(spec, training, progress)
        on_template(template)
    count = len(training) + len(validation)

    def prepared(cases: tuple[Case, ...], before: int) -> PreparedCases:
        return PreparedCases(
            cases, spec, template, out / "prepared", lambda done: progress("preparing", (before + done) / count)
        )

    summary = fit_by_gradient(
        detector,
        TrainingSlices(prepared(training, 0), config.training.augment, seed),
        ValidationSlices(prepared(validation, len(training))),
        config.training,
        out / "checkpoints",
        device=choose_device(device, 0).device,
        seed=seed,
        progress=progress,
        events=events,
    )
    model = calibrated_model(config, detector, template, roles, device, progress)
    facts = {
        "normals": len(training),
        "patients": len({case.patient for case in training}),
        "validation normals": len(validation),
        "seed": seed,
        **{name.replace("_", " "): value for name, value in summary.items()},
    }
    return replace(model, info={**model.info, "training": facts})


def validation_split(
    training: tuple[Case, ...], validation: tuple[Case, ...], config: TrainConfig, seed: int
) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Normals to train on and to validate on: the split validate, or a seeded share of the training patients."""
    if validation:
        return training, validation
    patients = sorted({case.patient for case in training})
    if len(patients) < 2:
        raise InputError(
            "Training needs normals of at least 2 patients, one of them to tell when to stop; add more to the split "
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
