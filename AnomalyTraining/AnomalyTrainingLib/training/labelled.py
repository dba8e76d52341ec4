"""What a detector that learns from labels is trained on: batches with labels and clinical columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.scoring.contract import Batch, Detector
from AnomalyDetectionLib.scoring.covariates import ClinicalColumn, encode
from AnomalyDetectionLib.scoring.registry import detector_class
from AnomalyTrainingLib.cohorts.manifest import Case

from .augment import Augmentation
from .clinical import fit_columns, missingness_warnings
from .config import AugmentSection, TrainConfig
from .data import Batches, PreparedCases
from .options import options_model
from .seeds import seed_of


def with_fitted_options(config: TrainConfig, cases: Sequence[Case]) -> TrainConfig:
    """The configuration with what a detector that learns from labels takes from its training cases.

    That is the share of abnormal ones, and how clinical columns become numbers; a detector that does not ask for one of
    these is not given it.

    Raises
    ------
    InputError
        If a clinical column cannot be used.
    """
    detector = detector_class(config.detector)
    if detector.supervision != "labels":
        return config
    taken = options_model(detector).model_fields
    fitted: dict[str, Any] = {}
    if "abnormal_share" in taken:
        fitted["abnormal_share"] = sum(case.label for case in cases) / len(cases)
    names = config.options.get("clinical", ())
    if "clinical" in taken and names:
        fitted["clinical"] = [column.to_json() for column in fit_columns(names, cases)]
    return config.model_copy(update={"options": {**config.options, **fitted}})


def label_facts(detector: Detector, training: Sequence[Case], validation: Sequence[Case]) -> dict[str, Any]:
    """What the bundle says of the cases beyond their number, and of the weights that training started from."""
    facts: dict[str, Any] = {"validation abnormal cases": sum(case.label for case in validation)}
    provenance = getattr(detector, "provenance", None)
    if provenance is not None:
        sha = f" (SHA-256 {provenance.sha256})" if provenance.sha256 else ""
        facts["starting weights"] = f"{provenance.source}{sha}"
    names = [column.name for column in detector.columns]
    if names:
        facts["clinical columns"] = ", ".join(names)
        if said := missingness_warnings(names, training):
            facts["clinical warning"] = " ".join(said)
    return facts


class WithLabels(Batches):
    """Another data set's items, each with its case's label and clinical columns.

    Every slice of a volume has the label of its case.

    Parameters
    ----------
    items
        Hands out the images; its items are those of `prepared`, in order.
    """

    def __init__(
        self, items: Batches, prepared: PreparedCases, cases: Sequence[Case], columns: Sequence[ClinicalColumn]
    ) -> None:
        self._items = items
        counts = [len(kept.image) for kept in prepared.kept]
        self._case = np.repeat(np.arange(len(cases)), counts)
        self._labels = torch.tensor([float(case.label) for case in cases])
        self._covariates: Tensor | None = None
        if columns:
            rows = [encode(columns, case.covariates)[0] for case in cases]
            self._covariates = torch.from_numpy(np.stack(rows))

    def __len__(self) -> int:
        return len(self._items)

    def __getitems__(self, keys: Sequence[Any]) -> Batch:
        """The batch of these keys: (epoch, index) in training, indices in validation."""
        batch = self._items.__getitems__(keys)
        of = torch.from_numpy(self._case[[key[1] if isinstance(key, tuple) else key for key in keys]])
        batch.label = self._labels[of]
        batch.covariates = None if self._covariates is None else self._covariates[of]
        return batch


class WholeVolumes(Batches):
    """Volumes of one shape, changed at random in training; a volume is a function of (seed, epoch, index).

    Parameters
    ----------
    settings
        How they are changed; None leaves them as they are, for validation.

    Raises
    ------
    InputError
        If the volumes differ in shape.
    """

    def __init__(self, cases: PreparedCases, settings: AugmentSection | None, seed: int) -> None:
        shapes = {kept.image.shape for kept in cases.kept}
        if len(shapes) > 1:
            raise InputError(
                f"Whole volumes of {len(shapes)} shapes cannot be trained on together; use `input.grid: template`, "
                "which brings all to one."
            )
        self._cases, self._seed = cases, seed
        self._augmentation = Augmentation(settings, 3) if settings is not None and settings.on else None

    def __len__(self) -> int:
        return len(self._cases.kept)

    def __getitems__(self, keys: Sequence[Any]) -> Batch:
        """The batch of these keys: (epoch, index) in training, indices in validation."""
        pairs = [key if isinstance(key, tuple) else (None, key) for key in keys]
        kept = [self._cases.kept[index] for _, index in pairs]
        stack = torch.from_numpy(
            np.concatenate([np.concatenate([case.image, case.foreground], axis=1).astype(np.float32) for case in kept])
        )
        if self._augmentation is None:
            return Batch(stack[:, :-1], stack[:, -1:] > 0.5, epoch=pairs[0][0])
        seeds = [seed_of("augment", self._seed, epoch, index) for epoch, index in pairs]
        changes = self._augmentation.draw(seeds, stack.shape[2:])
        image, foreground = self._augmentation.apply(changes, stack)
        return Batch(image, foreground, epoch=pairs[0][0])
