"""The template a model is registered to: an average of its own training normals."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib.errors import InputError

from .geometry import Canonical, Grid, resample, with_spacing
from .registration import register_affine, shrink

MARGIN_MM = 8.0
"""Air kept around the outline of the first normal when the template's box is cut."""


@dataclass(frozen=True, eq=False)
class Template:
    """Average image on which a model's voxels lie.

    Attributes
    ----------
    image
        float32 (K, J, I) in [0, 1], of the values that half precision has: so it is stored, and what is calibrated
        shall be what scores.
    foreground
        bool (K, J, I): voxels that belong to the patient in at least half of the normals.
    grid
        Its place, RAS mm.  For `grid: frame` models the voxel size is 1 and the place means nothing.
    """

    image: NDArray[np.float32]
    foreground: NDArray[np.bool_]
    grid: Grid

    def __post_init__(self) -> None:
        object.__setattr__(self, "image", self.image.astype(np.float16).astype(np.float32))

    def same_as(self, other: Template) -> bool:
        """Whether the two are equal to the last bit."""
        return (
            self.grid.shape == other.grid.shape
            and np.array_equal(self.grid.ijk_to_ras, other.grid.ijk_to_ras)
            and np.array_equal(self.foreground, other.foreground)
            and np.array_equal(self.image, other.image)
        )

    def to_bytes(self) -> bytes:
        """As an .npz file (image in half precision, no pickles)."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            image=self.image.astype(np.float16),
            foreground=np.packbits(self.foreground),
            ijk_to_ras=self.grid.ijk_to_ras,
        )
        return buffer.getvalue()

    @classmethod
    def from_file(cls, path: Path) -> Template:
        """Read what `to_bytes` wrote, from a file.

        Raises
        ------
        InputError
            If the file is not such a template.
        """
        try:
            return cls.from_bytes(path.read_bytes(), path.name)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path}: not a template file ({error}); install the model again.") from error

    @classmethod
    def from_bytes(cls, content: bytes, name: str) -> Template:
        """The inverse of `to_bytes`; raises OSError, ValueError or KeyError for anything else."""
        with np.load(io.BytesIO(content), allow_pickle=False) as data:
            image = data["image"].astype(np.float32)
            packed, affine = data["foreground"], data["ijk_to_ras"]
        foreground = np.unpackbits(packed, count=image.size).reshape(image.shape).astype(bool)
        return cls(image, foreground, Grid(image.shape, affine, name))


Normal = tuple[NDArray[np.float32], NDArray[np.bool_], Grid]
"""A normal's intensities in [0, 1], its foreground and its grid."""


def build_template(
    normals: Callable[[], Iterable[Normal]],
    spacing: tuple[float, float, float],
    progress: Callable[[int], None] = lambda done: None,
) -> Template:
    """Average affinely aligned normals.

    The first normal is the reference; all others are registered to it, the mean of the transforms is taken out (so that
    the template has the average size and pose rather than the first one's: Guimond et al., CVIU 2000), and the
    images are averaged.  The place stays the first one's: where a scanner puts its origin says nothing of a patient.

    Parameters
    ----------
    normals
        Called twice; yields the same cases in the same order each time.
    spacing
        Voxel size of the template in mm along right, anterior, superior.
    progress
        Called with the number of cases done in the first of the two rounds, which takes nearly all the time.
    """
    reference: Template | None = None
    transforms: list[NDArray[np.float64]] = []
    for done, (image, foreground, grid) in enumerate(normals(), 1):
        if reference is None:
            reference = _reference(image, foreground, grid, spacing)
            transforms.append(np.eye(4))
        else:
            alignment = register_affine(image, foreground, grid, reference.image, reference.foreground, reference.grid)
            transforms.append(alignment.template_to_volume)
        progress(done)
    if reference is None:
        raise InputError("A template needs at least one normal case.")
    centre = reference.grid.to_ras(np.argwhere(reference.foreground).mean(axis=0)[::-1])
    to_reference = np.linalg.inv(np.mean([_without_shift(transform, centre) for transform in transforms], axis=0))
    total = np.zeros(reference.grid.shape, dtype=np.float32)
    share = np.zeros(reference.grid.shape, dtype=np.float32)
    for transform, (image, foreground, grid) in zip(transforms, normals(), strict=True):
        sampled, mask = sample(image, foreground, grid, reference.grid, transform @ to_reference)
        total += sampled
        share += mask
    count = len(transforms)
    total /= np.maximum(share, 1)
    return Template(total, share >= count / 2, reference.grid)


