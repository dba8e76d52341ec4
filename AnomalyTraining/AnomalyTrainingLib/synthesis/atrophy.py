"""Atrophy: the ventricles are wider than in any healthy head, and the sulci wetter."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from .site import Fractions, Site

SKULL_MM = 12.0
"""Within this depth the displacement fades to none where there is a skull."""


@dataclass(frozen=True, eq=False)
class Atrophy:
    """Lost tissue.

    Attributes
    ----------
    outwards
        float32 (K, J, I, 3), by how many mm the wall of the ventricles moved, fading away from it.
    fluid
        float32 (K, J, I), share of fluid before; what has turned to fluid since is the lesion.
    sulci
        Share of what is left of a voxel that turns to fluid where half or more of it is.
    """

    outwards: Tensor
    fluid: NDArray[np.float32]
    sulci: float

    parts = sys.maxsize  # wherever fluid came in

    def push(self, points: Tensor) -> Tensor:
        """Where the tissue lay before the ventricles grew."""
        return points - self.outwards

    def fractions(self, points: Tensor, tissue: Mapping[str, NDArray[np.float32]]) -> Fractions:
        widened = np.clip(tissue["csf"] - self.fluid, 0, 1)
        shrunk = self.sulci * np.clip(2 * tissue["csf"], 0, 1) * (1 - tissue["csf"]) * tissue["brain"]
        return {"fluid": np.maximum(widened, shrunk).astype(np.float32)}


def plan_atrophy(site: Site, rng: np.random.Generator, *, wall_mm: tuple[float, float] = (4.0, 6.0)) -> Atrophy:
    """Ventricles widened by up to 4-6 mm on every side: about three standard deviations of `VENTRICLE_SD_MM`.

    The displacement fades over 8 mm inside the wall and 25 mm outside.  Where its slope would reach 0.95 (space folds
    from 1 on) all of it is made smaller.
    """
    distance, depth = site.tissue["ventricle"], site.tissue["depth"]
    steps = site.spacing[::-1]
    fade = np.where(distance < 0, np.exp(np.minimum(distance, 0) / 8), np.exp(-np.maximum(distance, 0) / 25))
    if site.skull:
        fade = fade * np.clip(depth / SKULL_MM, 0, 1)
    smooth = [6 / step for step in steps]
    kji = [ndimage.gaussian_filter(part * fade, smooth) for part in np.gradient(distance, *steps)]
    if site.skull:  # the filter has carried some of it out again
        kji = [part * np.clip(depth / (0.5 * SKULL_MM), 0, 1) for part in kji]
    slope = float(np.sqrt(sum(part**2 for along in kji for part in np.gradient(along, *steps)).max()))
    wall = min(float(rng.uniform(*wall_mm)) / max(float(np.abs(kji).max()), 1e-6), 0.95 / max(slope, 1e-6))
    ijk = torch.from_numpy(np.stack(kji[::-1], axis=-1).astype(np.float32))
    corner = site.points[0, 0, 0]
    axes = torch.stack([site.points[0, 0, 1], site.points[0, 1, 0], site.points[1, 0, 0]]) - corner
    axes = axes / axes.norm(dim=1, keepdim=True)  # of the voxels, in the head's frame
    return Atrophy(wall * (ijk @ axes), site.tissue["csf"], float(rng.uniform(0.3, 0.6)))
