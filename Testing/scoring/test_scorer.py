"""A volume goes in, a calibrated map comes out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import simulated

from AnomalyDetectionLib.errors import Cancelled, InputError
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.scoring.model import Model
from AnomalyDetectionLib.scoring.scorer import Scorer

LESION = {"left": (-30.0, 10.0, 10.0), "right": (30.0, 10.0, 10.0)}


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, -1, 1), (-1, 1, 1)], ids=["RAS", "LPS", "left-handed"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_lesion_is_found_on_its_side_whatever_the_geometry(model: Model, side: str, flips: tuple) -> None:
    volume = simulated.head(50, lesion_ras=LESION[side], flips=flips)
    result = Scorer(model).score(volume)
    first = result.findings[0]
    assert first.side == side
    true_ml = 4 / 3 * np.pi * 1.2**3
    assert 0.5 * true_ml < first.size < 2.2 * true_ml  # voxels of 4 mm and smoothing blur its border
    truth = np.abs(volume.array - simulated.head(50, flips=flips).array) > 1
    inside, outside = result.rarity.array[truth].mean(), result.rarity.array[result.foreground & ~truth].mean()
    assert inside > outside + 2
    assert result.p_value == pytest.approx(1 / 6)


def test_the_same_head_in_another_voxel_order_gives_the_same_map(model: Model) -> None:
    straight = Scorer(model).score(simulated.head(51, lesion_ras=LESION["left"]))
    turned = simulated.head(51, lesion_ras=LESION["left"])
    flipped = Volume(turned.array[:, ::-1], turned.ijk_to_ras @ _reverse_j(turned.shape[1]), modality="MR")
    again = Scorer(model).score(flipped)
    both = straight.foreground & again.foreground[:, ::-1]
    assert both.sum() > 0.98 * straight.foreground.sum()
    assert np.corrcoef(straight.rarity.array[both], again.rarity.array[:, ::-1][both])[0, 1] > 0.99


def _reverse_j(count: int) -> np.ndarray:
    reverse = np.diag([1.0, -1.0, 1.0, 1.0])
    reverse[1, 3] = count - 1
    return reverse


def test_scoring_twice_gives_the_same_map_to_the_last_bit(model: Model) -> None:
    volume = simulated.head(52)
    first, second = Scorer(model).score(volume), Scorer(model).score(volume)
    assert np.array_equal(first.rarity.array, second.rarity.array)
    assert first.rarity.array.std() > 0.1


def test_air_is_neither_scored_nor_counted(model: Model) -> None:
    volume = simulated.head(53)
    result = Scorer(model).score(volume)
    assert not result.rarity.array[volume.array == 0].any()
    assert (result.rarity.array[result.foreground] > 0).all()
    assert result.rarity.grid.same_place(volume.grid)


def test_a_lower_threshold_yields_more_findings_at_a_stated_cost(model: Model) -> None:
    volume = simulated.head(54, lesion_ras=LESION["left"])
    scorer = Scorer(model)
    default, low = scorer.score(volume), scorer.score(volume, threshold=2.0)
    assert len(low.findings) > len(default.findings) >= 1
    assert low.false_findings_per_normal > default.false_findings_per_normal
    assert np.array_equal(low.rarity.array, default.rarity.array)


def test_too_few_calibration_normals_are_said_to_be_too_few(model: Model) -> None:
    notes = Scorer(model).score(simulated.head(55)).notes
    assert any("no case can reach p = 0.05" in note and "0.167" in note for note in notes)


def test_an_image_without_modality_is_scored_with_a_note(model: Model) -> None:
    volume = dataclasses.replace(simulated.head(55), modality="")
    assert any("does not say its modality" in note for note in Scorer(model).score(volume).notes)


def test_the_input_is_left_as_it_was(model: Model) -> None:
    volume = simulated.head(56)
    before = volume.array.copy()
    Scorer(model).score(volume)
    assert np.array_equal(volume.array, before)


def test_progress_rises_and_can_cancel(model: Model) -> None:
    seen: list[float] = []

    def watch(stage: str, fraction: float) -> None:
        seen.append(fraction)
        if fraction >= 0.5:
            raise Cancelled

    with pytest.raises(Cancelled):
        Scorer(model).score(simulated.head(57), progress=watch)
    assert seen == sorted(seen) and len(seen) >= 3


def test_an_alignment_under_way_can_be_cancelled_and_reports_how_far_it_is(model: Model) -> None:
    seen: list[float] = []

    def watch(stage: str, fraction: float) -> None:
        if stage == "aligning with the template":
            seen.append(fraction)
            if len(seen) == 12:
                raise Cancelled

    with pytest.raises(Cancelled):
        Scorer(model).score(simulated.head(57), progress=watch)
    assert len(seen) == 12, "an iteration after the one that was cancelled"
    assert seen == sorted(seen) and seen[-1] > seen[0]


def _volume(**changes: object) -> Volume:
    return dataclasses.replace(simulated.head(58), **changes)


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        (lambda: _volume(modality="CT"), "the image is CT, the model was made for MR"),
        (lambda: _volume(array=simulated.head(58).array[20:21]), "single slice"),
        (lambda: _volume(array=simulated.head(58).array[20:24]), "4 slices are too few"),
        (lambda: _volume(array=np.full((20, 20, 20), 3.0)), "every voxel has the value 3"),
        (lambda: _volume(array=np.where(simulated.head(58).array > 100, np.nan, 1.0)), "NaN or infinite"),
    ],
    ids=["another modality", "one slice", "few slices", "constant", "NaN"],
)
def test_an_image_the_model_cannot_judge_is_refused_in_one_sentence(model: Model, volume: object, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        Scorer(model).score(volume())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("threshold", [0.0, -1.0, float("nan")])
def test_a_threshold_that_is_no_rarity_is_refused(model: Model, threshold: float) -> None:
    with pytest.raises(InputError, match="rarity above 0"):
        Scorer(model).score(simulated.head(59), threshold=threshold)


def test_a_device_that_is_not_there_is_named(model: Model) -> None:
    with pytest.raises(InputError, match="no device 'gpu7'"):
        Scorer(model, device="gpu7").score(simulated.head(59))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("turn", [-25.0, 25.0])
def test_a_turned_head_keeps_its_left_and_right(model: Model, side: str, turn: float) -> None:
    # A frontal lesion of one hemisphere lies across the scanner's midline once the head looks to the other side.
    volume = simulated.head(50, lesion_ras=(-18.0 if side == "left" else 18.0, 48.0, 10.0))
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    turned = np.array([[cos, -sin, 0, 0], [sin, cos, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ volume.ijk_to_ras
    result = Scorer(model).score(Volume(volume.array, turned, modality="MR"))
    assert result.findings[0].side == side


@pytest.mark.parametrize("axis", [0, 1, 2], ids=["axial", "coronal", "sagittal"])
def test_one_slice_of_any_plane_is_refused_where_a_volume_is_needed(model: Model, axis: int) -> None:
    volume = simulated.head(50)
    middle = [slice(None)] * 3
    middle[axis] = slice(volume.shape[axis] // 2, volume.shape[axis] // 2 + 1)
    with pytest.raises(InputError, match="single slice"):
        Scorer(model).score(Volume(volume.array[tuple(middle)], volume.ijk_to_ras, modality="MR"))
