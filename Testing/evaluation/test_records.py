"""What is kept of a case: counts against labelling level by level, histograms, and what counts as known truth."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.scoring.calibration import Reducer
from AnomalyDetectionLib.scoring.findings import LeastSize, describe, label_regions
from AnomalyDetectionLib.scoring.result import ModelIdentity, Quality, ScoreResult
from AnomalyDetectionLib.scoring.thresholds import LEVELS, Threshold, count_findings
from AnomalyTrainingLib.cohorts.manifest import Case
from AnomalyTrainingLib.evaluation.lesions import Lesions, count_at_levels, false_findings
from AnomalyTrainingLib.evaluation.records import RARITY_BINS, rarity_histogram, record_of, record_of_score

LEAST = LeastSize(ml=0.1)


def blobs(shape: tuple[int, int, int], seed: int, smooth: float = 1.5) -> np.ndarray:
    """A rarity map with regions of all sizes, between 0 and 6."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), smooth)
    ranks = noise.ravel().argsort().argsort().reshape(shape)
    return (-np.log10(1 - ranks / (ranks.size + 1)) * 1.2).astype(np.float32)


def truth_of(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.5)
    return smooth > np.quantile(smooth, 0.95)


def scored(rarity: np.ndarray, threshold: float = 1.5, foreground: np.ndarray | None = None) -> tuple:
    """A volume of 2 mm voxels and the result a method with this map gives."""
    spacing = np.diag([2.0, 2.0, 2.0, 1.0])
    volume = Volume(np.random.default_rng(0).random(rarity.shape), spacing)
    foreground = np.ones(rarity.shape, dtype=bool) if foreground is None else foreground
    rarity = np.where(foreground, rarity, np.float32(0))
    labels = label_regions(rarity, threshold, LEAST.voxels(volume))
    return volume, ScoreResult(
        rarity=volume.with_array(rarity),
        labels=labels,
        foreground=foreground,
        volume_score=Reducer()(rarity[foreground]),
        p_value=0.04,
        calibration_n=30,
        threshold=threshold,
        false_findings_per_normal=None,
        findings=describe(volume, rarity, labels, None),
        quality=Quality("check", ("tilted",)),
        model=ModelIdentity("m", "1", "0" * 64, "zscore"),
        device="cpu",
        thresholds=Threshold(threshold, LEVELS, np.zeros(LEVELS.size), LEAST),
        midline=None,
    )


def case(label: int) -> Case:
    return Case("head-1", "p1", {}, label, covariates={"sex": "F"})


def record(rarity: np.ndarray, truth: np.ndarray | None, label: int = 1, **settings):
    volume, result = scored(rarity, **settings)
    return record_of(case(label), volume, result, truth, cluster="p1", reducer=Reducer(), volume_threshold=2.0)


@pytest.mark.parametrize("shape", [(14, 22, 18), (1, 60, 50)])
@pytest.mark.parametrize("seed", range(4))
def test_counts_at_all_levels_are_those_of_labelling_each_level(shape, seed):
    rarity, truth, least = blobs(shape, seed), truth_of(shape, seed + 50), 4
    lesions = Lesions.of(truth)
    counts = count_at_levels(rarity, lesions, least)
    assert lesions.sizes.size > 2 and counts.false_findings.max() > 2
    hit_at = np.zeros((LEVELS.size, lesions.sizes.size), dtype=bool)
    for n, level in enumerate(LEVELS):
        labels = label_regions(rarity, float(level), least)
        assert counts.false_findings[n] == false_findings(labels, truth), level
        hit_at[n] = lesions.hit_by(labels > 0)
    highest = np.where(hit_at.any(axis=0), LEVELS[LEVELS.size - 1 - hit_at[::-1].argmax(axis=0)], 0)
    np.testing.assert_array_equal(counts.highest, highest)
    assert len(set(highest)) > 1


def test_a_normal_has_as_many_false_findings_as_the_threshold_table_counts():
    rarity = blobs((20, 24, 24), 3)
    counts = count_at_levels(rarity, Lesions.of(np.zeros(rarity.shape, dtype=bool)), 6)
    np.testing.assert_array_equal(counts.false_findings, count_findings(rarity, 6))


@pytest.mark.parametrize(("raised", "seconds"), [(0, 0.5), (2, 4.0)])
def test_a_brain_of_2_mm_is_counted_in_under_half_a_second_and_a_map_high_everywhere_in_under_four(raised, seconds):
    rarity = blobs((91, 109, 91), 0) + np.float32(raised)
    rarity[:, :30] = 0  # about the share of air in a brain's box
    rarity[:, -25:] = 0
    lesions = Lesions.of(truth_of(rarity.shape, 1) & (rarity > 2.5))
    assert min(timed(rarity, lesions) for _ in range(2)) < seconds


