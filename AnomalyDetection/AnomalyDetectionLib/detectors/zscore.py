"""`zscore`: how many robust standard deviations a voxel lies from the normals' median at its place.

The affine atlas of voxel-wise statistics behind ALI and SPM's outlier maps (Seghier et al., NeuroImage 2008;
Ashburner & Friston, NeuroImage 2000), with median and MAD (Rousseeuw & Croux 1993) for the mean and standard
deviation: the honest floor that every learned detector has to beat.
"""

from __future__ import annotations

import math
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

    Slow differences from the normals' median (shading, another contrast) are taken out, and images are smoothed within
    the foreground, both before the statistics are taken and before an image is compared with them: the MAD is that of
    what is compared.

    Parameters
    ----------
    shape
        (D, H, W) of the template grid; None before fitting.
    smooth
        Standard deviation of the Gaussian, in voxels of the template grid.
    shading
        Standard deviation, in voxels, of the Gaussian that tells slow differences from lesions; 0 leaves them in.
    shading_limit
        Differences count towards the shading up to this size (of the [0, 1] intensity range), so that a lesion hardly
        lightens its own surroundings.
    tails
        Which deviations count: "both", "high" (brighter than normal) or "low".
    floor
        Least standard deviation, as a share of the atlas's median one: where all normals happen to agree, a
        deviation must still be visible to be called one.

    Notes
    -----
    The statistics have the values of half precision, and are stored so and for the patient's voxels only: a 2 mm brain
    takes 1.4 MB rather than 8.  Their rounding (at most 0.0003 of the intensity range) is a fiftieth of the noise of
    good images.
    """

    passes = 1

    reference: Tensor
    median: Tensor
    deviation: Tensor
    support: Tensor

    def __init__(
        self,
        spec: InputSpec,
        *,
        shape: Sequence[int] | None = None,
        smooth: float = 0.8,
        shading: float = 5.0,
        shading_limit: float = 0.1,
        tails: Tails = "both",
        floor: float = 0.35,
    ) -> None:
        super().__init__(spec)
        if spec.kind == "sequence":
            raise InputError("zscore: the input must be volumes or slices, which have places, not `kind: sequence`.")
        if tails not in get_args(Tails):
            raise InputError(f"zscore: tails {tails!r} is none of {', '.join(get_args(Tails))}.")
        if min(smooth, shading, shading_limit, floor) < 0:
            raise InputError("zscore: smooth, shading, shading_limit and floor cannot be negative.")
        self.smooth, self.shading, self.shading_limit = float(smooth), float(shading), float(shading_limit)
        self.tails, self.floor = tails, float(floor)
        size = tuple(int(n) for n in shape) if shape is not None else (0, 0, 0)
        self.register_buffer("reference", torch.zeros(size, dtype=torch.float32))
        self.register_buffer("median", torch.zeros(size, dtype=torch.float32))
        self.register_buffer("deviation", torch.ones(size, dtype=torch.float32))
        self.register_buffer("support", torch.zeros(size, dtype=torch.bool))
        self._absorbed: list[tuple[Tensor, Tensor]] = []

    def config(self) -> dict[str, Any]:
        return {
            "shape": list(self.median.shape),
            "smooth": self.smooth,
            "shading": self.shading,
            "shading_limit": self.shading_limit,
            "tails": self.tails,
            "floor": self.floor,
        }

    def absorb(self, batch: Batch) -> None:
        """Keep the case in half precision (3 bytes a voxel with its mask: 200 normals of 2 mm take 0.6 GB)."""
        for image, foreground in zip(batch.image[:, 0], batch.foreground[:, 0], strict=True):
            self._absorbed.append((image.to("cpu", torch.float16), foreground.cpu()))

    def finish(self) -> None:
        """Median and MAD per voxel, over the cases whose foreground covers it; slab by slab."""
        count = len(self._absorbed)
        if count < LEAST_NORMALS:
            raise InputError(f"zscore needs at least {LEAST_NORMALS} normal cases to train on; there are {count}.")
        covered = torch.stack([mask for _, mask in self._absorbed]).sum(dim=0)
        support = covered >= max(LEAST_NORMALS, (count + 1) // 2)
        self.reference = _as_stored(_median_and_mad(self._absorbed)[0])
        for index, (image, mask) in enumerate(self._absorbed):
            self._absorbed[index] = (self._comparable(image.float()[None, None], mask[None, None])[0, 0].half(), mask)
        median, deviation = _median_and_mad(self._absorbed)
        # A MAD of a few dozen values is itself noisy: half of it is taken from the neighbourhood.
        deviation = torch.where(support, deviation, 0.0)
        around = smooth_within(deviation[None, None], support[None, None], 1.5)[0, 0]
        floor = torch.clamp(self.floor * deviation[support].median(), min=1e-4)
        self.median = _as_stored(torch.where(support, median, 0.0))
        deviation = ((deviation + around) / 2).square().add(floor.square()).sqrt()
        self.deviation = _as_stored(torch.where(support, deviation, 1.0))
        self.support = support
        self._absorbed = []

    def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str, keep_vars: bool) -> None:
        covered = self.reference != 0
        state = {
            "covered": _pack(covered),
            "support": _pack(self.support),
            "reference": self.reference[covered].half(),
            "median": self.median[self.support].half(),
            "deviation": self.deviation[self.support].half(),
        }
        destination.update({prefix + name: value.detach() for name, value in state.items()})

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *others: Any) -> None:
        # torch passes a copy, which may be changed; of what does not fit, its own loader says so by name.
        shape = self.median.shape
        names = {prefix + name: name for name in ("covered", "support", "reference", "median", "deviation")}
        if names.keys() <= state_dict.keys():
            packed = {name: state_dict.pop(key) for key, name in names.items()}
            covered, support = _unpack(packed["covered"], shape), _unpack(packed["support"], shape)
            state_dict[prefix + "support"] = support
            state_dict[prefix + "reference"] = _spread(packed["reference"], covered, 0.0)
            state_dict[prefix + "median"] = _spread(packed["median"], support, 0.0)
            state_dict[prefix + "deviation"] = _spread(packed["deviation"], support, 1.0)
        super()._load_from_state_dict(state_dict, prefix, *others)

    def _comparable(self, image: Tensor, foreground: Tensor) -> Tensor:
        """The image (N, 1, D, H, W) without slow differences from the reference, smoothed."""
        if self.shading > 0:
            difference = (image - self.reference).clamp(-self.shading_limit, self.shading_limit)
            image = image - smooth_within(difference, foreground, self.shading)
        return smooth_within(image, foreground, self.smooth)

    def score(self, batch: Batch) -> Scores:
        z = (self._comparable(batch.image, batch.foreground) - self.median) / self.deviation
        raw = {"both": z.abs, "high": lambda: z, "low": lambda: -z}[self.tails]()
        scored = batch.foreground & self.support
        return Scores(map=torch.where(scored, raw, 0.0), scored=scored)


def _as_stored(values: Tensor) -> Tensor:
    """Rounded to half precision: what is calibrated shall be what scores."""
    return values.half().float()


def _pack(mask: Tensor) -> Tensor:
    """Eight voxels of a mask in a byte, the first one in the highest bit, as `numpy.packbits` has it."""
    voxels = F.pad(mask.flatten().to(torch.uint8), (0, -mask.numel() % 8)).view(-1, 8)
    return (voxels << torch.arange(7, -1, -1, dtype=torch.uint8, device=mask.device)).sum(dim=1).to(torch.uint8)


def _unpack(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """The mask of that shape that `_pack` made."""
    bits = packed[:, None] >> torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device) & 1
    return bits.bool().flatten()[: math.prod(shape)].view(tuple(shape))


def _spread(values: Tensor, mask: Tensor, elsewhere: float) -> Tensor:
    """Values (n,) in the n voxels of a mask, float32."""
    whole = torch.full(mask.shape, elsewhere, dtype=torch.float32)
    whole[mask] = values.float()
    return whole


def _median_and_mad(cases: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Median and scaled MAD (D, H, W) over cases of (image, foreground), each voxel over the cases that cover it."""
    shape = cases[0][0].shape
    median, deviation = torch.zeros(shape), torch.zeros(shape)
    for slab in range(shape[0]):
        values = torch.stack([image[slab] for image, _ in cases]).float()
        values = torch.where(torch.stack([mask[slab] for _, mask in cases]), values, torch.nan)
        centre = values.nanmedian(dim=0).values
        median[slab] = centre.nan_to_num()
        deviation[slab] = MAD_TO_SD * (values - centre).abs().nanmedian(dim=0).values.nan_to_num()
    return median, deviation


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
    # What lies beyond the image weighs nothing, so a kernel need not reach farther than across it.
    radius = max(1, int(min(3 * sigma + 0.5, max(image.shape[2:]))))
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
