"""`zscore`: how many robust standard deviations a voxel lies from the normals' median at its place.

The affine atlas of voxel-wise statistics behind ALI and SPM's outlier maps (Seghier et al., NeuroImage 2008;
Ashburner & Friston, NeuroImage 2000), with median and MAD (Rousseeuw & Croux 1993) for the mean and standard
deviation: the honest floor that every learned detector has to beat.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.scoring.contract import Batch, Detector, InputSpec, Scores

Tails = Literal["both", "high", "low"]

LEAST_NORMALS = 5
"""A median and MAD of fewer values say nothing."""

MAD_TO_SD = 1.4826
"""Standard deviations per median absolute deviation of a normal distribution."""


class ZScore(Detector):
    """Robust atlas z-score.

    Images are smoothed within the foreground before the statistics are taken and before they are compared, so that the
    MAD is that of what is compared (smoothing z afterwards would leave it too wide by the noise that was averaged out).

    Parameters
    ----------
    shape
        (D, H, W) of the template grid; None before fitting.
    smooth
        Standard deviation of the Gaussian, in voxels of the template grid.
    tails
        Which deviations count: "both", "high" (brighter than normal) or "low".
    floor
        Least standard deviation, as a share of the atlas's median one: where all normals happen to agree, a
        deviation must still be visible to be called one.
    """

    passes = 1

    median: Tensor
    deviation: Tensor
    support: Tensor

    def __init__(
        self,
        spec: InputSpec,
        *,
        shape: Sequence[int] | None = None,
        smooth: float = 1.0,
        tails: Tails = "both",
        floor: float = 0.5,
    ) -> None:
        super().__init__(spec)
        if tails not in get_args(Tails):
            raise InputError(f"zscore: tails {tails!r} is none of {', '.join(get_args(Tails))}.")
        if smooth < 0 or floor < 0:
            raise InputError("zscore: smooth and floor cannot be negative.")
        self.smooth, self.tails, self.floor = float(smooth), tails, float(floor)
        size = tuple(int(n) for n in shape) if shape is not None else (0, 0, 0)
        self.register_buffer("median", torch.zeros(size, dtype=torch.float32))
        self.register_buffer("deviation", torch.ones(size, dtype=torch.float32))
        self.register_buffer("support", torch.zeros(size, dtype=torch.bool))
        self._absorbed: list[tuple[Tensor, Tensor]] = []

    def config(self) -> dict[str, Any]:
        return {"shape": list(self.median.shape), "smooth": self.smooth, "tails": self.tails, "floor": self.floor}

    def absorb(self, batch: Batch) -> None:
        """Keep the smoothed case in half precision (2 bytes a voxel: 200 normals of 2 mm take 0.5 GB)."""
        smoothed = smooth_within(batch.image, batch.foreground, self.smooth)
        for image, foreground in zip(smoothed[:, 0], batch.foreground[:, 0], strict=True):
            self._absorbed.append((image.to("cpu", torch.float16), foreground.cpu()))

    def finish(self) -> None:
        """Median and MAD per voxel, over the cases whose foreground covers it; slab by slab."""
        count = len(self._absorbed)
        if count < LEAST_NORMALS:
            raise InputError(f"zscore needs at least {LEAST_NORMALS} normal cases to train on; there are {count}.")
        shape = self._absorbed[0][0].shape
        median, deviation = torch.zeros(shape), torch.zeros(shape)
        covered = torch.stack([mask for _, mask in self._absorbed]).sum(dim=0)
        support = covered >= max(LEAST_NORMALS, (count + 1) // 2)
        for slab in range(shape[0]):
            values = torch.stack([image[slab] for image, _ in self._absorbed]).float()
            masks = torch.stack([mask[slab] for _, mask in self._absorbed])
            values = torch.where(masks, values, torch.nan)
            centre = values.nanmedian(dim=0).values
            median[slab] = centre
            deviation[slab] = MAD_TO_SD * (values - centre).abs().nanmedian(dim=0).values
        # A MAD of a few dozen values is itself noisy: half of it is taken from the neighbourhood.
        deviation = torch.where(support, deviation, 0.0)
        around = smooth_within(deviation[None, None], support[None, None], 1.5)[0, 0]
        typical = deviation[support].median()
        floor = torch.clamp(self.floor * typical, min=1e-4)
        self.median = torch.where(support, median, 0.0)
        self.deviation = torch.where(support, ((deviation + around) / 2).square().add(floor.square()).sqrt(), 1.0)
        self.support = support
        self._absorbed = []

    def score(self, batch: Batch) -> Scores:
        smoothed = smooth_within(batch.image, batch.foreground, self.smooth)
        z = (smoothed - self.median) / self.deviation
        raw = {"both": z.abs, "high": lambda: z, "low": lambda: -z}[self.tails]()
        scored = batch.foreground & self.support
        return Scores(map=torch.where(scored, raw, 0.0), scored=scored)


def smooth_within(image: Tensor, foreground: Tensor, sigma: float) -> Tensor:
    """Gaussian smoothing that takes nothing from outside (normalised convolution; Knutsson & Westin 1993).

    Parameters
    ----------
    image, foreground
        (N, 1, D, H, W); the image float32, the foreground bool.
    sigma
        In voxels; axes of one voxel are left alone.
    """
    if sigma == 0:
        return torch.where(foreground, image, 0.0)
    radius = max(1, int(3 * sigma + 0.5))
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32, device=image.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    weight = foreground.to(image.dtype)
    pair = torch.cat([image * weight, weight], dim=1).flatten(0, 1).unsqueeze(1)  # (2N, 1, D, H, W)
    for axis in range(3):
        if pair.shape[2 + axis] == 1:
            continue
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = kernel.numel()
        padding = [0, 0, 0]
        padding[axis] = radius
        pair = F.conv3d(pair, kernel.view(shape), padding=padding)
    total, share = pair.squeeze(1).unflatten(0, (-1, 2)).unbind(1)
    return torch.where(foreground, (total / share.clamp(min=1e-6)).unsqueeze(1), 0.0)
