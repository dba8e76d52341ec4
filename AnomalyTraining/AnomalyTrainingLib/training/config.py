"""Training configurations: YAML files, checked before anything starts."""

from __future__ import annotations

import difflib
import re
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.scoring.contract import InputSpec
from AnomalyDetectionLib.scoring.registry import detector_class

MAX_CONFIG_BYTES = 1_000_000


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InputSection(_Section):
    """`input:` of a configuration; see `AnomalyDetectionLib.scoring.contract.InputSpec`."""

    kind: Literal["slices", "2.5d", "patches", "volume"] = "volume"
    modalities: tuple[str, ...] = ()
    intensity: str = "mr-robust"
    foreground: str = "auto"
    grid: Literal["own", "template", "frame"] = "template"
    spacing: tuple[float, float, float] | None = None
    size: tuple[int, ...] | None = None

    def spec(self) -> InputSpec:
        """The same as an `InputSpec`."""
        return InputSpec(**self.model_dump())


class FindingsSection(_Section):
    """`findings:` of a configuration: the smallest region reported."""

    least_ml: float = Field(0.1, gt=0)
    least_mm2: float = Field(25.0, gt=0)
    least_px: float = Field(25.0, gt=0)


class ReducerSection(_Section):
    """`volume_score:` of a configuration: which part of the foreground makes the volume score."""

    fraction: float = Field(0.001, gt=0, le=1)
    least_voxels: int = Field(10, ge=1)


class AugmentSection(_Section):
    """`training.augment:` of a configuration: how far training slices are changed at random.

    Attributes
    ----------
    on
        False trains on the slices as they are.
    rotate_degrees, shift_pixels, zoom
        Largest rotation, shift and change of scale, either way.
    flip
        Share of slices that are mirrored left to right.
    gain, offset, gamma
        Largest relative change of intensity, shift, and change of the gamma exponent, either way.
    """

    on: bool = True
    rotate_degrees: float = Field(8.0, ge=0, le=180)
    shift_pixels: float = Field(6.0, ge=0)
    zoom: float = Field(0.08, ge=0, lt=1)
    flip: float = Field(0.5, ge=0, le=1)
    gain: float = Field(0.1, ge=0, lt=1)
    offset: float = Field(0.02, ge=0, le=1)
    gamma: float = Field(0.1, ge=0, lt=1)


class TrainingSection(_Section):
    """`training:` of a configuration, for detectors trained by gradient.

    Attributes
    ----------
    epochs
        At most so many; training ends after `patience` epochs in which the validation loss did not fall.
    batch
        Slices in a batch.
    learning_rate
        Of Adam; multiplied by `plateau_factor` after `plateau_patience` epochs without improvement.
    validate_share
        Share of the training patients that are kept for validation where the cohort has no normals in that split.
    mixed_precision
        Half precision on CUDA devices.
    workers
        Processes that load slices; 0 loads them in the training process.
    """

    epochs: int = Field(200, ge=1, le=100_000)
    batch: int = Field(32, ge=1, le=65_536)
    learning_rate: float = Field(1e-4, gt=0, le=1)
    patience: int = Field(10, ge=1)
    plateau_factor: float = Field(0.5, gt=0, lt=1)
    plateau_patience: int = Field(4, ge=0)
    validate_share: float = Field(0.1, gt=0, lt=1)
    mixed_precision: bool = True
    workers: int = Field(0, ge=0, le=64)
    augment: AugmentSection = AugmentSection()


class TrainConfig(_Section):
    """One training run.

    Attributes
    ----------
    name, version
        Identity of the model that comes out.
    detector
        A registered detector.
    options
        Keyword arguments of the detector.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    version: str = Field("1.0.0", pattern=r"^\d+\.\d+\.\d+$")
    detector: str
    options: dict[str, Any] = {}
    input: InputSection = InputSection()
    findings: FindingsSection = FindingsSection()
    volume_score: ReducerSection = ReducerSection()
    training: TrainingSection = TrainingSection()


def recipes() -> list[str]:
    """Names of the recipes that ship with the package."""
    folder = resources.files("AnomalyTrainingLib") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def read_config(source: str | Path) -> TrainConfig:
    """A configuration from a YAML file or the name of a shipped recipe.

    Raises
    ------
    InputError
        Naming the file, the key and, for an unknown key, the nearest right one.
    """
    text = _read_text(str(source))
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{source}: not a YAML file ({_one_line(error)}).") from error
    if not isinstance(data, dict):
        raise InputError(f"{source}: a configuration is a list of `key: value` lines; see the shipped recipes.")
    try:
        config = TrainConfig.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{source}: {_explain(error)}") from error
    if detector_class(config.detector).passes > 0 and "training" in config.model_fields_set:
        raise InputError(f"{source}: {config.detector} is fitted by statistics; take the section 'training' out.")
    return config


def _read_text(source: str) -> str:
    path = Path(source)
    if path.suffix not in (".yaml", ".yml") and not path.exists():
        if source in recipes():
            return (resources.files("AnomalyTrainingLib") / "recipes" / f"{source}.yaml").read_text(encoding="utf-8")
        near = difflib.get_close_matches(source, recipes(), 1)
        hint = f"; did you mean {near[0]}?" if near else f"; shipped are {', '.join(recipes())}."
        raise InputError(f"{source}: there is no such file and no shipped recipe of that name{hint}")
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise InputError(f"{path}: too large for a configuration.")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the configuration cannot be read ({_one_line(error)}).") from error


def _explain(error: ValidationError) -> str:
    """One sentence for all that is wrong with a configuration."""
    parts = []
    for problem in error.errors():
        place = [str(step) for step in problem["loc"]]
        key = ".".join(place)
        if problem["type"] == "extra_forbidden":
            known = _keys_at(place[:-1])
            near = difflib.get_close_matches(place[-1], known, 1)
            parts.append(
                f"unknown key {key!r}" + (f" (did you mean {near[0]!r}?)" if near else f" (known: {', '.join(known)})")
            )
        elif problem["type"] == "missing":
            parts.append(f"the key {key!r} is missing")
        else:
            parts.append(f"{key!r}: {re.sub(r'^Input', 'the value', problem['msg'])}, not {problem['input']!r}")
    return "; ".join(parts) + "."


def _keys_at(place: list[str]) -> list[str]:
    model: Any = TrainConfig
    for step in place:
        model = model.model_fields[step].annotation
    return sorted(model.model_fields)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
