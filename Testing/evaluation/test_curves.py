"""Metrics of many weightings at once, against scikit-learn and MONAI on each of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics.froc import compute_froc_curve_data, compute_froc_score
from monai.metrics.meandice import compute_dice
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    f1_score,
    jaccard_score,
    precision_recall_curve,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from AnomalyDetectionLib.scoring.thresholds import LEVELS
from AnomalyTrainingLib.evaluation.curves import (
    confusion,
    decision_metrics,
    precision_recall_points,
    ranking_metrics,
    roc_points,
)
from AnomalyTrainingLib.evaluation.froc import (
    FALSE_POSITIVES,
    froc_curve,
    froc_name,
    lesion_metrics,
    recall_by_size,
    sensitivity_at,
)
from AnomalyTrainingLib.evaluation.intervals import Bootstrap
from AnomalyTrainingLib.evaluation.records import RARITY_BINS, CaseRecord, LesionRecord, VoxelRecord, rarity_histogram
from AnomalyTrainingLib.evaluation.subgroups import subgroup
from AnomalyTrainingLib.evaluation.voxels import average_precision, voxel_metrics


@pytest.fixture(params=[0, 1])
def cases(request) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores (with ties the second time) and five weightings."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 60)
    scores = rng.normal(size=60) + 0.8 * labels
    weights = rng.integers(0, 4, (5, 60)).astype(np.float32)
    weights[0] = 1
    return labels, np.round(scores, 0 if request.param else 9), weights


def test_ranking_metrics_are_those_of_scikit_learn(cases):
    labels, scores, weights = cases
    ours = ranking_metrics(labels, scores, weights)
    for row, weight in enumerate(weights):
        drawn = np.repeat(np.arange(60), weight.astype(int))
        assert ours["auroc"][row] == pytest.approx(roc_auc_score(labels[drawn], scores[drawn]))
        assert ours["average_precision"][row] == pytest.approx(average_precision_score(labels[drawn], scores[drawn]))
        false, true, _ = roc_curve(labels[drawn], scores[drawn], drop_intermediate=False)
        assert ours["sensitivity_at_95_specificity"][row] == pytest.approx(true[false <= 0.05].max())


def test_curve_points_are_those_of_scikit_learn(cases):
    labels, scores, _ = cases
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(roc_points(labels, scores), [false, true], atol=1e-5)
    precision, recall, _ = precision_recall_curve(labels, scores)
    np.testing.assert_allclose(precision_recall_points(labels, scores), [recall[-2::-1], precision[-2::-1]], atol=1e-5)


def test_decision_metrics_are_those_of_scikit_learn(cases):
    labels, scores, weights = cases
    called = scores > 0.5
    ours = decision_metrics(labels, called, weights)
    for row, weight in enumerate(weights):
        drawn = np.repeat(np.arange(60), weight.astype(int))
        truth, call = labels[drawn], called[drawn]
        assert ours["accuracy"][row] == pytest.approx(accuracy_score(truth, call))
        assert ours["sensitivity"][row] == pytest.approx(recall_score(truth, call))
        assert ours["specificity"][row] == pytest.approx(recall_score(truth, call, pos_label=0))
        assert ours["precision"][row] == pytest.approx(precision_score(truth, call))
        assert ours["f1"][row] == pytest.approx(f1_score(truth, call))
    (right, false), (missed, hit) = confusion_matrix(labels, called)
    assert list(confusion(labels, called).values()) == [hit, false, right, missed]


def test_items_can_share_the_weight_of_their_case(cases):
    labels, scores, weights = cases
    of = np.random.default_rng(0).integers(0, 60, 60)
    for ours, plain in (
        (ranking_metrics(labels, scores, weights, of), ranking_metrics(labels, scores, weights[:, of])),
        (decision_metrics(labels, scores > 0, weights, of), decision_metrics(labels, scores > 0, weights[:, of])),
    ):
        for name, rows in ours.items():
            np.testing.assert_allclose(rows, plain[name], err_msg=name)


def test_one_class_has_no_ranking_and_no_case_called_no_precision():
    ranking = ranking_metrics(np.zeros(4, dtype=int), np.arange(4.0), np.ones((2, 4)))
    assert all(np.isnan(rows).all() for rows in ranking.values())
    ill_only = ranking_metrics(np.ones(4, dtype=int), np.arange(4.0), np.ones((2, 4)))
    assert np.isnan(ill_only["auroc"]).all() and np.isnan(ill_only["sensitivity_at_95_specificity"]).all()
    assert np.isnan(decision_metrics(np.array([0, 1]), np.array([False, False]), np.ones((1, 2)))["precision"]).all()
    assert np.isnan(ranking_metrics(np.zeros(0, dtype=int), np.zeros(0), np.ones((2, 0)))["auroc"]).all()


# -- voxels


def maps(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rarity (n,) and truth of some cases."""
    rng = np.random.default_rng(5)
    made = []
    for _ in range(count):
        truth = rng.random(4000) < 0.05
        made.append(((rng.exponential(0.5, 4000) + truth * rng.exponential(2.0, 4000)).astype(np.float32), truth))
    return made


