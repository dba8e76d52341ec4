"""Training configurations: YAML files, checked before anything starts."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging import foreground, intensity
from AnomalyDetectionLib.scoring.composite import Composite
from AnomalyDetectionLib.scoring.contract import InputSpec
from AnomalyDetectionLib.scoring.registry import available, build, detector_class

from .options import options_model
from .problems import describe_problems, refuse_truth_values

MAX_CONFIG_BYTES = 1_000_000

BaselineName = Literal[
    "random",
    "prevalence",
    "voxel_intensity",
    "blur_residual",
    "mean_image_residual",
    "zscore",
    "untrained",
    "volume_statistics",
    "metadata",
]
"""What a model is judged against; `evaluation.baselines` says what each is."""


class _Loader(yaml.SafeLoader):
    """Truth values as in YAML 1.2: true and false only, for `training.augment.on` is the name of a key."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        return refuse_truth_values(value, cls.model_fields[info.field_name or ""].annotation)


class InputSection(_Section):
    """`input:` of a configuration; see `AnomalyDetectionLib.scoring.contract.InputSpec`."""

    kind: Literal["slices", "2.5d", "patches", "volume", "sequence"] = "volume"
    modalities: tuple[str, ...] = ()
    intensity: str = "mr-robust"
    foreground: str = "auto"
    grid: Literal["own", "template", "frame"] = "template"
    spacing: tuple[float, float, float] | None = None
    size: tuple[int, ...] | None = None
    neighbours: int = Field(0, ge=0, le=32)
    channels: tuple[str, ...] = ()
    """Of a manifest with several (`image_t1`, `image_flair`), the one that is used; empty for the only one."""

    @field_validator("channels")
    @classmethod
    def _is_one(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) > 1:
            raise ValueError("a model looks at one channel of a case; name one")
        return value

    @field_validator("intensity", "foreground")
    @classmethod
    def _is_a_rule(cls, value: str, info: ValidationInfo) -> str:
        rules = intensity.RULES if info.field_name == "intensity" else ["auto", *foreground.RULES]
        return _one_of(value, rules, "rule")

    def spec(self) -> InputSpec:
        """The same as an `InputSpec`."""
        values = self.model_dump()
        return InputSpec(**(values if self.channels else {k: v for k, v in values.items() if k != "channels"}))


class FindingsSection(_Section):
    """`findings:` of a configuration: the smallest region reported."""

    least_ml: float = Field(0.1, gt=0)
    least_mm2: float = Field(25.0, gt=0)
    least_px: float = Field(25.0, gt=0)


class ReducerSection(_Section):
    """`volume_score:` of a configuration: which part of the foreground makes the volume score."""

    fraction: float = Field(0.001, gt=0, le=1)
    least_voxels: int = Field(10, ge=1)


class ThresholdSection(_Section):
    """`threshold:` of a configuration: how voxels and cases are told abnormal.

    Attributes
    ----------
    method
        "normals": calibration normals show at most one false finding on average, and a case is called abnormal beyond
        95 % of them.  "roc": both are chosen on the cases of the split validate, by Youden's index (the
        findings' only where masks are given); that split then needs normal and abnormal cases.
    sensitivity, specificity
        For "roc", instead of Youden's index: a case is called abnormal from the score on that reaches this sensitivity
        (or specificity) on those cases, with the best of the other; one of the two at most.
    """

    method: Literal["normals", "roc"] = "normals"
    sensitivity: float | None = Field(None, gt=0, le=1)
    specificity: float | None = Field(None, gt=0, le=1)

    @model_validator(mode="after")
    def _one_target_of_roc(self) -> ThresholdSection:
        if self.sensitivity is not None and self.specificity is not None:
            raise ValueError("give a sensitivity or a specificity to reach, not both")
        if self.method != "roc" and (self.sensitivity, self.specificity) != (None, None):
            raise ValueError("a sensitivity or specificity to reach needs `method: roc`")
        return self


class CalibrationSection(_Section):
    """`calibration:` of a configuration: which normals are scored to calibrate on.

    Attributes
    ----------
    method
        "split": those of the split calibrate.  "cross": all normals of train and calibrate, each scored by a detector
        that was fitted to the others (`folds` of them, by patient), while the final one is fitted to all.  "auto":
        cross below 60 normals, split from there on.
    """

    method: Literal["auto", "split", "cross"] = "auto"
    folds: int = Field(5, ge=2, le=20)


