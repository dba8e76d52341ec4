"""Shapes of synthetic lesions: random, smooth, from a few voxels to a large tumour, one or several at a time.

A shape is a depth: about how many voxels a place lies inside the surface, negative outside.  Everything is on a volume
(D, H, W); a slice is one with D = 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .acquisition import rotation
from .deformation import bspline_noise

LEAST_RADIUS, LARGEST = 1.1, 0.17
"""Radius of the smallest lesion in voxels, and of the largest as a share of the shorter side (33 mm of a head)."""

SEVERAL, MOST = 0.5, 8
"""Share of shapes that are several lesions, and how many these are at most."""

EDGE = (0.7, 4.0)
"""Voxels over which an edge fades; never more than the lesion's radius and a half."""

_FAR = 1e3
"""How deep outside places far from every lesion are said to be."""

_SPREAD = 3.0
"""A third of a control point's spread reaches a B-spline field."""


@dataclass(frozen=True)
class Room:
    """Where lesions may lie.

    Attributes
    ----------
    foreground
        bool (D, H, W).
    places
        int64 (n, 3), the voxels (z, y, x) of its slice in the middle, or of all where lesions are free to lie anywhere.
    axes
        Voxel indices along z, y and x, float32 (D, 1, 1), (1, H, 1) and (1, 1, W).
    flat
        Whether this is a slice, alone or with its neighbours.
    """

    foreground: Tensor
    places: Tensor
    axes: tuple[Tensor, Tensor, Tensor]
    flat: bool

    @classmethod
    def of(cls, foreground: Tensor, flat: bool) -> Room:
        """The room of a foreground that is not empty (of a slice: in its middle one)."""
        places = foreground.nonzero()
        if flat:
            places = places[places[:, 0] == foreground.shape[0] // 2]
        z, y, x = (torch.arange(n, dtype=torch.float32, device=foreground.device) for n in foreground.shape)
        return cls(foreground, places, (z[:, None, None], y[None, :, None], x[None, None, :]), flat)

    @property
    def largest(self) -> float:
        """Largest radius in voxels."""
        shape = self.foreground.shape
        return max(LARGEST * min(shape[1:] if self.flat else shape), 2 * LEAST_RADIUS)

    def centre(self, radius: float, rng: np.random.Generator) -> tuple[float, float, float]:
        """A place (z, y, x); that of a lesion of a slice may lie a little above or below it."""
        z, y, x = (float(n) for n in self.places[int(rng.integers(len(self.places)))])
        return (z + float(rng.uniform(-0.6, 0.6)) * radius if self.flat else z), y, x

    def offsets(self, centre: tuple[float, float, float]) -> tuple[Tensor, Tensor, Tensor]:
        """Voxels from a place along z, y and x, to be broadcast against each other."""
        z, y, x = (axis - middle for axis, middle in zip(self.axes, centre, strict=True))
        return z, y, x

    def around(self, centre: tuple[float, float, float], reach: float) -> tuple[Room, tuple[slice, ...]]:
        """The part of the room that lies within so many voxels of a place along each axis, and where it is."""
        window = []
        for at, n in zip(centre, self.foreground.shape, strict=True):
            start = min(max(math.floor(at - reach), 0), n - 1)
            window.append(slice(start, max(start + 1, min(math.ceil(at + reach) + 1, n))))
        z, y, x = window
        axes = (self.axes[0][z], self.axes[1][:, y], self.axes[2][:, :, x])
        return replace(self, foreground=self.foreground[z, y, x], axes=axes), (z, y, x)

    def noise(self, cell: float, rng: np.random.Generator, channels: int = 1) -> Tensor:
        """Smooth fields of standard deviation about 1 that vary over `cell` voxels, float32 (channels, D, H, W)."""
        depth, height, width = self.foreground.shape
        field = bspline_noise((depth, height, width), (1.0, 1.0, 1.0), max(cell, 1.0), rng, channels)
        return _SPREAD * field.to(self.foreground.device)


@dataclass(frozen=True)
class Shape:
    """One lesion or several of a kind.

    Attributes
    ----------
    depth
        float32 (D, H, W), about how many voxels inside the surface.
    edge
        Voxels over which the edge fades.
    radius
        Of the largest lesion, in voxels.
    centre
        Of the largest lesion, (z, y, x).
    """

    room: Room
    depth: Tensor
    edge: float
    radius: float
    centre: tuple[float, float, float]

    def weight(self, grown: float = 0.0) -> Tensor:
        """1 inside, 0 outside, smooth between; of the shape that is larger by so many voxels all around."""
        t = ((self.depth + grown) / self.edge + 0.5).clamp(0, 1)
        return t * t * (3 - 2 * t) * self.room.foreground


ShapeGenerator = Callable[[Room, tuple[float, float, float], float, np.random.Generator], Tensor]
"""Depth (D, H, W) of a lesion about a centre and of about a radius."""


def drawn(generator: ShapeGenerator, room: Room, rng: np.random.Generator) -> Shape:
    """One lesion, or several of one kind and of about one size."""
    count = int(rng.integers(2, MOST + 1)) if rng.random() < SEVERAL else 1
    most = max(room.largest / np.sqrt(count), LEAST_RADIUS)  # a small crop has no room for many
    size = float(np.exp(rng.uniform(np.log(LEAST_RADIUS), np.log(most))))
    depth = torch.full(room.foreground.shape, -_FAR, device=room.foreground.device)
    largest, middle = 0.0, (0.0, 0.0, 0.0)
    for _ in range(count):
        radius = float(np.clip(size * rng.uniform(0.6, 1.4), LEAST_RADIUS, room.largest))
        centre = room.centre(radius, rng)
        near, window = room.around(centre, 3 * radius + EDGE[1])  # a lesion of three voxels needs no whole volume
        depth[window] = torch.maximum(depth[window], generator(near, centre, radius, rng))
        if radius > largest:
            largest, middle = radius, centre
    edge = float(np.exp(rng.uniform(*np.log(EDGE))))
    return Shape(room, depth, min(edge, 1.5 * largest), largest, middle)


def ellipsoids(room: Room, centre: tuple[float, float, float], radius: float, rng: np.random.Generator) -> Tensor:
    """A union of one to three ellipsoids in a space that a smooth random field has bent."""
    bend = room.noise(1.5 * radius, rng, 3) * float(rng.uniform(0, 0.3)) * radius
    depth = None
    for part in range(int(rng.integers(1, 4))):
        apart = rng.normal(0, 0.5 * radius, 3) * (part > 0)
        z, y, x = room.offsets((centre[0] + apart[0], centre[1] + apart[1], centre[2] + apart[2]))
        own = radius * float(rng.uniform(0.6, 1.0) if part else 1.0)
        turned = _turned((z + bend[0], y + bend[1], x + bend[2]), rng)
        scale = own * np.exp(rng.normal(0, 0.25, 3))
        distance = sum((axis / float(s)) ** 2 for axis, s in zip(turned, scale, strict=True))
        assert isinstance(distance, Tensor)
        found = own * (1 - distance.sqrt())
        depth = found if depth is None else torch.maximum(depth, found)
    assert depth is not None
    return depth


def clouds(room: Room, centre: tuple[float, float, float], radius: float, rng: np.random.Generator) -> Tensor:
    """Smoothed noise above a threshold that rises with the distance from the centre: ragged, with holes and islands."""
    z, y, x = room.offsets(centre)
    distance = (z * z + y * y + x * x) / radius**2
    noise = room.noise(radius * float(rng.uniform(0.35, 0.9)), rng)[0]
    return (0.8 + 0.5 * noise - distance) * (radius / 2)  # the threshold rises by about 2 a radius at the surface


def stars(room: Room, centre: tuple[float, float, float], radius: float, rng: np.random.Generator) -> Tensor:
    """A ball whose radius is a smooth random function of the direction."""
    z, y, x = room.offsets(centre)
    distance = (z * z + y * y + x * x).sqrt()
    away = distance.clamp_min(1e-3)
    logarithm = torch.zeros_like(distance)
    for _ in range(4):
        direction = rng.normal(size=3)
        direction *= float(rng.uniform(1, 5)) / np.linalg.norm(direction)
        along = (z * float(direction[0]) + y * float(direction[1]) + x * float(direction[2])) / away
        logarithm += float(rng.normal(0, 0.22)) * torch.cos(along + float(rng.uniform(0, 2 * np.pi)))
    return radius * logarithm.exp() - distance


def tubes(room: Room, centre: tuple[float, float, float], radius: float, rng: np.random.Generator) -> Tensor:
    """All that is near a crooked line of two to four pieces through the centre."""
    thick = max(radius * float(rng.uniform(0.35, 0.6)), 0.8)
    along = rng.normal(size=3) * (0.2 if room.flat else 1.0, 1.0, 1.0)
    start = np.array(centre) - radius * along / np.linalg.norm(along)
    nearest = None
    for _ in range(int(rng.integers(2, 5))):
        along = along / np.linalg.norm(along) + rng.normal(0, 0.4, 3) * (0.2 if room.flat else 1.0, 1.0, 1.0)
        step = along / np.linalg.norm(along) * radius
        z, y, x = room.offsets((float(start[0]), float(start[1]), float(start[2])))
        walked = (z * float(step[0]) + y * float(step[1]) + x * float(step[2])) / float(step @ step)
        walked = walked.clamp(0, 1)
        distance = (
            (z - walked * float(step[0])) ** 2 + (y - walked * float(step[1])) ** 2 + (x - walked * float(step[2])) ** 2
        )
        nearest = distance if nearest is None else torch.minimum(nearest, distance)
        start = start + step
    assert nearest is not None
    return thick - nearest.sqrt()


def blocks(room: Room, centre: tuple[float, float, float], radius: float, rng: np.random.Generator) -> Tensor:
    """A turned block with more or less rounded corners (a superellipsoid)."""
    power = float(rng.uniform(3, 8))
    turned = _turned(room.offsets(centre), rng)
    scale = radius * np.exp(rng.normal(0, 0.3, 3))
    distance = sum((axis.abs() / float(s)) ** power for axis, s in zip(turned, scale, strict=True))
    assert isinstance(distance, Tensor)
    return radius * (1 - distance ** (1 / power))


def _turned(offsets: tuple[Tensor, Tensor, Tensor], rng: np.random.Generator) -> list[Tensor]:
    matrix = rotation(rng.uniform(-180, 180, 3))
    z, y, x = offsets
    return [float(row[0]) * z + float(row[1]) * y + float(row[2]) * x for row in matrix]
