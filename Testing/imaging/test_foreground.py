"""Patient against background: real images, and the same images made harder."""

from __future__ import annotations

import time
import tracemalloc

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.data import get_testdata_file

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging import masks
from AnomalyDetectionLib.imaging.foreground import RULES, choose, foreground
from AnomalyDetectionLib.imaging.volume import Volume


def volume(array, modality="MR", spacing=(1.0, 1.0, 1.0), **extra) -> Volume:
    return Volume(np.asarray(array, dtype=np.float32), np.diag([*spacing, 1.0]), modality, **extra)


def dice(a, b) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


@pytest.fixture(scope="module")
def brain(icbm152) -> np.ndarray:
    """Skull-stripped T1, (K, J, I), 0 outside, 0 to 255."""
    return np.asarray(nib.load(icbm152["t1"]).dataobj).squeeze().T.astype(np.float32)


@pytest.fixture(scope="module")
def head(brain) -> tuple[np.ndarray, np.ndarray]:
    """The brain within dark bone and bright scalp, and what is patient: a whole head without noise."""
    skull = masks.dilate(masks.fill(masks.close(brain > 0, 10, (1, 1, 1))), 5, (1, 1, 1))
    scalp = masks.dilate(skull, 6, (1, 1, 1))
    image = np.where(brain > 0, brain, 0) + 12 * (skull & (brain == 0)) + 300 * (scalp & ~skull)
    return image.astype(np.float32), scalp


def with_noise(image, sigma, seed=0):
    """Rician: the magnitude of a complex image with Gaussian noise."""
    rng = np.random.default_rng(seed)
    real, imaginary = rng.standard_normal((2, *image.shape), dtype=np.float32) * np.float32(sigma)
    return np.hypot(image + real, imaginary)


def bias_field(shape, strength=1.0):
    k, j, i = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij", sparse=True)
    return np.exp(-strength * (0.5 * k + 0.6 * j - 0.4 * i)).astype(np.float32)


def test_a_skull_stripped_brain_is_found_with_its_ventricles(brain):
    mask = foreground(volume(brain))
    assert mask[brain > 0].mean() > 0.999
    assert dice(mask, brain > 0) > 0.98
    assert np.count_nonzero(masks.fill(mask) & ~mask) < 1e-3 * np.count_nonzero(mask)


def test_a_brain_normalised_to_both_signs_is_found_alike(brain):
    inside = brain > 0
    scored = np.where(inside, (brain - brain[inside].mean()) / brain[inside].std(), 0)
    assert dice(foreground(volume(scored)), foreground(volume(brain))) > 0.995


@pytest.mark.parametrize("sigma", [2, 8, 18])
def test_a_whole_head_is_told_from_noisy_air(head, sigma):
    image, truth = head
    assert dice(foreground(volume(with_noise(image, sigma))), truth) > 0.985


def test_a_bias_field_and_bright_outliers_do_not_cut_the_head(head):
    image, truth = head
    image = with_noise(image * bias_field(image.shape), 6)
    image[np.random.default_rng(1).random(image.shape) < 0.003] *= 10
    assert dice(foreground(volume(image)), truth) > 0.98


def test_air_that_the_scanner_zeroed_in_part_is_still_air(head):
    image, truth = head
    image = with_noise(image, 8)
    j, i = np.ogrid[-1 : 1 : image.shape[1] * 1j, -1 : 1 : image.shape[2] * 1j]
    image[:, j**2 + i**2 > 1.15] = 0
    assert dice(foreground(volume(image)), truth) > 0.98


@pytest.mark.parametrize("whole_head", [False, True])
def test_a_big_dark_tumour_stays_in(brain, head, whole_head):
    image = head[0] if whole_head else brain
    k, j, i = np.ogrid[: image.shape[0], : image.shape[1], : image.shape[2]]
    tumour = (k - 100) ** 2 + (j - 130) ** 2 + (i - 60) ** 2 < 28**2
    tumour &= brain > 0
    altered = np.where(tumour, np.float32(0 if whole_head else 5), image)
    mask = foreground(volume(with_noise(altered, 6) if whole_head else altered))
    assert mask[tumour].mean() > (0.99 if whole_head else 0.97)


