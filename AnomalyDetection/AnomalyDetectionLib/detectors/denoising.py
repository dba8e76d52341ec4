"""`denoising`: what a network takes away that was only taught to take coarse noise away from normal slices.

The denoising autoencoder of Kascenas et al. (MIDL 2022; Medical Image Analysis 2023): smooth blobs, Gaussian noise that
is drawn on a coarse grid and enlarged, are added to the patient in normal slices, and a U-Net restores the slice.  A
lesion is a blob that no normal slice has: the network takes it for noise.  Its skip connections keep the detail that a
bottleneck loses, so that the residual is small where nothing is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.scoring.contract import Batch, Detector, InputSpec, Scores

from .networks.unet import Norm, UNet

VALIDATION_SEED = 20220706
"""Of the noise by which epochs are compared: the same noise in each."""

WIDEST_WINDOW = 31


class Denoising(Detector):
    """Denoising autoencoder of slices, with or without their neighbours.

    Parameters
    ----------
    widths
        Channels of the U-Net's levels, the finest first.
    norm
        Its normalisation.
    sigma
        Standard deviation of the noise on its coarse grid, of the [0, 1] intensity range.  Between the grid's points
        bilinear interpolation leaves two thirds of it.
    resolution
        Cells of that grid along the longer side of the slice: 16 along 224 mm are blobs of 14 mm.
    erosion
        Pixels at the border of the foreground whose residual counts as 0: an outline is never restored exactly.
    median
        Window of the median filter of the residual, an odd number of pixels; 1 leaves the residual as it is.

    Raises
    ------
    InputError
        For settings that make no network or no noise.

    Notes
    -----
    The U-Net puts out what is to be added to the slice, which is 0 before training (the identity, from which the
    authors' network, whose output is the slice itself, starts far away).
    """

    def __init__(
        self,
        spec: InputSpec,
        *,
        widths: Sequence[int] = (16, 32, 64, 128),
        norm: Norm = "group",
        sigma: float = 0.2,
        resolution: int = 16,
        erosion: int = 2,
        median: int = 5,
    ) -> None:
        super().__init__(spec)
        _check(spec, sigma, resolution, erosion, median)
        self.widths, self.norm = tuple(widths), norm
        self.sigma, self.resolution = float(sigma), resolution
        self.erosion, self.median = erosion, median
        self.network = UNet(spec.image_channels, len(spec.channels), self.widths, norm=norm)
        torch.nn.init.zeros_(self.network.head.weight)
        torch.nn.init.zeros_(self.network.head.bias)

    def config(self) -> dict[str, Any]:
        return {
            "widths": list(self.widths),
            "norm": self.norm,
            "sigma": self.sigma,
            "resolution": self.resolution,
            "erosion": self.erosion,
            "median": self.median,
        }

    def middle(self, image: Tensor) -> Tensor:
        """The items' own slices (N, C, H, W) of what may hold their neighbours too."""
        return image[:, self.spec.own_channels]

    def forward(self, image: Tensor) -> Tensor:
        """Slices (N, C, H, W) restored from what the spec says an item is."""
        return self.middle(image) + self.network(image)

    def noisy(self, batch: Batch) -> Tensor:
        """The batch's image with coarse noise in the foreground: another one at every training step.

        Neighbours get the noise of their slice: lesions reach through several, and what is noise could be told by
        comparison otherwise.  It is drawn on the CPU, where the engine's seed makes it the same for every device.
        """
        image = batch.image
        count, _, height, width = image.shape
        fixed = None if batch.epoch is not None else torch.Generator().manual_seed(VALIDATION_SEED)
        noise = coarse_noise((count, len(self.spec.channels)), (height, width), self.resolution, fixed).to(image.device)
        noise = self.sigma * noise * batch.foreground
        return image + noise.repeat(1, 2 * self.spec.neighbours + 1, 1, 1)

    def loss(self, batch: Batch) -> Tensor:
        """Mean squared error of the restored foreground."""
        error = (self(self.noisy(batch)).float() - self.middle(batch.image).float()).square()
        return (error * batch.foreground).sum() / (batch.foreground.sum() * error.shape[1]).clamp(min=1)

    def score(self, batch: Batch) -> Scores:
        """Absolute residual of the slice as it is, mean over channels, median-filtered inside the foreground."""
        residual = (self(batch.image).float() - self.middle(batch.image).float()).abs().mean(dim=1, keepdim=True)
        residual = torch.where(eroded(batch.foreground, self.erosion), residual, 0.0)
        return Scores(map=median_within(residual, batch.foreground, self.median))

    def memory_bytes(self, voxels: int) -> int:
        """The network's activations, and the windows of the median filter."""
        return self.network.memory_bytes(voxels) + 4 * voxels * (self.median**2 + 8 * self.spec.image_channels)


def coarse_noise(
    items: tuple[int, int], size: tuple[int, int], resolution: int, generator: torch.Generator | None
) -> Tensor:
    """Gaussian noise of standard deviation 1 on a coarse grid, enlarged bilinearly; float32 (N, C, H, W).

    The grid lies at a random place under each item, so that no pixel is always one of its points.

    Parameters
    ----------
    items
        (N, C).
    size
        (H, W) in pixels.
    resolution
        Cells of the grid along the longer side.
    generator
        None draws from torch's own.
    """
    cell = max(size) / resolution
    points = [math.ceil(n / cell) + 2 for n in size]
    coarse = torch.randn(*items, *points, generator=generator)
    shift = torch.rand(items[0], 2, generator=generator)
    rows, columns = (
        (torch.arange(n) / cell + shift[:, axis, None]) * (2 / (count - 1)) - 1  # in [-1, 1] over the grid
        for axis, (n, count) in enumerate(zip(size, points, strict=True))
    )
    at = torch.stack(
        [columns[:, None, :].expand(-1, size[0], -1), rows[:, :, None].expand(-1, -1, size[1])],
        dim=-1,
    )
    return F.grid_sample(coarse, at, align_corners=True)


def eroded(mask: Tensor, pixels: int) -> Tensor:
    """A mask (N, 1, H, W) without what lies so near to its border; the image's own border is none."""
    if pixels == 0:
        return mask
    return F.max_pool2d((~mask).float(), 2 * pixels + 1, 1, pixels) == 0


def median_within(values: Tensor, foreground: Tensor, window: int) -> Tensor:
    """Median over square windows around the foreground's pixels, 0 elsewhere; both (N, 1, H, W)."""
    if window == 1:
        return torch.where(foreground, values, 0.0)
    margin = window // 2
    padded = F.pad(values, (margin, margin, margin, margin))
    windows = padded.unfold(2, window, 1).unfold(3, window, 1)[foreground]  # (pixels, window, window)
    filtered = torch.zeros_like(values)
    filtered[foreground] = windows.flatten(1).median(dim=1).values
    return filtered


def _check(spec: InputSpec, sigma: float, resolution: int, erosion: int, median: int) -> None:
    if not spec.is_slicewise or spec.size is None or len(spec.size) != 2:
        raise InputError("denoising: the input must be `kind: slices` or `2.5d` with `size: [rows, columns]`.")
    if not (math.isfinite(sigma) and sigma > 0):
        raise InputError(f"denoising: sigma {sigma} must be a number above 0.")
    if not 1 <= resolution <= max(spec.size):
        raise InputError(
            f"denoising: resolution {resolution} must lie between 1 and the slice's {max(spec.size)} pixels."
        )
    if not 0 <= erosion <= WIDEST_WINDOW // 2:
        raise InputError(f"denoising: erosion {erosion} must lie between 0 and {WIDEST_WINDOW // 2} pixels.")
    if median % 2 != 1 or not 1 <= median <= WIDEST_WINDOW:
        raise InputError(f"denoising: median {median} must be an odd number of pixels from 1 to {WIDEST_WINDOW}.")