def _without_shift(transform: NDArray[np.float64], centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same size and pose, 4 x 4, but a point (RAS mm) that stays where it is."""
    kept = transform.copy()
    kept[:3, 3] = centre - transform[:3, :3] @ centre
    return kept


def _reference(
    image: NDArray[np.float32], foreground: NDArray[np.bool_], grid: Grid, spacing: tuple[float, float, float]
) -> Template:
    """The first normal, upright in RAS (its own obliquity is taken out) and cut to its outline and a margin."""
    voxels = np.argwhere(foreground)[:, ::-1]
    ras = grid.to_ras(voxels[:: max(1, voxels.shape[0] // 100_000)])
    low, high = ras.min(axis=0) - MARGIN_MM, ras.max(axis=0) + MARGIN_MM
    size = np.ceil((high - low) / spacing).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = np.diag(spacing)
    affine[:3, 3] = low
    target = Grid((int(size[2]), int(size[1]), int(size[0])), affine, grid.name)
    sampled, mask = sample(image, foreground, grid, target, np.eye(4))
    return Template(sampled, mask, target)


def sample(
    image: NDArray[np.float32],
    foreground: NDArray[np.bool_],
    grid: Grid,
    target: Grid,
    target_to_volume: NDArray[np.float64],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Image and foreground on another grid, averaged first where that grid is coarser; 0 outside the foreground."""
    # The target's axes need not run as the image's: compare voxel sizes along R, A, S.
    wanted = np.array(Canonical.of(target).grid(target).spacing)
    canonical = Canonical.of(grid)
    turned = canonical.grid(grid)
    small, small_grid = shrink(canonical.apply(image), turned, (float(wanted[0]), float(wanted[1]), float(wanted[2])))
    share, _ = shrink(canonical.apply(foreground).astype(np.float32), turned, (wanted[0], wanted[1], wanted[2]))
    mask = resample(share, small_grid, target, target_to_volume) >= 0.5
    return np.where(mask, resample(small, small_grid, target, target_to_volume), np.float32(0)), mask


def frame_to_volume(template: Grid, volume: Grid) -> NDArray[np.float64]:
    """4 x 4, template to volume, that stretches one canonical frame onto the other (outer edges meet)."""
    to_unit = np.linalg.inv(_unit_to_ras(template))
    return _unit_to_ras(volume) @ to_unit


def _unit_to_ras(grid: Grid) -> NDArray[np.float64]:
    """From the unit cube to the outer faces of a grid in canonical order."""
    canonical = Canonical.of(grid).grid(grid)
    counts = np.array(canonical.shape[::-1], dtype=np.float64)
    cube = np.eye(4)
    cube[:3, :3] = np.diag(counts)
    cube[:3, 3] = -0.5
    return canonical.ijk_to_ras @ cube


def frame_template(normals: Iterable[Normal], size: tuple[int, int]) -> Template:
    """Average of images (radiographs) whose frames are stretched onto one frame of `size` (rows, columns) pixels."""
    grid = Grid((1, *size), np.eye(4), "template")
    total = np.zeros(grid.shape, dtype=np.float32)
    share = np.zeros(grid.shape, dtype=np.float32)
    count = 0
    for image, foreground, own in normals:
        sampled, mask = sample_frame(image, foreground, own, grid)
        total, share, count = total + sampled, share + mask, count + 1
    if count == 0:
        raise InputError("A template needs at least one normal case.")
    total /= np.maximum(share, 1)
    return Template(total, share >= count / 2, grid)


def sample_frame(
    image: NDArray[np.float32], foreground: NDArray[np.bool_], grid: Grid, target: Grid
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """`sample` for frames: the image's own pixel size is read as a share of its frame."""
    return sample(image, foreground, stretched(grid, target), target, np.eye(4))


def stretched(grid: Grid, target: Grid) -> Grid:
    """The image's grid laid so that its frame covers the frame of `target`."""
    affine = np.linalg.inv(frame_to_volume(target, grid)) @ grid.ijk_to_ras
    return Grid(grid.shape, affine, grid.name)


def fitting_grid(grid: Grid, spacing: tuple[float, float, float] | None) -> Grid:
    """The canonical grid of an image at a voxel size (mm along right, anterior, superior), or at its own."""
    canonical = Canonical.of(grid).grid(grid)
    return canonical if spacing is None else with_spacing(canonical, spacing)
