"""A network of convolutions, squeeze-and-excitation and transformer layers, for slices and volumes.

Convolutions find texture, squeeze-and-excitation (Hu et al., CVPR 2018) weighs their channels by the whole image, and
self-attention (Vaswani et al., NeurIPS 2017) sets far parts of the image beside each other.  Places are told by a
depthwise convolution (Chu et al., "Conditional positional encodings", ICLR 2023), so that any size of image fits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from AnomalyDetectionLib.errors import InputError

_CONV = {2: nn.Conv2d, 3: nn.Conv3d}
SQUEEZE = 4
"""Channels for one number between squeeze and excitation."""
GROUPS = 8
"""Of channels that are normalised together: no statistics of the batch, which is small where volumes are learnt."""


class Hybrid(nn.Module):
    """Stages of residual blocks with squeeze-and-excitation, each halving the image, then transformer layers.

    Parameters
    ----------
    dimensions
        2 or 3.
    widths
        Channels of the stages; the last is the transformer's.
    layers, heads
        Of the transformer.

    Attributes
    ----------
    width
        Numbers in the pooled vector.
    """

    explained_layer = "stages"
    """What Grad-CAM looks at: all that the transformer is given."""

    def __init__(
        self,
        in_channels: int,
        dimensions: int = 2,
        widths: Sequence[int] = (32, 64, 128, 192),
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not widths or min(widths) < 1 or widths[-1] % heads:
            raise InputError(f"widths {list(widths)}: the last must be a multiple of the {heads} heads.")
        before, blocks = in_channels, []
        for after in widths:
            blocks.append(_Block(before, after, dimensions))
            before = after
        self.stages = nn.Sequential(*blocks)
        self.width = before
        self.places = _CONV[dimensions](before, before, 3, padding=1, groups=before)
        layer = nn.TransformerEncoderLayer(
            before, heads, 2 * before, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, layers, nn.LayerNorm(before), enable_nested_tensor=False)

    def forward(self, image: Tensor) -> Tensor:
        """Pooled vector (N, width) of images (N, C, *spatial) in [0, 1]."""
        features = self.stages(2 * image - 1)
        features = features + self.places(features)
        return self.transformer(features.flatten(2).transpose(1, 2)).mean(dim=1)


class _Block(nn.Module):
    """Two convolutions, the first of stride 2, weighed channel by channel, beside a shortcut."""

    def __init__(self, before: int, after: int, dimensions: int) -> None:
        super().__init__()
        conv = _CONV[dimensions]
        self.shortcut = nn.Sequential(conv(before, after, 1, stride=2, bias=False), _norm(after))
        self.convolutions = nn.Sequential(
            *(conv(before, after, 3, stride=2, padding=1, bias=False), _norm(after), nn.GELU()),
            *(conv(after, after, 3, padding=1, bias=False), _norm(after)),
        )
        inner = max(4, after // SQUEEZE)
        self.excitation = nn.Sequential(nn.Linear(after, inner), nn.GELU(), nn.Linear(inner, after), nn.Sigmoid())

    def forward(self, features: Tensor) -> Tensor:
        inner = self.convolutions(features)
        weights = self.excitation(inner.flatten(2).mean(dim=2))
        inner = inner * weights.view(*weights.shape, *[1] * (inner.dim() - 2))
        return torch.nn.functional.gelu(inner + self.shortcut(features))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(channels, GROUPS), channels)