def voxel_record(rarity: np.ndarray, truth: np.ndarray, threshold: float = 2.0) -> VoxelRecord:
    dice, iou = f1_score(truth, rarity >= threshold), jaccard_score(truth, rarity >= threshold)
    return VoxelRecord(rarity_histogram(rarity[truth]), rarity_histogram(rarity[~truth]), dice, iou)


def test_pooled_voxel_metrics_agree_with_scikit_learn_to_the_width_of_a_bin():
    cases = maps(3)
    weights = np.array([[1, 1, 1], [2, 0, 1], [0, 0, 0]], dtype=np.float32)
    ours, threshold = voxel_metrics([voxel_record(*case) for case in cases], weights)
    for row, drawn in enumerate([(0, 1, 2), (0, 0, 2)]):
        rarity, truth = (np.concatenate([cases[n][part] for n in drawn]) for part in (0, 1))
        assert ours["average_precision"][row] == pytest.approx(average_precision_score(truth, rarity), abs=1e-3)
        precision, recall, _ = precision_recall_curve(truth, rarity)
        best = (2 * precision * recall / np.maximum(precision + recall, 1e-9)).max()
        assert ours["dice_oracle"][row] == pytest.approx(best, abs=2e-3)
        assert ours["dice"][row] == pytest.approx(np.mean([f1_score(cases[n][1], cases[n][0] >= 2) for n in drawn]))
        assert ours["dice"][row] <= ours["dice_oracle"][row] + 0.05
    assert np.isnan([rows[2] for rows in ours.values()]).all()
    rarity, truth = (np.concatenate([case[part] for case in cases]) for part in (0, 1))
    found = torch.tensor(rarity >= np.float32(threshold))[None, None, None]
    monai = float(compute_dice(found, torch.tensor(truth)[None, None, None]))
    assert ours["dice_oracle"][0] == pytest.approx(monai)
    assert threshold in RARITY_BINS


def test_the_average_precision_of_one_case_is_its_own():
    rarity, truth = maps(1)[0]
    assert average_precision(voxel_record(rarity, truth)) == pytest.approx(
        average_precision_score(truth, rarity), abs=1e-3
    )
    nothing = np.zeros(4096, dtype=np.int64)
    assert average_precision(VoxelRecord(nothing, nothing + 1, None, None)) is None
    assert voxel_metrics([], np.ones((2, 0)))[1] is None


# -- lesions


def image(name: str, false_peaks: list[float], lesion_peaks: list[float], label: int) -> CaseRecord:
    """An image whose findings stand alone: each is there up to its peak."""
    at = (np.array(false_peaks)[:, None] >= LEVELS - 1e-6).sum(axis=0) if false_peaks else np.zeros(LEVELS.size)
    lesions = tuple(LesionRecord(1.0, peak >= 4, peak) for peak in lesion_peaks)
    return CaseRecord(
        name,
        name,
        name,
        label,
        0.0,
        false_findings=sum(peak >= 4 for peak in false_peaks),
        false_findings_at=at.astype(np.int32),
        lesions=lesions,
    )


def images() -> list[CaseRecord]:
    rng = np.random.default_rng(2)
    made = []
    for n in range(8):
        false = [float(level) for level in rng.choice(LEVELS[:60], 12)]
        ill = [float(level) for level in rng.choice(LEVELS[:70], 3)] if n % 2 else []
        made.append(image(str(n), false, ill, n % 2))
    return made


