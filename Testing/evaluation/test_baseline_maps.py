"""The baselines that make a map, on small images whose scores can be worked out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from AnomalyDetectionLib.scoring.contract import Batch, Detector, InputSpec
from AnomalyTrainingLib.evaluation.baselines.maps import CLASSES, MeanImageResidual, untrained, weights_hash

SHAPE = (16, 18, 20)
NAMES = ("random", "prevalence", "voxel_intensity", "mean_image_residual", "blur_residual")


def batch(image: np.ndarray, kind: str = "volume") -> Batch:
    foreground = np.zeros(SHAPE, dtype=bool)
    foreground[2:-2, 2:-2, 2:-2] = True
    image = (image * foreground).astype(np.float32)
    if kind == "slices":
        return Batch(torch.from_numpy(image)[:, None], torch.from_numpy(foreground)[:, None])
    return Batch(torch.from_numpy(image)[None, None], torch.from_numpy(foreground)[None, None])


def normal(seed: int) -> np.ndarray:
    left_to_right = np.linspace(0.4, 0.6, SHAPE[2], dtype=np.float32)
    return left_to_right + 0.02 * np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)


def fitted(name: str, kind: str = "volume") -> Detector:
    spec = InputSpec(kind, ("MR",), "mr-robust", size=SHAPE[1:] if kind == "slices" else None)
    if name == "mean_image_residual":
        detector = MeanImageResidual(spec, shape=SHAPE)
        detector.mean = torch.from_numpy(np.mean([normal(seed) for seed in range(4)], axis=0))
        return detector
    detector = CLASSES[name](spec)
    for seed in range(4 if detector.passes else 0):
        detector.absorb(batch(normal(seed), kind))
    if detector.passes:
        detector.finish()
    return detector


def precision(score: torch.Tensor, truth: np.ndarray, item: Batch) -> float:
    inside = item.foreground.numpy().reshape(SHAPE)
    return float(average_precision_score(truth[inside], score.numpy().reshape(SHAPE)[inside]))


@pytest.mark.parametrize(
    ("name", "kind"), [(n, "volume") for n in NAMES] + [(n, "slices") for n in NAMES if n != "mean_image_residual"]
)
def test_every_baseline_repeats_itself_and_gives_a_finite_map_of_the_right_shape(name, kind):
    item = batch(normal(4), kind)
    detector = fitted(name, kind)
    first = detector.score(item).map
    assert first.shape == item.foreground.shape and first.dtype == torch.float32 and torch.isfinite(first).all()
    assert torch.equal(first, detector.score(item).map)
    if name != "prevalence":  # which is the same everywhere, and judged inside the foreground like the others
        assert not first[~item.foreground].any()


@pytest.mark.parametrize("change", [0.35, -0.35])
@pytest.mark.parametrize("kind", ["volume", "slices"])
@pytest.mark.parametrize("name", ["voxel_intensity", "blur_residual"])
def test_bright_and_dark_lesions_are_ranked_above_normal_tissue(name, kind, change):
    truth = np.zeros(SHAPE, dtype=bool)
    truth[7:10, 7:10, 9:11] = True
    item = batch(normal(4) + np.float32(change) * truth, kind)
    assert precision(fitted(name, kind).score(item).map, truth, item) > 0.95


def test_what_differs_from_the_mean_image_is_ranked_first():
    truth = np.zeros(SHAPE, dtype=bool)
    truth[7:10, 7:10, 9:11] = True
    item = batch(normal(4) - np.float32(0.2) * truth)
    assert precision(fitted("mean_image_residual").score(item).map, truth, item) > 0.99


def test_random_and_prevalence_know_nothing():
    truth = np.zeros(SHAPE, dtype=bool)
    truth[4:12, 4:12, 4:12] = True
    item = batch(normal(4))
    share = truth[item.foreground.numpy().reshape(SHAPE)].mean()
    assert precision(fitted("prevalence").score(item).map, truth, item) == pytest.approx(share)
    noise = fitted("random").score(item).map
    assert precision(noise, truth, item) == pytest.approx(share, abs=0.05)
    assert not torch.equal(noise, fitted("random").score(batch(normal(4) + np.float32(0.001))).map)


def test_intensities_beyond_all_normals_still_differ():
    detector = fitted("voxel_intensity")
    values = [float(detector.score(batch(np.full(SHAPE, v))).map.max()) for v in (0.5, 0.62, 0.9, 1.0)]
    assert values == sorted(values) and len(set(values)) == 4
    assert float(detector.score(batch(np.full(SHAPE, 0.01))).map.max()) > 1


def test_every_normal_counts_alike_whatever_its_size():
    detector = CLASSES["voxel_intensity"](InputSpec("volume", (), "mr-robust"))
    for count, value in ((10, 0.2), (100_000, 0.8)):
        image = torch.full((1, 1, 1, 1, count), value)
        detector.absorb(Batch(image, torch.ones_like(image, dtype=torch.bool)))
    detector.finish()
    assert float((detector.quantiles < 0.5).float().mean()) == pytest.approx(0.5, abs=0.01)


def test_an_untrained_network_is_a_function_of_its_seed_and_leaves_the_generator_alone():
    from AnomalyDetectionLib.scoring.registry import build

    spec = InputSpec("slices", ("MR",), "mr-robust", size=(32, 32))
    model = build("autoencoder", spec, {"widths": [4, 4], "latent": 4})
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, again, other = (untrained(model, "autoencoder", seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert weights_hash(one) == weights_hash(again) != weights_hash(other)
    assert weights_hash(one) != weights_hash(model)
