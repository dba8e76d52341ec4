"""Voxel, case and lesion metrics against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from AnomalyTrainingLib.evaluation.metrics import (
    auroc,
    best_dice_oracle,
    count_regions,
    dice,
    dice_at,
    lesion_hits,
    threshold_at_false_findings,
    voxel_average_precision,
)

ALL = np.ones((1, 1, 6), dtype=bool)


def row(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32).reshape(1, 1, -1)


def test_average_precision_is_the_step_wise_one():
    score, truth = row(6, 5, 4, 3, 2, 1), row(1, 0, 1, 0, 0, 0) > 0
    assert voxel_average_precision([score], [truth], [ALL]) == pytest.approx((1 / 1 + 2 / 3) / 2)


def test_voxels_outside_the_foreground_do_not_count():
    score, truth = row(6, 5, 4, 3, 2, 1), row(1, 0, 1, 0, 0, 0) > 0
    foreground = row(1, 0, 1, 1, 1, 1) > 0  # the false alarm lies outside
    assert voxel_average_precision([score], [truth], [foreground]) == pytest.approx(1.0)
    assert dice(score >= 4, truth, foreground) == 1.0
    assert dice(score >= 4, truth, ALL) == pytest.approx(4 / 5)


def test_a_constant_score_has_the_prevalence_as_average_precision():
    truth = row(1, 0, 1, 0, 0, 0) > 0
    assert voxel_average_precision([np.ones_like(truth, dtype=np.float32)], [truth], [ALL]) == pytest.approx(1 / 3)


def test_dice_at_a_fixed_threshold_is_averaged_over_cases_and_empty_normals_count_as_right():
    truths = [row(1, 1, 0, 0, 0, 0) > 0, np.zeros((1, 1, 6), dtype=bool)]
    scores = [row(9, 1, 1, 1, 1, 1), row(1, 1, 1, 1, 1, 1)]
    assert dice_at(scores, truths, [ALL, ALL], 5) == pytest.approx((2 / 3 + 1) / 2)


def test_the_oracle_finds_the_best_threshold():
    score, truth = row(6, 5, 4, 3, 2, 1), row(1, 1, 0, 1, 0, 0) > 0
    best, threshold = best_dice_oracle([score], [truth], [ALL])
    assert (best, threshold) == (pytest.approx(6 / 7), 3)
    assert best == pytest.approx(dice(score >= threshold, truth, ALL))


def test_auroc_counts_ordered_pairs():
    assert auroc([0, 0, 1, 1], [1, 3, 2, 4]) == pytest.approx(3 / 4)
    with pytest.raises(ValueError, match="one class"):
        auroc([0, 0], [1, 2])
    with pytest.raises(ValueError, match="abnormal voxel"):
        voxel_average_precision([row(1)], [row(0) > 0], [row(1) > 0])


def lesions(shape: tuple[int, int, int] = (12, 12, 12)) -> np.ndarray:
    truth = np.zeros(shape, dtype=bool)
    truth[1:4, 1:4, 1:4] = True  # 27 voxels, joined to the next by a corner: one lesion
    truth[4, 4, 4] = True
    truth[8:10, 8:10, 8:10] = True
    return truth


def test_lesions_are_26_connected_and_hit_by_a_tenth_of_their_voxels():
    truth = lesions()
    labels = np.zeros(truth.shape, dtype=np.int32)
    labels[1, 1, 1:4] = 1  # 3 of 28 voxels
    labels[11, 0, 0] = 2  # far from everything
    result = lesion_hits(labels, truth, np.ones_like(truth))
    assert (result.lesions, result.found, result.false_findings) == (2, 1, 1)
    assert result.sizes_voxels == (28, 8) and result.hit == (True, False)
    labels[1, 1, 3] = 0  # 2 of 28 are less than a tenth
    assert lesion_hits(labels, truth, np.ones_like(truth)).found == 0


def test_the_centroid_alone_is_a_hit():
    truth = np.zeros((9, 9, 9), dtype=bool)
    truth[1:8, 1:8, 1:8] = True
    labels = np.zeros(truth.shape, dtype=np.int32)
    labels[4, 4, 4] = 1  # 1 of 343
    assert lesion_hits(labels, truth, np.ones_like(truth)).found == 1


def test_one_finding_over_two_lesions_hits_both_and_is_not_false():
    truth = lesions()
    labels = np.full(truth.shape, 7, dtype=np.int32)
    result = lesion_hits(labels, truth, np.ones_like(truth))
    assert (result.found, result.false_findings) == (2, 0)


def test_a_normal_case_has_only_false_findings():
    labels = np.zeros((5, 5, 5), dtype=np.int32)
    labels[0, 0, 0], labels[4, 4, 4] = 1, 2
    result = lesion_hits(labels, np.zeros((5, 5, 5), dtype=bool), np.ones((5, 5, 5), dtype=bool))
    assert (result.lesions, result.found, result.false_findings) == (0, 0, 2)


def test_a_baseline_gets_the_lowest_threshold_with_at_most_one_finding_a_normal():
    rng = np.random.default_rng(0)
    normals = [rng.random((40, 40, 40), dtype=np.float32) for _ in range(3)]
    foregrounds = [np.ones((40, 40, 40), dtype=bool)] * 3
    normals[1][5:8, 5:8, 5:8] = 2.0  # one blob of 27 voxels stays allowed, a second does not
    threshold = threshold_at_false_findings(normals, foregrounds, 8)
    assert threshold <= 1.0
    normals[1][30:33, 30:33, 30:33] = 3.0
    higher = threshold_at_false_findings(normals, foregrounds, 8)
    assert higher > 2.0
    for level, allowed in ((threshold, 2), (higher, 1)):
        assert max(count_regions(normal >= level, 8) for normal in normals) <= allowed
