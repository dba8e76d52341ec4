"""What synthetic lesions do to an image: each alteration fades itself in by the severity, within a shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from monai.networks.layers import gaussian_1d, separable_filtering
from torch import Tensor

from .synthetic_shapes import Shape

SHIFT = (0.08, 0.5)
"""Least and largest change of intensity, of [0, 1]."""

_HEM = 0.01
"""What is taken off the weights of a displacement, so that they end somewhere."""


@dataclass(frozen=True)
class Patch:
    """An item that lesions are put into.

    Attributes
    ----------
    image
        float32 (C, D, H, W) in [0, 1].
    donor
        Another normal, of the same shape.
    foreground
        bool (D, H, W).
    severity
        Factor in [0, 1] by which alterations are faded in.
    """

    image: Tensor
    donor: Tensor
    foreground: Tensor
    severity: float


Alteration = Callable[[Patch, Shape, np.random.Generator], tuple[Tensor, Tensor]]
"""The altered image (C, D, H, W), and the weights (D, H, W): above 0 where it may differ."""


# -- the family that is trained on


def shift(patch: Patch, shape: Shape, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Brighter or darker, by an amount that varies smoothly within (the bias lesion of Disyre)."""
    uneven = 1 + float(rng.uniform(0, 0.3)) * shape.room.noise(max(shape.radius, 3.0), rng)
    return _faded(patch, patch.image + _amount(rng) * uneven, shape.weight())


