"""`Volume`: voxels together with where they lie in the patient.  No function of the project hands a bare array on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib.errors import InputError

from .geometry import Grid

RADIOGRAPHY = ("CR", "DX", "MG", "XR")
"""Modalities that are projections: one image, no depth."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A scalar image and its geometry.

    Attributes
    ----------
    array
        float32, C-contiguous, shape (K, J, I) as in Slicer and SimpleITK; a projection image has K = 1.
        In the unit `units` says, every DICOM rescale already applied.
    ijk_to_ras
        4 x 4 float64, voxel index (i, j, k) to patient millimetres (right, anterior, superior).
    modality
        DICOM code (MR, CT, CR, DX, MG, US, PT, NM), or "" where the file does not say.
    units
        "HU", "SUVbw", "BQML", ... or "" for arbitrary units.
    spacing_known, orientation_known
        False where the file carries none (PNG, many CR): sizes are then reported in pixels, sides not at all.
    name
        A short name for messages and folders; never the patient's name.
    source
        The files it was read from.
    notes
        Warnings a reader must pass on to the user (jittering slices, a lossy codec, ...).
    region
        Boolean, shape of `array`: where there is image at all (the calibrated region of an ultrasound frame),
        or None for everywhere.
    covariates
        What is known of the patient beside the image (age, sex, view, ...), as text; models with clinical columns are
        given it.  Nothing that tells who the patient is.
    """

    array: NDArray[np.float32]
    ijk_to_ras: NDArray[np.float64]
    modality: str = ""
    units: str = ""
    spacing_known: bool = True
    orientation_known: bool = True
    name: str = "image"
    source: Sequence[str] = ()
    notes: Sequence[str] = ()
    region: NDArray[np.bool_] | None = None
    covariates: Mapping[str, str] = field(default_factory=dict)
    grid: Grid = field(init=False, repr=False)

    def __post_init__(self) -> None:
        array = np.ascontiguousarray(self.array, dtype=np.float32)
        if array.ndim != 3:
            raise InputError(f"{self.name}: a volume has three axes, this image has shape {array.shape}.")
        if array.size == 0:
            raise InputError(f"{self.name}: the image has no voxels (shape {array.shape}).")
        grid = Grid(array.shape, np.asarray(self.ijk_to_ras, dtype=np.float64), self.name)
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "ijk_to_ras", grid.ijk_to_ras)
        object.__setattr__(self, "grid", grid)
        object.__setattr__(self, "source", tuple(str(path) for path in self.source))
        object.__setattr__(self, "notes", tuple(self.notes))
        object.__setattr__(self, "covariates", dict(self.covariates))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels (K, J, I)."""
        return self.grid.shape

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along (i, j, k)."""
        return self.grid.spacing

    @property
    def is_slice(self) -> bool:
        """True for a single image without depth (radiograph, one slice, one frame)."""
        return self.shape[0] == 1

    def with_array(self, array: NDArray, **changes: object) -> Volume:
        """The same place with other voxels (same shape)."""
        return replace(self, array=array, **changes)  # type: ignore[arg-type]

    def slice(self, k: int) -> Volume:
        """One slice, in its place.

        Raises
        ------
        InputError
            If there is no such slice.
        """
        if not 0 <= k < self.shape[0]:
            raise InputError(f"{self.name}: slice {k} lies outside the volume, which has {self.shape[0]} slices.")
        affine = self.ijk_to_ras.copy()
        affine[:3, 3] += k * affine[:3, 2]
        region = None if self.region is None else self.region[k : k + 1]
        return replace(self, array=self.array[k : k + 1], ijk_to_ras=affine, region=region)

    def check_values(self) -> None:
        """Refuse what no detector can judge.

        Raises
        ------
        InputError
            If a voxel is NaN or infinite, or all voxels are equal.
        """
        low, high = float(self.array.min()), float(self.array.max())
        if not np.isfinite(low) or not np.isfinite(high):
            count = int(self.array.size - np.count_nonzero(np.isfinite(self.array)))
            raise InputError(
                f"{self.name}: {count} voxels are NaN or infinite; replace them (for instance by 0) and try again."
            )
        if low == high:
            raise InputError(f"{self.name}: every voxel has the value {low:g}; there is nothing to score.")

    def sha256(self) -> str:
        """Hash of voxels and geometry: the identity of the image, and the seed of any noise used in scoring."""
        digest = hashlib.sha256(repr(self.shape).encode())
        digest.update(np.round(self.ijk_to_ras, 6).tobytes())
        digest.update(self.array.data)
        return digest.hexdigest()
