"""The sanity check: maps of a model that forgets, of a network whose maps must change and of one whose must not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.scoring.calibrate import calibrate
from AnomalyDetectionLib.scoring.contract import Batch, Detector, InputSpec, Scores
from AnomalyDetectionLib.scoring.explaining import Explanation
from AnomalyDetectionLib.scoring.model import Model
from AnomalyDetectionLib.scoring.result import ModelIdentity
from AnomalyTrainingLib.evaluation.randomisation import Likeness, mean_likeness, randomise, weighted_layers


class Judge(Detector):
    """What a small network says of an image."""

    supervision = "labels"
    explainable = True

    def __init__(self, network: nn.Module) -> None:
        super().__init__(InputSpec("slices", ("MR",), "mr-robust", size=(40, 40)))
        self.network = network

    def explained(self, batch: Batch) -> Tensor:
        return self.network(batch.image).flatten(1).mean(dim=1)

    def explained_network(self) -> nn.Module:
        return self.network

    def score(self, batch: Batch) -> Scores:
        return Scores(image=self.explained(batch))


def image(seed: int) -> Volume:
    """A body with a bright square somewhere."""
    rng = np.random.default_rng(seed)
    array = np.zeros((1, 40, 40), dtype=np.float32)
    array[0, 2:-2, 2:-2] = rng.uniform(40, 80, (36, 36))
    row, column = rng.integers(4, 26, 2)
    array[0, row : row + 10, column : column + 10] += 120
    return Volume(array, np.eye(4), modality="MR", name=f"image-{seed}")


def model(network: nn.Module) -> Model:
    detector = Judge(network).eval()
    calibration = calibrate(detector, None, (image(seed) for seed in range(3)), device="cpu")
    return Model(ModelIdentity("judge", "1.0.0", "", "classifier"), detector, calibration)


class Learnt(nn.Module):
    """Weights for every place: what it looks at is all that it has learnt."""

    def __init__(self) -> None:
        super().__init__()
        rows = torch.linspace(-1, 1, 40)
        self.weight = nn.Parameter(torch.exp(-4 * (rows[:, None] ** 2 + rows[None] ** 2)))
        self.gain = nn.Linear(1, 1)

    def forward(self, given: Tensor) -> Tensor:
        return self.gain((self.weight * given).flatten(1).sum(dim=1, keepdim=True))


class Edges(nn.Module):
    """Shows what is bright whatever it has learnt: shuffling the one number that it has changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([2.0]))

    def forward(self, given: Tensor) -> Tensor:
        return self.scale * given**2


@pytest.mark.parametrize("method", ["saliency", "integrated-gradients"])
def test_maps_of_what_was_learnt_go_with_it_and_maps_of_the_image_alone_stay(method: str) -> None:
    volumes = [image(seed) for seed in (10, 11)]
    learnt = randomise(model(Learnt()), volumes, Explanation(method), stages=2, device="cpu")
    assert [stage.down_to for stage in learnt] == ["network.gain", "network"]
    assert learnt[0].share < 0.01 and learnt[-1].share == 1.0
    assert all(one.spearman > 0.999 for one in learnt[0].likeness), "a gain changes no ranks"
    last = mean_likeness(learnt[-1].likeness)
    assert abs(last.spearman) < 0.7 and last.ssim < 0.3
    (edges,) = randomise(model(Edges()), volumes, Explanation(method), device="cpu")
    same = mean_likeness(edges.likeness)
    assert same.spearman == pytest.approx(1.0) and same.ssim == pytest.approx(1.0)


def test_the_model_itself_forgets_nothing_and_a_seed_gives_the_same_again() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))
    judge = model(network)
    before = {key: value.clone() for key, value in judge.detector.state_dict().items()}
    first, again, other = (
        randomise(judge, [image(5)], Explanation("grad-cam", "1"), stages=2, seed=seed, device="cpu")
        for seed in (3, 3, 4)
    )
    assert all(torch.equal(value, before[key]) for key, value in judge.detector.state_dict().items())
    assert first == again != other
    assert [name for name, _ in weighted_layers(judge.detector)] == ["network.0", "network.2"]


def test_likeness_is_of_sizes_and_a_flat_map_has_no_ranks() -> None:
    rng = np.random.default_rng(1)
    one = rng.normal(size=(1, 30, 30)).astype(np.float32)
    same = Likeness.of(one, -3 * one)
    assert same.spearman == pytest.approx(1.0) and same.ssim == pytest.approx(1.0, abs=1e-6)
    unlike = Likeness.of(one, rng.normal(size=(1, 30, 30)).astype(np.float32))
    assert abs(unlike.spearman) < 0.15 and unlike.ssim < 0.3
    flat = Likeness.of(one, np.zeros_like(one))
    assert np.isnan(flat.spearman)
    assert mean_likeness([flat, Likeness(1.0, flat.ssim)]).spearman == 0.5
