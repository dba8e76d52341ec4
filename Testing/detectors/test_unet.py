"""The supervised U-Net: its loss, the order of its scores, tiles that can be stopped, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch

from AnomalyDetectionLib.detectors.segmentation import score_of_logit, segmentation_loss
from AnomalyDetectionLib.detectors.unet import SupervisedUNet
from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.scoring.contract import Batch, InputSpec
from AnomalyDetectionLib.scoring.registry import build

PATCHES = InputSpec("patches", ("MR",), "mr-robust", size=(16, 16, 16))
SLICES = InputSpec("slices", ("MR",), "mr-robust", size=(32, 32))
THICK = InputSpec("2.5d", ("MR",), "mr-robust", size=(32, 32), neighbours=2)
SMALL = {"widths": [4, 8]}


def built(spec: InputSpec, **options) -> SupervisedUNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        detector = build("unet", spec, SMALL | options)
    assert isinstance(detector, SupervisedUNet)
    return detector.eval()


def test_scores_rise_with_the_logit_where_probabilities_are_long_saturated() -> None:
    logit = torch.tensor([-60.0, -40, -20, -5, 0, 5, 20, 40, 60]).view(1, 1, -1)
    scores = score_of_logit(logit, torch.ones(1, 1, 9, dtype=torch.bool)).flatten()
    assert (scores.diff() > 0).all() and scores[0] > 0
    assert torch.sigmoid(logit).flatten().diff()[-1] == 0, "a probability could not tell these apart"
    inside = torch.ones(1, 1, 9, dtype=torch.bool)
    inside[..., 4:] = False
    assert not score_of_logit(logit, inside)[..., 4:].any()


def test_the_loss_is_cross_entropy_and_dice_within_the_foreground() -> None:
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2, :] = 1
    inside = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    assert segmentation_loss(40 * (2 * mask - 1), mask, inside).item() == pytest.approx(0, abs=1e-4)
    nothing = segmentation_loss(torch.zeros_like(mask), mask, inside).item()
    assert nothing == pytest.approx(math.log(2) + 1 - (2 * 4 + 1) / (8 + 8 + 1), abs=1e-5)
    assert segmentation_loss(40 * (1 - 2 * mask), mask, inside).item() > 30
    upper = inside.clone()
    upper[..., 2:, :] = False
    wrong_below = torch.full_like(mask, 40.0)
    assert segmentation_loss(wrong_below, mask, upper).item() == pytest.approx(0, abs=1e-4)
    unsure = torch.where(mask > 0, -2.0, 0.0)
    missed, guessed = math.log1p(math.exp(2)), math.log(2)
    found = 8 / (1 + math.exp(2))
    dice = 1 - (2 * found + 1) / (found + 4 + 8 + 1)
    weighed = segmentation_loss(unsure, mask, inside, lesion_weight=3).item()
    assert weighed == pytest.approx((3 * missed + guessed) / 4 + dice, abs=1e-5)
    empty = torch.zeros_like(mask)
    assert segmentation_loss(torch.full_like(mask, -40.0), empty, inside) < segmentation_loss(
        wrong_below, empty, inside
    )


@pytest.mark.parametrize(("spec", "shape"), [(SLICES, (3, 1, 32, 32)), (THICK, (3, 5, 32, 32))])
def test_slices_are_scored_each_by_itself(spec: InputSpec, shape: tuple[int, ...]) -> None:
    detector, image = built(spec), torch.rand(shape)
    foreground = torch.rand(shape[0], 1, *shape[2:]) > 0.2
    with torch.inference_mode():
        scores = detector.score(Batch(image, foreground)).map
        alone = detector.score(Batch(image[1:2], foreground[1:2])).map
    assert scores is not None and scores.shape == foreground.shape and not scores[~foreground].any()
    torch.testing.assert_close(scores[1:2], alone)


def test_a_volume_is_scored_by_tiles_of_the_size_that_was_trained_on() -> None:
    detector = built(PATCHES, overlap=0.5)
    sizes: list[tuple[int, ...]] = []
    shares: list[float] = []
    detector.network.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(inputs[0].shape)))
    batch = Batch(torch.rand(1, 1, 24, 40, 20), torch.ones(1, 1, 24, 40, 20, dtype=torch.bool), progress=shares.append)
    with torch.inference_mode():
        scores = detector.score(batch).map
    assert scores is not None and scores.shape == batch.foreground.shape
    assert set(sizes) == {(1, 1, 16, 16, 16)} and len(sizes) == 2 * 4 * 2 == len(shares)
    assert shares[0] == 0 and shares[-1] < 1


def test_the_memory_needed_grows_with_the_volume_by_much_less_than_the_network_takes() -> None:
    by_patches, by_slices = built(PATCHES), built(SLICES)
    small, large = (by_patches.memory_bytes(n**3) for n in (32, 256))
    assert large - small < 80 * 256**3
    assert by_slices.memory_bytes(16 * 224 * 224) > 4 * 16 * 224 * 224 * 4 * 4


@pytest.mark.parametrize(
    ("spec", "options", "complaint"),
    [
        (InputSpec("volume", (), "mr-robust"), {}, "not 'volume'"),
        (InputSpec("patches", (), "mr-robust"), {}, "needs `size:"),
        (PATCHES, {"overlap": 1.0}, "0 <= overlap < 1"),
        (PATCHES, {"widths": [4, 0]}, "whole numbers above 0"),
        (PATCHES, {"norm": "batch"}, "none of instance, group, none"),
        (PATCHES, {"width": [4]}, "width"),
    ],
)
def test_settings_that_make_no_detector_are_refused(spec: InputSpec, options: dict, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        build("unet", spec, options)
