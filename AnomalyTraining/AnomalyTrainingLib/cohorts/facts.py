"""What is known of an image and its mask once their files were read: small enough to be kept for a whole cohort."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib.imaging.geometry import Grid
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.models.seen import pixel_hash

from .manifest import Case, mask_on

MOST_LABELS = 64
"""An image with more distinct values than that is no mask."""


@dataclass(frozen=True)
class ImageFacts:
    """What is known of one channel of a case.

    Attributes
    ----------
    pixels
        Hash of the voxels in canonical axis order, so that a copy that is stored flipped is the same image.
    shape
        (K, J, I).
    ijk_to_ras
        Rows of the 4 x 4 matrix.
    spacing_known
        False where the file has none, as PNG.
    """

    pixels: str
    shape: tuple[int, int, int]
    ijk_to_ras: tuple[tuple[float, ...], ...]
    modality: str
    spacing_known: bool

    @classmethod
    def of(cls, volume: Volume) -> ImageFacts:
        """The facts of a volume."""
        rows = tuple(tuple(float(value) for value in row) for row in volume.ijk_to_ras)
        return cls(pixel_hash(volume), volume.shape, rows, volume.modality, volume.spacing_known)

    @property
    def grid(self) -> Grid:
        """Where its voxels lie."""
        return Grid(self.shape, np.array(self.ijk_to_ras))

    @property
    def is_single(self) -> bool:
        """True for an image without depth, along whichever axis."""
        return min(self.shape) == 1


@dataclass(frozen=True)
class MaskFacts:
    """What is known of the mask of a case.

    Attributes
    ----------
    labels
        Its values but 0; None where it is no mask: values below 0 or between whole numbers, or too many of them.
    low, high
        Its least and greatest value.
    painted
        Voxels above 0 in the whole file.
    on_image
        Of the image's voxels, those that are painted.
    same_grid
        False where it had to be brought over.
    """

    labels: tuple[int, ...] | None
    low: float
    high: float
    painted: int
    on_image: int
    same_grid: bool


@dataclass(frozen=True)
class Contents:
    """What the files of one case hold.

    Attributes
    ----------
    images
        By channel; a channel that cannot be used is absent and stands in `problems`.
    problems
        One phrase each.
    """

    images: Mapping[str, ImageFacts] = field(default_factory=dict)
    mask: MaskFacts | None = None
    problems: tuple[str, ...] = ()

    def is_whole(self, case: Case) -> bool:
        """Whether all files of the case could be read and judged."""
        return (
            not self.problems and self.images.keys() == case.images.keys() and (not case.mask or self.mask is not None)
        )


def mask_facts(mask: Volume, image: Volume, k: int | None) -> MaskFacts:
    """The facts of a mask on its image, which may be slice `k` of the volume that was painted.

    Raises
    ------
    InputError
        If nothing says where on the image it lies (`mask_on`).
    """
    low, high = float(mask.array.min()), float(mask.array.max())
    on_image = mask_on(mask, image, k)
    return MaskFacts(
        labels=_labels(mask.array),
        low=low,
        high=high,
        painted=int(np.count_nonzero(mask.array > 0)),
        on_image=int(np.count_nonzero(on_image)),
        same_grid=mask.shape == image.shape and (not mask.orientation_known or mask.grid.same_place(image.grid)),
    )


def _labels(array: NDArray[np.float32]) -> tuple[int, ...] | None:
    """The values but 0 of a map of labels, or None if it is none."""
    values = np.unique(array)
    if values.size > MOST_LABELS or not np.isfinite(values).all() or (values < 0).any() or (values % 1).any():
        return None
    return tuple(int(value) for value in values if value)
