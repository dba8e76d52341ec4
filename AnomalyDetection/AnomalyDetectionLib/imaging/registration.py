"""Affine registration of an image to a template."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from AnomalyDetectionLib.errors import InputError, is_out_of_memory

from .geometry import Grid, ras_lps, resample, to_sitk, with_spacing

COARSE_MM = 4.0
"""Registration works at this voxel size: below it the pose of a head is no better known and the time is."""

PAD_VOXELS = 15
"""Air added around the coarse image on every side."""

MOST_ITERATIONS = 100
"""Of the optimiser, a level."""

SURE_OVERLAP = 0.93
"""Dice of the foregrounds above which the first pose is not doubted."""

CALLBACK_FAILED = "executing the Python Callable"
"""What SimpleITK's RuntimeError says where an exception came out of a callback."""

_FLIP_XY = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Alignment:
    """How a template lies in a volume.

    Attributes
    ----------
    template_to_volume
        4 x 4, RAS mm of the template to RAS mm of the volume.
    overlap
        Dice of the two foregrounds after alignment: 1 = the same outline.
    """

    template_to_volume: NDArray[np.float64]
    overlap: float


def shrink(
    array: NDArray[np.float32], grid: Grid, spacing: tuple[float, float, float]
) -> tuple[NDArray[np.float32], Grid]:
    """Average whole voxels together until the voxel size is just below `spacing` (mm along i, j, k).

    Linear interpolation onto a grid twice as coarse would skip every other voxel and keep its noise; averaging first
    does not alias.
    """
    factors = [max(1, int(want / have + 1e-3)) for want, have in zip(spacing, grid.spacing, strict=True)]
    factors = [min(factor, n) for factor, n in zip(factors, grid.shape[::-1], strict=True)]
    if max(factors) == 1:
        return array, grid
    shape = [n // f for n, f in zip(grid.shape[::-1], factors, strict=True)]  # i, j, k; a last partial block is dropped
    trimmed = array[: shape[2] * factors[2], : shape[1] * factors[1], : shape[0] * factors[0]]
    blocks = trimmed.reshape(shape[2], factors[2], shape[1], factors[1], shape[0], factors[0])
    averaged = blocks.mean(axis=(1, 3, 5), dtype=np.float32)
    affine = grid.ijk_to_ras.copy()
    affine[:3, :3] *= factors
    affine[:3, 3] = grid.to_ras((np.array(factors) - 1) / 2)
    return averaged, Grid((shape[2], shape[1], shape[0]), affine, grid.name)


def register_affine(
    image: NDArray[np.float32],
    foreground: NDArray[np.bool_],
    grid: Grid,
    template: NDArray[np.float32],
    template_foreground: NDArray[np.bool_],
    template_grid: Grid,
    progress: Callable[[float], None] = lambda share: None,
) -> Alignment:
    """Find the affine transform that lays the template onto the image.

    Foregrounds are brought together by their centroids; then rigid and full affine stages maximise the mutual
    information (Mattes et al., IEEE TMI 2003; it needs no common contrast) over all voxels of the template at 8 and
    4 mm.  Where the outlines then disagree, nodded starting poses are tried as well and the best is kept.  No random
    sampling: the same input gives the same transform.

    Parameters
    ----------
    image, template
        float32 (K, J, I) in [0, 1], 0 outside the foreground.
    progress
        Called after every iteration with the share that is done (0...1, rising); what it raises ends the registration.

    Raises
    ------
    InputError
        If the two do not come to lie on each other.
    """
    fixed, fixed_grid, fixed_mask = _coarse(template, template_foreground, template_grid)
    moving, moving_grid, moving_mask = _coarse(image, foreground, grid)
    stage = _Stage(fixed, fixed_grid, fixed_mask, moving, moving_grid)
    start = _centroid(fixed_mask, fixed_grid), _centroid(moving_mask, moving_grid)

    def attempt(nod_degrees: float, begin: float, end: float) -> tuple[Alignment, float]:
        watch = _Watch(lambda share: progress(begin + (end - begin) * share))
        transform, metric = stage.run(*start, nod_degrees, watch)
        matrix = _ras_matrix(transform)
        carried = resample(moving_mask, moving_grid, fixed_grid, matrix)
        overlap = 2 * float((carried & fixed_mask).sum()) / max(1.0, float(carried.sum() + fixed_mask.sum()))
        return Alignment(matrix, overlap), metric

    try:
        attempts = [attempt(0.0, 0.0, 0.7)]
        if attempts[0][0].overlap < SURE_OVERLAP:
            attempts += [attempt(-30.0, 0.7, 0.85), attempt(30.0, 0.85, 1.0)]
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise InputError(
            f"{grid.name}: the image could not be aligned with the model's template; is it the same part of the body, "
            "and wholly in view?"
        ) from error
    return min(attempts, key=lambda pair: pair[1])[0]


def _coarse(
    array: NDArray[np.float32], mask: NDArray[np.bool_], grid: Grid
) -> tuple[NDArray[np.float32], Grid, NDArray[np.bool_]]:
    spacing = (COARSE_MM,) * 3
    small, small_grid = shrink(array, grid, spacing)
    target = with_spacing(grid, spacing)
    share, _ = shrink(mask.astype(np.float32), grid, spacing)
    return resample(small, small_grid, target), target, resample(share, small_grid, target) >= 0.5


def _centroid(mask: NDArray[np.bool_], grid: Grid) -> NDArray[np.float64]:
    """LPS millimetres of the centroid of a mask."""
    kji = np.argwhere(mask)
    if kji.size == 0:
        raise InputError(
            f"{grid.name}: the foreground vanishes at {COARSE_MM:g} mm; the image is too small to be aligned."
        )
    return grid.to_ras(kji.mean(axis=0)[::-1]) * (-1, -1, 1)


class _Watch:
    """Hands the progress of an optimiser on, and stops it where the listener raises.

    An exception must not leave a callback of SimpleITK's (it would come out as a RuntimeError without its type): it is
    kept and raised once the optimiser has returned.
    """

    def __init__(self, progress: Callable[[float], None]) -> None:
        self._progress = progress
        self._raised: BaseException | None = None

    def execute(
        self, method: sitk.ImageRegistrationMethod, fixed: sitk.Image, moving: sitk.Image, shares: list[float]
    ) -> None:
        """Run the optimiser; `shares` are those of the whole at the start of each level and at the end."""

        def report() -> None:
            level = min(method.GetCurrentLevel(), len(shares) - 2)
            # A level mostly ends after 20 to 50 iterations: a share of the most there may be would say too little.
            part = 1 - 0.95 ** (method.GetOptimizerIteration() + 1)
            try:
                self._progress(shares[level] + (shares[level + 1] - shares[level]) * part)
            except BaseException as error:
                self._raised = error
                method.StopRegistration()

        method.AddCommand(sitk.sitkIterationEvent, report)
        try:
            method.Execute(fixed, moving)
        except RuntimeError as error:
            # What a signal raises (Ctrl-C) comes at the first step of the callback, before its `try`.  SimpleITK prints
            # it, which leaves it in sys.last_value, and says only that the callback failed.
            raised = getattr(sys, "last_value", None)
            if CALLBACK_FAILED in str(error) and isinstance(raised, BaseException):
                raise raised from None
            raise
        if self._raised is not None:
            raise self._raised


class _Stage:
    """The images of one registration, and its two stages."""

    def __init__(
        self,
        fixed: NDArray[np.float32],
        fixed_grid: Grid,
        fixed_mask: NDArray[np.bool_],
        moving: NDArray[np.float32],
        moving_grid: Grid,
    ) -> None:
        self.fixed = to_sitk(fixed, fixed_grid)
        self.region = sitk.BinaryDilate(to_sitk(fixed_mask, fixed_grid), [2, 2, 2])
        # Air around the image: without it, points that leave the field of view drop out of the metric, which then
        # prefers a small overlap (4 of 6 simulated poses ran 50 mm away; none with it).
        self.moving = sitk.ConstantPad(to_sitk(moving, moving_grid), [PAD_VOXELS] * 3, [PAD_VOXELS] * 3, 0.0)

    def run(
        self, fixed_centre: NDArray[np.float64], moving_centre: NDArray[np.float64], nod_degrees: float, watch: _Watch
    ) -> tuple[sitk.AffineTransform, float]:
        """Transform (LPS, template to image) and its final metric (lower is better) from one starting pose."""
        rigid = sitk.Euler3DTransform()
        rigid.SetCenter(fixed_centre.tolist())
        rigid.SetRotation(float(np.radians(nod_degrees)), 0.0, 0.0)
        rigid.SetTranslation((moving_centre - fixed_centre).tolist())
        self._optimise(rigid, watch, shrink_factors=[2], smoothing_mm=[4.0], shares=[0.0, 0.1])
        affine = sitk.AffineTransform(3)
        affine.SetCenter(rigid.GetCenter())
        affine.SetMatrix(rigid.GetMatrix())
        affine.SetTranslation(rigid.GetTranslation())
        metric = self._optimise(affine, watch, shrink_factors=[2, 1], smoothing_mm=[4.0, 2.0], shares=[0.1, 0.2, 1.0])
        return affine, metric

    def _optimise(
        self,
        transform: sitk.Transform,
        watch: _Watch,
        *,
        shrink_factors: list[int],
        smoothing_mm: list[float],
        shares: list[float],
    ) -> float:
        method = sitk.ImageRegistrationMethod()
        # With several work units the metric's sum, and so the transform, differs from run to run in its last digits.
        method.SetNumberOfWorkUnits(1)
        method.SetMetricAsMattesMutualInformation(32)
        method.SetMetricSamplingStrategy(method.NONE)
        method.SetMetricFixedMask(self.region)
        method.SetInterpolator(sitk.sitkLinear)
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=0.5, minStep=1e-3, numberOfIterations=MOST_ITERATIONS, gradientMagnitudeTolerance=1e-8
        )
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetShrinkFactorsPerLevel(shrink_factors)
        method.SetSmoothingSigmasPerLevel(smoothing_mm)
        method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
        method.SetInitialTransform(transform, inPlace=True)
        watch.execute(method, self.fixed, self.moving, shares)
        return float(method.GetMetricValue())


def _ras_matrix(transform: sitk.AffineTransform) -> NDArray[np.float64]:
    """4 x 4 RAS matrix of an affine transform given in LPS."""
    matrix = np.eye(4)
    linear = np.array(transform.GetMatrix()).reshape(3, 3)
    centre = np.array(transform.GetCenter())
    matrix[:3, :3] = linear
    matrix[:3, 3] = np.array(transform.GetTranslation()) + centre - linear @ centre
    return ras_lps(matrix) @ _FLIP_XY
