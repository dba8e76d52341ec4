"""Enhanced multi-frame objects, nuclear medicine and PET."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from synthetic_dicom import enhanced, image, item, save, save_all, sequence, slices

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.read import list_series, read_volume

FRAMES = np.random.default_rng(0).integers(0, 1000, (4, 5, 6), dtype=np.int16)
POINTS = [[0, 0, 9], [0, 0, 0], [0, 0, 6], [0, 0, 3]]


def read(tmp_path, dataset, **options):
    return read_volume(save(dataset, tmp_path / "image.dcm"), **options)


def test_enhanced_frames_are_sorted_by_their_positions(tmp_path):
    volume = read(tmp_path, enhanced(FRAMES, POINTS))
    np.testing.assert_array_equal(volume.array, FRAMES[[1, 3, 2, 0]])
    assert volume.spacing == pytest.approx((1.5, 2, 3))
    np.testing.assert_allclose(volume.ijk_to_ras[:3, 3], 0)


def test_each_enhanced_frame_has_its_own_rescale(tmp_path):
    rescale = [
        {"PixelValueTransformationSequence": item(RescaleSlope=slope, RescaleIntercept=-slope, RescaleType="US")}
        for slope in (1, 2, 3, 4)
    ]
    volume = read(tmp_path, enhanced(FRAMES, POINTS, rescale))
    for place, frame in enumerate((1, 3, 2, 0)):
        np.testing.assert_array_equal(volume.array[place], (FRAMES[frame] - 1.0) * (frame + 1))


def test_time_points_in_one_enhanced_file_are_choices(tmp_path):
    moments = [{"FrameContentSequence": item(TemporalPositionIndex=index)} for index in (1, 1, 2, 2)]
    dataset = enhanced(FRAMES, [[0, 0, 0], [0, 0, 3]] * 2, moments)
    with pytest.raises(InputError, match="temporal position 2"):
        read(tmp_path, dataset)
    np.testing.assert_array_equal(read(tmp_path, dataset, series="2").array, FRAMES[2:])


def test_stacks_in_one_enhanced_file_are_choices(tmp_path):
    stacks = [{"FrameContentSequence": item(StackID=name)} for name in "1122"]
    path = save(enhanced(FRAMES, [[0, 0, 0], [0, 0, 3], [0, 0, 50], [0, 0, 53]], stacks), tmp_path / "e.dcm")
    assert [info.images for info in list_series(path)] == [2, 2]


def test_a_missing_enhanced_frame_is_named(tmp_path):
    with pytest.raises(InputError, match=r"1 between image.dcm \(frame 3\) and image.dcm \(frame 4\)"):
        read(tmp_path, enhanced(FRAMES, [[0, 0, 0], [0, 0, 3], [0, 0, 6], [0, 0, 12]]))


def test_a_real_enhanced_ct_lies_where_its_groups_say():
    path = get_testdata_file("eCT_Supplemental.dcm", download=False)
    dataset, volume = pydicom.dcmread(path), read_volume(path)
    places = [g.PlanePositionSequence[0].ImagePositionPatient for g in dataset.PerFrameFunctionalGroupsSequence]
    order = np.argsort([np.dot(np.cross([-1, 0, 0], [0, 1, 0]), place) for place in places])
    np.testing.assert_array_equal(volume.array, dataset.pixel_array[order] - 1024.0)
    np.testing.assert_allclose(volume.grid.to_ras([0, 0, 1]) * [-1, -1, 1], places[order[1]], atol=1e-6)


def test_frames_without_positions_are_no_volume_but_one_can_be_chosen():
    path = get_testdata_file("emri_small.dcm", download=False)
    with pytest.raises(InputError, match=r"do not say where they lie.*frame=N"):
        read_volume(path)
    volume = read_volume(path, frame=3)
    np.testing.assert_array_equal(volume.array[0], pydicom.dcmread(path).pixel_array[2])


def spect(step=-4.0, kind="RECON TOMO", **elements):
    dataset = image(FRAMES, "NM", ImageType=["ORIGINAL", "PRIMARY", kind, "EMISSION"], PixelSpacing=[2, 1.5])
    dataset.SpacingBetweenSlices, dataset.SliceVector = step, [1, 2, 3, 4]
    detector = item(ImagePositionPatient=[-5, -6, 70], ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    dataset.DetectorInformationSequence = sequence(detector)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def test_spect_slices_stack_to_the_side_that_the_sign_of_their_spacing_says(tmp_path):
    down = read(tmp_path, spect(-4.0))
    np.testing.assert_array_equal(down.array, FRAMES[::-1])  # slices below the first: read from the feet upwards
    np.testing.assert_allclose(down.grid.to_ras([0, 0, 3]), [5, 6, 70])
    up = read(tmp_path, spect(4.0))
    np.testing.assert_array_equal(up.array, FRAMES)
    np.testing.assert_allclose(up.grid.to_ras([0, 0, 3]), [5, 6, 82])


def test_the_slice_vector_orders_spect_frames(tmp_path):
    volume = read(tmp_path, spect(4.0, SliceVector=[2, 1, 4, 3]))
    np.testing.assert_array_equal(volume.array, FRAMES[[1, 0, 3, 2]])


def test_gated_spect_offers_its_time_slots(tmp_path):
    dataset = spect(4.0, "RECON GATED TOMO", SliceVector=[1, 2, 1, 2], TimeSlotVector=[1, 1, 2, 2])
    with pytest.raises(InputError, match="temporal position 2"):
        read(tmp_path, dataset)
    np.testing.assert_array_equal(read(tmp_path, dataset, series="2").array, FRAMES[2:])


def test_a_spect_without_orientation_has_no_sides(tmp_path):
    dataset = spect(4.0)
    dataset.DetectorInformationSequence = sequence(item(CollimatorType="PARA"))
    volume = read(tmp_path, dataset)
    assert not volume.orientation_known
    assert volume.spacing == pytest.approx((1.5, 2, 4))
    assert any("how the slices lie" in note for note in volume.notes)


def test_a_spect_without_slice_spacing_is_refused(tmp_path):
    dataset = spect(4.0)
    del dataset.SpacingBetweenSlices
    with pytest.raises(InputError, match="no spacing between its slices"):
        read(tmp_path, dataset)


@pytest.mark.parametrize(("kind", "words"), [("TOMO", "raw projections"), ("DYNAMIC", "dynamic study")])
def test_projections_and_dynamic_studies_are_no_volume(tmp_path, kind, words):
    with pytest.raises(InputError, match=words):
        read(tmp_path, spect(4.0, kind))


def test_one_planar_view_can_be_chosen(tmp_path):
    np.testing.assert_array_equal(read(tmp_path, spect(4.0, "STATIC"), frame=2).array[0], FRAMES[1])


def pet(**elements):
    drug = item(
        RadionuclideTotalDose=3.7e8,
        RadionuclideHalfLife=6586.2,
        RadiopharmaceuticalStartTime=elements.pop("injected", "110000"),
    )
    known = {
        "Units": "BQML",
        "PatientWeight": 74,
        "DecayCorrection": "START",
        "CorrectedImage": ["NORM", "ATTN", "DECY"],
        "SeriesDate": "20200101",
        "SeriesTime": "120000",
        "AcquisitionDate": "20200101",
        "AcquisitionTime": "120010",
        "RescaleSlope": (2.5, 0.5, 3.0),
        "RescaleIntercept": 0,
        "RadiopharmaceuticalInformationSequence": sequence(drug),
    } | elements
    return slices([0, 3, 6], modality="PT", **known)


def becquerel(datasets):
    return np.stack([d.pixel_array * float(d.RescaleSlope) for d in datasets])


def test_suv_is_activity_times_weight_over_the_decayed_dose(tmp_path):
    datasets = pet()
    volume = read_volume(save_all(datasets, tmp_path))
    decayed = 3.7e8 * 0.5 ** (3600 / 6586.2)
    assert volume.units == "SUVbw"
    np.testing.assert_allclose(volume.array, becquerel(datasets) * 74_000 / decayed, rtol=1e-5)
    assert "decayed over 60.0 min" in volume.notes[0]


def test_decay_corrected_to_the_injection_needs_no_further_decay(tmp_path):
    datasets = pet(DecayCorrection="ADMIN")
    volume = read_volume(save_all(datasets, tmp_path))
    np.testing.assert_allclose(volume.array, becquerel(datasets) * 74_000 / 3.7e8, rtol=1e-5)


def test_an_injection_before_midnight_was_the_day_before(tmp_path):
    volume = read_volume(save_all(pet(injected="233000", SeriesTime="003000", AcquisitionTime="003010"), tmp_path))
    assert "decayed over 60.0 min" in volume.notes[0]


def test_a_series_time_set_after_the_scan_gives_way_to_the_first_acquisition(tmp_path):
    acquired = ("121000", "120500", "122000")
    volume = read_volume(save_all(pet(SeriesTime="150000", AcquisitionTime=acquired), tmp_path))
    assert "decayed over 65.0 min" in volume.notes[0]


def test_ges_own_scan_time_goes_before_acquisition_times(tmp_path):
    datasets = pet(SeriesTime="150000")
    for dataset in datasets:
        dataset.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", "20200101120200.00")
    volume = read_volume(save_all(datasets, tmp_path))
    assert "decayed over 62.0 min" in volume.notes[0]


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"PatientWeight": 0}, "weight is missing"),
        ({"RadiopharmaceuticalInformationSequence": sequence()}, "injection is not described"),
        ({"DecayCorrection": "NONE"}, "decay correction 'NONE'"),
        ({"CorrectedImage": ["NORM"]}, "not corrected for attenuation and decay"),
        ({"injected": ""}, "times of injection and scan are missing"),
    ],
)
def test_where_suv_cannot_be_computed_the_values_stay_and_the_reason_is_told(tmp_path, elements, reason):
    datasets = pet(**elements)
    volume = read_volume(save_all(datasets, tmp_path))
    assert volume.units == "BQML"
    assert reason in volume.notes[0]
    np.testing.assert_allclose(volume.array, becquerel(datasets), rtol=1e-6)


def test_a_dose_in_megabecquerel_is_not_believed(tmp_path):
    datasets = pet()
    for dataset in datasets:
        dataset.RadiopharmaceuticalInformationSequence[0].RadionuclideTotalDose = 370
    volume = read_volume(save_all(datasets, tmp_path))
    assert volume.units == "BQML"
    assert "370, not in Bq" in volume.notes[0]


def test_counts_are_refused_without_philips_factor_and_converted_with_it(tmp_path):
    datasets = pet(Units="CNTS")
    with pytest.raises(InputError, match="in counts"):
        read_volume(save_all(datasets, tmp_path / "without"))
    for dataset in datasets:
        dataset.private_block(0x7053, "Philips PET Private Group", create=True).add_new(0x00, "DS", "0.002")
    volume = read_volume(save_all(datasets, tmp_path / "with"))
    assert volume.units == "SUVbw"
    np.testing.assert_allclose(volume.array, becquerel(datasets) * 0.002, rtol=1e-5)


def test_suv_in_the_file_stays_as_it_is(tmp_path):
    datasets = pet(Units="GML")
    volume = read_volume(save_all(datasets, tmp_path))
    assert volume.units == "SUVbw"
    np.testing.assert_allclose(volume.array, becquerel(datasets), rtol=1e-6)


def test_slices_in_different_units_are_refused(tmp_path):
    with pytest.raises(InputError, match="different units"):
        read_volume(save_all(pet(Units=("BQML", "CNTS", "BQML")), tmp_path))