class AugmentSection(_Section):
    """`training.augment:` of a configuration: how far training slices or patches are changed at random.

    Attributes
    ----------
    on
        False trains on the slices as they are.
    rotate_degrees, shift_pixels, zoom
        Largest rotation, shift (of slices) and change of scale, either way.
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
        Slices (or patches) in a batch.
    patches_per_case
        For `input.kind: patches`: crops of each volume in an epoch.
    learning_rate
        Of Adam; multiplied by `plateau_factor` after `plateau_patience` epochs without improvement.
    warmup_epochs
        Epochs over which the learning rate rises from 0, of every part from its first epoch on.
    schedule
        "plateau": as `plateau_factor` says; "cosine": the rate falls along half a cosine to 0 at the last epoch
        (Loshchilov & Hutter, ICLR 2017).
    probe_epochs
        Epochs in which the layers behind the part that starts from weights learnt elsewhere are fitted to what that
        part makes of the unchanged images, before anything else; the images are looked at once for all of them.
    probe_rate
        Learning rate of Adam there.
    frozen_epochs
        Epochs in which the part that starts from weights learnt elsewhere is kept still.
    pretrained_rate
        Learning rate of that part afterwards, as a share of `learning_rate`.
    validate_share
        Share of the training patients that are kept for validation where the cohort has no normals in that split.
    mixed_precision
        Half precision on CUDA devices.
    workers
        Processes that load slices; 0 loads them in the training process.
    """

    epochs: int = Field(200, ge=1, le=100_000)
    batch: int = Field(32, ge=1, le=65_536)
    patches_per_case: int = Field(1, ge=1, le=10_000)
    learning_rate: float = Field(1e-4, gt=0, le=1)
    warmup_epochs: int = Field(0, ge=0, le=10_000)
    schedule: Literal["plateau", "cosine"] = "plateau"
    probe_epochs: int = Field(0, ge=0, le=10_000)
    probe_rate: float = Field(1e-3, gt=0, le=1)
    frozen_epochs: int = Field(0, ge=0, le=10_000)
    pretrained_rate: float = Field(1.0, gt=0, le=1)
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
    baselines
        Those that are fitted on the same normals and stored with the model; `all` and `none` are names for lists.
    few_normals
        True trains on fewer than 20 normals all the same, to try something out; the model card then says so.  Without
        it only zscore and nearest neighbours (`features`) are fitted to so few.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    version: str = Field("1.0.0", pattern=r"^\d+\.\d+\.\d+$")
    detector: str
    options: dict[str, Any] = {}
    input: InputSection = InputSection()
    findings: FindingsSection = FindingsSection()
    volume_score: ReducerSection = ReducerSection()
    threshold: ThresholdSection = ThresholdSection()
    calibration: CalibrationSection = CalibrationSection()
    training: TrainingSection = TrainingSection()
    baselines: tuple[BaselineName, ...] = get_args(BaselineName)
    few_normals: bool = False

    @field_validator("baselines", mode="before")
    @classmethod
    def _named_lists(cls, value: Any) -> Any:
        return {"all": get_args(BaselineName), "none": ()}.get(value, value) if isinstance(value, str) else value

    @field_validator("detector")
    @classmethod
    def _is_registered(cls, value: str) -> str:
        return _one_of(value, available(), "detector")


def _one_of(value: str, known: Sequence[str] | Mapping[str, Any], what: str) -> str:
    if value not in known:
        near = difflib.get_close_matches(value, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise ValueError(f"there is no {what} {value!r} ({hint})")
    return value


def recipes() -> list[str]:
    """Names of the recipes that ship with the package."""
    folder = resources.files("AnomalyTrainingLib") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def read_config(source: str | Path, changes: Sequence[str] = ()) -> TrainConfig:
    """A configuration from a YAML file or the name of a shipped recipe.

    Parameters
    ----------
    changes
        ``key=value`` each, the key dotted (``training.epochs=3``), the value as YAML; they take the place of what the
        file says.

    Raises
    ------
    InputError
        Naming the file and every key that is wrong, with the nearest right one.
    """
    text = _read_text(str(source))
    try:
        data = yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{source}: not a YAML file ({_one_line(error)}).") from error
    if not isinstance(data, dict):
        raise InputError(f"{source}: a configuration is a list of `key: value` lines; see the shipped recipes.")
    for change in changes:
        _change(data, change)
    name = f"{source} with {', '.join(changes)}" if changes else str(source)
    config = _validated(data, name)
    if detector_class(config.detector).passes > 0 and "training" in config.model_fields_set:
        raise InputError(f"{name}: {config.detector} is fitted by statistics; take the section 'training' out.")
    if issubclass(detector_class(config.detector), Composite):
        _check_of_others(config, name)
    try:
        build(config.detector, config.input.spec(), config.options)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    return config


def _check_of_others(config: TrainConfig, name: str) -> None:
    """Refuse what means nothing to a detector that is put together of fitted ones."""
    for section in ("input", "training"):
        if section in config.model_fields_set:
            raise InputError(f"{name}: {config.detector} is put together of fitted models; take {section!r} out.")
    if config.calibration.method == "cross":
        raise InputError(
            f"{name}: calibration.method 'cross' would need the members fitted fold by fold; {config.detector} is "
            "calibrated on the split 'calibrate'."
        )


def _validated(data: dict[str, Any], name: str) -> TrainConfig:
    """The configuration, its options checked against the detector's; all problems at once."""
    problems: list[str] = []
    config = None
    try:
        config = TrainConfig.model_validate(data)
    except ValidationError as error:
        problems += describe_problems(error, TrainConfig)
    detector, options = data.get("detector"), data.get("options", {})
    if isinstance(detector, str) and detector in available() and isinstance(options, dict):
        model = options_model(detector_class(detector))
        try:
            checked = model.model_validate(options).model_dump(exclude_unset=True)
        except ValidationError as error:
            problems += describe_problems(error, model, "options.")
        else:
            config = config and config.model_copy(update={"options": checked})
    if config is None or problems:
        raise InputError(f"{name}: {'; '.join(problems)}.")
    return config


def _change(data: dict[str, Any], change: str) -> None:
    """Put the value of ``key=value`` into the configuration's data."""
    key, separator, text = change.partition("=")
    steps = key.strip().split(".")
    if not separator or not all(steps):
        raise InputError(f"--set {change}: write a key and a value, such as training.epochs=3.")
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise InputError(f"--set {change}: the value is not YAML ({_one_line(error)}).") from error
    for step in steps[:-1]:
        inner = data.setdefault(step, {})
        if not isinstance(inner, dict):
            raise InputError(f"--set {change}: {step!r} is a value, not a section.")
        data = inner
    data[steps[-1]] = value


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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
