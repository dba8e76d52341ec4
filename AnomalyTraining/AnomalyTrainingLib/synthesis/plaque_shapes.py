"""Plaques of multiple sclerosis in the shapes real ones have: the separate lesions of segmented patients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.geometry import Canonical, resample, with_spacing
from AnomalyDetectionLib.imaging.read import read_volume

from .acquisition import rotation
from .deformation import LatticeField
from .site import Fractions, Site, choose

ENDINGS = (".nii", ".nii.gz", ".nrrd", ".mha")
"""File names a folder of lesion masks is searched for."""

LEAST_MM3, MOST_MM3 = 30.0, 12_000.0
"""Smaller components are noise of the segmentation; larger ones, confluent around the ventricles, fit one head only."""

_MNI_BOX = ((-95.0, 95.0), (-130.0, 95.0), (-75.0, 115.0))
_MARGIN = 3
_LEAST_VOXELS = 4  # smaller ones than that do not show
_LARGE_MM3 = 250.0  # every third plaque is at least that large: most are small, but the load is in the large ones
_REACH_MM = 30.0  # from the ventricles
_LOWEST_MM = -8.0  # of the template's frame: above the brainstem and cerebellum
_WANDER_MM = 10.0  # standard deviation of how far from its old place a plaque is put
_TURN_DEGREES = 15.0
_TRIES = 12
_APART_MM = 6.0  # between plaques, so that they stay separate lesions
_EDGE = 0.05  # share of a voxel from which a plaque counts as being there
_WHITE_SHARE = 0.75  # of a plaque, that is enough for a place


@dataclass(frozen=True, eq=False)
class PlaqueShape:
    """One real plaque.

    Attributes
    ----------
    values
        float32 (Z, Y, X) at 1 mm along R, A, S: 1 inside; its middle is the plaque's centre of mass.
    centre
        Centre of mass in MNI space (mm).
    mm3
        Volume.
    """

    values: NDArray[np.float32]
    centre: NDArray[np.float64]
    mm3: float


@lru_cache(maxsize=2)
def plaque_shapes(source: str) -> tuple[PlaqueShape, ...]:
    """The connected components (26 neighbours) of all masks, in the order of the files' names.

    Parameters
    ----------
    source
        A folder of lesion masks (non-zero is lesion) in MNI space, or a pattern of their names.

    Raises
    ------
    InputError
        If there is no folder or mask, or one is empty or not in MNI space.
    """
    shapes = [shape for path in mask_files(source) for shape in _components(path)]
    if not shapes:
        raise InputError(f"{source}: no lesion of the masks has between {LEAST_MM3:g} and {MOST_MM3:g} mm3.")
    return tuple(shapes)


def mask_files(source: str | Path) -> tuple[Path, ...]:
    """The masks of a folder in the order of their names; its last part may be a pattern, as in `masks/mask_*.nii.gz`.

    Raises
    ------
    InputError
        If there is no such folder or no mask in it.
    """
    place = Path(source)
    folder, pattern = (place.parent, place.name) if set(place.name) & set("*?[") else (place, "*")
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder of lesion masks.")
    files = tuple(sorted(path for path in folder.glob(pattern) if path.name.lower().endswith(ENDINGS)))
    if not files:
        raise InputError(f"{source}: there is no lesion mask ({', '.join(ENDINGS)}).")
    return files


def _components(path: Path) -> list[PlaqueShape]:
    volume = read_volume(path)
    if not np.isfinite(volume.array).all() or (volume.array != np.round(volume.array)).any():
        raise InputError(
            f"{path}: this is no lesion mask, for its values are not whole numbers; give a pattern of the masks' names."
        )
    canonical = Canonical.of(volume.grid)
    mask, grid = np.ascontiguousarray(canonical.apply(volume.array) > 0), canonical.grid(volume.grid)
    fine = with_spacing(grid, (1.0, 1.0, 1.0))
    if max(abs(size - 1) for size in grid.spacing) > 0.02:
        mask, grid = resample(mask, grid, fine), fine
    if not mask.any():
        raise InputError(f"{path}: the lesion mask is empty; take it out of the folder.")
    if mask.mean() > 0.02:
        raise InputError(f"{path}: {mask.mean():.0%} of the image is lesion; this is no mask of plaques.")
    regions, _ = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    shapes = []
    for number, box in enumerate(ndimage.find_objects(regions), start=1):
        part = regions[box] == number
        if not LEAST_MM3 <= part.sum() <= MOST_MM3:
            continue
        kji = np.argwhere(part).mean(axis=0)
        centre = grid.to_ras((kji + [s.start for s in box])[::-1])
        if not all(low < x < high for x, (low, high) in zip(centre, _MNI_BOX, strict=True)):
            raise InputError(f"{path}: a lesion lies at {np.round(centre).tolist()} mm, outside MNI space's brain.")
        shapes.append(PlaqueShape(_centred(part, kji), centre, float(part.sum())))
    return shapes


def _centred(part: NDArray[np.bool_], middle: NDArray[np.float64]) -> NDArray[np.float32]:
    """In a box of odd size with the voxel next to the centre of mass in its middle, and nothing at the faces."""
    whole = np.round(middle).astype(int)
    half = [max(m, n - 1 - m) + _MARGIN for m, n in zip(whole, part.shape, strict=True)]
    pad = [(h - m, h - (n - 1 - m)) for h, m, n in zip(half, whole, part.shape, strict=True)]
    return np.pad(part.astype(np.float32), pad)


@dataclass(frozen=True, eq=False)
class ShapedPlaques:
    """Plaques of given shapes, without mass effect.

    Attributes
    ----------
    inside
        float32 (K, J, I), share of each voxel inside a plaque.
    """

    inside: NDArray[np.float32]
    parts: int

    def push(self, points: Tensor) -> Tensor:
        """Plaques displace nothing."""
        return points

    def fractions(self, points: Tensor, tissue: Mapping[str, NDArray[np.float32]]) -> Fractions:
        return {"plaque": self.inside * np.clip(tissue["brain"] - tissue["csf"], 0, 1)}


def plan_shaped_plaques(
    site: Site, rng: np.random.Generator, shapes: tuple[PlaqueShape, ...], *, count: int
) -> ShapedPlaques:
    """Plaques in white matter not far from where they were found, either side, slightly turned and scaled.

    Every third is a large one.  Of several places tried for each, the first counts at which three quarters of it are
    white matter, or else the best.
    """
    voxel = float(np.prod(site.spacing))
    seen = [shape for shape in shapes if shape.mm3 >= _LEAST_VOXELS * voxel] or list(shapes)
    large = [shape for shape in seen if shape.mm3 >= _LARGE_MM3] or seen
    tissue = site.tissue
    white = (tissue["wm"] > 0.6) & (tissue["depth"] > 5) & (tissue["brain"] > 0.9)
    white &= (tissue["ventricle"] > 1) & (tissue["ventricle"] < _REACH_MM) & (site.points[..., 2].numpy() > _LOWEST_MM)
    inside = np.zeros(white.shape, dtype=np.float32)
    for number in range(count):
        pool = large if number % 3 == 0 else seen
        shape = pool[int(rng.integers(len(pool)))]
        side = float(rng.choice([-1, 1]))
        likely = white & _near(site, shape.centre * (side, 1, 1), rng)
        turn = rotation(rng.uniform(-_TURN_DEGREES, _TURN_DEGREES, 3)) * float(rng.uniform(0.85, 1.15))
        best: tuple[float, tuple[slice, ...], NDArray[np.float32]] | None = None
        for _ in range(_TRIES):
            place = choose(likely if likely.any() else white, rng, "plaque")
            window, share = _placed(site, place, shape, turn @ np.diag([side, 1.0, 1.0]))
            fit = float((share * tissue["wm"][window]).sum() / max(float(share.sum()), 1e-6))
            if best is None or fit > best[0]:
                best = fit, window, share
            if fit > _WHITE_SHARE:
                break
        assert best is not None
        _, window, share = best
        inside[window] = np.maximum(inside[window], share)
        around = _wider(window, site.spacing, white.shape)
        apart = ndimage.distance_transform_edt(inside[around] < _EDGE, sampling=site.spacing[::-1]) > _APART_MM
        white[around] &= apart
    return ShapedPlaques(inside, count)


def _wider(window: tuple[slice, ...], spacing: tuple[float, float, float], shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The window with what `_APART_MM` may reach around it; distances in it cost a fraction of those in the volume."""
    extra = [int(np.ceil(_APART_MM / size)) + 1 for size in spacing[::-1]]
    return tuple(
        slice(max(0, part.start - more), min(count, part.stop + more))
        for part, more, count in zip(window, extra, shape, strict=True)
    )


