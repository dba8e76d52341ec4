"""Voxel grids in patient space: canonical order, resampling, and the way back.

Arrays are (K, J, I); points and affines are RAS millimetres (Slicer's convention).  DICOM, NIfTI-less formats and
SimpleITK speak LPS; `ras_lps` is the only place where the two meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib.errors import InputError

if TYPE_CHECKING:
    import SimpleITK as sitk

SHEAR_TOLERANCE = 1e-3
"""Largest |cosine| between two voxel axes that counts as a right angle (0.06 degrees; float32 headers reach 1e-6)."""

NEXT_TO_NOTHING = 1e-12
"""Direction cosines below it are 0: over a metre of voxels they move nothing by a millionth of a millimetre."""

_FLIP_XY = np.diag([-1.0, -1.0, 1.0, 1.0])


def ras_lps(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn a voxel-to-patient affine from RAS to LPS or back (the operation is its own inverse)."""
    return _FLIP_XY @ affine


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels of an array lie.

    Attributes
    ----------
    shape
        (K, J, I).
    ijk_to_ras
        4 x 4 float64; its columns may point any way (oblique, flipped, left-handed) but must be at right angles.
    name
        For error messages.

    Raises
    ------
    InputError
        If the affine is not finite, singular or sheared.
    """

    shape: tuple[int, int, int]
    ijk_to_ras: NDArray[np.float64]
    name: str = "image"

    def __post_init__(self) -> None:
        affine = np.array(self.ijk_to_ras, dtype=np.float64)
        affine.flags.writeable = False
        object.__setattr__(self, "ijk_to_ras", affine)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise InputError(f"{self.name}: the geometry in the header is not a finite 4 x 4 matrix.")
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        if lengths.min() <= 1e-9:
            raise InputError(f"{self.name}: the header gives a voxel size of zero; correct the spacing and try again.")
        cosines = (affine[:3, :3] / lengths).T @ (affine[:3, :3] / lengths)
        shear = float(np.abs(cosines - np.eye(3)).max())
        if shear > SHEAR_TOLERANCE:
            angle = 90 - np.degrees(np.arccos(min(1.0, shear)))
            raise InputError(
                f"{self.name}: the voxel axes are sheared by {angle:.2f} degrees (a tilted gantry?); resample the "
                "image to a rectangular grid first (in Slicer: Transforms or Resample Scalar/Vector/DWI Volume)."
            )

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along (i, j, k)."""
        x, y, z = np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def directions(self) -> NDArray[np.float64]:
        """3 x 3, unit vectors of i, j, k in RAS as columns."""
        return self.ijk_to_ras[:3, :3] / np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0)

    @property
    def voxel_mm3(self) -> float:
        """Volume of one voxel in cubic millimetres."""
        return float(np.prod(self.spacing))

    def to_ras(self, ijk: NDArray) -> NDArray[np.float64]:
        """Patient millimetres of voxel indices; (..., 3) to (..., 3)."""
        return np.asarray(ijk, dtype=np.float64) @ self.ijk_to_ras[:3, :3].T + self.ijk_to_ras[:3, 3]

    def to_ijk(self, ras: NDArray) -> NDArray[np.float64]:
        """Fractional voxel indices of points in patient millimetres; (..., 3) to (..., 3)."""
        inverse = np.linalg.inv(self.ijk_to_ras)
        return np.asarray(ras, dtype=np.float64) @ inverse[:3, :3].T + inverse[:3, 3]

    def same_place(self, other: Grid, tolerance_mm: float = 1e-3) -> bool:
        """True if both grids have the same shape and their corners agree to `tolerance_mm`."""
        if self.shape != other.shape:
            return False
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape[::-1]])).reshape(3, -1).T
        return bool(np.abs(self.to_ras(corners) - other.to_ras(corners)).max() <= tolerance_mm)


