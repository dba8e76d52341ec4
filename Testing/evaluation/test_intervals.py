"""Intervals that hold what they promise, and verdicts that need one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from AnomalyTrainingLib.evaluation.calibration_check import NOMINAL, check_calibration, check_folds
from AnomalyTrainingLib.evaluation.curves import ranking_metrics
from AnomalyTrainingLib.evaluation.intervals import (
    Bootstrap,
    Figure,
    clopper_pearson,
    clustered_share,
    effective,
    share,
    verdict,
)


def test_whole_clusters_are_drawn_and_both_classes_are_always_there():
    clusters = ["a", "a", "b", "c", "d", "d", "e"]
    labels = [0, 0, 0, 1, 1, 0, 1]
    weights = Bootstrap.of(clusters, labels, resamples=500, seed=3).weights(clusters)
    assert weights.shape == (501, 7) and (weights[0] == 1).all()
    assert (weights[:, 0] == weights[:, 1]).all() and (weights[:, 4] == weights[:, 5]).all()
    assert (weights[:, 4] == 1).all()  # the only cluster with both classes
    assert (weights[:, [0, 2]].sum(axis=1) == 2).all() and (weights[:, [3, 6]].sum(axis=1) == 2).all()
    assert {0, 1, 2} == set(weights[1:, 0])


def test_the_same_seed_gives_the_same_draws_whatever_the_order_of_the_cases():
    one = Bootstrap.of(["a", "b", "c"], [0, 0, 1], resamples=50, seed=1)
    other = Bootstrap.of(["c", "b", "a"], [1, 0, 0], resamples=50, seed=1)
    np.testing.assert_array_equal(one.weights(["a", "c"]), other.weights(["a", "c"]))
    assert (one.counts != Bootstrap.of(["a", "b", "c"], [0, 0, 1], resamples=50, seed=2).counts).any()
    for settings in ({"resamples": 0}, {"level": 1.0}):
        with pytest.raises(ValueError, match="at least one resample"):
            Bootstrap.of(["a"], [0], **settings)


def test_an_undefined_figure_says_why_and_is_never_nan():
    bootstrap = Bootstrap.of(["a", "b"], [0, 1], resamples=10)
    nothing = bootstrap.figure(np.full(11, np.nan), clusters=2, undefined="there is no normal case")
    assert nothing.to_json() == {"value": None, "low": None, "high": None, "reason": "there is no normal case"}
    single = bootstrap.figure(np.full(11, 0.7), clusters=1, undefined="")
    assert (single.value, single.low, single.reason) == (0.7, None, "one patient cluster has no interval")


def test_a_perfect_share_is_not_certain():
    bootstrap = Bootstrap.of([str(n) for n in range(20)], [0, 1] * 10, resamples=10)
    perfect = bootstrap.figure(np.ones(11), clusters=10, undefined="", bounded=True)
    assert perfect.high == 1.0 and perfect.low == pytest.approx(0.025 ** (1 / 10))
    assert bootstrap.figure(np.zeros(11), clusters=10, undefined="", bounded=True).high == pytest.approx(
        1 - 0.6915, abs=1e-4
    )
    assert bootstrap.figure(np.ones(11), clusters=10, undefined="").low is None


def test_a_perfect_ranking_beats_a_constant_one_once_there_are_patients_enough():
    ones, halves = np.ones(11), np.full(11, 0.5)
    for clusters, better in ((8, "better"), (5, "not shown")):  # 0.025 ** (1 / 5) is below 0.5
        bootstrap = Bootstrap.of([str(n) for n in range(2 * clusters)], [0, 1] * clusters, resamples=10)
        difference = bootstrap.difference_of_constants(ones, halves, clusters=clusters)
        assert (difference.value, difference.high) == (0.5, 0.5)
        assert difference.low == pytest.approx(0.025 ** (1 / clusters) - 0.5)
        assert verdict(difference, clusters=2 * clusters) == better
    assert bootstrap.difference_of_constants(ones, ones, clusters=5).low < 0
    assert bootstrap.difference_of_constants(halves, halves, clusters=5).low is None


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (3, 10), (10, 10), (1, 1)])
def test_clopper_pearson_is_scipys_exact_interval(successes, trials):
    expected = binomtest(successes, trials).proportion_ci(0.95, method="exact")
    assert clopper_pearson(successes, trials) == pytest.approx((expected.low, expected.high))
    assert share(successes, trials).value == successes / trials
    assert share(0, 0).value is None
    with pytest.raises(ValueError, match="is no share"):
        clopper_pearson(trials + 1, trials)


def test_a_verdict_needs_an_interval_without_0_and_enough_clusters():
    assert verdict(Figure(0.2, 0.1, 0.3), clusters=10) == "better"
    assert verdict(Figure(-0.2, -0.3, -0.1), clusters=10) == "worse"
    assert verdict(Figure(-0.2, -0.3, -0.1), clusters=10, higher_is_better=False) == "better"
    assert verdict(Figure(0.2, -0.1, 0.3), clusters=10) == "not shown"
    assert verdict(Figure(0.2, 0.1, 0.3), clusters=5) == "not shown"
    assert verdict(Figure(0.2), clusters=10) == "not shown"


@pytest.mark.slow
def test_the_interval_of_an_auroc_covers_the_true_one_as_often_as_it_says_and_clusters_matter():
    """200 binormal cohorts of 40 + 40 patients with two alike cases each; the true AUROC is 0.76."""
    rng = np.random.default_rng(8)
    labels = np.repeat([0, 1], 80)
    patients = [str(n // 2) for n in range(160)]
    covered, covered_without = 0, 0
    for seed in range(200):
        patient = np.repeat(rng.normal(size=80), 2)
        scores = labels + 0.9**0.5 * patient + 0.1**0.5 * rng.normal(size=160)
        for clusters, counter in ((patients, 0), ([str(n) for n in range(160)], 1)):
            bootstrap = Bootstrap.of(clusters, labels.tolist(), resamples=500, seed=seed)
            sample = ranking_metrics(labels, scores, bootstrap.weights(clusters))["auroc"]
            figure = bootstrap.figure(sample, clusters=40, undefined="")
            inside = figure.low <= norm.cdf(1 / 2**0.5) <= figure.high
            covered, covered_without = covered + (inside and not counter), covered_without + (inside and counter)
    assert 0.90 <= covered / 200 <= 0.99
    assert covered_without / 200 < 0.88  # cases taken for independent: the interval is too narrow


# -- calibration


def p_values(normals: int, calibration_n: int, shift: float, seed: int) -> list[float]:
    rng = np.random.default_rng(seed)
    calibration, scores = rng.normal(size=calibration_n), rng.normal(size=normals) + shift
    return [(1 + int((calibration >= score).sum())) / (calibration_n + 1) for score in scores]


def test_exact_p_values_pass_nearly_always_and_shifted_ones_fail():
    passed = [check_calibration(p_values(200, 60, 0.0, seed), 60).passed for seed in range(100)]
    assert sum(passed) >= 85  # three rates, each wrong one time in twenty, and they go together
    assert not any(check_calibration(p_values(200, 60, 1.0, seed), 60).passed for seed in range(20))
    shifted = check_calibration(p_values(200, 60, 1.0, 0), 60)
    assert shifted.verdict == "too small" and "calibrated again" in shifted.sentence
    safe = check_calibration(p_values(200, 60, -1.5, 0), 60)
    assert safe.verdict == "too large" and "safe side" in safe.sentence


def test_the_spread_of_a_small_calibration_sample_is_allowed_for():
    failed = [not check_calibration(p_values(1000, 20, 0.0, seed), 20).passed for seed in range(100)]
    assert sum(failed) <= 15  # a binomial check of the 1000 alone fails more than half of them


def test_rates_are_counted_and_the_least_p_value_is_said():
    check = check_calibration([0.05, 0.1, 0.11, 0.5] * 10, 19)
    assert [rate.count for rate in check.rates] == [10, 20, 30] and check.least_p == 0.05
    assert [rate.nominal for rate in check.rates] == list(NOMINAL)
    assert check.rates[0].realised.low == pytest.approx(clopper_pearson(10, 40)[0])
    assert "With 19 calibration normals no p-value is below 0.05." in check.sentence


def test_too_few_normals_confirm_nothing_but_can_still_fail():
    assert check_calibration([0.4, 0.6, 0.9], 30).verdict == "cannot tell"
    assert check_calibration([1 / 31] * 3, 30).verdict == "too small"
    assert check_calibration([], 30).verdict == "cannot tell"
    assert "no held-out normal" in check_calibration([], 30).sentence
    with pytest.raises(ValueError, match="calibration normals"):
        check_calibration([0.5], 0)


def test_several_images_of_a_patient_count_as_the_patients_they_are() -> None:
    rng = np.random.default_rng(0)
    failed, failed_without = 0, 0
    for _ in range(60):  # 40 patients, whose eight images are nearly alike
        calibration = rng.normal(size=999)
        scores = np.repeat(rng.normal(size=40), 8) + 0.05 * rng.normal(size=320)
        p = [(1 + int((calibration >= score).sum())) / 1000 for score in scores]
        patients = [f"p{n // 8}" for n in range(320)]
        failed += check_folds([(p, 999, patients)]).verdict == "too small"
        failed_without += check_calibration(p, 999).verdict == "too small"
    assert failed <= 6 < 12 < failed_without
    assert effective(np.array([True, False, True]), "abc") == (2, 3), "patients of one image each"
    assert effective(np.array([True] * 8 + [False] * 8), [f"p{n // 8}" for n in range(16)])[1] <= 2
    assert effective(np.array([True, False] * 8), [f"p{n // 2}" for n in range(16)]) == (8, 16), "no more than it is"
    assert effective(np.zeros(12, dtype=bool), [f"p{n // 4}" for n in range(12)]) == (0, 3)
    wide, narrow = clustered_share(np.array([True] * 8 + [False] * 8), "a" * 8 + "b" * 8), share(8, 16)
    assert wide.value == narrow.value and wide.high - wide.low > narrow.high - narrow.low


def test_p_values_of_folds_are_held_against_the_calibration_normals_of_each() -> None:
    # Of 18 normals the least p is 1/19, which is above 0.05; of 39 it is 0.025, and two of forty are at or below 0.05.
    check = check_folds([([n / 19 for n in range(1, 20)], 18), ([n / 40 for n in range(1, 41)], 39)])
    assert [rate.count for rate in check.rates] == [2, 1 + 4, 3 + 8] and check.passed
    assert check.rates[0].expected == pytest.approx((19 * 0 + 40 * 0.05) / 59)
    assert check.calibration_n == 18 and check.least_p == 1 / 40
    assert "With 18 to 39 calibration normals no p-value is below 0.025" in check.sentence
    assert check_folds([([0.05], 18), ([], 18)]).verdict == "too small", "a value that no fold can give"
    one, halves = [0.025] * 12 + [0.5] * 88, [([0.025] * 6 + [0.5] * 44, 39)] * 2
    assert check_calibration(one, 39).verdict == "agrees", "one calibration sample may lie so"
    assert check_folds(halves * 4).verdict == "too small", "eight do not all"
