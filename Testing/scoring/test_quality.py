"""Image quality: real images are good, and each artefact added to them is named."""

from __future__ import annotations

import time

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from AnomalyDetectionLib.imaging import masks
from AnomalyDetectionLib.imaging.foreground import foreground
from AnomalyDetectionLib.imaging.geometry import grid_of
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.scoring.quality import Sample, assess, noise_sd


@pytest.fixture(scope="module")
def brain(icbm152) -> Volume:
    image = nib.load(icbm152["t1"])
    return Volume(np.asarray(image.dataobj).squeeze().T.astype(np.float32), image.affine, "MR", name="icbm")


@pytest.fixture(scope="module")
def head(brain) -> Volume:
    """The brain within bone, scalp and noisy air, with room around it."""
    array = np.pad(brain.array, ((0, 0), (20, 20), (30, 30)))
    skull = masks.dilate(masks.fill(masks.close(array > 0, 10, (1, 1, 1))), 5, (1, 1, 1))
    scalp = masks.dilate(skull, 6, (1, 1, 1))
    array = array + 12 * (skull & (array == 0)) + 200 * (scalp & ~skull)
    rng = np.random.default_rng(0)
    real, imaginary = rng.standard_normal((2, *array.shape), dtype=np.float32) * 4
    return Volume(np.hypot(array + real, imaginary), brain.ijk_to_ras, "MR", name="head")


def judge(volume: Volume, array=None):
    altered = volume if array is None else volume.with_array(np.asarray(array, dtype=np.float32))
    return assess(altered, foreground(altered))


def with_noise(volume: Volume, sd: float):
    noise = sd * np.random.default_rng(0).standard_normal(volume.shape, dtype=np.float32)
    return np.where(volume.array > 0, np.abs(volume.array + noise) + 1e-3, 0)


def test_a_clean_brain_and_a_clean_head_are_good(brain, head):
    for volume in (brain, head):
        verdict = judge(volume)
        assert (verdict.verdict, verdict.reasons) == ("good", ())


@pytest.mark.parametrize("sd", [2.0, 6.0, 15.0])
def test_the_noise_is_measured_to_an_eighth(brain, sd):
    noisy = brain.with_array(with_noise(brain, sd))
    assert noise_sd(Sample.of(noisy, brain.array > 0)) == pytest.approx(sd, rel=0.125)


@pytest.mark.parametrize(("sd", "verdict"), [(5, "good"), (17, "check"), (45, "poor")])
def test_noise_that_hides_grey_from_white_matter_is_named(brain, sd, verdict):
    found = judge(brain, with_noise(brain, sd))
    assert found.verdict == verdict
    assert (verdict == "good") != any("hardly be told apart" in reason for reason in found.reasons)


@pytest.mark.parametrize(("strength", "verdict"), [(0.0, "good"), (0.12, "check"), (0.4, "poor")])
@pytest.mark.parametrize("axis", [1, 2])
def test_ghosts_beside_the_head_are_named_along_either_axis(head, strength, verdict, axis):
    ghost = np.roll(head.array, head.shape[axis] // 2, axis=axis)
    mask = foreground(head)
    image = head.with_array(np.where(mask, head.array, head.array + strength * ghost))
    found = assess(image, mask)
    assert found.verdict == verdict
    assert (verdict == "good") != any(reason.startswith("Ghosts stand in the air") for reason in found.reasons)


@pytest.mark.parametrize(("step", "verdict"), [(4, "good"), (7, "check"), (12, "poor")])
def test_thick_slices_are_named_with_their_thickness(brain, step, verdict):
    affine = brain.ijk_to_ras @ np.diag([1, 1, step, 1.0])
    found = judge(Volume(brain.array[::step], affine, "MR"))
    assert found.verdict == verdict
    assert (verdict == "good") or f"thick ({step}.0 mm)" in found.reasons[0]


def test_a_head_cut_off_at_one_side_is_named_by_the_patients_side(head):
    # i runs to the patient's right in ICBM152; a flipped array must not swap the sides.
    assert head.ijk_to_ras[0, 0] > 0
    cut = head.array[:, :, 75:]
    affine = head.ijk_to_ras.copy()
    affine[:3, 3] += 75 * affine[:3, 0]
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = cut.shape[2] - 1
    for array, matrix in ((cut, affine), (cut[:, :, ::-1], affine @ flip)):
        found = judge(Volume(array, matrix, "MR"))
        assert found.reasons == ("The patient is cut off at the left of the image.",)


def test_a_cut_through_the_neck_is_no_fault(head):
    assert judge(Volume(head.array[40:], head.ijk_to_ras, "MR")).verdict == "good"


def test_cut_off_brightness_and_few_grey_levels_are_named(brain):
    bright = np.percentile(brain.array[brain.array > 0], 90)
    clipped = judge(brain, np.minimum(brain.array, bright))
    assert clipped.verdict == "check" and "10% of the patient has the highest value" in clipped.reasons[0]
    coarse = judge(brain, np.round(brain.array / 32) * 32 + (brain.array > 0))
    assert coarse.verdict == "poor" and any("only 9 grey levels" in reason for reason in coarse.reasons)


def test_a_patient_lost_in_the_image_is_named(brain):
    small = np.pad(brain.array[::3, ::3, ::3], 60)
    affine = brain.ijk_to_ras @ np.diag([3, 3, 3, 1.0])
    found = judge(Volume(small, affine, "MR"))
    assert found.verdict == "check" and "of the image shows the patient" in found.reasons[0]


def test_real_clinical_scans_are_judged_as_a_radiologist_would(pyradiomics_data):
    def read(name, modality, units):
        image = sitk.ReadImage(str(pyradiomics_data / name))
        return Volume(sitk.GetArrayFromImage(image), grid_of(image).ijk_to_ras, modality, units)

    assert judge(read("brain2_image.nrrd", "MR", "")).reasons == (
        "The slices are thick (6.5 mm): small lesions are missed.",
    )
    chest = judge(read("lung1_image.nrrd", "CT", "HU"))
    assert chest.verdict == "check" and any("cut off" in reason for reason in chest.reasons)


def test_a_noisy_ct_is_named_in_hounsfield_units(pyradiomics_data):
    image = sitk.ReadImage(str(pyradiomics_data / "lung1_image.nrrd"))
    array = sitk.GetArrayFromImage(image).astype(np.float32)
    clean = Volume(array, grid_of(image).ijk_to_ras, "CT", "HU")
    mask = foreground(clean)
    noise = np.random.default_rng(0).standard_normal(array.shape, dtype=np.float32)
    for sd, expected, poor in ((60, "60 HU", False), (150, "150 HU", True)):
        found = assess(clean.with_array(array + sd * noise), mask)
        assert any(expected in reason for reason in found.reasons)
        assert (found.verdict == "poor") == poor


def test_real_chest_radiographs_are_good(shared_data):
    from PIL import Image

    for path in sorted((shared_data / "chest" / "images").iterdir())[:40:4]:
        pixels = np.asarray(Image.open(path).convert("L"), dtype=np.float32)[np.newaxis]
        assert judge(Volume(pixels, np.eye(4), "DX", name=path.name)).verdict == "good"


def test_judging_is_quick(head):
    mask = foreground(head)
    start = time.perf_counter()
    assess(head, mask)
    assert time.perf_counter() - start < 1.5  # 0.1 s on an idle machine; the margin is for busy ones