def test_a_dark_lesion_at_the_rim_of_a_stripped_brain_stays_in(brain):
    inside = foreground(volume(brain))
    rim = np.argwhere(inside[100])
    j, i = rim[rim[:, 1].argmax()]
    kk, jj, ii = np.ogrid[: brain.shape[0], : brain.shape[1], : brain.shape[2]]
    lesion = ((kk - 100) ** 2 + (jj - j) ** 2 + (ii - i) ** 2 < 7**2) & inside
    mask = foreground(volume(np.where(lesion, np.float32(0), brain)))
    assert mask[lesion].mean() > 0.65  # the cap that bulges beyond the closed surface is out


def test_thick_slices_and_a_single_slice_work_too(head):
    image, truth = head
    noisy = with_noise(image, 8)
    thick = foreground(volume(noisy[2:182:9], spacing=(1, 1, 9)))
    assert thick.shape[0] == 20 and dice(thick, truth[2:182:9]) > 0.985
    single = foreground(volume(noisy[90:91]))
    assert dice(single, truth[90:91]) > 0.985


def test_an_image_cropped_inside_the_brain_is_all_foreground(brain):
    crop = brain[85:115, 100:140, 45:75]
    assert crop.min() > 0
    assert foreground(volume(crop)).all()


def test_real_left_handed_thick_slices_are_told_from_noisy_air(pyradiomics_data):
    image = sitk.ReadImage(str(pyradiomics_data / "brain2_image.nrrd"))
    lesion = sitk.GetArrayFromImage(sitk.ReadImage(str(pyradiomics_data / "brain2_label.nrrd"))) > 0
    array = sitk.GetArrayFromImage(image)
    mask = foreground(volume(array, spacing=image.GetSpacing()))
    assert mask[lesion].all()
    for corner in (np.s_[:, :40, :40], np.s_[:, :40, -40:]):
        assert mask[corner].mean() < 0.02 and array[corner].max() > 0
    assert 0.4 < mask.mean() < 0.65


def test_a_chest_ct_keeps_its_lungs_and_loses_the_table(pyradiomics_data):
    image = sitk.ReadImage(str(pyradiomics_data / "lung1_image.nrrd"))
    array = sitk.GetArrayFromImage(image).astype(np.float32)
    mask = foreground(volume(array, "CT", image.GetSpacing(), units="HU"))
    middle = array.shape[0] // 2
    assert mask[middle, 330:360, 120:150].all() and array[middle, 330:360, 120:150].mean() < -700  # lung
    # What is dense and yet outside lies in a band in front of the (prone) chest: the table.
    table = (array[middle] > -700) & ~mask[middle]
    assert np.count_nonzero(table[:320]) > 1000
    assert not mask[:, :128].any()


def test_a_radiograph_loses_its_collimator_and_keeps_the_limb():
    dataset = pydicom.dcmread(get_testdata_file("RG3_UNCI.dcm"))
    image = dataset.pixel_array.astype(np.float32)
    mask = foreground(volume(image[np.newaxis], "CR"))
    assert not mask[0, :, :340].any() and not mask[0, :, 1420:].any()
    assert mask[0, :, 600:1100].all()


def test_constant_padding_around_a_radiograph_is_left_out():
    dataset = pydicom.dcmread(get_testdata_file("RG1_UNCI.dcm"))
    image = dataset.pixel_array.max() - dataset.pixel_array.astype(np.float32)
    padded = np.full((image.shape[0] + 200, image.shape[1] + 100), image.min(), dtype=np.float32)
    padded[200:, :-100] = image
    mask = foreground(volume(padded[np.newaxis], "DX"))[0]
    assert not mask[:200].any() and not mask[:, -100:].any()
    assert mask[200:, :-100].mean() > 0.98


@pytest.mark.parametrize("background", [0.0, 4095.0])
def test_a_breast_is_told_from_black_or_saturated_background(background):
    j, i = np.ogrid[:600, :400]
    breast = (i / 260.0) ** 2 + ((j - 300) / 240.0) ** 2 < 1
    rng = np.random.default_rng(0)
    tissue = 1500 + 600 * np.sin(j / 40.0) * np.cos(i / 30.0) + 60 * rng.standard_normal((600, 400))
    image = np.where(breast, tissue, background + (3 * rng.random((600, 400)) if background == 0 else 0))
    image[20:60, 320:380] = 4095 - background  # the view's letters
    mask = foreground(volume(image[np.newaxis], "MG", (0.5, 0.5, 1)))[0]
    assert dice(mask, breast) > 0.98
    assert not mask[20:60, 320:380].any()


