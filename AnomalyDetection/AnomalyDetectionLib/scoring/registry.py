"""Which detectors there are, and how to get one by name.

Others add detectors without forking: an installed package names a `Detector` subclass in the entry-point group
`slicer_anomaly.detectors`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from AnomalyDetectionLib.errors import InputError

from .contract import Detector, InputSpec

ENTRY_POINT_GROUP = "slicer_anomaly.detectors"


@dataclass(frozen=True)
class Registered:
    """Where a detector lives and what beyond torch it needs."""

    path: str
    requires: tuple[str, ...] = ()


BUILT_IN: dict[str, Registered] = {
    "autoencoder": Registered("AnomalyDetectionLib.detectors.autoencoder:Autoencoder"),
    "classical": Registered("AnomalyDetectionLib.detectors.classical:Classical", ("skimage", "pywt")),
    "classical_normals": Registered("AnomalyDetectionLib.detectors.classical:ClassicalNormals", ("skimage", "pywt")),
    "classifier": Registered("AnomalyDetectionLib.detectors.classifier:Classifier"),
    "denoising": Registered("AnomalyDetectionLib.detectors.denoising:Denoising"),
    "feature_autoencoder": Registered("AnomalyDetectionLib.detectors.feature_autoencoder:FeatureAutoencoder"),
    "features": Registered("AnomalyDetectionLib.detectors.features:Features"),
    "fusion": Registered("AnomalyDetectionLib.detectors.fusion:Fusion"),
    "restore": Registered("AnomalyDetectionLib.detectors.restore:Restore"),
    "sequence_classifier": Registered("AnomalyDetectionLib.detectors.sequence_classifier:SequenceClassifier"),
    "synthlesion": Registered("AnomalyDetectionLib.detectors.synthlesion:SynthLesion"),
    "unet": Registered("AnomalyDetectionLib.detectors.unet:SupervisedUNet"),
    "zscore": Registered("AnomalyDetectionLib.detectors.zscore:ZScore"),
}


def available() -> dict[str, Registered]:
    """All detectors by name; a built-in name cannot be taken by a plug-in."""
    plugins = {point.name: Registered(point.value) for point in entry_points(group=ENTRY_POINT_GROUP)}
    return plugins | BUILT_IN


def detector_class(name: str) -> type[Detector]:
    """The class registered under `name`.

    Raises
    ------
    InputError
        If there is none, or a package it needs is missing.
    """
    registered = BUILT_IN.get(name) or available().get(name)
    if registered is None:
        raise InputError(f"There is no detector named {name!r}; known are {', '.join(sorted(available()))}.")
    module, _, attribute = registered.path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise InputError(
            f"The detector {name!r} needs the Python package {error.name!r}; install it and try again."
        ) from error


def build(name: str, spec: InputSpec | Mapping[str, Any], config: Mapping[str, Any] | None = None) -> Detector:
    """A detector before its state is loaded.

    Raises
    ------
    InputError
        If the name or a configuration key is unknown.
    """
    cls = detector_class(name)
    if not isinstance(spec, InputSpec):
        spec = InputSpec.from_json(spec)
    try:
        return cls(spec, **dict(config or {}))
    except TypeError as error:
        raise InputError(f"The detector {name!r} cannot be built with these settings: {error}.") from error