def swap(patch: Patch, shape: Shape, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Texture of another place of another normal (Foreign Patch Interpolation, with a faded edge)."""
    other = patch.donor.flip(-1) if rng.random() < 0.5 else patch.donor
    return _pasted(patch, other, shape, rng)


def mass(patch: Patch, shape: Shape, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Tissue around is pushed away from the lesion, or sinks into it.

    The displacement runs along the gradient of the blurred shape, and is everywhere less than that shape's radius.
    """
    hill = _blurred(shape.weight()[None], float(np.clip(0.6 * shape.radius, 1, 8)), shape.room.flat)[0]
    hill = (hill - _HEM).clamp_min(0)
    flat = [True, False, False] if shape.room.flat else [n == 1 for n in hill.shape]
    slope = [torch.zeros_like(hill) if f else torch.gradient(hill, dim=axis)[0] for axis, f in enumerate(flat)]
    field = torch.stack(slope) * patch.foreground
    steepest = field.square().sum(dim=0).max().sqrt().clamp_min(1e-6)
    strength = patch.severity * float(rng.choice([-1, 1]) * rng.uniform(0.2, 0.6)) * shape.radius
    return _moved(patch.image, field * (strength / steepest)), field.any(dim=0).float()


def oedema(patch: Patch, shape: Shape, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A core and a rim of different brightness, the rim wider here than there."""
    width = float(rng.uniform(0.3, 1.0)) * shape.radius + 1
    rim = shape.weight(width * float(rng.uniform(0.7, 1.0)))
    ragged = (1 + 0.4 * shape.room.noise(max(shape.radius, 2.0), rng)[0]).clamp(0, 1.5)
    core = shape.weight()
    change = (1 - core) * rim * ragged * (0.7 * _amount(rng)) + core * _amount(rng)
    return patch.image + patch.severity * change, torch.maximum(rim, core)


def grain(patch: Patch, shape: Shape, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Another texture: noise of a random coarseness on top."""
    noise = shape.room.noise(float(rng.uniform(1.0, 5.0)), rng) * float(rng.uniform(0.05, 0.2))
    return _faded(patch, patch.image + noise, shape.weight())


def blur(patch: Patch, shape: Shape, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Structure is washed out."""
    return _faded(patch, _blurred(patch.image, float(rng.uniform(1.5, 5.0)), shape.room.flat), shape.weight())


# -- the family by which the epoch is chosen


def level(patch: Patch, shape: Shape, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Filled with one grey, a little of the structure still showing through."""
    grey, kept = float(rng.uniform(0, 1)), float(rng.uniform(0, 0.4))
    return _faded(patch, grey + kept * (patch.image - _mean(patch, shape)), shape.weight())


def gain(patch: Patch, shape: Shape, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Intensities multiplied."""
    factor = float(rng.uniform(1.25, 2.0) if rng.random() < 0.5 else rng.uniform(0.2, 0.75))
    return _faded(patch, patch.image * factor, shape.weight())


def elsewhere(patch: Patch, shape: Shape, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Texture of another place of the same image (CutPaste)."""
    return _pasted(patch, patch.image.flip(-2) if rng.random() < 0.5 else patch.image, shape, rng)


def twist(patch: Patch, shape: Shape, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Turned about the lesion's axis, within the slices, most in the middle."""
    reach = max(1.5 * shape.radius, 3.0)
    z, y, x = shape.room.offsets(shape.centre)
    near = (torch.exp(-2 * (z * z + y * y + x * x) / reach**2) - _HEM).clamp_min(0) * patch.foreground
    angle = near * (patch.severity * float(rng.choice([-1, 1]) * rng.uniform(0.6, 1.8)))
    cos, sin = torch.cos(angle) - 1, torch.sin(angle)
    field = torch.stack([torch.zeros_like(near), cos * y - sin * x, sin * y + cos * x])
    return _moved(patch.image, field), near


def invert(patch: Patch, shape: Shape, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Bright turned dark and dark bright, about a level near the lesion's own."""
    about = _mean(patch, shape) + float(rng.uniform(0.05, 0.15) * rng.choice([-1, 1]))
    return _faded(patch, 2 * about - patch.image, shape.weight())


def coarse(patch: Patch, shape: Shape, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """As if of voxels a few times as large."""
    factor = float(rng.integers(3, 7))
    small = F.interpolate(patch.image.transpose(0, 1), scale_factor=1 / factor, mode="area")
    large = F.interpolate(small, patch.image.shape[2:], mode="nearest").transpose(0, 1)
    return _faded(patch, large, shape.weight())


# -- what they have in common


def _amount(rng: np.random.Generator) -> float:
    return float(rng.choice([-1, 1]) * rng.uniform(*SHIFT))


def _faded(patch: Patch, altered: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Interpolation between the image and what it would be altered to at full severity."""
    return patch.image + patch.severity * weight * (altered - patch.image), weight


def _pasted(patch: Patch, source: Tensor, shape: Shape, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Tissue of `source` that lies elsewhere, where there is any; its brightness is a little changed."""
    far = [int(rng.integers(n // 8, max(n // 3, n // 8 + 1)) * rng.choice([-1, 1])) for n in source.shape[2:]]
    rolled = torch.roll(source, far, dims=(-2, -1))
    tissue = (rolled > 0).all(dim=0)
    return _faded(patch, rolled + float(rng.normal(0, 0.05)), shape.weight() * tissue)


def _mean(patch: Patch, shape: Shape) -> Tensor:
    """Mean intensity in the lesion, (C, 1, 1, 1)."""
    weight = shape.weight()
    return ((patch.image * weight).sum(dim=(1, 2, 3)) / weight.sum().clamp_min(1e-6))[:, None, None, None]


def _blurred(image: Tensor, sigma: float, flat: bool) -> Tensor:
    """Gaussian blur of (C, D, H, W), of slices within themselves."""
    kernel = gaussian_1d(torch.tensor(sigma), truncated=3.0).to(image.device)
    if flat:
        return separable_filtering(image, [kernel, kernel], mode="replicate")
    return separable_filtering(image[None], [kernel] * 3, mode="replicate")[0]


def _moved(image: Tensor, field: Tensor) -> Tensor:
    """The image (C, D, H, W) sampled at each place plus `field` (3, D, H, W), voxels along z, y and x."""
    size = torch.tensor(image.shape[:0:-1], dtype=torch.float32, device=image.device)
    index = torch.meshgrid(*(torch.arange(n, device=image.device) for n in image.shape[1:]), indexing="ij")
    places = (torch.stack(index) + field).flip(0).movedim(0, -1)  # (D, H, W, xyz)
    scaled = 2 * places / (size - 1).clamp_min(1) - 1
    moved = F.grid_sample(image[None], scaled[None], padding_mode="border", align_corners=True)[0]
    return torch.where(field.any(dim=0), moved, image)
