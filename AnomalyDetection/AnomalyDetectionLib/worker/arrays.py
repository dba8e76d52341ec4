"""Voxels and results as messages and files, and back: what comes out is what went in, to the last bit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from .workspace import file_in

if TYPE_CHECKING:  # these import SimpleITK: not before there is something to score
    from AnomalyDetectionLib.imaging.volume import Volume
    from AnomalyDetectionLib.scoring.explaining import Attribution
    from AnomalyDetectionLib.scoring.result import ScoreResult

_CAN_REMOVE_MAPPED = os.name == "posix"
"""Whether a file may go while it is mapped; Windows refuses, so there results are read into memory."""


def save_array(array: NDArray, folder: Path, name: str) -> dict[str, Any]:
    """Write an array (booleans as uint8) and return its description.

    Raises
    ------
    OSError
        If there is no room.
    """
    stored = array.view(np.uint8) if array.dtype == bool else array
    np.save(file_in(folder, name), stored, allow_pickle=False)
    return described(array, name)


def described(array: NDArray, name: str) -> dict[str, Any]:
    """How a message names the file of an array."""
    kind = "uint8" if array.dtype == bool else str(array.dtype)
    return {"file": name, "dtype": kind, "shape": list(array.shape)}


def open_array(facts: Mapping[str, Any], folder: Path, mode: Literal["r", "c"] | None = "r") -> NDArray:
    """Map the array that a message describes into memory.

    Parameters
    ----------
    mode
        "r": read only; "c": what is written stays in memory; None: read it, do not map it.

    Raises
    ------
    ValueError
        If the file is not the array that was described, or lies elsewhere.
    """
    path = file_in(folder, facts["file"])
    try:
        array = np.load(path, mmap_mode=mode, allow_pickle=False)
    except (OSError, EOFError) as error:
        raise ValueError(f"{path.name} cannot be read ({error})") from error
    if not isinstance(array, np.ndarray) or str(array.dtype) != facts["dtype"] or list(array.shape) != facts["shape"]:
        raise ValueError(f"{path.name} is not the array that was described")
    return np.asarray(array)  # a plain array; it keeps the map open


def take_array(facts: Mapping[str, Any], folder: Path) -> NDArray:
    """`open_array` for the one who keeps it: writable, and the file is gone (its room is free once the array is)."""
    array = open_array(facts, folder, "c" if _CAN_REMOVE_MAPPED else None)
    file_in(folder, facts["file"]).unlink()
    return array


def volume_message(volume: Volume, request: int) -> dict[str, Any]:
    """A volume as a message; `save_volume` writes the files it names."""
    return {
        "array": described(volume.array, f"{request}-image.npy"),
        "region": None if volume.region is None else described(volume.region, f"{request}-region.npy"),
        "ijk_to_ras": volume.ijk_to_ras.tolist(),
        "modality": volume.modality,
        "units": volume.units,
        "spacing_known": volume.spacing_known,
        "orientation_known": volume.orientation_known,
        "name": volume.name,
        "source": list(volume.source),
        "notes": list(volume.notes),
        "covariates": dict(volume.covariates),
    }


def save_volume(volume: Volume, folder: Path, request: int) -> None:
    """Write the files of `volume_message`."""
    save_array(volume.array, folder, f"{request}-image.npy")
    if volume.region is not None:
        save_array(volume.region, folder, f"{request}-region.npy")


def read_volume_message(facts: Mapping[str, Any], folder: Path) -> Volume:
    """The volume of a message; its voxels stay in the file.

    Raises
    ------
    ValueError
        If a file is not what the message says.
    """
    from AnomalyDetectionLib.imaging.volume import Volume

    region = None if facts["region"] is None else open_array(facts["region"], folder).view(bool)
    rest = {key: value for key, value in facts.items() if key not in ("array", "region", "ijk_to_ras")}
    return Volume(open_array(facts["array"], folder), np.array(facts["ijk_to_ras"]), region=region, **rest)


def result_message(result: ScoreResult, folder: Path, request: int) -> dict[str, Any]:
    """Write the arrays of a result and return the rest with their descriptions.

    Raises
    ------
    OSError
        If there is no room.
    """
    midline = result.midline
    return {
        "rarity": save_array(result.rarity.array, folder, f"{request}-rarity.npy"),
        "labels": save_array(result.labels, folder, f"{request}-labels.npy"),
        "foreground": save_array(result.foreground, folder, f"{request}-foreground.npy"),
        "volume_score": result.volume_score,
        "p_value": result.p_value,
        "calibration_n": result.calibration_n,
        "threshold": result.threshold,
        "false_findings_per_normal": result.false_findings_per_normal,
        "findings": [asdict(finding) for finding in result.findings],
        "quality": {"verdict": result.quality.verdict, "reasons": list(result.quality.reasons)},
        "model": asdict(result.model),
        "device": result.device,
        "thresholds": result.thresholds.to_json(),
        "midline": None if midline is None else {"point": midline.point.tolist(), "right": midline.right.tolist()},
        "timings": dict(result.timings),
        "notes": list(result.notes),
        "case": result.case,
        "decision": None if result.decision is None else result.decision.to_json(),
        "mapped": result.mapped,
        "probability": result.probability,
        "covariates": dict(result.covariates),
        "attribution": None
        if result.attribution is None
        else _attribution_message(result.attribution, folder, request),
    }


def _attribution_message(attribution: Attribution, folder: Path, request: int) -> dict[str, Any]:
    return {
        "map": save_array(attribution.map.array, folder, f"{request}-attribution.npy"),
        "method": attribution.method,
        "layer": attribution.layer,
    }


def read_result_message(facts: Mapping[str, Any], folder: Path, volume: Volume) -> ScoreResult:
    """The result of a message, for the volume that was scored; its files are taken away.

    Raises
    ------
    ValueError
        If a file is not what the message says, or not of the volume's shape.
    """
    from AnomalyDetectionLib.scoring.decision import Decision
    from AnomalyDetectionLib.scoring.findings import Midline
    from AnomalyDetectionLib.scoring.result import Finding, ModelIdentity, Quality, ScoreResult
    from AnomalyDetectionLib.scoring.thresholds import Threshold

    arrays = {
        name: _take_fitting(facts[name], folder, volume, name, kind)
        for name, kind in (("rarity", "float32"), ("labels", "int32"), ("foreground", "uint8"))
    }
    middle = facts["midline"]
    plain = ("volume_score", "p_value", "calibration_n", "threshold", "false_findings_per_normal", "device", "case")
    return ScoreResult(
        rarity=volume.with_array(arrays["rarity"], units="rarity"),
        labels=arrays["labels"],
        foreground=arrays["foreground"].view(bool),
        findings=tuple(Finding(**_tuples(finding)) for finding in facts["findings"]),
        quality=Quality(facts["quality"]["verdict"], tuple(facts["quality"]["reasons"])),
        model=ModelIdentity(**facts["model"]),
        thresholds=Threshold.from_json(facts["thresholds"]),
        midline=None if middle is None else Midline(np.array(middle["point"]), np.array(middle["right"])),
        timings=dict(facts["timings"]),
        notes=tuple(facts["notes"]),
        decision=None if facts["decision"] is None else Decision.from_json(facts["decision"]),
        attribution=_read_attribution(facts.get("attribution"), folder, volume),
        **{name: facts[name] for name in plain},
        **{name: facts[name] for name in ("mapped", "probability", "covariates") if name in facts},
    )


def _take_fitting(facts: Mapping[str, Any], folder: Path, volume: Volume, name: str, kind: str) -> NDArray:
    """The array of a message, if it is of the volume's shape and of that type."""
    array = take_array(facts, folder)
    if array.shape != volume.shape or str(array.dtype) != kind:
        raise ValueError(f"the {name} map does not fit the image")
    return array


def _read_attribution(facts: Mapping[str, Any] | None, folder: Path, volume: Volume) -> Attribution | None:
    from AnomalyDetectionLib.scoring.explaining import Attribution

    if facts is None:
        return None
    array = _take_fitting(facts["map"], folder, volume, "attribution", "float32")
    return Attribution(volume.with_array(array, units="attribution"), facts["method"], facts["layer"])


def _tuples(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()}
