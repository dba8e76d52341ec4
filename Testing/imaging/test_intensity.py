"""The named intensity rules, on real images where the values carry meaning."""

from __future__ import annotations

import time

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from skimage.exposure import equalize_adapthist

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.clahe import equalise
from AnomalyDetectionLib.imaging.intensity import RULES, normalise, percentiles
from AnomalyDetectionLib.imaging.volume import Volume


def volume(array, modality="MR", **extra) -> Volume:
    return Volume(np.asarray(array, dtype=np.float32), np.eye(4), modality, **extra)


@pytest.fixture(scope="module")
def brain(icbm152) -> np.ndarray:
    return np.asarray(nib.load(icbm152["t1"]).dataobj).squeeze().T.astype(np.float32)


@pytest.fixture(scope="module")
def chest() -> np.ndarray:
    """A real chest radiograph, (1, J, I), white bone."""
    pixels = pydicom.dcmread(get_testdata_file("RG1_UNCI.dcm")).pixel_array
    return (pixels.max() - pixels.astype(np.float32))[np.newaxis]


@pytest.mark.parametrize("rule", ["mr-percentile", "mr-robust"])
def test_mr_rules_do_not_depend_on_the_scanner_scale(brain, rule):
    mask = brain > 0
    plain = normalise(volume(brain), mask, rule)
    scaled = normalise(volume(brain * 7.3 + 120), mask, rule)
    assert np.abs(plain - scaled).max() < 1e-4
    assert plain.dtype == np.float32 and plain.min() == 0 and plain.max() <= 1
    assert not plain[~mask].any()


def test_mr_percentile_saturates_one_in_a_hundred_at_either_end(brain):
    mask = brain > 0
    inside = normalise(volume(brain), mask, "mr-percentile")[mask]
    assert 0.005 < np.mean(inside == 0) < 0.015 and 0.005 < np.mean(inside == 1) < 0.015


def test_mr_robust_puts_the_median_at_a_half_and_leaves_lesions_room(brain):
    mask = brain > 0
    inside = brain[mask]
    spread = np.subtract(*np.percentile(inside, (75, 25))) / 1.349
    lesion = np.zeros_like(mask)
    lesion[95:105, 110:120, 60:70] = True
    bright = np.where(lesion, np.median(inside) + 4 * spread, brain)
    scaled = normalise(volume(bright), mask, "mr-robust")
    assert np.median(scaled[mask]) == pytest.approx(0.5, abs=0.01)
    assert scaled[lesion] == pytest.approx(0.9, abs=0.01)


def test_a_big_tumour_hardly_moves_mr_robust(brain):
    mask = brain > 0
    k, j, i = np.ogrid[: brain.shape[0], : brain.shape[1], : brain.shape[2]]
    tumour = mask & ((k - 100) ** 2 + (j - 130) ** 2 + (i - 65) ** 2 < 30**2)
    assert np.count_nonzero(tumour) > 0.04 * np.count_nonzero(mask)
    altered = np.where(tumour, brain.max(), brain)
    rest = mask & ~tumour
    moved = normalise(volume(altered), mask, "mr-robust")[rest] - normalise(volume(brain), mask, "mr-robust")[rest]
    assert np.abs(moved).max() < 0.03
    stretched = normalise(volume(altered), mask, "mr-percentile")[rest]
    assert np.abs(stretched - normalise(volume(brain), mask, "mr-percentile")[rest]).max() > 0.05


@pytest.mark.parametrize(
    ("rule", "hounsfield", "expected"),
    [
        ("ct-brain", (-5, 0, 40, 80, 90), (0, 0, 0.5, 1, 1)),
        ("ct-stroke", (20, 30, 60, 0, 99), (0, 0.25, 1, 0, 1)),
        ("ct-soft", (-160, 40, 240, 140, -1000), (0, 0.5, 1, 0.75, 0)),
        ("ct-lung", (-1350, -600, 150, -975, 400), (0, 0.5, 1, 0.25, 1)),
        ("ct-bone", (-500, 400, 1300, 850, 3000), (0, 0.5, 1, 0.75, 1)),
    ],
)
def test_ct_windows_are_those_of_the_reading_room(rule, hounsfield, expected):
    image = volume(np.reshape(hounsfield, (1, 1, 5)), "CT", units="HU")
    assert normalise(image, np.ones((1, 1, 5), bool), rule).ravel() == pytest.approx(expected, abs=1e-6)


def test_suv_and_luminance_keep_their_scale():
    mask = np.ones((1, 1, 4), bool)
    pet = volume([[[0, 2.5, 10, 40]]], "PT", units="SUVbw")
    assert normalise(pet, mask, "pet-suv").ravel() == pytest.approx([0, 0.25, 1, 1])
    echo = volume([[[0, 51, 255, 102]]], "US")
    assert normalise(echo, mask, "us-luminance").ravel() == pytest.approx([0, 0.2, 1, 0.4])