def test_the_froc_is_monais_where_findings_stand_alone():
    records = images()
    false, sensitivity = froc_curve(records, np.ones((1, 8)))
    false_peaks = [
        float(level)
        for record in records
        for level, number in zip(LEVELS, -np.diff(record.false_findings_at, append=0), strict=True)
        for _ in range(number)
    ]
    true_peaks = [lesion.highest_level for record in records for lesion in record.lesions]
    fps, tpr = compute_froc_curve_data(np.array(false_peaks), np.array(true_peaks), len(true_peaks), 8)
    monai = set(zip(np.round(fps, 6).tolist(), np.round(tpr, 6).tolist(), strict=True))
    ours = set(zip(np.round(false[0], 6).tolist(), np.round(sensitivity[0], 6).tolist(), strict=True))
    assert len(monai) > 30 and monai <= ours  # MONAI has points at the peaks only, and leaves out the lowest
    rates = [rate for rate in (0.25, 0.5, 1, 2) if rate in false[0]]
    assert len(rates) >= 2
    mean = np.mean([sensitivity_at(false, sensitivity, rate)[0] for rate in rates])
    assert mean == pytest.approx(compute_froc_score(fps, tpr, tuple(rates)), abs=0.09)  # MONAI interpolates


def test_froc_by_hand():
    records = [image("a", [5.0], [6.0, 3.0], 1), image("b", [4.0, 2.0], [], 0)]
    ours = lesion_metrics(records, np.ones((1, 2)))
    assert ours[froc_name(1 / 8)][0] == ours[froc_name(1 / 4)][0] == 0.5  # above level 5 only the lesion of peak 6
    assert ours[froc_name(1 / 2)][0] == 0.5  # one false finding in two images from 5 down to above 4
    assert ours[froc_name(1)][0] == 1.0  # two from 4 down to above 2: the lesion of peak 3 is in
    assert ours["froc_mean"][0] == pytest.approx((3 * 0.5 + 4 * 1) / 7)
    assert (ours["recall"][0], ours["false_findings_per_normal"][0]) == (0.5, 1.0)
    assert [froc_name(rate) for rate in FALSE_POSITIVES][:2] == ["froc_0.125", "froc_0.25"]


def test_a_level_where_everything_has_merged_into_one_finding_earns_nothing():
    false = np.array([[0.0, 1.0, 9.0, 3.0, 0.0]])  # by rising level: few again at the bottom, where regions merge
    sensitivity = np.array([[1.0, 0.9, 0.6, 0.4, 0.2]])
    assert sensitivity_at(false, sensitivity, 1.0)[0] == 0.2
    assert sensitivity_at(false, sensitivity, 4.0)[0] == 0.4
    assert sensitivity_at(false, sensitivity, 9.0)[0] == 1.0
    assert sensitivity_at(false + 1, sensitivity, 0.5)[0] == 0.0


def of_lesions(name: str, lesions: list[LesionRecord]) -> CaseRecord:
    return CaseRecord(name, name, name, 1, 0.0, lesions=tuple(lesions))


def test_the_many_lesions_of_one_patient_make_recall_no_surer():
    hit, miss = LesionRecord(1.0, True, 5.0), LesionRecord(1.0, False, 0.0)
    records = [of_lesions("many", [hit] * 40), *(of_lesions(name, [miss] * 4) for name in "abc")]
    (row,) = recall_by_size(records, 0.95)
    stratum = subgroup(records, "site", Bootstrap.of_records(records, resamples=10))["strata"][0]["recall"]
    for recall in (row["recall"], stratum):
        assert recall["value"] == pytest.approx(40 / 52, abs=1e-6)
        assert recall["low"] < 0.2 and recall["high"] > 0.95
    (alone,) = recall_by_size([of_lesions("one", [hit] * 20 + [miss] * 20)], 0.95)
    assert alone["recall"]["high"] - alone["recall"]["low"] > 0.9, "one patient tells nothing of others"


def test_recall_by_size_has_exact_intervals_and_no_empty_bins():
    lesions = [LesionRecord(0.05, False, 0.0), LesionRecord(0.1, True, 5.0), LesionRecord(0.3, False, 2.0)]
    lesions += [LesionRecord(90.0, True, 8.0), LesionRecord(30.0, True, 8.0, "mm²")]
    rows = recall_by_size([of_lesions(str(n), [lesion]) for n, lesion in enumerate(lesions)], 0.95)
    assert [(r["from"], r["to"], r["unit"], r["found"], r["lesions"]) for r in rows] == [
        (0.0, 0.1, "mL", 0, 1),
        (0.1, 0.5, "mL", 1, 2),
        (50.0, None, "mL", 1, 1),
        (25.0, 100.0, "mm²", 1, 1),
    ]
    assert rows[1]["recall"] == {"value": 0.5, "low": 0.012579, "high": 0.987421}
