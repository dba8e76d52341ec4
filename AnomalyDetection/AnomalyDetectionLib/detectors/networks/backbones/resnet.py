"""ResNet-18 and ResNet-50 (He et al., CVPR 2016) under torchvision's key names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .base import Backbone
from .imagenet import DEVIATION, MEAN

WIDTHS = (64, 128, 256, 512)


class ResNet(Backbone):
    """ResNet; level 1 is the stem's map (stride 2), levels 2 to 5 the stages' (strides 4 to 32).

    Parameters
    ----------
    blocks
        Residual blocks of each stage.
    bottleneck
        Blocks of three convolutions (ResNet-50) rather than two.
    """

    strides = (2, 4, 8, 16, 32)
    classifier = ("fc.",)
    stem = "conv1.weight"

    def __init__(self, blocks: Sequence[int], bottleneck: bool, in_channels: int = 3) -> None:
        super().__init__(in_channels, MEAN, DEVIATION)
        kind: type[_Basic | _Bottleneck] = _Bottleneck if bottleneck else _Basic
        self.conv1 = nn.Conv2d(in_channels, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        before = 64
        for number, (repeats, inner) in enumerate(zip(blocks, WIDTHS, strict=True), 1):
            stage = []
            for repeat in range(repeats):
                stage.append(kind(before, inner, 2 if number > 1 and repeat == 0 else 1))
                before = inner * kind.expansion
            self.add_module(f"layer{number}", nn.Sequential(*stage))
        self.channels = (64, *(inner * kind.expansion for inner in WIDTHS))
        self.width = self.channels[-1]

    def maps(self, image: Tensor) -> Iterator[Tensor]:
        features = F.relu(self.bn1(self.conv1(image)))
        yield features
        features = F.max_pool2d(features, 3, 2, 1)
        for number in range(1, 5):
            features = self.get_submodule(f"layer{number}")(features)
            yield features

    def pool(self, deepest: Tensor) -> Tensor:
        return deepest.mean(dim=(2, 3))

    def trim(self, level: int) -> None:
        for number in range(max(level, 1), 5):
            setattr(self, f"layer{number}", nn.Identity())


class _Basic(nn.Module):
    expansion = 1

    def __init__(self, before: int, inner: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, inner, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.downsample = _shortcut(before, inner, stride)

    def forward(self, features: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(features)))
        inner = self.bn2(self.conv2(inner))
        return F.relu(inner + (features if self.downsample is None else self.downsample(features)))


class _Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, before: int, inner: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, 4 * inner, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * inner)
        self.downsample = _shortcut(before, 4 * inner, stride)

    def forward(self, features: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(features)))
        inner = F.relu(self.bn2(self.conv2(inner)))
        inner = self.bn3(self.conv3(inner))
        return F.relu(inner + (features if self.downsample is None else self.downsample(features)))


def _shortcut(before: int, after: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and before == after:
        return None
    return nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
