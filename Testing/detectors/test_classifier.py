"""The supervised classifier: networks, starting weights, the fusion with clinical columns, and what it learns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from AnomalyDetectionLib.detectors.networks.backbones.catalogue import make_backbone
from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.scoring.contract import Batch, Detector, InputSpec
from AnomalyDetectionLib.scoring.registry import build

FLAT = InputSpec("slices", ("DX",), "radiograph", grid="frame", size=(32, 32))
DEEP = InputSpec("volume", ("MR",), "mr-robust", grid="template", spacing=(4.0, 4.0, 4.0))
COLUMNS = ({"name": "age", "centre": 50.0, "scale": 10.0}, {"name": "view", "categories": ["AP", "PA"]})
MISSING = [math.nan] * 4


def made(spec: InputSpec = FLAT, **options: Any) -> Detector:
    torch.manual_seed(0)
    return build("classifier", spec, {"network": "hybrid", "weights": "random", "dropout": 0.0, **options})


def batch(
    count: int = 4, shape: Sequence[int] = (32, 32), covariates: Sequence[Sequence[float]] | None = None
) -> Batch:
    """Grey images, the second half of them with a bright corner and the label 1."""
    image = torch.rand(count, 1, *shape, generator=torch.Generator().manual_seed(1)) * 0.5
    label = (torch.arange(count) >= count // 2).float()
    image[label == 1, :, : shape[0] // 2, : shape[1] // 2] += 0.5
    told = None if covariates is None else torch.tensor(covariates)
    return Batch(image, torch.ones(count, 1, *shape, dtype=torch.bool), label=label, covariates=told)


@pytest.mark.parametrize(
    ("spec", "network"),
    [
        *((FLAT, name) for name in ("efficientnet-lite0", "efficientnet-b0", "resnet50", "densenet121", "hybrid")),
        *((DEEP, name) for name in ("resnet18", "densenet121", "hybrid")),
    ],
    ids=lambda value: value if isinstance(value, str) else value.kind,
)
def test_every_network_gives_one_number_an_image_and_is_rebuilt_from_its_configuration(
    spec: InputSpec, network: str
) -> None:
    detector = made(spec, network=network).eval()
    side = 16 if network == "resnet18" else 32
    given = batch(2, (side,) * (2 if spec is FLAT else 3))
    score = detector.score(given)
    assert score.map is None and score.image is not None
    assert score.image.shape == (2,) and torch.isfinite(score.image).all()
    again = build("classifier", spec, detector.config())
    again.load_state_dict(detector.state_dict(), strict=True)
    assert torch.equal(again.eval().score(given).image, score.image)


def test_it_learns_to_tell_a_bright_corner() -> None:
    detector, given = made(), batch(16)
    optimiser = torch.optim.Adam(detector.parameters(), 1e-3)
    for _ in range(15):
        optimiser.zero_grad()
        detector.loss(given).backward()
        optimiser.step()
    score = detector.eval().score(given).image
    assert score is not None and score[given.label == 1].min() > score[given.label == 0].max()


def test_balanced_weights_do_not_move_the_score_away_from_the_true_share_of_abnormal_cases() -> None:
    """A network that has learnt nothing but the weighed share says one half; the score must be the true share."""
    detector = made(balanced=True, abnormal_share=0.2)
    with torch.no_grad():
        for parameter in detector.head.parameters():
            parameter.zero_()
    score = detector.eval().score(batch()).image
    assert torch.allclose(score, torch.full((4,), math.log(0.2 / 0.8)))
    given = batch(10)
    given.label = torch.tensor([0.0] * 8 + [1.0] * 2)
    detector.loss(given).backward()
    bias = list(detector.head.parameters())[-1]
    assert bias.grad is not None and abs(float(bias.grad)) < 1e-6, "zero log-odds are already the least loss"


def test_label_smoothing_makes_certainty_costly() -> None:
    sure, plain = made(label_smoothing=0.2), made()
    with torch.no_grad():
        for detector in (sure, plain):
            list(detector.head.parameters())[-1].fill_(20.0)
    given = batch(2)
    given.label = torch.ones(2)
    assert plain.loss(given) < 1e-3 and sure.loss(given) > 1.5


def test_the_mirrored_image_scores_alike_with_flips_at_test_time() -> None:
    given = batch()
    mirrored = Batch(given.image.flip(-1), given.foreground)
    for flips, alike in ((True, True), (False, False)):
        detector = made(test_time_flips=flips).eval()
        assert torch.allclose(detector.score(given).image, detector.score(mirrored).image, atol=1e-5) == alike


@pytest.mark.parametrize(("how", "expected"), [("mean", 10.5), ("max", 20.0), ("top", 19.5)])
def test_a_volume_scored_by_slices_is_judged_by_their_mean_or_its_worst(how: str, expected: float) -> None:
    assert float(made(slices=how).pooled(torch.arange(1.0, 21.0))) == expected


# -- fusion


def test_each_head_listens_to_its_own_view_and_the_fused_one_to_both() -> None:
    detector = made(clinical=COLUMNS).eval()
    told = [[0.5, 1.0, 0.0, 0.0], [-1.0, 0.0, 1.0, 0.0], [2.0, 0.0, 0.0, 1.0], MISSING]
    first, other = batch(covariates=told), batch(covariates=told[::-1])
    dark = batch(covariates=told)
    dark.image = dark.image * 0.2
    for part, hears_image, hears_columns in (("image", True, False), ("clinical", False, True), ("both", True, True)):
        detector.part = part
        score = detector.score(first).image
        assert torch.allclose(score, detector.score(dark).image) != hears_image, part
        assert torch.allclose(score, detector.score(other).image) != hears_columns, part


def test_a_case_without_any_column_is_fused_from_its_image_alone_and_a_missing_one_is_seen_as_missing() -> None:
    detector = made(clinical=COLUMNS).eval()
    absent = detector.score(batch(covariates=[MISSING] * 4)).image
    with torch.no_grad():
        detector.head.clinical_view[0].weight.add_(1.0)
    assert torch.allclose(detector.score(batch(covariates=[MISSING] * 4)).image, absent)
    average = [0.0, 1.0, 0.0, 0.0]
    no_age = [math.nan, 1.0, 0.0, 0.0]
    assert not torch.allclose(
        detector.score(batch(covariates=[average] * 4)).image, detector.score(batch(covariates=[no_age] * 4)).image
    )


def test_the_clinical_head_learns_what_only_the_columns_tell() -> None:
    detector = made(clinical=COLUMNS)
    given = batch(8, covariates=[[-1.0, 1.0, 0.0, 0.0]] * 4 + [[1.0, 0.0, 1.0, 0.0]] * 4)
    given.image[:] = 0.5
    optimiser = torch.optim.Adam(detector.parameters(), 3e-2)
    for _ in range(25):
        optimiser.zero_grad()
        detector.loss(given).backward()
        optimiser.step()
    detector.eval()
    for part, told in (("clinical", True), ("both", True), ("image", False)):
        detector.part = part
        score = detector.score(given).image
        assert (score[4:].min() > score[:4].max() + 1) == told


# -- starting weights


def test_weights_of_a_file_are_loaded_strictly_held_still_in_their_statistics_and_named(tmp_path: Path) -> None:
    torch.manual_seed(3)
    published = make_backbone("resnet18")
    state = {**published.state_dict(), "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    torch.save(state, tmp_path / "resnet18.pth")
    detector = made(network="resnet18", weights=str(tmp_path / "resnet18.pth"))
    assert "resnet18.pth" in detector.provenance.source and detector.provenance.sha256
    grey = detector.encoder.state_dict()
    assert torch.allclose(grey["conv1.weight"], state["conv1.weight"].sum(dim=1, keepdim=True))
    assert torch.equal(grey["layer3.0.conv1.weight"], state["layer3.0.conv1.weight"])
    before = {key: value.clone() for key, value in detector.encoder.state_dict().items() if "running" in key}
    detector.train()
    detector.loss(batch()).backward()
    assert before and all(torch.equal(detector.encoder.state_dict()[key], value) for key, value in before.items())
    assert detector.pretrained() is detector.encoder and made().pretrained() is None
    del state["layer3.0.conv1.weight"]
    torch.save(state, tmp_path / "resnet18.pth")
    with pytest.raises(InputError, match=r"missing layer3\.0\.conv1\.weight"):
        made(network="resnet18", weights=str(tmp_path / "resnet18.pth"))


def test_a_model_that_is_read_back_asks_for_no_weights_and_still_says_where_they_came_from(tmp_path: Path) -> None:
    torch.save(make_backbone("resnet18").state_dict(), tmp_path / "resnet18.pth")
    config = made(network="resnet18", weights=str(tmp_path / "resnet18.pth")).config()
    (tmp_path / "resnet18.pth").unlink()
    assert "resnet18.pth" in build("classifier", FLAT, config).provenance.source


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"network": "resnet51"}, "did you mean 'resnet50'"),
        ({"network": "resnet50", "weights": "imagenet"}, "needs a weights file"),
        ({"network": "hybrid", "weights": "imagenet"}, "there are no weights for the 2D network 'hybrid'"),
        ({"dropout": 1.0}, "dropout"),
        ({"slices": "median"}, "median"),
    ],
)
def test_settings_that_make_no_network_are_refused_in_one_sentence(options: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        made(**options)
    with pytest.raises(InputError, match=r"size: \[rows, columns\]"):
        made(InputSpec("slices", ("DX",), "radiograph"))