def test_the_fan_of_an_ultrasound_cine_is_one_field_for_all_frames():
    dataset = pydicom.dcmread(get_testdata_file("color3d_jpeg_baseline.dcm"))
    frames = dataset.pixel_array[..., 0].astype(np.float32)  # luminance of YBR_FULL_422
    mask = foreground(volume(frames, "US"))
    assert (mask == mask[0]).all()
    assert mask[0, 100:350, 320].all()  # along the beam, dark chambers and all
    assert not mask[0, 440:].any() and not mask[0, :, :80].any() and not mask[0, :40].any()  # status bar, name, letters


def test_a_calibrated_region_bounds_the_foreground():
    rng = np.random.default_rng(0)
    region = np.zeros((1, 120, 160), dtype=bool)
    region[:, 20:100, 30:130] = True
    mask = foreground(volume(50 + 20 * rng.random((1, 120, 160)), "US", region=region))
    assert not mask[~region].any() and mask[region].mean() > 0.95


def test_the_body_of_a_pet_is_found_by_its_faint_uptake(head):
    _, truth = head
    body = truth[::3, ::3, ::3]
    rng = np.random.default_rng(0)
    suv = np.where(body, 0.6, 0.02) * (1 + 0.2 * rng.standard_normal(body.shape))
    suv[30:34, 30:34, 30:34] = 18.0
    for units, scale in (("SUVbw", 1.0), ("BQML", 4321.0)):
        mask = foreground(volume(suv * scale, "PT", (3, 3, 3), units=units))
        assert dice(mask, body) > 0.97, units


def test_a_picture_loses_a_black_border_only():
    rng = np.random.default_rng(0)
    picture = np.zeros((1, 200, 300), dtype=np.float32)
    picture[:, 30:170, 40:280] = rng.integers(20, 255, (1, 140, 240))
    picture[:, 90:110, 100:120] = 0
    mask = foreground(volume(picture, "", spacing_known=False, orientation_known=False))
    assert mask[:, 30:170, 40:280].all() and np.count_nonzero(mask) == 140 * 240


@pytest.mark.parametrize(
    ("modality", "units", "rule"),
    [
        ("MR", "", "mr"),
        ("", "", "mr"),
        ("CT", "HU", "ct-body"),
        ("", "HU", "ct-body"),
        ("MG", "", "mammogram"),
        ("DX", "", "radiograph"),
        ("PT", "SUVbw", "emission"),
        ("NM", "", "emission"),
        ("US", "", "ultrasound"),
        ("OT", "", "mr"),
    ],
)
def test_auto_picks_the_rule_by_modality_and_unit(modality, units, rule):
    assert choose(volume(np.zeros((4, 8, 8)), modality, units=units)) == rule


def test_no_patient_is_one_clear_sentence():
    with pytest.raises(InputError, match=r"^air: no patient .*'ct-body'.*check"):
        foreground(volume(np.full((20, 64, 64), -1000), "CT", units="HU", name="air"))
    with pytest.raises(InputError, match="no foreground rule 'head'"):
        foreground(volume(np.ones((2, 8, 8))), "head")


@pytest.mark.parametrize("rule", sorted(set(RULES) - {"everything"}))
def test_every_rule_refuses_a_constant_image_or_takes_all_of_it(rule):
    constant = volume(np.zeros((1, 64, 64)), "", name="constant")
    try:
        assert foreground(constant, rule).all()
    except InputError as error:
        assert "constant: no patient" in str(error)


def test_a_clinical_head_takes_little_time_and_memory(head):
    image = np.pad(with_noise(head[0], 8), ((0, 0), (4, 3), (22, 21)), mode="reflect")[17:172]
    assert image.shape == (155, 240, 240)
    case = volume(image)
    foreground(case)
    start = time.perf_counter()
    foreground(case)
    seconds = time.perf_counter() - start
    tracemalloc.start()
    foreground(case)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * case.array.nbytes
    assert seconds < 2.5  # 0.45 s on an idle machine; the margin is for busy ones