@dataclass(frozen=True)
class Canonical:
    """The lossless turn of an array so that its axes run as nearly right, anterior, superior as its obliquity allows.

    `axes[n]` is the array axis that becomes axis n (K, J, I order), `flips[n]` whether it is reversed after that.
    Nothing is interpolated: `undo(apply(a))` is `a`.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    @classmethod
    def of(cls, grid: Grid) -> Canonical:
        """The turn that brings `grid` nearest to right, anterior, superior."""
        directions = grid.directions  # columns i, j, k; rows R, A, S
        order = max(permutations(range(3)), key=lambda p: sum(abs(directions[row, p[row]]) for row in range(3)))
        # order[row] is the ijk axis that runs along R, A, S; array axes count the other way round (k, j, i).
        axes = tuple(2 - order[row] for row in (2, 1, 0))
        flips = tuple(bool(directions[row, order[row]] < 0) for row in (2, 1, 0))
        return cls(axes, flips)  # type: ignore[arg-type]

    def apply(self, array: NDArray) -> NDArray:
        """View of `array` in canonical order."""
        turned = np.transpose(array, self.axes)
        return turned[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]

    def undo(self, array: NDArray) -> NDArray:
        """View of a canonical array in the original order."""
        unflipped = array[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]
        return np.transpose(unflipped, np.argsort(self.axes))

    def grid(self, grid: Grid) -> Grid:
        """The grid of `apply(array)` for an array on `grid`; its determinant is always positive."""
        columns = [2 - axis for axis in self.axes][::-1]  # ijk columns in the order R, A, S
        flips = self.flips[::-1]
        shape = tuple(grid.shape[axis] for axis in self.axes)
        affine = np.eye(4)
        origin = grid.ijk_to_ras[:3, 3].copy()
        for new, (old, flip) in enumerate(zip(columns, flips, strict=True)):
            column = grid.ijk_to_ras[:3, old]
            affine[:3, new] = -column if flip else column
            if flip:
                origin += column * (grid.shape[2 - old] - 1)
        affine[:3, 3] = origin
        return Grid(shape, affine, grid.name)  # type: ignore[arg-type]


def with_spacing(grid: Grid, spacing: tuple[float, float, float]) -> Grid:
    """A grid over the same box with another voxel size (mm along i, j, k); outer faces coincide to half a voxel."""
    old = np.array(grid.spacing)
    counts = np.array(grid.shape[::-1])
    new = np.array([s if n > 1 else o for s, o, n in zip(spacing, old, counts, strict=True)])
    extent = old * counts
    size = np.maximum(1, np.round(extent / new)).astype(int)
    directions = grid.directions
    centre = grid.to_ras((counts - 1) / 2)
    affine = np.eye(4)
    affine[:3, :3] = directions * new
    affine[:3, 3] = centre - affine[:3, :3] @ ((size - 1) / 2)
    return Grid((int(size[2]), int(size[1]), int(size[0])), affine, grid.name)


def to_sitk(array: NDArray, grid: Grid) -> sitk.Image:
    """SimpleITK image (LPS) of an array on a grid; copies the voxels.  Boolean arrays become uint8."""
    import SimpleITK as sitk  # here and below: it takes longest of all that opening Slicer's panel would import

    image = sitk.GetImageFromArray(array.astype(np.uint8) if array.dtype == bool else np.ascontiguousarray(array))
    lps = ras_lps(grid.ijk_to_ras)
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetSpacing(grid.spacing)
    image.SetDirection(_direction(grid))
    return image


def _direction(grid: Grid) -> list[float]:
    """Direction cosines (LPS, row by row) as ITK takes them.

    What is next to nothing becomes 0: with cosines such as 1e-308 ITK's decomposition of the matrix goes wrong, and
    resampling finds every voxel outside the image.
    """
    cosines = ras_lps(grid.ijk_to_ras)[:3, :3] / np.array(grid.spacing)
    return np.where(np.abs(cosines) < NEXT_TO_NOTHING, 0.0, cosines).ravel().tolist()


def grid_of(image: sitk.Image, name: str = "image") -> Grid:
    """The grid of a three-dimensional SimpleITK image."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return Grid(image.GetSize()[::-1], ras_lps(affine), name)


def resample(
    array: NDArray,
    source: Grid,
    target: Grid,
    target_to_source: NDArray[np.float64] | None = None,
    *,
    nearest: bool = False,
    outside: float = 0.0,
) -> NDArray:
    """Values of an array at the voxel centres of another grid.

    Parameters
    ----------
    array
        (K, J, I) on `source`; float32 or uint8 (bool is returned as bool).
    target_to_source
        4 x 4, RAS millimetres of the target's patient space to those of the source's (an affine registration), or None
        where both are the same patient space.
    nearest
        Nearest neighbour rather than linear interpolation; always so for bool.
    outside
        Value of target voxels that fall outside the source.

    Returns
    -------
    array of `target.shape`, of the input's type.
    """
    if target_to_source is None and source.same_place(target, 1e-6):
        return array.copy()
    import SimpleITK as sitk

    is_mask = array.dtype == bool
    transform = sitk.AffineTransform(3)
    if target_to_source is not None:
        lps = _FLIP_XY @ target_to_source @ _FLIP_XY
        transform.SetMatrix(lps[:3, :3].ravel().tolist())
        transform.SetTranslation(lps[:3, 3].tolist())
    reference_lps = ras_lps(target.ijk_to_ras)
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize([int(n) for n in target.shape[::-1]])
    resampler.SetOutputOrigin(reference_lps[:3, 3].tolist())
    resampler.SetOutputSpacing(target.spacing)
    resampler.SetOutputDirection(_direction(target))
    resampler.SetTransform(transform)
    resampler.SetInterpolator(sitk.sitkNearestNeighbor if nearest or is_mask else sitk.sitkLinear)
    resampler.SetDefaultPixelValue(float(outside))
    result = sitk.GetArrayFromImage(resampler.Execute(to_sitk(array, source)))
    return result.astype(bool) if is_mask else result
