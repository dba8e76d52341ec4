"""The parts of a bundle that people and MONAI read: model card, metadata, inference configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

from AnomalyDetectionLib import __version__
from AnomalyDetectionLib.scoring.composite import Composite
from AnomalyDetectionLib.scoring.contract import InputSpec
from AnomalyDetectionLib.scoring.model import Model

METADATA_SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
)
"""Identifies the schema `configs/metadata.json` follows; it is never fetched."""

BUNDLE_LAYOUT = "1.6.0"
"""The version of MONAI whose layout of bundles this is."""

INTENDED_USE = "Research use only: not a medical device, not for diagnosis."

LICENCE_NOTICE = """The software that made this model is licensed under the Apache License, Version 2.0
(http://www.apache.org/licenses/LICENSE-2.0).

The weights and statistics were computed from the training images named in docs/README.md; whoever made the model
decides under which terms they may be passed on.
"""


def metadata(model: Model) -> dict[str, Any]:
    """`configs/metadata.json` in the layout MONAI's `verify_metadata` checks."""
    spec = model.detector.spec
    shape = list(model.template.image.shape) if model.template is not None else list(spec.size or ("*",) * 3)
    image = {
        "type": "image",
        "format": "magnitude",
        "modality": "/".join(spec.modalities) or "any",
        "num_channels": len(spec.channels),
        "spatial_shape": shape,
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": spec.kind == "patches",
        "channel_def": {str(index): name for index, name in enumerate(spec.channels)},
    }
    score = {
        "type": "image",
        "format": "magnitude",
        "num_channels": 1,
        "spatial_shape": shape,
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": spec.kind == "patches",
        "channel_def": {"0": "raw anomaly score"},
    }
    return {
        "schema": METADATA_SCHEMA,
        "version": model.identity.version,
        "changelog": {model.identity.version: "made by slicer-anomaly " + __version__},
        "monai_version": _monai_version(model),
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {"slicer-anomaly": __version__},
        "name": model.identity.id,
        "task": "Anomaly detection",
        "description": f"Anomaly detector {model.identity.detector!r}: {_in_short(model)}.",
        "authors": str(model.info.get("authors", "not stated")),
        "copyright": str(model.info.get("copyright", "not stated")),
        "intended_use": INTENDED_USE,
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": score}},
    }


def _in_short(model: Model) -> str:
    if model.detector.supervision == "labels":
        return "whether a whole image is normal, learnt from labels"
    if not model.detector.makes_map:
        return "how far a whole image lies from normals"
    return "a map of how rare each voxel is among normals"


def _monai_version(model: Model) -> str:
    """The one it was trained with, or that is here; without any, the one whose layout of bundles this is."""
    trained_with = model.info.get("run", {}).get("software", {}).get("monai")
    try:
        return str(trained_with or version("monai"))
    except PackageNotFoundError:
        return BUNDLE_LAYOUT


def inference_config(model: Model) -> dict[str, Any]:
    """`configs/inference.json`: scores one image through the same Scorer as every other door.

    `python -m monai.bundle run --config_file configs/inference.json --bundle_root . --input IMAGE --output_dir DIR`
    """
    return {
        "imports": [
            "$from AnomalyDetectionLib.imaging.read import read_volume",
            "$from AnomalyDetectionLib.interop.reports import write_case",
            "$from AnomalyDetectionLib.models.bundle import load_bundle",
            "$from AnomalyDetectionLib.scoring.scorer import Scorer",
        ],
        "bundle_root": ".",
        "input": "image.nii.gz",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "auto",
        "model": "$load_bundle(@bundle_root)",
        "network_def": "$@model.detector",
        "volume": "$read_volume(@input)",
        "inferer": "$Scorer(@model, @device)",
        "run": ["$write_case(@volume, @inferer.score(@volume), @output_dir)"],
    }


def model_card(model: Model) -> str:
    """`docs/README.md`, written from what is known of the model and nothing else."""
    parts = (_what, _input, _training, _calibration, _measured, _limits, _making)
    lines = [f"# {model.identity.id} {model.identity.version}", "", INTENDED_USE]
    if description := model.info.get("description"):
        lines += ["", str(description)]
    for part in parts:
        lines += part(model)
    return "\n".join(lines) + "\n"


def _what(model: Model) -> list[str]:
    if model.detector.supervision == "labels":
        return _what_of_labels(model)
    if not model.detector.makes_map:
        return [
            "",
            "## What it does",
            f"Detector `{model.identity.detector}`. It knows normal images alone and judges whole images: a score (how",
            "far an image lies from normals), a p-value against calibration normals and a call; it makes no map.",
        ]
    return [
        "",
        "## What it does",
        f"Detector `{model.identity.detector}`. For every voxel of a new image it gives the rarity: -log10 of the",
        "share of normal foreground voxels that score at least as high (2 = 1 in 100, 4 = 1 in 10,000).",
    ]


def _what_of_labels(model: Model) -> list[str]:
    lines = [
        "",
        "## What it does",
        f"Detector `{model.identity.detector}`. It has learnt normal from abnormal images by their labels and judges",
        "whole images: a score (log-odds), a p-value against calibration normals and a call; it makes no map.",
    ]
    if (probability := model.calibration.probability) is not None:
        lines += [
            f"Probabilities: temperature {probability.temperature:.3g}, fitted to {probability.normals} normal and "
            f"{probability.abnormals} abnormal validation cases; they hold where abnormal cases are as frequent.",
        ]
    return lines


def _input(model: Model) -> list[str]:
    """What is done with an image; for a fusion by each member."""
    detector = model.detector
    if not isinstance(detector, Composite):
        return ["", "## Input", *_how_prepared(detector.spec)]
    lines = ["", "## Input"]
    for number, member in enumerate(detector.members, 1):
        lines += ["", f"Member {number}, `{member.identity.detector}`:", "", *_how_prepared(member.detector.spec)]
    return lines


def _how_prepared(spec: InputSpec) -> list[str]:
    return [
        f"- modality: {', '.join(spec.modalities) or 'any'}",
        f"- intensity rule: {spec.intensity}; foreground rule: {spec.foreground}",
        f"- grid: {spec.grid}" + (f", voxel size {_numbers(spec.spacing)} mm" if spec.spacing else ""),
    ]


def _training(model: Model) -> list[str]:
    """Data, and the losses of training by gradient at a few epochs."""
    facts = dict(model.info.get("training", {}))
    curve = facts.pop("curve", [])
    lines = [*_facts("Training", facts), *_facts("Data", model.info.get("data", {}))]
    if curve:
        lines += ["", "| epoch | training loss | validation loss | learning rate |", "|---|---|---|---|"]
        last = len(curve)
        chosen = {1, last, int(facts.get("best epoch", last))}
        chosen |= {round(1 + step * (last - 1) / 8) for step in range(9)}
        lines += [f"| {n} | {' | '.join(f'{value:.4g}' for value in curve[n - 1])} |" for n in sorted(chosen)]
    return lines


def _calibration(model: Model) -> list[str]:
    calibration = model.calibration
    threshold = calibration.threshold
    cost = threshold.cost(threshold.default)
    lines = [
        "",
        "## Calibration",
        f"- calibration normals: {calibration.n}; the least p-value a case can have is {calibration.least_p_value:.3f}",
        f"- default threshold: rarity {threshold.default:g}, which leaves "
        f"{'an unknown number of' if cost is None else f'{cost:.2f}'} false findings per calibration normal",
        f"- decision: {calibration.decision.describe()}",
        f"- smallest finding: {threshold.least_size.ml:g} mL, {threshold.least_size.mm2:g} mm² in single images",
    ]
    if warning := calibration.warning():
        lines.append(f"- **{warning}**")
    lines += _facts("Calibration normals", model.info.get("calibration", {}))
    return lines + _facts("How the thresholds were chosen", model.info.get("threshold", {}))


def _measured(model: Model) -> list[str]:
    lines = _facts("Baselines it can be judged against", model.info.get("baselines", {}))
    measured = model.info.get("metrics")
    if not measured:
        return [*lines, "", "## Measured", "- nothing yet: `slicer-anomaly evaluate` judges it on a cohort of its own."]
    return lines + _facts("Measured", measured)


def _limits(model: Model) -> list[str]:
    """What must be known before its maps are believed."""
    data, spec = model.info.get("data", {}), model.detector.spec
    simulated, cases = data.get("simulated cases", 0), data.get("cases", 0)
    lines = ["", "## Limits"]
    if simulated:
        what = "All of its" if simulated == cases else f"{simulated} of its {cases}"
        lines.append(f"- **{what} images were simulated: its figures say nothing about patients.**")
    fits = f"It fits images like those it was trained on: {'/'.join(spec.modalities) or 'one modality'}, one contrast"
    lines += [
        f"- {fits}, one kind of preparation (with or without skull), similar voxels.",
        "- It knows only the diseases that it was shown, as frequent as they were there; what tells the classes apart "
        "may be how the images were gathered, and not disease."
        if model.detector.supervision == "labels"
        else "- Rare is not ill: it marks what its normals do not show, artefacts and harmless variants among it.",
        "- On another scanner it must be calibrated anew: `slicer-anomaly calibrate`.",
    ]
    if str(model.info.get("calibration", {}).get("method", "")).startswith("cross"):
        lines.append(
            "- Its p-values come from detectors that each left out the normals they scored; those normals are not "
            "quite independent of the model, so that a p-value of 0.05 stands for 5 % of normals only roughly."
        )
    return lines


def _making(model: Model) -> list[str]:
    """Machine, software and configuration."""
    facts = dict(model.info.get("run", {}))
    config = facts.pop("config", None)
    software = facts.pop("software", {})
    lines = _facts(
        "Made with", facts | ({"software": ", ".join(f"{n} {v}" for n, v in software.items())} if software else {})
    )
    if config is not None:
        lines += ["", "```json", json.dumps(config, indent=1), "```"]
    return lines


def _facts(title: str, facts: Mapping[str, Any]) -> list[str]:
    return ["", f"## {title}", *(f"- {name}: {value}" for name, value in sorted(facts.items()))] if facts else []


def _numbers(values: tuple[float, ...]) -> str:
    return " x ".join(f"{value:g}" for value in values)