def _near(site: Site, place: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Voxels around a place drawn near the given one."""
    aim = torch.from_numpy((place + rng.normal(0, _WANDER_MM, 3)).astype(np.float32))
    distance = (site.points - aim).norm(dim=-1).numpy()
    return distance < _WANDER_MM


def _placed(
    site: Site, place: tuple[int, int, int], shape: PlaqueShape, turn: NDArray[np.float64]
) -> tuple[tuple[slice, ...], NDArray[np.float32]]:
    """The plaque with its centre at a voxel: a window of the grid and the share of its voxels inside."""
    reach = 1.2 * float(np.linalg.norm(shape.values.shape)) / 2
    window = tuple(
        slice(max(0, n - int(np.ceil(reach / size))), n + int(np.ceil(reach / size)) + 1)
        for n, size in zip(place, site.spacing[::-1], strict=True)
    )
    offset = (site.points[window] - site.points[place]) @ torch.from_numpy(np.linalg.inv(turn).T.astype(np.float32))
    blurred = ndimage.gaussian_filter(shape.values, 0.3 * max(site.spacing))  # the voxel's own size
    origin = tuple(-(n - 1) / 2 for n in shape.values.shape[::-1])
    field = LatticeField(torch.from_numpy(blurred)[None], origin, 1.0)
    return window, field(offset)[..., 0].numpy()
