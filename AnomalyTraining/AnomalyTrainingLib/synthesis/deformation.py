"""Individual anatomy: random smooth maps of space that never fold.

A map is a function from points (..., 3) in RAS millimetres to points; it says where in the template a place of the
individual comes from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

LEVELS_MM = ((60.0, 7.0), (30.0, 3.5), (15.0, 1.7))
"""Control-point distance and standard deviation of a control point (mm): lobes, gyri, folds of the cortex.

The displacement a voxel sees is about a third of that along each axis: 2.5, 1.2 and 0.6 mm.
"""

_CLIP = 2.5
"""Control points are kept within this many standard deviations.

It bounds every level to 0.3 of the control-point distance; below 0.4 a cubic B-spline deformation is injective
(Choi & Lee, Graphical Models 2000), and so is the composition of levels that are.
"""

VENTRICLE_SD_MM = 1.5
"""Standard deviation of how far the ventricles' wall lies from the template's."""

_VENTRICLE_REACH_MM = 12.0

FALX_HOLD = 0.7
"""Share by which sideways displacement is less at the midline, where the falx holds the hemispheres: in healthy adults
the midline bows by a millimetre or so."""

_FALX_MM = 15.0
_LATTICE_MM = 4.0


@dataclass(frozen=True, eq=False)
class LatticeField:
    """Values on a lattice along RAS, linear between its points.

    Attributes
    ----------
    values
        float32 (C, Z, Y, X).
    origin, step
        RAS mm of the first lattice point, mm between points.
    """

    values: Tensor
    origin: tuple[float, float, float]
    step: float

    def __call__(self, points: Tensor) -> Tensor:
        """Values (K, J, I, C) at points (K, J, I, 3); beyond the lattice those at its border."""
        size = torch.tensor(self.values.shape[:0:-1], dtype=torch.float32)
        index = (points - torch.tensor(self.origin, dtype=torch.float32)) / self.step
        sampled = torch.nn.functional.grid_sample(
            self.values[None],
            (2 * index / (size - 1) - 1)[None],
            mode="bilinear",
            padding_mode="border",
            align_corners=True,
        )[0]
        return sampled.movedim(0, -1)


def bspline_noise(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    control_mm: float,
    rng: np.random.Generator,
    channels: int = 1,
) -> Tensor:
    """Smooth random fields: standard normal control points (clipped) under a cubic B-spline.

    Parameters
    ----------
    shape, spacing
        Lattice (Z, Y, X) and the distance of its points in mm along (x, y, z).
    control_mm
        Distance of the control points.

    Returns
    -------
    float32 (channels, Z, Y, X).
    """
    bases = [_basis(n, step / control_mm) for n, step in zip(shape, spacing[::-1], strict=True)]
    drawn = rng.standard_normal((channels, *(basis.shape[1] for basis in bases)))
    control = torch.from_numpy(np.clip(drawn, -_CLIP, _CLIP).astype(np.float32))
    return torch.einsum("czyx,kz,jy,ix->ckji", control, *bases)


def _basis(count: int, step: float) -> Tensor:
    """Cubic B-spline weights (count, controls) of points `step` control-point distances apart."""
    position = np.arange(count) * step
    first = np.floor(position).astype(int)
    t = position - first
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6
    basis = np.zeros((count, int(first[-1]) + 4), dtype=np.float32)
    for offset in range(4):
        basis[np.arange(count), first + offset] = weights[:, offset]
    return torch.from_numpy(basis)


def lattice_points(shape: tuple[int, int, int], origin: tuple[float, float, float], step: float) -> Tensor:
    """RAS points (Z, Y, X, 3) of a lattice."""
    z, y, x = (torch.arange(n, dtype=torch.float32) * step for n in shape)
    grid = torch.stack(torch.meshgrid(z, y, x, indexing="ij"), dim=-1).flip(-1)
    return grid + torch.tensor(origin, dtype=torch.float32)


def individual_map(
    rng: np.random.Generator,
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    ventricle: Callable[[Tensor], NDArray[np.float32]],
    size: float = 1.04,
) -> Callable[[Tensor], Tensor]:
    """A random map from an individual's space to the template's.

    Affine variation (size, proportions, slight shear), B-spline deformation at the three `LEVELS_MM`, and narrower or
    wider ventricles.

    Parameters
    ----------
    low, high
        Corners (RAS mm) of the box in which it will be evaluated.
    ventricle
        Signed distance (mm, negative inside) of template points to the ventricles.
    size
        By which factor the template is larger than the mean individual.  The ICBM template is larger than an average
        brain (1.9 against about 1.6 L with its fluid spaces), hence 1.04.
    """
    matrix = _affine_variation(rng, size)
    pad = 20.0
    origin = tuple(float(v) for v in low - pad)
    shape = tuple(
        int(np.ceil((h - lo + 2 * pad) / _LATTICE_MM)) + 1 for lo, h in zip(low[::-1], high[::-1], strict=True)
    )
    start = lattice_points(shape, origin, _LATTICE_MM)  # type: ignore[arg-type]
    points = start
    for control_mm, sd in LEVELS_MM:
        noise = bspline_noise(shape, (_LATTICE_MM,) * 3, control_mm, rng, channels=3)  # type: ignore[arg-type]
        noise[0] *= 1 - FALX_HOLD * torch.exp(-((start[..., 0] / _FALX_MM) ** 2))
        points = points + LatticeField(sd * noise, origin, _LATTICE_MM)(points)  # type: ignore[arg-type]
    template = points @ matrix.T
    wall = float(np.clip(rng.normal(0, VENTRICLE_SD_MM), -2 * VENTRICLE_SD_MM, 2 * VENTRICLE_SD_MM))
    template = template + wall * _towards_ventricles(ventricle(template))
    field = LatticeField((template - start).movedim(-1, 0).contiguous(), origin, _LATTICE_MM)  # type: ignore[arg-type]
    return lambda places: places + field(places)


def _affine_variation(rng: np.random.Generator, mean: float) -> Tensor:
    """Size (3 %), proportions (2 % an axis) and shear (1 %): brain volumes differ by about 10 %, as in adults."""
    size = np.clip(rng.normal(mean, 0.03), mean - 0.07, mean + 0.07)
    axes = np.clip(rng.normal(1, 0.02, 3), 0.95, 1.05)
    shear = np.triu(np.clip(rng.normal(0, 0.01, (3, 3)), -0.03, 0.03), 1)
    return torch.from_numpy(((np.eye(3) + shear) @ np.diag(size * axes)).astype(np.float32))


def _towards_ventricles(distance: NDArray[np.float32]) -> Tensor:
    """Vectors (Z, Y, X, 3) of length up to 1 on the lattice, towards the ventricles, fading away from their wall.

    They are smoothed over 6 mm: midway between two walls the direction flips, and space would fold there.
    """
    gradient = np.gradient(distance, _LATTICE_MM)[::-1]
    fade = np.exp(-np.abs(distance) / _VENTRICLE_REACH_MM)
    vectors = [ndimage.gaussian_filter(-part * fade, 6.0 / _LATTICE_MM) for part in gradient]
    return torch.from_numpy(np.stack(vectors, axis=-1).astype(np.float32))
