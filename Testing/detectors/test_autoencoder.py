"""The autoencoder has the layers it says, learns, scores the same twice and comes back from a bundle unchanged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import simulated
import torch
from torch import nn

from AnomalyDetectionLib.detectors.autoencoder import Autoencoder, ssim_map
from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.models.bundle import load_bundle, write_bundle
from AnomalyDetectionLib.scoring.calibrate import calibrate
from AnomalyDetectionLib.scoring.contract import Batch, InputSpec
from AnomalyDetectionLib.scoring.model import Model
from AnomalyDetectionLib.scoring.prepare import prepare
from AnomalyDetectionLib.scoring.registry import build
from AnomalyDetectionLib.scoring.result import ModelIdentity
from AnomalyDetectionLib.scoring.scorer import Scorer

SPEC = InputSpec("slices", ("MR",), "mr-robust", size=(32, 32), spacing=(6.0, 6.0, 6.0))
SMALL = {"widths": [4, 8, 8, 16], "latent": 16}
VARIANTS = {
    "dense": {},
    "ssim": {"loss": "ssim"},
    "spatial": {"bottleneck": "spatial", "latent": 2},
    "variational": {"variational": True, "kl_weight": 1e-4, "kl_warmup_epochs": 2},
    "variational-spatial": {"variational": True, "bottleneck": "spatial", "latent": 2, "kl_weight": 1e-4},
    "dropout": {"dropout": 0.1},
}


def built(**options) -> Autoencoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        detector = build("autoencoder", SPEC, SMALL | options)
    assert isinstance(detector, Autoencoder)
    return detector


def normals() -> Batch:
    batches = [prepare(simulated.head(subject), SPEC).batch for subject in range(4)]
    return Batch(torch.cat([b.image for b in batches]), torch.cat([b.foreground for b in batches]))


@pytest.fixture(scope="module")
def slices() -> Batch:
    return normals()


def train(detector: Autoencoder, batch: Batch, steps: int = 150) -> list[float]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        optimiser = torch.optim.Adam(detector.parameters(), 3e-3)
        losses = []
        detector.train()
        for step in range(steps):
            chosen = torch.randperm(batch.image.shape[0])[:16]
            loss = detector.loss(Batch(batch.image[chosen], batch.foreground[chosen], epoch=step // 20))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    detector.eval().requires_grad_(False)
    return losses


def test_the_network_of_the_paper_has_four_levels_a_dense_bottleneck_and_a_mirrored_decoder() -> None:
    detector = build("autoencoder", InputSpec("slices", ("MR",), "mr-robust", size=(224, 224)), {})
    kinds = [type(layer) for layer in detector.encoder]
    assert kinds == [nn.Conv2d, nn.ReLU, nn.MaxPool2d] * 4
    into = [layer for layer in detector.encoder if isinstance(layer, nn.Conv2d)]
    out = [layer for layer in detector.decoder if isinstance(layer, nn.ConvTranspose2d)]
    assert len(out) == 4
    assert [(c.in_channels, c.out_channels) for c in into] == [(t.out_channels, t.in_channels) for t in out[::-1]]
    dense = [layer for layer in detector.modules() if isinstance(layer, nn.Linear)]
    assert [(d.in_features, d.out_features) for d in dense] == [(128 * 14 * 14, 128), (128, 128 * 14 * 14)]
    image = torch.rand(2, 1, 224, 224)
    with torch.inference_mode():
        assert detector.encode(image)[0].shape == (2, 128)
        rebuilt = detector(image)
        scores = detector.score(Batch(image, torch.ones(2, 1, 224, 224, dtype=torch.bool)))
    assert rebuilt.shape == image.shape and 0 <= rebuilt.min() and rebuilt.max() <= 1
    assert scores.map is not None
    torch.testing.assert_close(scores.map, (image - rebuilt).abs())


def test_widths_latent_and_size_can_be_chosen() -> None:
    detector = built(widths=[4, 6, 8], latent=5)
    assert len([m for m in detector.decoder if isinstance(m, nn.ConvTranspose2d)]) == 3
    assert detector.encode(torch.rand(1, 1, 32, 32))[0].shape == (1, 5)
    assert built(bottleneck="spatial", latent=3).encode(torch.rand(1, 1, 32, 32))[0].shape == (1, 3, 2, 2)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"loss": "l1"}, "loss 'l1' is none of mse, ssim"),
        ({"bottleneck": "wide"}, "bottleneck 'wide' is none of dense, spatial"),
        ({"widths": [4] * 6}, "multiples of 64"),
        ({"widths": [4, 0]}, "whole numbers above 0"),
        ({"latent": "many"}, "whole numbers above 0"),
        ({"dropout": 1.0}, "0 <= dropout < 1"),
        ({"kl_weight": -1.0}, "kl_weight cannot be negative"),
        ({"latnet": 3}, "latnet"),
    ],
)
def test_settings_that_make_no_network_are_refused(options: dict, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        build("autoencoder", SPEC, SMALL | options)


def test_structural_similarity_is_one_for_equal_images_and_agrees_with_scikit_image() -> None:
    from skimage.metrics import structural_similarity

    random = np.random.default_rng(0)
    first = random.random((40, 48)).astype(np.float32)
    second = np.clip(first + random.normal(0, 0.2, first.shape), 0, 1).astype(np.float32)
    window = built().window
    ours = ssim_map(torch.from_numpy(first)[None, None], torch.from_numpy(second)[None, None], window)[0, 0]
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0, "full": True}
    _, theirs = structural_similarity(first, second, **settings)
    assert np.abs(ours.numpy() - theirs)[6:-6, 6:-6].max() < 1e-4
    same = torch.from_numpy(first)[None, None]
    torch.testing.assert_close(ssim_map(same, same, window), torch.ones_like(same))


def test_the_divergence_is_warmed_up_and_comparison_uses_its_final_weight(slices: Batch) -> None:
    detector = built(variational=True, kl_weight=1.0, kl_warmup_epochs=4).eval()

    def loss(epoch: int | None) -> float:
        return detector.loss(Batch(slices.image, slices.foreground, epoch=epoch)).item()

    divergence = loss(None) - loss(0)
    assert divergence > 0
    assert loss(1) - loss(0) == pytest.approx(divergence / 4, rel=1e-3)
    assert loss(4) == loss(9) == loss(None)
    assert detector.warmup_epochs == 4 and built().warmup_epochs == 0


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_learns_finds_a_lesion_and_survives_its_bundle(
    variant: str, slices: Batch, tmp_path: Path
) -> None:
    detector = built(**VARIANTS[variant])
    losses = train(detector, slices, steps=300)
    # Noise, which nothing can rebuild, is most of what similarity sees in these heads.
    assert np.mean(losses[-10:]) < (0.92 if detector.loss_name == "ssim" else 0.6) * np.mean(losses[:3])
    calibration = calibrate(detector, None, (simulated.head(subject) for subject in range(20, 23)), device="cpu")
    model = Model(ModelIdentity("tiny", "1.0.0", "", "autoencoder"), detector, calibration)
    write_bundle(model, tmp_path / "bundle")
    loaded = load_bundle(tmp_path / "bundle")
    assert loaded.detector.config() == detector.config()
    lesion = (-30.0, 10.0, 10.0)
    volume = simulated.head(50, lesion_ras=lesion, lesion_mm=18.0, lesion_gain=2.0)
    truth = np.abs(volume.array - simulated.head(50).array) > 20
    mottled = np.random.default_rng(0).uniform(0.2, 1.8, volume.shape)  # a smooth ball has no structure to differ in
    volume = volume.with_array(np.where(truth, volume.array * mottled, volume.array))
    before, after = Scorer(model, "cpu").score(volume), Scorer(loaded, "cpu").score(volume)
    assert before.rarity.array.std() > 0.1
    assert np.abs(before.rarity.array - after.rarity.array).max() <= 1e-4
    again = Scorer(loaded, "cpu").score(volume)
    assert np.array_equal(after.rarity.array, again.rarity.array), "scoring must not be random"
    rarity, margin = after.rarity.array, 0.02 if variant == "ssim" else 0.1
    assert rarity[truth & after.foreground].mean() > rarity[after.foreground & ~truth].mean() + margin
