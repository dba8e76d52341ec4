"""What a scanner adds: where the head lies, the slab's obliquity, coil shading and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib.imaging.geometry import Grid

from .deformation import bspline_noise

FIELD_OF_VIEW_MM = (200.0, 236.0, 200.0)
"""Extent of the imaged box along (right, anterior, superior); the largest head drawn fits with its pose."""

CENTRE_RAS = (0.0, -18.0, 10.0)
"""Middle of the template's brain."""

_POSE_DEGREES = 5.0
_POSE_MM = 4.0
_OBLIQUE_DEGREES = 4.0


def rotation(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """3 x 3 rotation by angles about R, then A, then S."""
    a, b, c = np.radians(degrees)
    about_r = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_a = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_s = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return about_s @ about_a @ about_r


@dataclass(frozen=True)
class Acquisition:
    """One scan's geometry.

    Attributes
    ----------
    grid
        The image's voxels in scanner space (RAS); slightly oblique.
    head_to_scanner
        4 x 4 rigid pose of the head (RAS mm of the individual to RAS mm of the scanner).
    """

    grid: Grid
    head_to_scanner: NDArray[np.float64]

    @classmethod
    def draw(
        cls,
        spacing: tuple[float, float, float],
        rng: np.random.Generator,
        field_of_view: tuple[float, float, float] = FIELD_OF_VIEW_MM,
        centre: tuple[float, float, float] = CENTRE_RAS,
    ) -> Acquisition:
        """Head turned by up to 5 degrees and moved by up to 4 mm an axis; slab oblique by up to 4 degrees."""
        middle = np.array(centre)
        pose = np.eye(4)
        pose[:3, :3] = rotation(rng.uniform(-_POSE_DEGREES, _POSE_DEGREES, 3))
        pose[:3, 3] = middle - pose[:3, :3] @ middle + rng.uniform(-_POSE_MM, _POSE_MM, 3)
        counts = np.maximum(1, np.round(np.array(field_of_view) / spacing)).astype(int)
        affine = np.eye(4)
        affine[:3, :3] = rotation(rng.uniform(-_OBLIQUE_DEGREES, _OBLIQUE_DEGREES, 3)) * np.array(spacing)
        affine[:3, 3] = middle - affine[:3, :3] @ ((counts - 1) / 2)
        return cls(Grid(tuple(counts[::-1]), affine, "phantom"), pose)


def shading(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Coil shading: a smooth factor around 1, float32 (K, J, I), varying by 5-15 % over about 80 mm."""
    strength = float(rng.uniform(0.1, 0.35))  # a third of a control point's spread reaches the field
    return np.exp(strength * bspline_noise(shape, spacing, 80.0, rng)[0].numpy()).astype(np.float32)


def heterogeneity(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Tissue is not uniform: a factor around 1, float32 (K, J, I), varying by about 1.5 % over about 12 mm."""
    return (1 + 0.045 * bspline_noise(shape, spacing, 12.0, rng)[0].numpy()).astype(np.float32)


def rician(image: NDArray[np.float32], level: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Magnitude of the image with Gaussian noise of standard deviation `level` in both of its quadrature channels.

    Gudbjartsson & Patz, Magnetic Resonance in Medicine 1995.
    """
    real = rng.standard_normal(image.shape, dtype=np.float32)
    imaginary = rng.standard_normal(image.shape, dtype=np.float32)
    return np.hypot(image + level * real, level * imaginary)
