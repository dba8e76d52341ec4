"""`restore`: undoes synthetic lesions, scores what it changed, and comes out of a bundle as it went in."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import simulated
import torch
from torch import Tensor

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.write import write_volume
from AnomalyDetectionLib.models.bundle import load_bundle
from AnomalyDetectionLib.scoring.contract import Batch, InputSpec
from AnomalyDetectionLib.scoring.prepare import prepare
from AnomalyDetectionLib.scoring.registry import build
from AnomalyDetectionLib.scoring.scorer import Scorer
from AnomalyTrainingLib.cohorts.manifest import read_manifest
from AnomalyTrainingLib.training.config import read_config
from AnomalyTrainingLib.training.run import export, train

SPEC = InputSpec("2.5d", ("MR",), "mr-robust", spacing=(6.0, 6.0, 6.0), size=(40, 40), neighbours=1)
CONFIG = """
name: tiny-restore
detector: restore
few_normals: true
options: {widths: [8, 16, 32], score_by: product}
input: {kind: 2.5d, neighbours: 1, modalities: [MR], grid: own, spacing: [6.0, 6.0, 6.0], size: [40, 40]}
training: {epochs: 12, batch: 4, learning_rate: 0.001}
findings: {least_ml: 1.0}
calibration: {method: split}
baselines: none
"""


def restore(**options):
    torch.manual_seed(0)
    return build("restore", SPEC, {"widths": [4, 8], **options}).eval()


def batch(count: int = 3) -> Batch:
    items = prepare(simulated.head(1), SPEC).items(5, 5 + count)
    image = items.image.clone()
    image[:, 1, 18:22, 18:22] = 1.0
    mask = torch.zeros_like(items.foreground, dtype=torch.float32)
    mask[:, :, 18:22, 18:22] = 1
    return Batch(image, items.foreground, items.image[:, 1:2], mask, torch.full((count,), 0.8))


class Known:
    """Stands for the forward pass: takes away half of what is brighter than 0.5, and notes what it was given."""

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __call__(self, image: Tensor, severity: Tensor) -> tuple[Tensor, Tensor]:
        self.seen.append((image.clone(), severity))
        change = -(image[:, 1:2] - 0.5).clamp_min(0) / 2
        change = torch.where(image[:, 1:2] == 0, 0.3, change)  # no training tells a network to leave the air alone
        return change, torch.where(change != 0, 30.0, -30.0)


def test_an_untrained_network_changes_nothing() -> None:
    image = batch().image
    change, logit = restore()(image, torch.ones(3))
    assert not change.any() and torch.sigmoid(logit).max() < 0.04
    assert not restore(score_by="change").score(batch()).map.any()


def test_the_loss_falls_as_the_lesion_is_undone_and_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    given, detector = batch(), restore()
    losses = []
    for share in (0.0, 0.5, 1.0):
        change = share * (given.target - given.image[:, 1:2])
        logit = (2 * given.mask - 1) * 8 * share
        monkeypatch.setattr(detector, "forward", lambda image, severity, c=change, m=logit: (c, m))
        losses.append(float(detector.loss(given)))
    assert losses[0] > losses[1] > losses[2] >= 0 and losses[2] < 1e-3
    outside = ~given.foreground
    monkeypatch.setattr(detector, "forward", lambda image, severity: (change + 5.0 * outside, logit))
    assert float(detector.loss(given)) == pytest.approx(losses[2], abs=1e-6), "air does not count"


@pytest.mark.parametrize(("score_by", "expected"), [("probability", 0.25), ("change", 0.2), ("product", 0.05)])
def test_the_score_is_what_was_asked_for_and_zero_outside_the_foreground(score_by: str, expected: float) -> None:
    given, detector = batch(), restore(score_by=score_by)
    up = torch.full_like(given.target, 0.2)
    up[:, :, ::2] *= -1
    logit = torch.full_like(up, math.log(0.25 / 0.75))
    detector.forward = lambda image, severity: (up, logit)
    found = detector.score(given).map
    assert torch.allclose(found[given.foreground], torch.tensor(expected)) and not found[~given.foreground].any()


def test_several_steps_leave_as_much_of_the_lesion_as_the_severity_says() -> None:
    given, detector, known = batch(), restore(steps=4, score_by="change"), Known()
    detector.forward = known
    total = detector.score(given).map
    assert [float(severity[0]) for _, severity in known.seen] == [1.0, 0.75, 0.5, 0.25]
    place = (0, 1, 20, 20)
    levels = [float(image[place]) for image, _ in known.seen]
    for step, (before, after) in zip((4, 3, 2), itertools.pairwise(levels), strict=True):
        restored = before - (before - 0.5) / 2
        assert after == pytest.approx(restored + (step - 1) / step * (before - restored), abs=1e-6)
    mean = sum((level - 0.5) / 2 for level in levels) / 4
    assert given.foreground[0, 0, 20, 20] and float(total[0, 0, 20, 20]) == pytest.approx(mean, abs=1e-6)
    for image, _ in known.seen:
        assert torch.equal(image[:, 1:2][~given.foreground], given.image[:, 1:2][~given.foreground]), "the air too"
        assert torch.equal(image[:, [0, 2]], given.image[:, [0, 2]]), "neighbours stay as they are"


def test_mirror_and_position_are_inputs_where_they_are_asked_for() -> None:
    for mirror in (False, True):
        for position in (False, True):
            detector = restore(mirror=mirror, position=position)
            inputs = detector._inputs(batch().image)
            assert inputs.shape[1] == detector.network.down[0].first.in_channels == 3 + mirror + 2 * position
            if mirror:
                assert torch.equal(inputs[:, 3], inputs[:, 1].flip(-1)) and inputs[:, 3].any()
            if position:
                assert inputs[0, -2, 0, 0] == inputs[0, -1, 0, 0] == -1 and inputs[0, -1, 0, -1] == 1


def test_the_severity_makes_a_difference_once_something_was_learnt() -> None:
    detector = restore()
    torch.nn.init.normal_(detector.head.weight)
    weak, strong = (detector(batch().image, torch.full((3,), s))[0] for s in (0.1, 1.0))
    assert not torch.allclose(weak, strong)


def test_impossible_settings_are_refused() -> None:
    for options, said in (
        ({"steps": 0}, "steps 0"),
        ({"steps": 2.0}, "steps 2.0"),
        ({"probability_weight": -1}, "probability_weight"),
        ({"smooth": -0.5}, "smooth"),
        ({"widths": []}, "widths"),
        ({"score_by": "both"}, "score_by"),
        ({"norm": "batch"}, "norm"),
    ):
        with pytest.raises(InputError, match=said):
            restore(**options)
    with pytest.raises(InputError, match=r"must be `kind: 2\.5d`"):
        build("restore", InputSpec("volume", ("MR",), "mr-robust"), {})


def test_its_options_rebuild_it() -> None:
    changed = restore(steps=3, mirror=False, position=False, score_by="product", smooth=0.5, norm="instance")
    again = build("restore", SPEC, changed.config())
    again.load_state_dict(changed.state_dict(), strict=True)
    assert again.config() == changed.config() and again.config()["steps"] == 3


@pytest.mark.slow
def test_a_short_real_training_finds_a_lesion_and_the_bundle_scores_as_the_run_did(tmp_path: Path) -> None:
    lines = ["case,patient,image,label,split"]
    for n, split in enumerate(["train"] * 4 + ["validate"] + ["calibrate"] * 3):
        write_volume(simulated.head(n), tmp_path / f"head{n}.nii.gz")
        lines.append(f"n{n},p{n},head{n}.nii.gz,0,{split}")
    (tmp_path / "cohort.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "config.yaml").write_text(CONFIG)
    config, cohort = read_config(tmp_path / "config.yaml"), read_manifest(tmp_path / "cohort.csv")
    run = train(config, cohort, tmp_path / "run", device="cpu")
    curve = run.info["training"]["curve"]
    assert curve[-1][0] < 0.8 * curve[0][0], "the loss falls"
    export(tmp_path / "run", tmp_path / "bundle")
    trained, exported = (Scorer(load_bundle(tmp_path / name), "cpu") for name in ("run/model", "bundle"))
    normal, inside, healthy = simulated.head(50), [], []
    for gain in (2.2, 0.4):
        volume = simulated.head(50, lesion_ras=(-30, 10, 10), lesion_mm=20.0, lesion_gain=gain)
        first, second = trained.score(volume), exported.score(volume)
        assert np.abs(first.rarity.array - second.rarity.array).max() <= 1e-4 and first.rarity.array.std() > 0.05
        assert np.array_equal(second.rarity.array, exported.score(volume).rarity.array)
        lesion = np.abs(volume.array - normal.array) > 20
        inside.append(second.rarity.array[second.foreground & lesion].mean())
        healthy.append(second.rarity.array[second.foreground & ~lesion].mean())
    # Which of the two a short training learns to see best differs with the seed and the processor; that it sees
    # something does not: over six trainings the ratio was 2.4 to 4.4.
    assert np.mean(inside) > 1.5 * np.mean(healthy)
