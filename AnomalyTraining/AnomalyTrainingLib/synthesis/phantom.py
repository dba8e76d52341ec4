"""One phantom: an individual's anatomy, perhaps with a lesion, as one scan shows it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.geometry import Grid
from AnomalyDetectionLib.imaging.volume import Volume

from .acquisition import Acquisition, heterogeneity, rician, shading
from .anatomy import CHANNELS, OUTER_CHANNELS, TISSUES, Anatomy
from .contrast import IndividualContrast, contrast_named
from .deformation import individual_map
from .lesions import Lesion, LesionRequest, Site, outline

VERSION = 1
"""Raised whenever the same settings would yield other voxels."""

FINEST_MM, COARSEST_MM = 0.8, 6.0
_NOISE = (0.012, 0.03)  # standard deviation relative to white matter: signal-to-noise of 30 to 80


@dataclass(frozen=True, eq=False)
class Phantom:
    """A synthesised scan.

    Attributes
    ----------
    volume
        MR image in whole numbers on a slightly oblique grid: skull-stripped, 0 outside the brain, or a whole head with
        noise in the air.
    mask
        bool (K, J, I), the lesion's voxels, or None for a normal.
    """

    volume: Volume
    mask: NDArray[np.bool_] | None


def synthesise(
    anatomy: Anatomy,
    subject: int,
    *,
    contrast: str,
    spacing: tuple[float, float, float],
    seed: int = 0,
    lesion: LesionRequest | None = None,
    stripped: bool = True,
) -> Phantom:
    """Make the scan of one subject.

    The anatomy, pose and lesion of a subject depend on (`seed`, `subject`) only, so two contrasts show the same head.

    Parameters
    ----------
    contrast
        A name in `contrast.CONTRASTS`.
    spacing
        Voxel size in mm along (right, anterior, superior).
    stripped
        Whether only the brain is shown.  Its voxels are those of the whole head, but for what partial volume brings
        in from around it.

    Raises
    ------
    InputError
        If the contrast or kind of lesion is unknown, the voxel size is not between 0.8 and 6 mm, or a whole head is
        asked of an anatomy without one.
    """
    check_spacing(spacing)
    if not stripped and not anatomy.whole:
        raise InputError(f"The anatomy {anatomy.name} is a brain without a head; ask for skull-stripped phantoms.")
    sequence = contrast_named(contrast)
    acquisition = Acquisition.draw(
        spacing, _stream(seed, subject, "acquisition"), anatomy.field_of_view, anatomy.centre
    )
    grid = acquisition.grid
    averaged = anatomy.at_resolution(spacing)
    scanner = voxel_points(grid)
    points = _moved(scanner, np.linalg.inv(acquisition.head_to_scanner))
    corners = points.reshape(-1, 3)
    to_template = individual_map(
        _stream(seed, subject, "anatomy"),
        corners.amin(0).numpy().astype(np.float64),
        corners.amax(0).numpy().astype(np.float64),
        lambda places: averaged.sample(places, ("ventricle",))["ventricle"],
        anatomy.size,
    )
    tissue = averaged.sample(to_template(points), CHANNELS if lesion else (*TISSUES, "texture", "brain"))
    fractions: dict[str, NDArray[np.float32]] = {}
    planned: Lesion | None = None
    if lesion is not None:
        site = Site(points, scanner[..., 0].numpy(), tissue, spacing, skull=anatomy.whole)
        planned = lesion.plan(site, _stream(seed, subject, "lesion"))
        tissue = averaged.sample(to_template(planned.push(points)), (*TISSUES, "texture", "brain"))
        fractions = planned.fractions(points, tissue)
    if not stripped:
        tissue = tissue | averaged.sample(to_template(points), OUTER_CHANNELS)  # no lesion moves the skull
    individual = IndividualContrast.draw(sequence, _stream(seed, subject, "contrast", contrast))
    scan = _stream(seed, subject, "scan", contrast)
    image = individual.render(tissue, fractions)
    image *= heterogeneity(grid.shape, spacing, _stream(seed, subject, "tissue")) * shading(grid.shape, spacing, scan)
    level = float(scan.uniform(*_NOISE)) * individual.gain * individual.tissue["wm"]
    brain = tissue["brain"] > 0.5
    image = np.round(np.maximum(rician(image, level, scan), 1)).astype(np.float32)
    if stripped:
        image = np.where(brain, image, 0)
    mask = None if planned is None else outline(fractions, brain, planned.parts)
    return Phantom(Volume(image, grid.ijk_to_ras, modality="MR", name=f"sub-{subject:03d}"), mask)


def check_spacing(spacing: tuple[float, float, float]) -> None:
    """Refuse voxel sizes (mm) that the template is too coarse or a brain too small for.

    Raises
    ------
    InputError
        If one is not between 0.8 and 6 mm.
    """
    if not all(FINEST_MM <= size <= COARSEST_MM for size in spacing):
        sizes = " x ".join(f"{size:g}" for size in spacing)
        raise InputError(f"Phantoms have voxels of {FINEST_MM} to {COARSEST_MM} mm, not {sizes} mm.")


def voxel_points(grid: Grid) -> Tensor:
    """RAS mm of every voxel centre, float32 (K, J, I, 3)."""
    k, j, i = (torch.arange(n, dtype=torch.float32) for n in grid.shape)
    index = torch.stack(torch.meshgrid(k, j, i, indexing="ij"), dim=-1).flip(-1)
    return _moved(index, grid.ijk_to_ras)


def _moved(points: Tensor, affine: NDArray) -> Tensor:
    matrix = torch.from_numpy(np.asarray(affine, dtype=np.float32))
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def _stream(seed: int, subject: int, purpose: str, variant: str = "") -> np.random.Generator:
    """Independent random numbers for one purpose, so that changing one part leaves the others as they were."""
    return np.random.default_rng(np.random.SeedSequence([seed, subject, zlib.crc32(f"{purpose}/{variant}".encode())]))
