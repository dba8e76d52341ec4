"""Volumes become canonical slices and their maps come back, whatever the geometry."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import simulated
import torch

from AnomalyDetectionLib.errors import Cancelled, InputError
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.scoring.contract import Batch, Detector, InputSpec, Scores
from AnomalyDetectionLib.scoring.prepare import as_normal, prepare
from AnomalyDetectionLib.scoring.raw import SLICES_AT_ONCE, score_raw

OWN = InputSpec("slices", ("MR",), "mr-robust")


def turned(volume: Volume, axes: tuple[int, int, int], reverse: tuple[bool, bool, bool], tilt: float) -> Volume:
    """The same voxels, stored in another order, in a patient who is tilted by some radians."""
    affine = volume.ijk_to_ras.copy()
    for axis, back in enumerate(reverse):
        if back:
            affine[:3, 3] += affine[:3, 2 - axis] * (volume.shape[axis] - 1)
            affine[:3, 2 - axis] *= -1
    array = volume.array[tuple(slice(None, None, -1 if back else 1) for back in reverse)].transpose(axes)
    columns = [2 - axes[2 - n] for n in range(3)]
    affine[:3, :3] = affine[:3, columns]
    cos, sin = np.cos(tilt), np.sin(tilt)
    rotation = np.eye(4)
    rotation[1:3, 1:3] = [[cos, -sin], [sin, cos]]
    return Volume(np.ascontiguousarray(array), rotation @ affine, modality="MR", name="turned")


@pytest.mark.parametrize("tilt", [0.0, 0.2])
@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("reverse", [(False, False, False), (True, False, True), (False, True, False)])
def test_slices_go_and_come_back_unchanged(
    axes: tuple[int, int, int], reverse: tuple[bool, bool, bool], tilt: float
) -> None:
    straight = simulated.head(3)
    volume = turned(straight, axes, reverse, tilt)
    prepared = prepare(volume, OWN)
    expected = prepare(straight, OWN)
    assert torch.allclose(prepared.batch.image, expected.batch.image, atol=1e-3), "slices run along S in every storage"
    back = prepared.to_input(prepared.whole(prepared.batch.image.numpy()))
    image, mask, _ = as_normal(volume, OWN)
    assert image[mask].std() > 0.05
    assert np.abs(back - np.where(mask, image, 0)).max() < 1e-3
    assert np.array_equal(prepared.to_input(prepared.whole(prepared.batch.foreground.numpy())), mask)


def test_a_marked_voxel_comes_back_to_its_place_at_another_size_and_spacing() -> None:
    volume = turned(simulated.head(3), (2, 0, 1), (True, True, False), 0.15)
    for spec in (
        dataclasses.replace(OWN, size=(64, 64)),
        dataclasses.replace(OWN, size=(96, 80), spacing=(2.5, 2.5, 3.0)),
    ):
        prepared = prepare(volume, spec)
        assert prepared.batch.image.shape[2:] == spec.size
        place = np.argwhere(prepared.foreground)[prepared.foreground.sum() // 2]
        ijk = np.round(prepared.grid.to_ijk(volume.grid.to_ras(place[::-1]))).astype(int)
        on_grid = np.zeros(prepared.grid.shape, dtype=np.float32)
        on_grid[tuple(slice(n - 1, n + 2) for n in ijk[::-1])] = 1
        back = prepared.to_input(prepared.whole(on_grid[prepared.slices][:, None]))
        found = np.argwhere(back > 0.5 * back.max()).mean(axis=0)
        assert np.abs(found - place).max() <= 1.0


def test_the_field_of_view_keeps_its_aspect_ratio_and_all_its_foreground() -> None:
    prepared = prepare(simulated.head(4), dataclasses.replace(OWN, size=(48, 48)))
    right, anterior, _ = prepared.grid.spacing
    assert right == pytest.approx(anterior)
    whole = prepared.to_input(prepared.whole(prepared.batch.foreground.numpy()))
    assert (whole & prepared.foreground).sum() > 0.97 * prepared.foreground.sum()


def test_slices_without_foreground_are_left_out() -> None:
    volume = simulated.head(5)
    prepared = prepare(volume, OWN)
    assert prepared.batch.image.shape[0] < volume.shape[0]
    assert prepared.batch.foreground.flatten(1).any(dim=1).all()
    assert prepared.slices is not None and prepared.slices.size == prepared.batch.image.shape[0]


def test_thick_slices_are_not_divided() -> None:
    volume = simulated.head(6, spacing=(4.0, 4.0, 12.0))
    prepared = prepare(volume, dataclasses.replace(OWN, size=(64, 64), spacing=(4.0, 4.0, 4.0)))
    assert prepared.grid.shape[0] == volume.shape[0]


def test_a_single_slice_along_the_body_is_refused() -> None:
    volume = simulated.head(6)
    affine = volume.ijk_to_ras[:, [0, 2, 1, 3]] * [1, 1, -1, 1]
    coronal = Volume(volume.array[:, 20][None], affine, modality="MR", name="coronal")
    with pytest.raises(InputError, match=r"coronal: the model judges slices across the body axis"):
        prepare(coronal, dataclasses.replace(OWN, size=(48, 48)))
    axial = volume.slice(volume.shape[0] // 2)
    assert prepare(axial, dataclasses.replace(OWN, size=(64, 64))).batch.image.shape == (1, 1, 64, 64)


class Echo(Detector):
    """Scores every pixel with its own intensity and remembers how many slices it was given at once."""

    def __init__(self, spec: InputSpec = OWN) -> None:
        super().__init__(spec)
        self.counts: list[int] = []

    def score(self, batch: Batch) -> Scores:
        assert batch.image.shape[1] == self.spec.image_channels
        self.counts.append(batch.image.shape[0])
        return Scores(map=batch.image[:, self.spec.neighbours : self.spec.neighbours + 1])


def test_slices_with_neighbours_come_as_channels_and_are_scored_in_the_same_place() -> None:
    volume, spec = (
        turned(simulated.head(7), (1, 2, 0), (True, False, False), 0.1),
        InputSpec("2.5d", ("MR",), "mr-robust", neighbours=2),
    )
    alone, prepared = prepare(volume, OWN), prepare(volume, spec)
    assert torch.equal(alone.batch.image, prepared.batch.image), "a slice is kept once"
    count = alone.batch.image.shape[0]
    parts = list(prepared.chunks(7))
    image = torch.cat([part.image for part in parts])
    assert torch.equal(image, prepared.items().image) and image.shape[1] == spec.image_channels == 5
    for item in (0, 1, 9, count - 1):
        for channel, other in enumerate(range(item - 2, item + 3)):
            expected = alone.batch.image[min(max(other, 0), count - 1), 0]
            assert torch.equal(image[item, channel], expected), (item, channel)
    assert torch.equal(torch.cat([part.foreground for part in parts]), alone.batch.foreground)
    first, second = (score_raw(Echo(s), None, volume, device="cpu") for s in (OWN, spec))
    assert np.array_equal(first.raw, second.raw) and first.raw.std() > 0.05


class Stepwise(Detector):
    """Takes its time over a whole volume, and says how far it is."""

    def score(self, batch: Batch) -> Scores:
        for step in range(4):
            batch.progress(step / 4)
        return Scores(map=batch.image)


def test_a_detector_can_say_how_far_it_is_within_one_volume_and_be_stopped_there() -> None:
    told: list[float] = []

    def stop_in_the_middle(stage: str, share: float) -> None:
        if stage == "scoring":
            told.append(share)
            if len(told) == 4:
                raise Cancelled

    spec = InputSpec("patches", ("MR",), "mr-robust", grid="own", size=(16, 16, 16))
    with pytest.raises(Cancelled):
        score_raw(Stepwise(spec), None, simulated.head(1), device="cpu", progress=stop_in_the_middle)
    start, end = 0.3, 0.85
    assert told == pytest.approx([start, start, start + (end - start) / 4, start + (end - start) / 2])
    with pytest.raises(InputError, match="a single slice, the model needs a volume"):
        score_raw(Stepwise(spec), None, simulated.head(1).slice(20), device="cpu")


def test_neighbours_are_for_the_kind_that_has_them() -> None:
    for changes in ({"kind": "2.5d"}, {"neighbours": 1}, {"kind": "2.5d", "neighbours": -1}):
        with pytest.raises(InputError, match="neighbours is"):
            dataclasses.replace(OWN, **changes)
    with pytest.raises(InputError, match="grid 'frame' is for single images"):
        dataclasses.replace(OWN, kind="2.5d", neighbours=1, grid="frame", size=(64, 64))
    spec = dataclasses.replace(OWN, kind="2.5d", neighbours=1)
    assert InputSpec.from_json(spec.to_json()) == spec
    older = {key: value for key, value in OWN.to_json().items() if key != "neighbours"}
    assert InputSpec.from_json(older) == OWN, "bundles that were made before neighbours came keep loading"


def test_a_case_is_scored_a_few_slices_at_a_time_in_its_own_geometry() -> None:
    volume = turned(simulated.head(7), (1, 2, 0), (True, False, False), 0.1)
    detector = Echo()
    seen: list[float] = []
    raw = score_raw(detector, None, volume, device="cpu", progress=lambda stage, part: seen.append(part))
    prepared = prepare(volume, OWN)
    assert max(detector.counts) == SLICES_AT_ONCE < sum(detector.counts) == prepared.batch.image.shape[0]
    assert np.array_equal(raw.raw, prepared.to_input(prepared.whole(prepared.batch.image.numpy())))
    assert seen == sorted(seen)


class Uniform(Detector):
    """Finds every pixel that it is shown alike."""

    def score(self, batch: Batch) -> Scores:
        return Scores(map=torch.ones_like(batch.image))


def test_what_lies_beyond_the_slice_is_not_reported_as_judged() -> None:
    volume = simulated.head(8)
    small = dataclasses.replace(OWN, size=(32, 24), spacing=(4.0, 4.0, 4.0))
    raw = score_raw(Uniform(small), None, volume, device="cpu")
    head = prepare(volume, small).foreground
    assert 0.5 * head.sum() < raw.scored.sum() < 0.9 * head.sum()
    assert not (raw.scored & ~head).any()
    assert (raw.raw[raw.scored] > 0.99).all(), "whatever counts as judged has a score"
    assert not raw.raw[head & ~raw.scored].any(), "and whatever has one counts"
    share = 1 - raw.scored.sum() / head.sum()
    assert raw.notes == [
        f"{share:.0%} of the patient lies outside the 96 x 128 x 168 mm (left to right, back to front, bottom to top) "
        "that the model takes, and was not judged."
    ]
    whole = score_raw(Uniform(dataclasses.replace(small, size=(48, 48))), None, volume, device="cpu")
    assert np.array_equal(whole.scored, head) and whole.notes == []


@pytest.mark.parametrize(
    ("size", "shift", "whole"),
    [
        (1.05, (0.0, 5.0, 0.0), True),
        (0.7, (0.0, 5.0, 0.0), False),
        (1.05, (60.0, 0.0, 0.0), False),
        (1.05, (0.0, 0.0, -60.0), False),
    ],
)
def test_a_head_is_shown_as_far_as_the_grid_it_was_aligned_with_reaches(
    size: float, shift: tuple[float, float, float], whole: bool
) -> None:
    prepared = prepare(turned(simulated.head(3), (2, 0, 1), (True, True, False), 0.1), OWN)
    to_source = np.diag([size, size, size, 1.0])
    to_source[:3, 3] = shift
    moved = dataclasses.replace(prepared, to_source=to_source)
    reached = moved.to_input(np.ones(moved.grid.shape, dtype=bool))
    assert np.array_equal(moved.shown(), moved.foreground & reached)
    assert np.array_equal(moved.shown(), moved.foreground) == whole


def test_scoring_stops_between_slices_when_asked() -> None:
    detector = Echo()

    def progress(stage: str, fraction: float) -> None:
        if stage == "scoring" and fraction > 0.5:
            raise Cancelled

    with pytest.raises(Cancelled):
        score_raw(detector, None, simulated.head(7), device="cpu", progress=progress)
    assert detector.counts == [SLICES_AT_ONCE]
