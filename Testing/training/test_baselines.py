"""The baselines on small images whose scores can be worked out."""

from __future__ import annotations

import numpy as np
import pytest

from AnomalyTrainingLib.evaluation.baselines import BASELINES, NormalStatistics
from AnomalyTrainingLib.evaluation.metrics import voxel_average_precision

SHAPE = (16, 18, 20)


def normals(count: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(5)
    foreground = np.zeros(SHAPE, dtype=bool)
    foreground[2:-2, 2:-2, 2:-2] = True
    left_to_right = np.linspace(0.4, 0.6, SHAPE[2], dtype=np.float32)
    return [
        ((left_to_right + 0.02 * rng.standard_normal(SHAPE)).astype(np.float32) * foreground, foreground)
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def statistics() -> NormalStatistics:
    pairs = normals()
    mean = np.mean([image for image, _ in pairs], axis=0)
    return NormalStatistics.fit(mean, (image[foreground] for image, foreground in pairs))


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_scores_the_foreground_only_and_repeats_itself(name, statistics):
    image, foreground = normals(5)[4]
    score = BASELINES[name](statistics)
    first = score(image, foreground)
    assert first.shape == SHAPE and first.dtype == np.float32 and np.isfinite(first).all()
    assert not first[~foreground].any()
    np.testing.assert_array_equal(first, score(image.copy(), foreground))


@pytest.mark.parametrize("change", [0.35, -0.35])
@pytest.mark.parametrize("name", ["voxel_intensity", "mean_image_residual", "blur_residual"])
def test_bright_and_dark_lesions_are_ranked_above_normal_tissue(name, change, statistics):
    image, foreground = normals(5)[4]
    truth = np.zeros(SHAPE, dtype=bool)
    truth[7:10, 7:10, 9:11] = True
    score = BASELINES[name](statistics)(image + np.float32(change) * truth, foreground)
    assert voxel_average_precision([score], [truth], [foreground]) > 0.99


def test_random_and_prevalence_know_nothing(statistics):
    image, foreground = normals(5)[4]
    truth = np.zeros(SHAPE, dtype=bool)
    truth[4:12, 4:12, 4:12] = True
    share = truth[foreground].mean()
    constant = BASELINES["prevalence"](statistics)(image, foreground)
    assert voxel_average_precision([constant], [truth], [foreground]) == pytest.approx(share)
    noise = BASELINES["random"](statistics)(image, foreground)
    assert voxel_average_precision([noise], [truth], [foreground]) == pytest.approx(share, abs=0.05)
    assert not np.array_equal(noise, BASELINES["random"](statistics)(image + np.float32(0.001), foreground))


def test_intensities_beyond_all_normals_still_differ(statistics):
    _, foreground = normals(1)[0]
    score = BASELINES["voxel_intensity"](statistics)
    values = [float(score(np.full(SHAPE, v, dtype=np.float32), foreground).max()) for v in (0.5, 0.62, 0.9, 1.0)]
    assert values == sorted(values) and len(set(values)) == 4
    assert float(score(np.zeros(SHAPE, dtype=np.float32), foreground).max()) > 1


def test_every_normal_counts_alike_whatever_its_size():
    few, many = np.full(10, 0.2, dtype=np.float32), np.full(100_000, 0.8, dtype=np.float32)
    quantiles = NormalStatistics.fit(np.zeros(SHAPE, dtype=np.float32), [few, many]).quantiles
    assert np.mean(quantiles < 0.5) == pytest.approx(0.5, abs=0.01)
    with pytest.raises(ValueError, match="at least one"):
        NormalStatistics.fit(np.zeros(SHAPE, dtype=np.float32), [])
