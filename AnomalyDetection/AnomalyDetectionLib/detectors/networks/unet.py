"""The U-Net of slices and volumes (Ronneberger et al., MICCAI 2015; Çiçek et al., MICCAI 2016).

Laid out as Isensee et al. (Nature Methods 2021) found to serve for most tasks: two convolutions a level, normalisation,
leaky ReLU, strided convolutions on the way down and transposed ones on the way up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from AnomalyDetectionLib.errors import InputError

Norm = Literal["instance", "group", "none"]

GROUPS = 8
"""Groups of channels that are normalised together (fewer where the width is no multiple of it)."""

SLOPE = 0.01
"""Of the leaky ReLU below 0."""

MOST_LEVELS, MOST_WIDTH = 8, 4096


class UNet(nn.Module):
    """Encoder and decoder with skip connections; answers in the size it is given, whatever that is.

    Parameters
    ----------
    in_channels, out_channels
        Channels of input and output.
    widths
        Channels at each level, the finest first; each further level halves the size.
    dimensions
        2 for slices, 3 for volumes.
    norm
        "instance": each channel by its own mean and deviation, for small batches; "group": groups of channels together;
        "none".
    residual
        Each level's pair of convolutions adds to its input (He et al., CVPR 2016) instead of taking its place.
    dropout
        Share of the coarsest level's channels that are dropped in training.

    Raises
    ------
    InputError
        For settings that do not make a network.

    Examples
    --------
    >>> UNet(1, 2, (8, 16, 32), dimensions=3)(torch.zeros(1, 1, 17, 20, 9)).shape
    torch.Size([1, 2, 17, 20, 9])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int] = (16, 32, 64, 128),
        *,
        dimensions: int = 2,
        norm: Norm = "instance",
        residual: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check(widths, dimensions, norm, dropout)
        self.widths, self.dimensions = tuple(widths), dimensions
        self.step = 2 ** (len(self.widths) - 1)
        convolution, transposed = _convolutions(dimensions)
        self.down, self.up, self.join = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        before = in_channels
        for level, width in enumerate(self.widths):
            self.down.append(_Block(before, width, 1 if level == 0 else 2, dimensions, norm, residual))
            before = width
        for finer, coarser in zip(self.widths[-2::-1], self.widths[:0:-1], strict=True):
            self.up.append(transposed(coarser, finer, 2, stride=2))
            self.join.append(_Block(2 * finer, finer, 1, dimensions, norm, residual))
        self.drop = (nn.Dropout2d if dimensions == 2 else nn.Dropout3d)(dropout)
        self.head = convolution(self.widths[0], out_channels, 1)
        # Channels beside each other, which the CPU's convolutions and normalisation are fastest with.
        layout = torch.channels_last if dimensions == 2 else torch.channels_last_3d
        for parameter in self.parameters():
            if parameter.dim() == dimensions + 2:
                parameter.data = parameter.data.contiguous(memory_format=layout)

    def forward(self, image: Tensor) -> Tensor:
        """Output (N, out_channels, *spatial) for an image (N, in_channels, *spatial); no activation is applied.

        A size that is no multiple of the coarsest voxel is filled up with the border's values, and cut again.
        """
        size = image.shape[2:]
        values = self._filled(image)
        kept: list[Tensor] = []
        for block in self.down:
            values = block(values)
            kept.append(values)
        values = self.drop(kept.pop())
        for up, join in zip(self.up, self.join, strict=True):
            values = join(torch.cat([up(values), kept.pop()], dim=1))
        return self.head(values)[(..., *(slice(n) for n in size))]

    def memory_bytes(self, voxels: int) -> int:
        """Estimate of what inference on so many voxels (of all items of the batch together) needs, with the weights.

        At the finest level there are the skip, the concatenation with it, and a convolution's input and output.
        """
        weights = sum(parameter.numel() for parameter in self.parameters())
        coarser = sum(2 * width / 2 ** (self.dimensions * level) for level, width in enumerate(self.widths[1:], 1))
        return int(4 * (voxels * (6 * self.widths[0] + coarser) + weights))

    def _filled(self, image: Tensor) -> Tensor:
        wanted = [self.step * math.ceil(n / self.step) for n in image.shape[2:]]
        if math.prod(wanted) == self.step**self.dimensions:
            wanted[-1] *= 2  # a single coarsest voxel has no deviation to normalise by
        missing = [more - n for more, n in zip(wanted, image.shape[2:], strict=True)]
        if not any(missing):
            return image
        return F.pad(image, [part for more in reversed(missing) for part in (0, more)], mode="replicate")


class _Block(nn.Module):
    """Two convolutions with normalisation and activation; the first one may halve the size."""

    def __init__(self, before: int, width: int, stride: int, dimensions: int, norm: Norm, residual: bool) -> None:
        super().__init__()
        convolution, _ = _convolutions(dimensions)
        bias = norm == "none"
        self.first = convolution(before, width, 3, stride=stride, padding=1, bias=bias)
        self.first_norm = _normalisation(norm, width)
        self.second = convolution(width, width, 3, padding=1, bias=bias)
        self.second_norm = _normalisation(norm, width)
        self.short: nn.Module | None = None
        if residual:
            same = before == width and stride == 1
            self.short = nn.Identity() if same else convolution(before, width, 1, stride=stride, bias=False)

    def forward(self, values: Tensor) -> Tensor:
        inner = F.leaky_relu(self.first_norm(self.first(values)), SLOPE, inplace=True)
        inner = self.second_norm(self.second(inner))
        if self.short is not None:
            inner = inner + self.short(values)
        return F.leaky_relu(inner, SLOPE, inplace=True)


def _convolutions(dimensions: int) -> tuple[type, type]:
    return (nn.Conv2d, nn.ConvTranspose2d) if dimensions == 2 else (nn.Conv3d, nn.ConvTranspose3d)


def _normalisation(norm: Norm, width: int) -> nn.Module:
    """By groups; a group of one channel is instance normalisation, which torch's own layer does slower."""
    if norm == "none":
        return nn.Identity()
    return nn.GroupNorm(width if norm == "instance" else math.gcd(GROUPS, width), width)


def _check(widths: Sequence[int], dimensions: int, norm: str, dropout: float) -> None:
    if dimensions not in (2, 3):
        raise InputError(f"U-Net: dimensions {dimensions!r} is neither 2 nor 3.")
    if norm not in get_args(Norm):
        raise InputError(f"U-Net: norm {norm!r} is none of {', '.join(get_args(Norm))}.")
    whole = all(isinstance(n, int) and 0 < n <= MOST_WIDTH for n in widths)
    if not whole or not 1 <= len(widths) <= MOST_LEVELS:
        raise InputError(f"U-Net: widths {list(widths)!r} must be 1 to {MOST_LEVELS} whole numbers above 0.")
    if not 0 <= dropout < 1:
        raise InputError(f"U-Net: dropout {dropout} must lie in 0 <= dropout < 1.")
