"""DenseNet-121 and DenseNet-169 (Huang et al., CVPR 2017) under torchvision's key names."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Backbone
from .imagenet import DEVIATION, MEAN

GROWTH, BOTTLENECK, STEM = 32, 4 * 32, 64
OLD_KEY = re.compile(r"^(.*denselayer\d+\.(?:norm|conv))\.([12]\..*)$")


class DenseNet(Backbone):
    """DenseNet; level 1 is the stem's map (stride 2), levels 2 to 5 the dense blocks' (strides 4 to 32).

    Parameters
    ----------
    blocks
        Layers of each dense block.
    """

    strides = (2, 4, 8, 16, 32)
    classifier = ("classifier.",)
    stem = "features.conv0.weight"

    def __init__(self, blocks: Sequence[int], in_channels: int = 3) -> None:
        super().__init__(in_channels, MEAN, DEVIATION)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv0"] = nn.Conv2d(in_channels, STEM, 7, 2, 3, bias=False)
        layers["norm0"] = nn.BatchNorm2d(STEM)
        width, channels = STEM, [STEM]
        for number, count in enumerate(blocks, 1):
            layers[f"denseblock{number}"] = _DenseBlock(width, count)
            width += count * GROWTH
            channels.append(width)
            if number < len(blocks):
                layers[f"transition{number}"] = _Transition(width)
                width //= 2
        layers["norm5"] = nn.BatchNorm2d(width)
        self.features = nn.Sequential(layers)
        self.active = nn.ReLU()  # a layer of its own: the last maps, which Grad-CAM looks at
        self.channels, self.width = tuple(channels), width

    def maps(self, image: Tensor) -> Iterator[Tensor]:
        features = image
        for name, layer in self.features.named_children():
            if name == "norm5":
                break
            features = layer(features)
            if name == "norm0":
                features = F.relu(features)
                yield features
                features = F.max_pool2d(features, 3, 2, 1)
            elif name.startswith("denseblock"):
                yield features

    def pool(self, deepest: Tensor) -> Tensor:
        return self.active(self.features.get_submodule("norm5")(deepest)).mean(dim=(2, 3))

    def trim(self, level: int) -> None:
        kept = OrderedDict(self.features.named_children())
        last = "norm0" if level == 1 else f"denseblock{level - 1}"
        names = list(kept)
        self.features = nn.Sequential(OrderedDict((name, kept[name]) for name in names[: names.index(last) + 1]))


def with_new_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a published file, whose keys were named when a module's name could hold a point."""
    return {OLD_KEY.sub(r"\1\2", key): value for key, value in state.items()}


class _DenseLayer(nn.Module):
    def __init__(self, before: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, BOTTLENECK, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(BOTTLENECK)
        self.conv2 = nn.Conv2d(BOTTLENECK, GROWTH, 3, padding=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        inner = self.conv1(F.relu(self.norm1(features)))
        return torch.cat([features, self.conv2(F.relu(self.norm2(inner)))], dim=1)


class _DenseBlock(nn.Sequential):
    def __init__(self, before: int, count: int) -> None:
        layers = ((f"denselayer{n + 1}", _DenseLayer(before + n * GROWTH)) for n in range(count))
        super().__init__(OrderedDict[str, nn.Module](layers))


class _Transition(nn.Module):
    def __init__(self, before: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(before)
        self.conv = nn.Conv2d(before, before // 2, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv(F.relu(self.norm(features))), 2)
