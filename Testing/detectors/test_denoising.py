"""The denoising autoencoder: its noise is coarse and inside the patient, it learns, goes on, and scores as it was."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import simulated
import torch
from training.runs import run_here, run_stopped, train_arguments, weights_of, write_cohort

from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.detectors.denoising import Denoising, coarse_noise, eroded, median_within
from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.models.bundle import load_bundle
from AnomalyDetectionLib.scoring.contract import Batch, InputSpec
from AnomalyDetectionLib.scoring.prepare import prepare
from AnomalyDetectionLib.scoring.registry import build
from AnomalyDetectionLib.scoring.scorer import Scorer

CONFIG = """
name: tiny
detector: denoising
few_normals: true
options: {widths: [8, 16], norm: none, resolution: 4, erosion: 1, median: 3}
input: {kind: slices, modalities: [MR], intensity: mr-robust, grid: own, spacing: [8.0, 8.0, 8.0], size: [32, 32]}
training: {epochs: 8, batch: 4, learning_rate: 0.005, augment: {on: false}}
findings: {least_ml: 1.0}
calibration: {method: split}
baselines: none
"""
SPEC = InputSpec("slices", ("MR",), "mr-robust", spacing=(8.0, 8.0, 8.0), size=(32, 32))
SMALL = {"widths": [4, 8], "resolution": 4}


def built(**options) -> Denoising:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        detector = build("denoising", SPEC, SMALL | options)
    assert isinstance(detector, Denoising)
    return detector


@pytest.fixture(scope="module")
def slices() -> Batch:
    return prepare(simulated.head(1), SPEC).batch


def added(detector: Denoising, batch: Batch) -> torch.Tensor:
    return detector.noisy(batch) - batch.image


def test_the_noise_holds_no_waves_shorter_than_twice_its_cell() -> None:
    noise = coarse_noise((64, 1), (128, 128), 16, torch.Generator().manual_seed(0))
    power = torch.fft.rfft2(noise - noise.mean(dim=(2, 3), keepdim=True)).abs().square().mean(dim=(0, 1))
    waves = torch.maximum(torch.fft.fftfreq(128).abs()[:, None], torch.fft.rfftfreq(128)[None]) * 128
    assert power[waves <= 8].sum() > 0.8 * power.sum(), "16 cells hold 8 waves"
    assert power[waves > 16].sum() < 0.05 * power.sum()
    white = torch.fft.rfft2(torch.randn(64, 1, 128, 128)).abs().square().mean(dim=(0, 1))
    assert white[waves <= 8].sum() < 0.1 * white.sum(), "the same measure tells white noise from it"


def test_the_noise_has_the_same_strength_at_every_pixel_and_differs_from_item_to_item() -> None:
    noise = coarse_noise((4000, 1), (12, 10), 3, torch.Generator().manual_seed(1))
    spread = noise.std(dim=0)
    assert spread.min() > 0.6 and spread.max() < 0.74, "bilinear interpolation leaves two thirds of the deviation"
    assert np.abs(np.corrcoef(noise.flatten(1)[:50]) - np.eye(50)).mean() < 0.35


def test_noise_is_added_to_the_patient_only_and_with_the_deviation_asked_for(slices: Batch) -> None:
    for sigma in (0.1, 0.3):
        noise = added(built(sigma=sigma), Batch(slices.image, slices.foreground, epoch=0))
        assert not noise[~slices.foreground].any()
        assert noise[slices.foreground].std() == pytest.approx(sigma * 2 / 3, rel=0.25)


def test_a_training_step_draws_by_its_seed_and_validation_sees_the_same_noise_every_time(slices: Batch) -> None:
    detector, step = built(), Batch(slices.image, slices.foreground, epoch=3)
    with torch.random.fork_rng():
        draws = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            draws.append(added(detector, step))
        state = torch.get_rng_state()
        first, second = (added(detector, Batch(slices.image, slices.foreground)) for _ in range(2))
        assert torch.equal(state, torch.get_rng_state()), "comparing epochs must not change the training's draws"
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert torch.equal(first, second) and first.std() > 0.01


def test_neighbours_have_the_noise_of_their_slice_and_only_the_slice_is_restored() -> None:
    spec = replace(SPEC, kind="2.5d", neighbours=2)
    detector = build("denoising", spec, SMALL)
    assert isinstance(detector, Denoising)
    batch = prepare(simulated.head(1), spec).items(4, 12)
    assert batch.image.shape == (8, 5, 32, 32) and batch.foreground.shape == (8, 1, 32, 32)
    noise = added(detector, batch)
    assert noise.std() > 0.01 and not noise[~batch.foreground.expand_as(noise)].any()
    torch.testing.assert_close(noise, noise[:, 2:3].expand_as(noise), rtol=0, atol=1e-6)
    with torch.inference_mode():
        restored, scores = detector(batch.image), detector.score(batch)
    assert torch.equal(restored, batch.image[:, 2:3]), "the identity before training"
    assert scores.map is not None and scores.map.shape == (8, 1, 32, 32)
    assert detector.loss(batch).item() == pytest.approx(
        noise[:, 2:3][batch.foreground].square().mean().item(), rel=1e-4
    )


def test_before_training_nothing_is_restored_and_the_loss_is_the_noise(slices: Batch) -> None:
    detector = built()
    loss = detector.loss(slices).item()
    noise = added(detector, slices)
    assert loss == pytest.approx(noise[slices.foreground].square().mean().item(), rel=1e-5)
    scores = detector.score(slices)
    assert scores.map is not None and not scores.map.any()


def test_the_filters_of_the_residual_are_those_of_scipy(slices: Batch) -> None:
    foreground = slices.foreground[6:12]
    values = torch.rand(foreground.shape, generator=torch.Generator().manual_seed(2))
    inner, filtered = eroded(foreground, 2), median_within(values, foreground, 5)
    for item in range(6):
        mask = foreground[item, 0].numpy()
        expected = scipy.ndimage.binary_erosion(mask, np.ones((5, 5)), border_value=1)
        assert np.array_equal(inner[item, 0].numpy(), expected) and 0 < expected.sum() < mask.sum()
        medians = scipy.ndimage.median_filter(values[item, 0].numpy(), 5, mode="constant")
        assert np.array_equal(filtered[item, 0].numpy(), np.where(mask, medians, 0))
    assert torch.equal(eroded(foreground, 0), foreground)
    assert torch.equal(median_within(values, foreground, 1), torch.where(foreground, values, 0.0))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"sigma": 0.0}, "sigma 0.0 must be a number above 0"),
        ({"resolution": 33}, "resolution 33 must lie between 1"),
        ({"median": 4}, "odd number of pixels"),
        ({"erosion": -1}, "erosion -1"),
        ({"widths": []}, "1 to 8 whole numbers"),
        ({"norm": "batch"}, "none of instance, group"),
        ({"sigmas": 1}, "sigmas"),
    ],
)
def test_settings_that_make_no_network_or_noise_are_refused(options: dict, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        build("denoising", SPEC, SMALL | options)
    with pytest.raises(InputError, match=r"`kind: slices` or `2\.5d` with `size"):
        build("denoising", InputSpec("volume", ("MR",), "mr-robust"), SMALL)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("cohort"), CONFIG)


@pytest.fixture(scope="module")
def run_folder(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    out = tmp_path_factory.mktemp("run") / "run"
    run_here(train_arguments(cohort, out))
    return out


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_weights_to_the_last_bit(
    cohort: Path, run_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    killed = run_stopped(train_arguments(cohort, out), "training, epoch 3", signal.SIGKILL)
    assert killed == -signal.SIGKILL and not (out / "model").exists()
    run_here([*train_arguments(cohort, out), "--resume"])
    expected, found = weights_of(run_folder), weights_of(out)
    assert expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.slow
def test_a_trained_model_restores_noisy_normals_finds_a_lesion_and_is_exported_as_it_is(
    run_folder: Path, tmp_path: Path, slices: Batch
) -> None:
    assert main(["export", str(run_folder), "--out", str(tmp_path / "bundle")]) == 0
    kept, exported = load_bundle(run_folder / "model"), load_bundle(tmp_path / "bundle")
    losses = [row[1] for row in exported.info["training"]["curve"]]
    assert min(losses) < 0.8 * losses[0] and exported.info["training"]["validation loss"] == min(losses)
    detector = exported.detector
    assert isinstance(detector, Denoising)
    with torch.inference_mode():
        noise = added(detector, slices)
        assert detector.loss(slices) < 0.7 * noise[slices.foreground].square().mean(), "the noise is left"
    healthy = simulated.head(50)
    volume = simulated.head(50, lesion_ras=(-30, 10, 10), lesion_mm=20.0, lesion_gain=2.0)
    truth = np.abs(volume.array - healthy.array) > 20
    first, second, again = (Scorer(model, "cpu").score(volume) for model in (kept, exported, exported))
    assert np.abs(first.rarity.array - second.rarity.array).max() <= 1e-4
    assert np.array_equal(second.rarity.array, again.rarity.array), "scoring must not be random"
    rarity, scored = second.rarity.array, second.foreground
    assert rarity.std() > 0.1
    assert rarity[truth & scored].mean() > rarity[scored & ~truth].mean() + 0.3
