"""Rarity: strictly increasing, honest about shares, never saturated."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from AnomalyDetectionLib.scoring.calibration import Calibrator, Reducer, Sketch, conformal_p_value


def fitted(samples: list[np.ndarray]) -> Calibrator:
    return Calibrator.fit([Sketch.of(sample.astype(np.float32)) for sample in samples])


@pytest.fixture(scope="module")
def gaussian() -> Calibrator:
    rng = np.random.default_rng(0)
    return fitted([np.abs(rng.normal(size=200_000)) for _ in range(10)])


def test_rarity_is_minus_log10_of_the_share_of_normal_voxels(gaussian: Calibrator) -> None:
    fresh = np.abs(np.random.default_rng(1).normal(size=1_000_000)).astype(np.float32)
    rarity = gaussian(fresh)
    for level in (0.3, 1.0, 2.0, 3.0, 4.0):
        share = float((rarity >= level).mean())
        assert -np.log10(share) == pytest.approx(level, abs=0.12), level


def test_rarity_goes_on_rising_far_beyond_the_calibration_sample(gaussian: Calibrator) -> None:
    raw = np.linspace(4, 400, 1000).astype(np.float32)
    assert (np.diff(gaussian(raw)) > 0).all()


def test_scores_below_all_normals_stay_ordered_and_above_zero(gaussian: Calibrator) -> None:
    rarity = gaussian(np.array([-5.0, -1.0, -0.1, 0.0], dtype=np.float32))
    assert (np.diff(rarity) > 0).all() and (rarity > 0).all() and rarity.max() < 1e-3


@settings(max_examples=60, deadline=None)
@given(sample=arrays(np.float32, st.integers(2, 400), elements=st.integers(-9999, 9999).map(lambda n: n / 100)))
def test_whatever_the_normals_score_the_curve_is_strictly_increasing(sample: np.ndarray) -> None:
    curve = fitted([sample, sample[: sample.size // 2 + 1]])
    Calibrator.from_json(curve.to_json())  # refuses anything else
    raw = np.unique(np.concatenate([curve.knots, curve.knots + 1.0, curve.knots - 1.0]))
    values = curve._rarity(raw)
    assert (np.diff(values) > 0).all()


def test_a_case_with_many_voxels_counts_no_more_than_one_with_few() -> None:
    small, large = np.full(1_000, 1.0), np.full(100_000, 3.0)
    small[:10] += np.linspace(0, 0.1, 10)
    curve = fitted([small, large])
    # Half of the cases score 3, so its share is one half whatever the number of voxels.
    assert curve(np.array([3.0], np.float32))[0] == pytest.approx(-np.log10(0.5), abs=0.01)


def test_the_curve_survives_json(gaussian: Calibrator) -> None:
    copy = Calibrator.from_json(json.loads(json.dumps(gaussian.to_json())))
    raw = np.linspace(-1, 12, 500).astype(np.float32)
    assert np.array_equal(copy(raw), gaussian(raw))


@pytest.mark.parametrize("change", [{"knots": [1.0, 1.0]}, {"rarity": [2.0, 1.0]}, {"tail_scale": 0.0}, {"knots": []}])
def test_a_curve_that_does_not_rise_is_refused(change: dict) -> None:
    good = {"knots": [1.0, 2.0], "rarity": [0.1, 2.0], "tail_scale": 1.0, "tail_shape": 0.1}
    Calibrator.from_json(good)
    with pytest.raises(ValueError, match="not strictly increasing"):
        Calibrator.from_json(good | change)


def test_a_heavy_tail_is_recognised_and_a_light_one_is_not_made_heavy() -> None:
    rng = np.random.default_rng(2)
    heavy = fitted([rng.pareto(3.0, 200_000) for _ in range(5)])  # its tail shape is 1/3
    light = fitted([rng.uniform(size=200_000) for _ in range(5)])  # its tail ends: shape -1, kept at 0
    assert heavy.tail_shape == pytest.approx(1 / 3, abs=0.08)
    assert light.tail_shape == 0.0


def test_the_volume_score_is_the_mean_of_the_rarest_part() -> None:
    rarity = np.concatenate([np.zeros(9_990), np.full(10, 5.0)]).astype(np.float32)
    assert Reducer(fraction=0.001)(rarity) == 5.0
    assert Reducer(fraction=0.002)(rarity) == 2.5
    assert Reducer(fraction=0.001)(rarity[-3:]) == 5.0  # fewer voxels than the least number


def test_the_p_value_counts_the_case_itself() -> None:
    normals = np.array([1.0, 2.0, 3.0, 4.0])
    assert conformal_p_value(10.0, normals) == 1 / 5
    assert conformal_p_value(4.0, normals) == 2 / 5  # a tie counts against the case
    assert conformal_p_value(0.0, normals) == 1.0


def test_p_values_of_new_normals_are_uniform() -> None:
    rng = np.random.default_rng(3)
    below = [conformal_p_value(rng.normal(), rng.normal(size=39)) <= 0.1 for _ in range(4_000)]
    assert np.mean(below) == pytest.approx(0.1, abs=0.015)
