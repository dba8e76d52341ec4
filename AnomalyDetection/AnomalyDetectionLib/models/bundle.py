"""Bundles: a model as a folder that can be handed on, checked and loaded without running foreign code.

A bundle is a MONAI bundle (`configs/metadata.json`, `configs/inference.json`, `models/model.pt`, `docs/README.md`,
`LICENSE`) plus `anomaly.json`, which names the detector, its input, calibration and provenance and the SHA-256 of every
other file.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from AnomalyDetectionLib.errors import InputError, OutputError
from AnomalyDetectionLib.imaging.template import Template
from AnomalyDetectionLib.scoring.composite import Composite
from AnomalyDetectionLib.scoring.contract import InputSpec
from AnomalyDetectionLib.scoring.model import Calibration, Model
from AnomalyDetectionLib.scoring.registry import build
from AnomalyDetectionLib.scoring.result import ModelIdentity

from .card import LICENCE_NOTICE, inference_config, metadata, model_card
from .manifest import (
    ATTACHED,
    FORMAT,
    MANIFEST,
    TEMPLATE,
    WEIGHTS,
    manifest_hash,
    read_attachments,
    read_manifest,
    verify_bundle,
)
from .seen import joined_used, used_of

__all__ = ["load_bundle", "read_attachments", "read_manifest", "verify_bundle", "with_calibration", "write_bundle"]


def write_bundle(model: Model, out: Path | str) -> Model:
    """Write a model as a bundle and return it with its final identity and path.

    Everything goes into a temporary folder beside `out`, which is then renamed: a bundle is there whole or not at all.

    Raises
    ------
    OutputError
        If `out` exists or cannot be written.
    """
    out = Path(out)
    if out.exists():
        raise OutputError(f"{out}: there is something already; choose another name or remove it first.")
    partial = out.parent / f".{out.name}.{os.getpid()}.partial"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _write_files(model, partial)
        written = load_bundle(partial)  # what cannot be read back must not be handed on
        partial.rename(out)
    except OSError as error:
        raise OutputError(f"{out}: the bundle cannot be written ({error.strerror or error}).") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return replace(written, path=out)


def _write_files(model: Model, folder: Path) -> None:
    # In the order in which it is read back: a bundle that is written again has the same card, and so the same hash.
    model = replace(model, info=json.loads(_json(dict(model.info))))
    weights = io.BytesIO()
    torch.save({key: value.detach().cpu().contiguous() for key, value in model.detector.state_dict().items()}, weights)
    files: dict[str, bytes] = {
        "LICENSE": LICENCE_NOTICE.encode(),
        "configs/metadata.json": _json(metadata(model)),
        "configs/inference.json": _json(inference_config(model)),
        "docs/README.md": model_card(model).encode(),
        WEIGHTS: weights.getvalue(),
    }
    if model.template is not None:
        files[TEMPLATE] = model.template.to_bytes()
    if misplaced := [name for name in model.attachments if not name.startswith(ATTACHED)]:
        raise ValueError(f"{misplaced[0]}: attachments lie in {ATTACHED}")
    files |= model.attachments
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    manifest = {
        "format": FORMAT,
        "id": model.identity.id,
        "version": model.identity.version,
        "detector": model.identity.detector,
        "config": model.detector.config(),
        "spec": model.detector.spec.to_json(),
        "calibration": model.calibration.to_json(),
        "info": {"created": datetime.now(UTC).isoformat(timespec="seconds"), **model.info},
        "files": {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in sorted(files.items())
        },
    }
    manifest["sha256"] = manifest_hash(manifest)
    (folder / MANIFEST).write_bytes(_json(manifest))


def _json(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def load_bundle(folder: Path | str) -> Model:
    """Verify a bundle and rebuild its model; the weights are read as plain tensors, never as code.

    Raises
    ------
    InputError
        If a file is missing or changed, the detector is unknown, or its weights do not fit.
    """
    folder = Path(folder)
    manifest = verify_bundle(folder, attached=False)
    try:
        spec = InputSpec.from_json(manifest["spec"])
        detector = build(manifest["detector"], spec, manifest["config"])
        calibration = Calibration.from_json(manifest["calibration"])
        identity = ModelIdentity(
            str(manifest["id"]), str(manifest["version"]), manifest["sha256"], str(manifest["detector"])
        )
        info = dict(manifest.get("info", {}))
    except InputError:
        raise
    except Exception as error:  # whatever a detector raises for settings of the wrong size or kind
        raise InputError(
            f"{folder / MANIFEST}: incomplete or inconsistent ({_first_line(error)}); install the model again."
        ) from error
    try:
        state = torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True)
        detector.load_state_dict(state, strict=True)
    except Exception as error:  # torch raises anything from UnpicklingError to RuntimeError here
        raise InputError(f"{folder / WEIGHTS}: the weights do not fit the detector ({_first_line(error)}).") from error
    template = Template.from_file(folder / TEMPLATE) if TEMPLATE in manifest["files"] else None
    if spec.grid != "own" and template is None:
        raise InputError(f"{folder}: the model's template is missing; install the model again.")
    detector.eval().requires_grad_(False)
    return Model(identity, detector, calibration, template, info, folder)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def with_calibration(
    model: Model, calibration: Calibration, note: Mapping[str, Any], normals: Mapping[str, Sequence[str]]
) -> Model:
    """The same fitted detector under another calibration, not yet written (`calibrate BUNDLE` refits it for a site).

    Parameters
    ----------
    note
        Provenance of the calibration normals; replaces what the model said of its former ones.  What was measured
        under the former calibration, and when that was made, is left out; so are the fitted baselines, which were
        calibrated on the former normals.
    normals
        Hashes of the calibration normals (`patients_sha256`, `images_sha256`), which are not held out any more.
    """
    kept = {key: value for key, value in model.info.items() if key not in ("created", "metrics")}
    if "baselines" in kept:
        kept["baselines"] = {"stored": "none: they were calibrated on the normals of another site"}
    used = used_of(model.info)
    # The former calibration normals may be judged now, unless they were learnt from (they stand in `train` then); those
    # of a fusion's members still shape what is added up.
    if not isinstance(model.detector, Composite):
        used.pop("calibrate", None)
    info = {**kept, "used": joined_used(used, {"calibrate": normals}), "calibration": dict(note)}
    return replace(model, calibration=calibration, info=info, path=None, attachments={})
