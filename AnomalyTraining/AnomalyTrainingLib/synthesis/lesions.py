"""Synthetic lesions, put into the tissue before contrast, shading and noise, so that they share all of them.

A lesion is first planned (place, shape), then says how it displaces the tissue around it and which share of each voxel
its compartments take.  Kinds are listed in `KINDS`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from AnomalyDetectionLib.errors import InputError

from .acquisition import rotation
from .atrophy import plan_atrophy
from .deformation import LatticeField, bspline_noise
from .plaque_shapes import ShapedPlaques, plan_shaped_plaques, plaque_shapes
from .site import Fractions, Site, choose, soft
from .stroke import plan_haemorrhage, plan_infarct

DEEP_MM = 3.0
"""Standard deviation of the neighbourhood that has to be white matter for a plaque."""


class Lesion(Protocol):
    """A planned lesion; `parts` is the number of separate lesions that make it up."""

    @property
    def parts(self) -> int: ...

    def push(self, points: Tensor) -> Tensor:
        """Where the tissue now at `points` (K, J, I, 3) lay before the lesion grew."""
        ...

    def fractions(self, points: Tensor, tissue: Mapping[str, NDArray[np.float32]]) -> Fractions:
        """Share of each voxel that each compartment takes, given the tissue after the push."""
        ...


@dataclass(frozen=True)
class LesionRequest:
    """A kind of lesion and its options (keyword arguments of the function in `KINDS`)."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tag(self) -> str:
        """The kind, and a short hash of the options where there are any: names the files of one request."""
        if not self.options:
            return self.kind
        text = json.dumps(dict(self.options), sort_keys=True)
        return f"{self.kind}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"

    def plan(self, site: Site, rng: np.random.Generator) -> Lesion:
        """Plan the lesion in a head.

        Raises
        ------
        InputError
            If there is no such kind, or no place for it in this head.
        """
        if self.kind not in KINDS:
            raise InputError(f"There is no kind of lesion {self.kind!r}; known are {', '.join(KINDS)}.")
        return KINDS[self.kind](site, rng, **self.options)


@dataclass(frozen=True, eq=False)
class Tumour:
    """Necrotic centre, solid rim, oedema that runs along white matter, and displacement of what lies around.

    Attributes
    ----------
    centre, radius
        mm in the head's frame; `shape` (3 x 3) turns an offset from the centre into radii, so that |shape @ offset| = 1
        on the tumour's mean surface.
    growth
        How far (mm) the tissue at the surface was pushed away.
    reach
        How far (mm along white matter) the oedema runs.
    """

    centre: Tensor
    radius: float
    shape: Tensor
    growth: float
    reach: float
    roughness: LatticeField
    depth: NDArray[np.float32]
    spacing: tuple[float, float, float]

    parts = 1
    FADE_MM = 25.0
    SKULL_MM = 15.0
    NECROTIC = 0.55

    def push(self, points: Tensor) -> Tensor:
        """Radial displacement: linear inside, fading exponentially outside, none at the brain's surface.

        It stays one-to-one: its slope inside is growth / radius < 0.55, and towards the skull growth / SKULL_MM < 0.7.
        """
        offset = points - self.centre
        distance = offset.norm(dim=-1, keepdim=True).clamp_min(1e-3)
        strength = torch.where(
            distance < self.radius, distance / self.radius, torch.exp(-(distance - self.radius) / self.FADE_MM)
        )
        room = torch.from_numpy(np.clip(self.depth / self.SKULL_MM, 0, 1))[..., None]
        return points - self.growth * strength * room * offset / distance

    def fractions(self, points: Tensor, tissue: Mapping[str, NDArray[np.float32]]) -> Fractions:
        rough = self.roughness(points).numpy()
        distance = ((points - self.centre) @ self.shape.T).norm(dim=-1).numpy() * self.radius
        edge = max(1.5, *self.spacing)
        brain = tissue["brain"]
        mass = soft(self.radius - distance * (1 + rough[..., 0]), edge) * brain
        necrosis = np.minimum(soft(self.NECROTIC * self.radius - distance * (1 + rough[..., 1]), edge) * brain, mass)
        travelled = _along_white_matter(mass, tissue["wm"], self.spacing, 2 * self.reach)
        # Wettest at the tumour, with a front 8 mm deep that runs further here than there.
        front = np.clip((self.reach * (1 + rough[..., 2]) - travelled) / 8, 0, 1)
        wet = np.sqrt(front) * np.clip(1.2 * tissue["wm"], 0, 1)
        oedema = np.clip(0.95 * wet * (1 - mass), 0, None) * brain
        return {"necrosis": necrosis, "solid": mass - necrosis, "oedema": oedema.astype(np.float32)}


