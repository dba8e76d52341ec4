"""Networks that make one vector of an image, by name: 2D backbones, the hybrid, and MONAI's 3D networks."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from AnomalyDetectionLib.errors import InputError

from .backbones.catalogue import BACKBONES, make_backbone
from .backbones.weights import RANDOM, Provenance, pretrained
from .hybrid import Hybrid

HYBRID = "hybrid"
VOLUME_NETWORKS = ("resnet18", "resnet50", "densenet121", "densenet169", "se-resnet50")
"""Those that MONAI has for volumes; the hybrid is there for both."""

PUBLISHED, SCRATCH = "imagenet", "random"
"""Starting weights that are not a file: those of the package that carries them, and none."""


def make_encoder(
    name: str, in_channels: int, dimensions: int, weights: str = SCRATCH, sha256: str | None = None
) -> tuple[nn.Module, int, Provenance]:
    """An encoder, the numbers in its vector, and where its weights come from.

    Parameters
    ----------
    in_channels, dimensions
        Of the images: (N, in_channels, *spatial) with so many axes of space, in [0, 1].
    weights
        "imagenet", "random", or a weights file under torchvision's names (2D backbones only); `sha256` is the file's.

    Raises
    ------
    InputError
        If there is no such network for these images, or no such weights for it.
    """
    known = [*BACKBONES, HYBRID] if dimensions == 2 else [*VOLUME_NETWORKS, HYBRID]
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        raise InputError(f"there is no {dimensions}D network {name!r} ({hint}).")
    if dimensions == 2 and name in BACKBONES:
        if weights == SCRATCH:
            backbone, provenance = make_backbone(name, in_channels), RANDOM
        else:
            path = None if weights == PUBLISHED else Path(weights)
            backbone, provenance = pretrained(name, in_channels=in_channels, path=path, sha256=sha256)
        return backbone, backbone.width, provenance
    if weights != SCRATCH:
        raise InputError(f"there are no weights for the {dimensions}D network {name!r}; use `weights: {SCRATCH}`.")
    if name == HYBRID:
        hybrid = Hybrid(in_channels, dimensions)
        return hybrid, hybrid.width, RANDOM
    network, width = _of_monai(name, in_channels)
    return _Scaled(network), width, RANDOM


class _Scaled(nn.Module):
    """A network that is given [-1, 1], as its initial weights expect it, for [0, 1]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return self.network(2 * image - 1)


def _of_monai(name: str, in_channels: int) -> tuple[nn.Module, int]:
    """A 3D network of MONAI, its last layer taken away."""
    try:
        from monai.networks import nets  # 3D Slicer does not bundle it
    except ModuleNotFoundError as error:
        raise InputError(
            f"the 3D network {name!r} needs the Python package {error.name!r}; install it and try again."
        ) from error
    network: Any
    if name.startswith("densenet"):
        make: Any = {"densenet121": nets.DenseNet121, "densenet169": nets.DenseNet169}[name]
        network = make(spatial_dims=3, in_channels=in_channels, out_channels=1)
        width = network.class_layers.out.in_features
        network.class_layers.out = nn.Identity()
    elif name == "se-resnet50":
        network = nets.SEResNet50(spatial_dims=3, in_channels=in_channels, num_classes=1)
        width = network.last_linear.in_features
        network.last_linear = nn.Identity()
    else:
        make = {"resnet18": nets.resnet18, "resnet50": nets.resnet50}[name]
        network = make(spatial_dims=3, n_input_channels=in_channels, num_classes=1)
        width = network.fc.in_features
        network.fc = nn.Identity()
    return network, int(width)
