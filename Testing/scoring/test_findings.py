"""Findings: connected, sized in the right unit, on the right side."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.scoring.findings import LeastSize, describe, label_regions, midline_of
from AnomalyDetectionLib.scoring.thresholds import LEVELS, Threshold, count_findings


def volume_of(shape: tuple[int, int, int], affine: np.ndarray | None = None, **facts: object) -> Volume:
    return Volume(np.zeros(shape, np.float32), np.eye(4) if affine is None else affine, **facts)


def findings_of(volume: Volume, rarity: np.ndarray, threshold: float = 3.0) -> tuple:
    labels = label_regions(rarity, threshold, LeastSize(ml=0.008, mm2=2.0, px=2.0).voxels(volume))
    return describe(volume, rarity, labels, midline_of(volume, np.ones(volume.shape, bool)))


def test_regions_that_touch_at_a_corner_are_one_finding() -> None:
    rarity = np.zeros((6, 6, 6), np.float32)
    rarity[1, 1, 1] = rarity[2, 2, 2] = 4.0
    assert label_regions(rarity, 3.0, 1).max() == 1
    rarity[2, 2, 2], rarity[3, 3, 3] = 0.0, 4.0
    assert label_regions(rarity, 3.0, 1).max() == 2


def test_findings_are_numbered_by_falling_peak() -> None:
    rarity = np.zeros((4, 4, 12), np.float32)
    rarity[1, 1, 1:3], rarity[1, 1, 5:8], rarity[1, 1, 10] = 4.0, 6.0, 5.0
    labels = label_regions(rarity, 3.0, 1)
    assert [labels[1, 1, i] for i in (6, 10, 1)] == [1, 2, 3]


def test_of_equal_peaks_the_larger_region_comes_first() -> None:
    rarity = np.zeros((3, 4, 9), dtype=np.float32)
    rarity[0, 0, :2], rarity[2, 2, 3:8], rarity[0, 3, 7:] = 4.0, 4.0, 4.0
    labels = label_regions(rarity, 3.0, 1)
    assert (labels[2, 2, 5], labels[0, 0, 0], labels[0, 3, 8]) == (1, 2, 3)


def test_regions_smaller_than_the_least_size_are_not_reported() -> None:
    rarity = np.zeros((4, 4, 12), np.float32)
    rarity[1, 1, 1:3], rarity[1, 1, 5:8] = 4.0, 6.0
    assert label_regions(rarity, 3.0, 3).max() == 1


def test_no_region_above_the_threshold_means_no_finding() -> None:
    assert findings_of(volume_of((4, 4, 4)), np.full((4, 4, 4), 2.9, np.float32)) == ()


def test_a_finding_is_measured_in_millilitres_and_its_extent_along_the_body() -> None:
    affine = np.array(
        [[0, 0, 5.0, 0], [-2.0, 0, 0, 40], [0, 3.0, 0, 0], [0, 0, 0, 1]]
    )  # k runs right, i posterior, j up
    volume = volume_of((8, 10, 20), affine)
    rarity = np.zeros(volume.shape, np.float32)
    rarity[2:4, 3:6, 5:9] = 5.0
    (finding,) = findings_of(volume, rarity)
    assert (finding.size, finding.size_unit) == (pytest.approx(2 * 3 * 4 * 30 / 1000), "mL")
    assert finding.extent_mm == pytest.approx((2 * 5.0, 4 * 2.0, 3 * 3.0))
    assert finding.centroid_ras == pytest.approx((2.5 * 5.0, 40 - 6.5 * 2.0, 4 * 3.0))
    assert (finding.peak, finding.mean) == (5.0, 5.0)


@pytest.mark.parametrize(("known", "size", "unit"), [(True, 6 * 0.25, "mm²"), (False, 6.0, "px")])
def test_a_radiograph_is_measured_in_square_millimetres_or_pixels(known: bool, size: float, unit: str) -> None:
    volume = volume_of((1, 9, 9), np.diag([0.5, 0.5, 1.0, 1.0]), spacing_known=known, orientation_known=False)
    rarity = np.zeros(volume.shape, np.float32)
    rarity[0, 2:4, 2:5] = 4.0
    labels = label_regions(rarity, 3.0, 1)
    (finding,) = describe(volume, rarity, labels, midline_of(volume, np.ones(volume.shape, bool)))
    assert (finding.size, finding.size_unit, finding.side) == (pytest.approx(size), unit, "unknown")


@settings(max_examples=40, deadline=None)
@given(
    angle=st.floats(-0.7, 0.7),
    flips=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
    side=st.sampled_from(["left", "right"]),
)
def test_a_lesion_on_one_side_of_the_patient_is_found_on_that_side(angle: float, flips: tuple, side: str) -> None:
    affine = np.eye(4)
    cos, sin = np.cos(angle), np.sin(angle)
    affine[:3, :3] = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ np.diag(flips) * 2.0
    affine[:3, 3] = (120, -80, 30)  # the scanner's origin is not the patient's midline
    volume = volume_of((20, 24, 28), affine)
    centre = volume.grid.to_ras(np.array([13.5, 11.5, 9.5]))
    target = centre + np.array([-12.0 if side == "left" else 12.0, 2.0, 2.0])
    i, j, k = np.round(volume.grid.to_ijk(target)).astype(int)
    rarity = np.zeros(volume.shape, np.float32)
    rarity[k - 1 : k + 2, j - 1 : j + 2, i - 1 : i + 2] = 5.0
    (finding,) = findings_of(volume, rarity)
    assert finding.side == side


def test_a_lesion_on_the_midline_belongs_to_neither_side() -> None:
    volume = volume_of((9, 9, 9))
    rarity = np.zeros(volume.shape, np.float32)
    rarity[4, 4, 3:6] = 5.0
    labels = label_regions(rarity, 3.0, 1)
    (finding,) = describe(volume, rarity, labels, midline_of(volume, np.ones(volume.shape, bool)))
    assert finding.side == "midline"


def test_the_cost_of_a_threshold_is_the_number_of_regions_there() -> None:
    rarity = np.zeros((4, 4, 20), np.float32)
    rarity[1, 1, 1:3], rarity[1, 1, 5:7], rarity[1, 1, 9:11] = 3.05, 4.05, 5.05
    counts = count_findings(rarity, 2)
    at = {level: int(counts[np.searchsorted(LEVELS, level - 1e-6)]) for level in (2.0, 3.0, 3.1, 4.0, 5.0, 5.1)}
    assert at == {2.0: 3, 3.0: 3, 3.1: 2, 4.0: 2, 5.0: 1, 5.1: 0}


def test_the_default_threshold_leaves_at_most_one_false_finding_a_normal_on_average() -> None:
    def counts(last_level_with_two: float) -> np.ndarray:
        return np.where(last_level_with_two + 1e-6 >= LEVELS, 2, 0).astype(np.int32)

    threshold = Threshold.fit([counts(3.0), counts(3.4), counts(2.8)], LeastSize())
    assert threshold.default == pytest.approx(3.1)
    assert threshold.cost(3.0) == pytest.approx(4 / 3)
    assert threshold.cost(3.2) == pytest.approx(2 / 3)
    assert threshold.cost(3.5) == 0.0
    assert threshold.cost(20.0) == 0.0
    assert threshold.cost(0.5) is None  # below the lowest level measured nothing is known


def test_one_bad_normal_in_many_does_not_set_the_threshold() -> None:
    table = [np.where((6.0 if case == 0 else 3.0) >= LEVELS, 2, 0).astype(np.int32) for case in range(60)]
    assert Threshold.fit(table, LeastSize()).default == pytest.approx(3.1)
