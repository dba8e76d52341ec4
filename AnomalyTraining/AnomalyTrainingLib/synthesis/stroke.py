"""Infarcts and haemorrhages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .acquisition import rotation
from .deformation import LatticeField, bspline_noise
from .site import Fractions, Site, choose, soft

_LATTICE = 81
_STEP_MM = 2.0


@dataclass(frozen=True, eq=False)
class Infarct:
    """A wedge of one hemisphere: from the wall of the ventricle to the cortex, as the territory of an artery's branch.

    Attributes
    ----------
    apex, axis
        mm in the head's frame; unit vector from the apex to the middle of the base.
    half_angle
        Radians.
    """

    apex: Tensor
    axis: Tensor
    half_angle: float
    roughness: LatticeField
    spacing: tuple[float, float, float]

    BLUNT_MM = 10.0
    parts = 1

    def push(self, points: Tensor) -> Tensor:
        """An infarct of some weeks displaces nothing."""
        return points

    def fractions(self, points: Tensor, tissue: Mapping[str, NDArray[np.float32]]) -> Fractions:
        offset = points - self.apex
        distance = offset.norm(dim=-1).numpy()
        angle = torch.acos((offset @ self.axis / offset.norm(dim=-1).clamp_min(1e-3)).clamp(-1, 1)).numpy()
        rough = self.roughness(points).numpy()[..., 0]
        edge = max(2.0, *self.spacing)
        side = soft((points[..., 0] * self.apex[0].sign()).numpy() - 3, edge)  # arteries do not cross the midline
        wedge = soft((self.half_angle * (1 + rough) - angle) * distance, edge) * soft(distance - self.BLUNT_MM, edge)
        return {"infarct": wedge * side * np.clip(tissue["brain"] - tissue["csf"], 0, 1)}


def plan_infarct(
    site: Site, rng: np.random.Generator, *, half_angle_degrees: tuple[float, float] = (16.0, 28.0)
) -> Infarct:
    """An infarct above the cerebellum, its base somewhere on the convexity."""
    tissue = site.tissue
    x, z = site.points[..., 0].numpy(), site.points[..., 2].numpy()
    surface = (tissue["depth"] > 1) & (tissue["depth"] < 6) & (tissue["gm"] > 0.4) & (np.abs(x) > 20) & (z > 5)
    base = site.points[choose(surface, rng, "infarct")]
    # Perforating and pial branches fan out from beside the lateral ventricle.
    apex = torch.stack([18 * base[0].sign(), 0.5 * base[1] - 8, 0.3 * base[2] + 14])
    axis = (base - apex) / (base - apex).norm()
    noise = bspline_noise((_LATTICE,) * 3, (_STEP_MM,) * 3, 12.0, rng)
    origin = tuple((base - _STEP_MM * (_LATTICE - 1) / 2).tolist())
    roughness = LatticeField(0.5 * noise, origin, _STEP_MM)
    return Infarct(apex, axis, float(np.radians(rng.uniform(*half_angle_degrees))), roughness, site.spacing)


@dataclass(frozen=True, eq=False)
class Haemorrhage:
    """A clot with a rim, which has pushed the white matter around it apart.

    Attributes
    ----------
    centre, radius
        mm in the head's frame; `shape` (3 x 3) turns an offset into radii, as in `lesions.Tumour`.
    rim
        Thickness in mm.
    growth
        How far (mm) the tissue at the clot's surface was pushed away.
    """

    centre: Tensor
    radius: float
    shape: Tensor
    rim: float
    growth: float
    roughness: LatticeField
    depth: NDArray[np.float32]
    spacing: tuple[float, float, float]

    FADE_MM = 15.0
    SKULL_MM = 12.0
    parts = 1

    def push(self, points: Tensor) -> Tensor:
        """Radial: linear inside, fading outside, none at the brain's surface; slopes stay below 0.5."""
        offset = points - self.centre
        distance = offset.norm(dim=-1, keepdim=True).clamp_min(1e-3)
        fading = torch.exp(-(distance - self.radius).clamp_min(0) / self.FADE_MM)
        room = torch.from_numpy(np.clip(self.depth / self.SKULL_MM, 0, 1))[..., None]
        return points - self.growth * (distance / self.radius).clamp_max(1) * fading * room * offset / distance

    def fractions(self, points: Tensor, tissue: Mapping[str, NDArray[np.float32]]) -> Fractions:
        rough = self.roughness(points).numpy()[..., 0]
        distance = ((points - self.centre) @ self.shape.T).norm(dim=-1).numpy() * self.radius * (1 + rough)
        edge = max(1.0, *self.spacing)
        clot = soft(self.radius - distance, edge) * tissue["brain"]
        rim = (soft(self.radius + self.rim - distance, edge) * tissue["brain"] - clot) * (1 - tissue["csf"])
        return {"clot": clot, "rim": np.clip(rim, 0, 1)}


def plan_haemorrhage(
    site: Site, rng: np.random.Generator, *, radius_mm: tuple[float, float] = (7.0, 14.0)
) -> Haemorrhage:
    """A haemorrhage in the white matter of one hemisphere."""
    radius = float(rng.uniform(*radius_mm))
    tissue, x, z = site.tissue, site.points[..., 0].numpy(), site.points[..., 2].numpy()
    fits = (tissue["depth"] > radius + 3) & (np.abs(x) > radius + 5) & (tissue["ventricle"] > 0.5 * radius)
    centre = site.points[choose(fits & (tissue["wm"] > 0.6) & (z > 0), rng, "haemorrhage")]
    turn = rotation(rng.uniform(-180, 180, 3))
    shape = turn @ np.diag(1 / (radius * rng.uniform(0.8, 1.25, 3))) @ turn.T
    noise = bspline_noise((_LATTICE,) * 3, (_STEP_MM,) * 3, 8.0, rng)
    origin = tuple((centre - _STEP_MM * (_LATTICE - 1) / 2).tolist())
    return Haemorrhage(
        centre=centre,
        radius=radius,
        shape=torch.from_numpy(shape.astype(np.float32)),
        rim=float(rng.uniform(2.5, 5)),
        growth=float(rng.uniform(0.25, 0.4)) * radius,
        roughness=LatticeField(0.4 * noise, origin, _STEP_MM),
        depth=tissue["depth"],
        spacing=site.spacing,
    )
