"""What all backbones share: input in [0, 1], feature maps by level, a pooled vector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from AnomalyDetectionLib.errors import InputError


class Backbone(nn.Module):
    """A classification network without its classifier.

    Parameters are named as in the published weight files, so that these load key by key.

    Attributes
    ----------
    channels
        Channels of every level's map, from level 1.
    strides
        Pixels of the input for one of the map's, level by level.
    width
        Numbers in the pooled vector.
    classifier
        Prefixes of the published classifier's keys, which have no place here.
    stem
        Key of the first convolution's weight, which is folded for images that are not in colour.

    Notes
    -----
    Images come in [0, 1]; each backbone brings them to the mean and standard deviation that its weights were trained
    with.  Those of the colours are averaged for other images: exact where they are alike (EfficientNet-Lite), and
    within 0.2 of a standard deviation otherwise.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    width: int
    classifier: tuple[str, ...] = ()
    stem: str

    mean: Tensor
    deviation: Tensor

    def __init__(self, in_channels: int, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        if in_channels < 1:
            raise InputError(f"a backbone needs at least one input channel, not {in_channels}.")
        self.in_channels = in_channels
        if in_channels != 3:
            mean = [sum(mean) / len(mean)] * in_channels
            deviation = [sum(deviation) / len(deviation)] * in_channels
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(1, -1, 1, 1), persistent=False)

    def maps(self, image: Tensor) -> Iterator[Tensor]:
        """Feature maps of an image that is brought to the weights' range, level by level, each made when asked for."""
        raise NotImplementedError

    def pool(self, deepest: Tensor) -> Tensor:
        """Pooled vector (N, width) of the deepest map."""
        raise NotImplementedError

    def levels(self, image: Tensor, wanted: Sequence[int]) -> list[Tensor]:
        """Feature maps of some levels; deeper ones are not computed.

        Parameters
        ----------
        image
            (N, C, H, W) in [0, 1].
        wanted
            Levels, from 1, in ascending order.

        Returns
        -------
        list
            One map (N, channels[level - 1], H / stride, W / stride) a level.
        """
        check_levels(wanted, len(self.channels))
        found = []
        for level, features in enumerate(self.maps(self.normalised(image)), 1):
            if level in wanted:
                found.append(features)
            if level == wanted[-1]:
                break
        return found

    def forward(self, image: Tensor) -> Tensor:
        """Pooled vector (N, width) of images (N, C, H, W) in [0, 1]."""
        *_, deepest = self.maps(self.normalised(image))
        return self.pool(deepest)

    def normalised(self, image: Tensor) -> Tensor:
        """The image in the range that the weights were trained with."""
        return (image - self.mean) / self.deviation

    def trim(self, level: int) -> None:
        """Take away the layers behind a level, so that a model that does not use them does not store them."""
        raise NotImplementedError


def check_levels(wanted: Sequence[int], count: int) -> None:
    """Refuse levels that a backbone does not have.

    Raises
    ------
    InputError
        If they are none, not ascending, or beyond the backbone's last.
    """
    if not wanted or sorted(set(wanted)) != list(wanted) or wanted[0] < 1 or wanted[-1] > count:
        raise InputError(f"levels {list(wanted)} must be ascending numbers from 1 to {count}.")


def same_padding(size: Sequence[int], kernel: int, stride: int) -> list[int]:
    """Padding (left, right, top, bottom) with which a convolution has ceil(size / stride) outputs, as TensorFlow's."""
    padding = []
    for length in reversed(size):
        total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
        padding += [total // 2, total - total // 2]
    return padding
