"""Fixtures: a real brain in several geometries, scored by hand."""

from __future__ import annotations

from collections.abc import Callable

import nibabel as nib
import numpy as np
import pytest
from interop.cases import GEOMETRIES, LESION_RAS, Scored, scored

from AnomalyDetectionLib.imaging.geometry import Grid, resample
from AnomalyDetectionLib.imaging.volume import Volume


@pytest.fixture(scope="session")
def brain(icbm152) -> Volume:
    """ICBM152 T1 at 2 mm (for speed), axes right, anterior, superior."""
    image = nib.load(icbm152["t1"])
    array = np.asarray(image.dataobj).squeeze().T.astype(np.float32)[::2, ::2, ::2]
    return Volume(array, image.affine @ np.diag([2, 2, 2, 1.0]), "MR", name="icbm152")


@pytest.fixture(scope="session")
def in_geometry(brain) -> Callable[[str], Volume]:
    """The brain resampled to a grid of 2.5 mm with other axes."""

    def make(name: str) -> Volume:
        directions = GEOMETRIES[name]
        centre = brain.grid.to_ras((np.array(brain.shape[::-1]) - 1) / 2)
        affine = np.eye(4)
        affine[:3, :3] = directions * 2.5
        affine[:3, 3] = centre - affine[:3, :3] @ np.full(3, 47.5)
        grid = Grid((96, 96, 96), affine)
        return Volume(resample(brain.array, brain.grid, grid), affine, "MR", name=name)

    return make


@pytest.fixture(scope="session")
def left_lesion(brain) -> Scored:
    return scored(brain, [(LESION_RAS, 9.0, 5.0)])


@pytest.fixture(scope="session")
def normal(brain) -> Scored:
    return scored(brain, [], case="normal")
