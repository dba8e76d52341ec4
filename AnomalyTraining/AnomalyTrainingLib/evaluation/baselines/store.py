"""Fitted baselines as files of a bundle: one JSON for all and an .npz of plain arrays for each that has a state."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.template import Template
from AnomalyDetectionLib.models.manifest import ATTACHED, read_attachments
from AnomalyDetectionLib.scoring.contract import Detector, InputSpec
from AnomalyDetectionLib.scoring.model import Calibration, Model
from AnomalyDetectionLib.scoring.result import ModelIdentity

from . import DESCRIPTIONS
from .maps import CLASSES, untrained, weights_hash
from .tables import CaseClassifier

SCHEMA = "slicer-anomaly/baselines/1"
UNTRAINED_SEED = 0
_TABLE = ATTACHED + "baselines.json"
_ATLAS = ATTACHED + "atlas.npz"


@dataclass(frozen=True, eq=False)
class Baselines:
    """The baselines of one model.

    Attributes
    ----------
    maps
        Name to a calibrated model, in the order of reports.
    cases
        Name to a fitted judge of whole cases.
    missing
        Name to the reason why it could not be fitted, a phrase.
    """

    maps: Mapping[str, Model] = field(default_factory=dict)
    cases: Mapping[str, CaseClassifier] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """All that are there, in the order of reports."""
        return [name for name in DESCRIPTIONS if name in self.maps or name in self.cases]

    def to_files(self, model: Model) -> dict[str, bytes]:
        """As files of the bundle of `model`, by name."""
        files: dict[str, bytes] = {}
        entries: dict[str, Any] = {}
        for name, baseline in self.maps.items():
            entries[name] = _entry(name, baseline, model)
            if name == "untrained":
                continue  # the seed makes it again: a network's weights would double the bundle
            if state := baseline.detector.state_dict():
                files[_arrays(name)] = _npz(state)
            if entries[name]["template"] == "atlas" and baseline.template is not None:
                files[_ATLAS] = baseline.template.to_bytes()
        table = {
            "schema": SCHEMA,
            "maps": entries,
            "cases": {name: classifier.to_json() for name, classifier in self.cases.items()},
            "missing": dict(self.missing),
        }
        files[_TABLE] = (json.dumps(table, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
        return files


def stored_baselines(model: Model) -> Baselines | None:
    """The baselines in the bundle that a model was read from, or None where it holds none.

    Raises
    ------
    InputError
        If a file of the bundle was changed or is none of this version's.
    """
    files = dict(model.attachments) or (read_attachments(model.path) if model.path is not None else {})
    return from_files(files, model) if files else None


def from_files(files: Mapping[str, bytes], model: Model) -> Baselines:
    """The inverse of `Baselines.to_files`.

    Raises
    ------
    InputError
        If they are not what this software writes.
    """
    place = model.path or "the model"
    try:
        table = json.loads(files[_TABLE])
        if table["schema"] != SCHEMA:
            raise ValueError(f"the format is {table['schema']!r}, this software reads {SCHEMA!r}")
        atlas = Template.from_bytes(files[_ATLAS], "atlas") if _ATLAS in files else None
        missing = dict(table["missing"])
        maps: dict[str, Model] = {}
        for name in (name for name in DESCRIPTIONS if name in table["maps"]):
            baseline = _rebuilt(name, table["maps"][name], files, model, atlas)
            if baseline is None:
                missing[name] = "this version of PyTorch draws other random weights than the one it was calibrated with"
            else:
                maps[name] = baseline
        cases = {name: CaseClassifier.from_json(entry) for name, entry in table["cases"].items()}
    except (InputError, ValueError, KeyError, TypeError, AttributeError, OSError, RuntimeError) as error:
        reason = str(error) or type(error).__name__
        raise InputError(f"{place}: the baselines in this bundle cannot be read ({reason}).") from error
    return Baselines(maps, cases, missing)


def baseline_model(
    name: str, model: Model, detector: Detector, template: Template | None, fitted: Calibration
) -> Model:
    """A fitted baseline as a model of its own."""
    identity = ModelIdentity(f"{model.identity.id}/{name}", model.identity.version, "", name)
    return Model(identity, detector.eval().requires_grad_(False), fitted, template)


def _entry(name: str, baseline: Model, model: Model) -> dict[str, Any]:
    own = baseline.template is model.template
    entry = {
        "config": baseline.detector.config(),
        "spec": baseline.detector.spec.to_json(),
        "template": None if baseline.template is None else "model" if own else "atlas",
        "calibration": baseline.calibration.to_json(),
    }
    return entry | ({"weights_sha256": weights_hash(baseline.detector)} if name == "untrained" else {})


def _rebuilt(
    name: str, entry: Mapping[str, Any], files: Mapping[str, bytes], model: Model, atlas: Template | None
) -> Model | None:
    """A stored baseline; None if its random weights are not made again as they were."""
    if name == "untrained":
        detector = untrained(model.detector, model.identity.detector, UNTRAINED_SEED)
        if weights_hash(detector) != entry["weights_sha256"]:
            return None
    else:
        detector = CLASSES[name](InputSpec.from_json(entry["spec"]), **entry["config"])
        if _arrays(name) in files:
            with np.load(io.BytesIO(files[_arrays(name)]), allow_pickle=False) as data:
                detector.load_state_dict({key: torch.from_numpy(data[key]) for key in data.files}, strict=True)
    template = {"model": model.template, "atlas": atlas, None: None}[entry["template"]]
    return baseline_model(name, model, detector, template, Calibration.from_json(entry["calibration"]))


def _arrays(name: str) -> str:
    return f"{ATTACHED}{name}.npz"


def _npz(state: Mapping[str, torch.Tensor]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{key: value.detach().cpu().numpy() for key, value in state.items()})  # type: ignore[arg-type]
    return buffer.getvalue()
