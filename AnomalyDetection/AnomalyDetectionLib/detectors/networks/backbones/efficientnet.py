"""EfficientNet-B0 (Tan & Le, ICML 2019) under torchvision's key names."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from .base import Backbone
from .efficientnet_lite import HEAD, STAGES, STEM
from .imagenet import DEVIATION, MEAN


class EfficientNetB0(Backbone):
    """EfficientNet-B0; the levels have strides 2, 4, 8, 16 and 32."""

    strides = (2, 4, 8, 16, 32)
    channels = (16, 24, 40, 112, 320)
    width = HEAD
    classifier = ("classifier.",)
    stem = "features.0.0.weight"

    _ends = (1, 2, 3, 5, 7)
    """Entries of `features` with which the levels end: where the next one halves the map."""

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__(in_channels, MEAN, DEVIATION)
        layers: list[nn.Module] = [_unit(in_channels, STEM, 3, 2)]
        before = STEM
        for repeats, kernel, stride, expansion, after in STAGES:
            blocks = []
            for repeat in range(repeats):
                blocks.append(_Block(before, after, kernel, 1 if repeat else stride, expansion))
                before = after
            layers.append(nn.Sequential(*blocks))
        layers.append(_unit(before, HEAD, 1, 1))
        self.features = nn.Sequential(*layers)

    def maps(self, image: Tensor) -> Iterator[Tensor]:
        features = image
        for number, layer in enumerate(self.features):
            if number > self._ends[-1]:
                break
            features = layer(features)
            if number in self._ends:
                yield features

    def pool(self, deepest: Tensor) -> Tensor:
        return self.features[-1](deepest).mean(dim=(2, 3))

    def trim(self, level: int) -> None:
        self.features = nn.Sequential(*list(self.features)[: self._ends[level - 1] + 1])


class _Block(nn.Module):
    """Inverted residual with squeeze-and-excitation."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = before * expansion
        layers: list[nn.Module] = [_unit(before, wide, 1, 1)] if expansion != 1 else []
        layers.append(_unit(wide, wide, kernel, stride, groups=wide))
        layers.append(_Excitation(wide, max(1, before // 4)))
        layers.append(_unit(wide, after, 1, 1, active=False))
        self.block = nn.Sequential(*layers)
        self._adds = stride == 1 and before == after

    def forward(self, features: Tensor) -> Tensor:
        inner = self.block(features)
        return inner + features if self._adds else inner


class _Excitation(nn.Module):
    """Channels weighted by what the whole map holds (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        whole = features.mean(dim=(2, 3), keepdim=True)
        return torch.sigmoid(self.fc2(nn.functional.silu(self.fc1(whole)))) * features


def _unit(before: int, after: int, kernel: int, stride: int, *, groups: int = 1, active: bool = True) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), *([nn.SiLU()] if active else []))
