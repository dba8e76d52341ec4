"""Voxel grids keep every voxel where it lies in the patient."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.geometry import Canonical, Grid, grid_of, resample, to_sitk, with_spacing
from AnomalyDetectionLib.imaging.volume import Volume


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    """Any permitted geometry: rotated any way, flipped, left-handed, anisotropic, far from the origin."""
    quaternion = np.array([draw(st.floats(-1, 1)) for _ in range(4)])
    norm = np.linalg.norm(quaternion)
    w, x, y, z = quaternion / norm if norm > 1e-3 else (1.0, 0.0, 0.0, 0.0)
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    signs = [draw(st.sampled_from([-1.0, 1.0])) for _ in range(3)]
    spacing = [draw(st.floats(0.2, 8.0)) for _ in range(3)]
    affine = np.eye(4)
    affine[:3, :3] = rotation * np.array(signs) * np.array(spacing)
    affine[:3, 3] = [draw(st.floats(-500, 500)) for _ in range(3)]
    return affine


shapes = array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7)


@given(affine=affines(), shape=shapes)
def test_any_permitted_affine_goes_to_canonical_order_and_back(affine: np.ndarray, shape: tuple) -> None:
    grid = Grid(shape, affine)
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    canonical = Canonical.of(grid)
    assert np.array_equal(canonical.undo(canonical.apply(array)), array)


@given(affine=affines(), shape=shapes)
def test_every_voxel_keeps_its_place_in_the_patient_in_canonical_order(affine: np.ndarray, shape: tuple) -> None:
    grid = Grid(shape, affine)
    canonical = Canonical.of(grid)
    turned, turned_grid = canonical.apply(np.arange(np.prod(shape)).reshape(shape)), canonical.grid(grid)
    for value in (0, int(np.prod(shape)) // 2, int(np.prod(shape)) - 1):
        old = grid.to_ras(np.array(np.unravel_index(value, shape))[::-1])
        new = turned_grid.to_ras(np.argwhere(turned == value)[0][::-1])
        assert np.abs(old - new).max() < 1e-6


@given(affine=affines(), shape=shapes)
def test_canonical_axes_run_right_anterior_superior_and_are_right_handed(affine: np.ndarray, shape: tuple) -> None:
    grid = Grid(shape, affine)
    directions = Canonical.of(grid).grid(grid).directions
    assert np.linalg.det(directions) > 0
    # No other order of the axes (the determinant fixes the signs) would run nearer to right, anterior, superior.
    assert np.trace(directions) >= max(
        np.trace(np.roll(directions, 1, axis=1)), np.trace(np.roll(directions, 2, axis=1))
    )


@given(affine=affines(), shape=shapes)
def test_simpleitk_is_told_the_same_place(affine: np.ndarray, shape: tuple) -> None:
    grid = Grid(shape, affine)
    assert grid_of(to_sitk(np.zeros(shape, np.float32), grid)).same_place(grid, 1e-4)


@settings(max_examples=30)
@given(affine=affines())
def test_a_smooth_image_survives_the_way_to_a_canonical_grid_and_back(affine: np.ndarray) -> None:
    shape = (12, 14, 16)
    k, j, i = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    array = (1 + 0.3 * k + 0.2 * j * i).astype(np.float32)
    grid = Grid(shape, affine)
    canonical = Canonical.of(grid).grid(grid)
    there = resample(array, grid, canonical)
    back = resample(there, canonical, grid)
    assert np.abs(back - array).max() < 1e-4


def test_an_affine_with_entries_next_to_nothing_is_resampled_as_if_they_were_0() -> None:
    tiny = -2.22507386e-308
    affine = np.eye(4)
    affine[:3, :3] = [[1.0, tiny, tiny], [tiny, -2.22e-16, -1.0], [tiny, -1.0, -2.22e-16]]
    grid = Grid((6, 7, 8), affine)
    array = np.arange(6 * 7 * 8, dtype=np.float32).reshape(grid.shape)
    canonical = Canonical.of(grid).grid(grid)
    assert np.allclose(resample(resample(array, grid, canonical), canonical, grid), array, atol=1e-3)


def test_a_voxel_on_the_patients_left_has_negative_r_in_every_geometry() -> None:
    for signs in ([1, 1, 1], [-1, 1, 1], [-1, -1, 1], [1, 1, -1]):
        affine = np.diag([*(np.array(signs) * 2.0), 1.0])
        affine[:3, 3] = -np.array(signs) * 2.0 * 9.5
        grid = Grid((20, 20, 20), affine)
        array = np.zeros(grid.shape)
        i, j, k = np.round(grid.to_ijk(np.array([-11.0, 3.0, 5.0]))).astype(int)
        array[k, j, i] = 1
        canonical = Canonical.of(grid)
        found = np.argwhere(canonical.apply(array))[0]
        assert found[2] < 10, "left comes first along the canonical i axis"
        assert canonical.grid(grid).to_ras(found[::-1])[0] == pytest.approx(-11.0)


def test_a_sheared_geometry_is_refused_with_the_angle() -> None:
    affine = np.eye(4)
    affine[1, 2] = np.tan(np.radians(12))
    with pytest.raises(InputError, match=r"sheared by 12\.0\d? degrees.*resample"):
        Grid((3, 3, 3), affine, "tilted.nii.gz")


@pytest.mark.parametrize("bad", [np.diag([1, 1, 0, 1.0]), np.full((4, 4), np.nan), np.eye(3)])
def test_an_unusable_affine_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(InputError, match="header"):
        Grid((3, 3, 3), bad)


def test_a_coarser_grid_covers_the_same_box() -> None:
    grid = Grid((100, 120, 80), np.diag([1.0, 1.0, 1.5, 1.0]))
    coarse = with_spacing(grid, (2.0, 2.0, 3.0))
    assert coarse.shape == (50, 60, 40)
    assert np.allclose(coarse.to_ras(np.array([-0.5, -0.5, -0.5])), grid.to_ras(np.array([-0.5, -0.5, -0.5])))


def test_a_volume_is_never_anything_but_three_axes() -> None:
    with pytest.raises(InputError, match="three axes"):
        Volume(np.zeros((2, 3, 4, 5)), np.eye(4))


@pytest.mark.parametrize(
    ("value", "words"), [(np.nan, "NaN or infinite"), (np.inf, "NaN or infinite"), (0.0, "every voxel")]
)
def test_voxels_no_detector_can_judge_are_refused(value: float, words: str) -> None:
    array = np.zeros((4, 4, 4), np.float32)
    array[1, 2, 3] = value
    with pytest.raises(InputError, match=words):
        Volume(array, np.eye(4), name="case").check_values()


def test_the_hash_tells_images_and_places_apart() -> None:
    volume = Volume(np.arange(8.0).reshape(2, 2, 2), np.eye(4))
    moved = Volume(volume.array, np.diag([1, 1, 2, 1.0]))
    assert volume.sha256() == Volume(volume.array.copy(), np.eye(4)).sha256()
    assert len({volume.sha256(), moved.sha256(), volume.with_array(volume.array + 1).sha256()}) == 3