def plan_tumour(site: Site, rng: np.random.Generator, *, radius_mm: tuple[float, float] = (13.0, 19.0)) -> Tumour:
    """A tumour of one cerebral hemisphere, of 13-19 mm radius and with 12-24 mm of oedema, centred in white matter."""
    radius = float(rng.uniform(*radius_mm))
    tissue, x, z = site.tissue, site.points[..., 0].numpy(), site.points[..., 2].numpy()
    fits = (tissue["depth"] > 0.9 * radius + 3) & (tissue["ventricle"] > 0.5 * radius) & (np.abs(x) > 0.9 * radius + 4)
    place = choose(fits & (tissue["wm"] > 0.6) & (z > 0), rng, "tumour")  # z = 0: above the cerebellum and brainstem
    centre = site.points[place]
    turn = rotation(rng.uniform(-180, 180, 3))
    shape = turn @ np.diag(1 / (radius * rng.uniform(0.85, 1.15, 3))) @ turn.T
    origin, step = (centre - 64).tolist(), 2.0
    lumps = bspline_noise((65, 65, 65), (step,) * 3, 0.9 * radius, rng, channels=3)
    ripples = bspline_noise((65, 65, 65), (step,) * 3, 6.0, rng, channels=3)
    strength = torch.tensor([0.45, 0.8, 1.0]).view(3, 1, 1, 1)  # of a control point; a third of it reaches the surface
    roughness = LatticeField(strength * (lumps + 0.4 * ripples), tuple(origin), step)
    return Tumour(
        centre=centre,
        radius=radius,
        shape=torch.from_numpy(shape.astype(np.float32)),
        growth=float(rng.uniform(0.42, 0.54)) * radius,
        reach=float(rng.uniform(12, 24)),
        roughness=roughness,
        depth=tissue["depth"],
        spacing=site.spacing,
    )


def _along_white_matter(
    mass: NDArray[np.float32], wm: NDArray[np.float32], spacing: tuple[float, float, float], furthest: float
) -> NDArray[np.float32]:
    """Distance (mm) from the tumour when walking through white matter; grey matter and fluid are hardly entered.

    Fast marching (Sethian 1996) at a speed of 1 in white matter and 0.05 elsewhere.
    """
    solid = mass > 0.5
    rim = solid & ~ndimage.binary_erosion(solid)
    speed = sitk.GetImageFromArray(np.clip(wm.astype(np.float64), 0.05, 1))
    speed.SetSpacing(spacing)
    marching = sitk.FastMarchingImageFilter()
    marching.SetTrialPoints([(int(i), int(j), int(k)) for k, j, i in np.argwhere(rim)])
    marching.SetStoppingValue(furthest)
    arrival = np.minimum(sitk.GetArrayFromImage(marching.Execute(speed)), furthest)  # unreached is the largest float64
    return np.where(solid, 0, arrival).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Plaques:
    """Small ellipsoids without mass effect.

    Attributes
    ----------
    centres
        (n, 3) mm in the head's frame.
    shapes
        (n, 3, 3); |shape @ offset| = 1 on a plaque's surface.
    radii
        (n,) mean radius in mm.
    """

    centres: Tensor
    shapes: Tensor
    radii: tuple[float, ...]
    spacing: tuple[float, float, float]

    @property
    def parts(self) -> int:
        return len(self.radii)

    def push(self, points: Tensor) -> Tensor:
        """Plaques displace nothing."""
        return points

    def fractions(self, points: Tensor, tissue: Mapping[str, NDArray[np.float32]]) -> Fractions:
        edge = max(1.0, *self.spacing)
        total = np.zeros(points.shape[:-1], dtype=np.float32)
        for centre, shape, radius in zip(self.centres, self.shapes, self.radii, strict=True):
            distance = ((points - centre) @ shape.T).norm(dim=-1).numpy()
            total = np.maximum(total, soft(radius * (1 - distance), edge))
        return {"plaque": total * np.clip(tissue["brain"] - tissue["csf"], 0, 1)}