def timed(rarity: np.ndarray, lesions: Lesions) -> float:
    """Processor time in s: other programs do not count."""
    started = time.process_time()
    count_at_levels(rarity, lesions, 13)
    return time.process_time() - started


def test_the_record_says_what_the_result_says():
    rarity, truth = blobs((12, 20, 20), 1), truth_of((12, 20, 20), 2)
    kept = record(rarity, truth)
    assert (kept.case, kept.patient, kept.cluster, kept.label, kept.quality) == ("head-1", "p1", "p1", 1, "check")
    assert kept.covariates == {"sex": "F"} and kept.p_value == 0.04
    assert kept.called is True and kept.volume_score > 2
    _, result = scored(rarity)
    found = rarity >= 1.5
    assert kept.findings == len(result.findings) > 0
    assert kept.voxels.dice == pytest.approx(2 * (found & truth).sum() / (found.sum() + truth.sum()))
    assert kept.voxels.iou == pytest.approx((found & truth).sum() / (found | truth).sum())
    assert sum(lesion.size_ml for lesion in kept.lesions) == pytest.approx(truth.sum() * 0.008)
    np.testing.assert_array_equal([lesion.hit for lesion in kept.lesions], Lesions.of(truth).hit_by(result.labels > 0))


def test_histograms_count_every_judged_voxel_once():
    rarity, truth = blobs((12, 20, 20), 1) * 5, truth_of((12, 20, 20), 2)
    foreground = np.ones(rarity.shape, dtype=bool)
    foreground[-3:] = False
    voxels = record(rarity, truth, foreground=foreground).voxels
    assert voxels.lesion.sum() == truth.sum()
    assert voxels.healthy.sum() == (foreground & ~truth).sum()
    assert voxels.lesion[0] >= (truth & ~foreground).sum() > 0  # missed: rarity 0
    assert (rarity.max() > RARITY_BINS[-1]) and voxels.lesion[-1] + voxels.healthy[-1] > 0
    edges = rarity_histogram(np.array([0, 0.0048, 0.0049, 19.999, 20, 1e9], dtype=np.float32))
    assert (edges[0], edges[1], edges[-1]) == (2, 1, 3)


def test_a_lesion_where_the_model_does_not_judge_is_missed():
    truth = np.zeros((8, 8, 8), dtype=bool)
    truth[1:3, 2:5, 2:5] = True
    kept = record(
        np.full(truth.shape, 9.0, dtype=np.float32), truth, foreground=np.arange(8)[:, None, None] > 4 + 0 * truth
    )
    assert [(lesion.hit, lesion.highest_level) for lesion in kept.lesions] == [(False, 0.0)]
    assert (kept.voxels.dice, kept.false_findings) == (0.0, 1)
    assert kept.slices[:2] == ((1, 0.0), (1, 0.0)) and kept.slices[2:] == ((0, 9.0),) * 3


def test_unknown_truth_is_not_taken_for_none():
    rarity = blobs((10, 12, 12), 0)
    for truth in (None, np.zeros(rarity.shape, dtype=bool)):
        kept = record(rarity, truth, label=1)
        assert kept.voxels is None and kept.false_findings is None and kept.false_findings_at is None
        assert kept.lesions == () and kept.slices == () and kept.findings is not None


def test_a_normal_needs_no_mask_and_may_not_have_lesions():
    rarity = blobs((10, 12, 12), 0)
    kept = record(rarity, None, label=0)
    assert kept.false_findings == kept.findings > 0 and kept.voxels.lesion.sum() == 0 and kept.voxels.dice is None
    assert len(kept.slices) == 10 and not any(ill for ill, _ in kept.slices)
    with pytest.raises(InputError, match=r"head-1: the case is labelled normal \(0\) and its mask has"):
        record(rarity, truth_of(rarity.shape, 0), label=0)


def test_a_single_image_has_no_slices_and_its_lesions_an_area():
    rarity, truth = blobs((1, 40, 40), 0), truth_of((1, 40, 40), 1)
    kept = record(rarity, truth)
    assert kept.slices == ()
    assert {lesion.unit for lesion in kept.lesions} == {"mm²"}
    assert sum(lesion.size_ml for lesion in kept.lesions) == pytest.approx(truth.sum() * 4.0)


def test_a_method_without_a_map_has_a_score_only():
    kept = record_of_score(replace(case(1), case="b"), 0.7, cluster="c", volume_threshold=0.7)
    assert (kept.case, kept.called, kept.voxels, kept.findings, kept.p_value) == ("b", True, None, None, None)
    assert record_of_score(case(1), 0.7, cluster="c", volume_threshold=None).called is None