@pytest.mark.parametrize(
    ("modality", "units", "rule", "sentence"),
    [
        ("CT", "HU", "mr-robust", r"^scan: the modality is CT, .*'mr-robust' is for MR"),
        ("MR", "", "ct-brain", r"^scan: the modality is MR, .*'ct-brain' is for CT"),
        ("CT", "US", "ct-brain", r"^scan: the unit is US, .*needs HU"),
        ("PT", "BQML", "pet-suv", r"^scan: the unit is BQML, .*SUV by body weight"),
        ("", "", "pet-suv", r"^scan: the unit is unknown, .*SUV by body weight"),
        ("MR", "", "mr-magic", r"no intensity rule 'mr-magic'; known are mr-percentile"),
    ],
)
def test_a_rule_refuses_another_modality_or_unit_in_one_sentence(modality, units, rule, sentence):
    image = volume(np.arange(8).reshape(2, 2, 2), modality, units=units, name="scan")
    with pytest.raises(InputError, match=sentence):
        normalise(image, np.ones((2, 2, 2), bool), rule)


@pytest.mark.parametrize("rule", ["mr-robust", "radiograph", "us-luminance", "ct-soft"])
def test_an_image_of_unknown_modality_passes(rule):
    image = volume(np.arange(27).reshape(3, 3, 3), "")
    assert np.isfinite(normalise(image, np.ones((3, 3, 3), bool), rule)).all()


def test_sixteen_bit_values_are_no_luminance():
    with pytest.raises(InputError, match=r"0 to 4095.*between 0 and 255"):
        normalise(volume([[[0.0, 4095.0]]], "US"), np.ones((1, 1, 2), bool), "us-luminance")


@pytest.mark.parametrize("rule", sorted(RULES))
def test_a_constant_or_empty_foreground_is_refused_by_every_rule(rule):
    found = RULES[rule]
    image = volume(np.full((2, 8, 8), 42), found.modalities[0], units=found.units)
    with pytest.raises(InputError, match="every voxel of the patient has the value 42"):
        normalise(image, np.ones(image.shape, bool), rule)
    with pytest.raises(InputError, match="foreground is empty"):
        normalise(image, np.zeros(image.shape, bool), rule)


def test_nearly_constant_values_are_spread_rather_than_divided_by_zero():
    array = np.full((1, 100, 100), 5.0)
    array[0, 0, :10] = 9.0
    scaled = normalise(volume(array), np.ones(array.shape, bool), "mr-robust")
    assert scaled[0, 0, 0] == 1 and scaled[0, 50, 50] == 0


def test_values_too_small_for_single_precision_are_refused_rather_than_scaled_to_nonsense(brain):
    mask = brain > 0
    with pytest.raises(InputError, match="too little for single precision"):
        normalise(volume(brain / brain.max() * 1e-40), mask, "mr-robust")


def test_nan_never_comes_out(brain):
    mask = brain > 0
    outside = np.where(mask, brain, np.nan)
    assert np.isfinite(normalise(volume(outside), mask, "mr-robust")).all()
    with pytest.raises(InputError, match="NaN or infinite"):
        normalise(volume(outside), np.ones_like(mask), "mr-robust")


def test_percentiles_are_order_statistics():
    values = np.random.default_rng(0).permutation(1001).astype(np.float32)
    assert percentiles(values, (0, 25, 50, 99.5, 100)) == [0, 250, 500, 995, 1000]


def test_clahe_agrees_with_scikit_image(chest):
    scaled = normalise(volume(chest, "CR"), np.ones(chest.shape, bool), "radiograph")
    image = scaled[0, :1920, :1840]
    ours = equalise(image, np.ones(image.shape, bool))
    theirs = equalize_adapthist(image, kernel_size=(240, 230), clip_limit=2 / 256, nbins=256)
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.98
    assert np.abs(ours - theirs).mean() < 0.04


def test_clahe_raises_local_contrast_and_ignores_the_border(chest):
    mask = np.ones(chest.shape, bool)
    mask[:, :, :200] = False
    plain = normalise(volume(chest, "DX"), mask, "radiograph")
    better = normalise(volume(chest, "DX"), mask, "radiograph-clahe")
    lung = np.s_[0, 600:900, 400:700]
    assert better[lung].std() > 1.15 * plain[lung].std()
    assert not better[~mask].any() and better.min() >= 0 and better.max() <= 1
    changed = chest.copy()
    changed[~mask] = 0
    assert (normalise(volume(changed, "DX"), mask, "radiograph-clahe") == better).all()


def test_normalising_is_quick_and_repeatable(brain):
    image = volume(np.pad(brain, ((0, 0), (4, 3), (22, 21)))[17:172])
    mask = image.array > 0
    first = normalise(image, mask, "mr-percentile")
    start = time.perf_counter()
    second = normalise(image, mask, "mr-percentile")
    assert time.perf_counter() - start < 1.5  # 0.1 s on an idle machine; the margin is for busy ones
    assert (first == second).all()