def plan_plaques(
    site: Site,
    rng: np.random.Generator,
    *,
    count: int = 3,
    radius_mm: tuple[float, float] = (3.0, 6.0),
    left: int = 0,
    shapes: str | None = None,
    shape_count: tuple[int, int] = (4, 12),
) -> Plaques | ShapedPlaques:
    """Plaques in periventricular and deep white matter, as in multiple sclerosis.

    Their long axis points away from the ventricles (Dawson 1916).

    Parameters
    ----------
    count, radius_mm
        Of ellipsoids.
    left
        The first so many lie in the patient's left hemisphere (RAS x < 0, in the head and in the scanner).
    shapes
        A folder of lesion masks in MNI space: plaques have the shapes of theirs, and lie about there.
    shape_count
        Least and largest number of these.
    """
    if shapes is not None:
        number = int(rng.integers(shape_count[0], shape_count[1] + 1))
        return plan_shaped_plaques(site, rng, plaque_shapes(shapes), count=number)
    tissue, z = site.tissue, site.points[..., 2].numpy()
    near = (tissue["ventricle"] > 3) & (tissue["ventricle"] < 20) & (tissue["depth"] > 10)
    # White matter all around, not a centre alone: plaques in the thin blades between sulci are of another kind.
    around = ndimage.gaussian_filter(tissue["wm"], [DEEP_MM / size for size in site.spacing[::-1]])
    white = near & (around > 0.9) & (z > -5)
    on_left = white & (site.points[..., 0].numpy() < -10) & (site.scanner_x < -10)
    centres, forms, radii = [], [], []
    for number in range(count):
        place = choose(on_left if number < left else white, rng, "plaque")
        centre = site.points[place]
        axes = np.sort(rng.uniform(*radius_mm, 3))
        frame = _frame_along(_outwards(site, place), rng)
        forms.append(torch.from_numpy((frame @ np.diag(1 / axes) @ frame.T).astype(np.float32)))
        centres.append(centre)
        radii.append(float(axes.mean()))
        apart = (site.points - centre).norm(dim=-1).numpy() > 4 * radius_mm[1]  # so that they stay separate lesions
        white, on_left = white & apart, on_left & apart
    return Plaques(torch.stack(centres), torch.stack(forms), tuple(radii), site.spacing)


def outline(fractions: Mapping[str, NDArray[np.float32]], brain: NDArray[np.bool_], parts: int) -> NDArray[np.bool_]:
    """The voxels of a lesion: at least half taken by its compartments, in the brain, and its largest regions only.

    A front of oedema leaves single voxels just above one half; they are no lesions of their own.
    """
    mask = (np.sum(list(fractions.values()), axis=0) >= 0.5) & brain
    regions, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    if count <= parts:
        return mask
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    return np.isin(regions, np.argsort(sizes)[-parts:])


def _outwards(site: Site, place: tuple[int, int, int]) -> NDArray[np.float64]:
    """Unit vector in the head's frame in which the distance to the ventricles grows fastest, from the neighbourhood."""
    around = tuple(slice(max(0, n - 2), n + 3) for n in place)
    offsets = (site.points[around] - site.points[place]).reshape(-1, 3).numpy().astype(np.float64)
    rise = (site.tissue["ventricle"][around] - site.tissue["ventricle"][place]).ravel()
    slope = np.linalg.lstsq(offsets, rise, rcond=None)[0]
    length = np.linalg.norm(slope)
    return slope / length if length > 1e-6 else np.array([1.0, 0.0, 0.0])


def _frame_along(axis: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """3 x 3 orthonormal columns, the last along `axis`, the others at random."""
    frame, _ = np.linalg.qr(np.column_stack([axis, rng.standard_normal((3, 2))]))
    return frame[:, ::-1]


KINDS: Mapping[str, Callable[..., Lesion]] = {
    "tumour": plan_tumour,
    "plaques": plan_plaques,
    "infarct": plan_infarct,
    "haemorrhage": plan_haemorrhage,
    "atrophy": plan_atrophy,
}
"""Kinds of lesion by name; each plans one in a `Site` with the given generator."""
