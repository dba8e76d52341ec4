"""The parts of a bundle that people and MONAI read: model card, metadata, inference configuration."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from AnomalyDetectionLib import __version__
from AnomalyDetectionLib.scoring.model import Model

METADATA_SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
)
"""Identifies the schema `configs/metadata.json` follows; it is never fetched."""

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
        "monai_version": "1.6.0",
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {},
        "name": model.identity.id,
        "task": "Anomaly detection",
        "description": f"Anomaly detector {model.identity.detector!r}: a map of how rare each voxel is among normals.",
        "authors": str(model.info.get("authors", "not stated")),
        "copyright": str(model.info.get("copyright", "not stated")),
        "intended_use": INTENDED_USE,
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": score}},
    }


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
    spec, calibration = model.detector.spec, model.calibration
    threshold = calibration.threshold
    cost = threshold.cost(threshold.default)
    lines = [
        f"# {model.identity.id} {model.identity.version}",
        "",
        INTENDED_USE,
        "",
        "## What it does",
        f"Detector `{model.identity.detector}`. For every voxel of a new image it gives the rarity: -log10 of the",
        "share of normal foreground voxels that score at least as high (2 = 1 in 100, 4 = 1 in 10,000).",
        "",
        "## Input",
        f"- modality: {', '.join(spec.modalities) or 'any'}",
        f"- intensity rule: {spec.intensity}; foreground rule: {spec.foreground}",
        f"- grid: {spec.grid}" + (f", voxel size {_numbers(spec.spacing)} mm" if spec.spacing else ""),
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
    sections = (
        ("Training", "training"),
        ("Calibration normals", "calibration"),
        ("Baselines it can be judged against", "baselines"),
        ("Measured", "metrics"),
    )
    for title, key in sections:
        facts = model.info.get(key)
        if facts:
            lines += ["", f"## {title}", *(f"- {name}: {value}" for name, value in sorted(facts.items()))]
    return "\n".join(lines) + "\n"


def _numbers(values: tuple[float, ...]) -> str:
    return " x ".join(f"{value:g}" for value in values)
