"""`zscore`: robust, two-tailed, blind to shading and to what lies outside."""

from __future__ import annotations

import pytest
import torch

from AnomalyDetectionLib.detectors.zscore import ZScore, smooth_within
from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.scoring.contract import Batch, InputSpec
from AnomalyDetectionLib.scoring.registry import build

SPEC = InputSpec("volume", ("MR",), "mr-robust", spacing=(2.0, 2.0, 2.0))
SHAPE = (16, 18, 20)


def normal(seed: int) -> Batch:
    """Shared structure, individual noise of standard deviation 0.02, foreground away from the border."""
    structure = torch.rand(SHAPE, generator=torch.Generator().manual_seed(99)) * 0.4 + 0.3
    noise = 0.02 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
    foreground = torch.zeros(SHAPE, dtype=torch.bool)
    foreground[2:-2, 2:-2, 2:-2] = True
    return Batch(torch.where(foreground, structure + noise, 0.0)[None, None], foreground[None, None])


def fitted(count: int = 30, **options: object) -> ZScore:
    detector = ZScore(SPEC, **options)  # type: ignore[arg-type]
    for seed in range(count):
        detector.absorb(normal(seed))
    detector.finish()
    return detector


def test_without_smoothing_scores_are_standard_deviations() -> None:
    detector = fitted(200, smooth=0.0, shading=0.0, floor=0.0)
    z = detector.score(normal(1000)).map
    inside = normal(1000).foreground
    assert float(z[inside].square().mean().sqrt()) == pytest.approx(1.0, abs=0.08)


def test_one_outlier_among_the_normals_changes_nothing_much() -> None:
    clean, spoilt = ZScore(SPEC), ZScore(SPEC)
    for seed in range(25):
        clean.absorb(normal(seed))
        batch = normal(seed)
        if seed == 7:
            batch.image[0, 0, 6:10, 6:10, 6:10] = 1.0
        spoilt.absorb(batch)
    clean.finish()
    spoilt.finish()
    assert float((clean.median - spoilt.median).abs().max()) < 0.03
    test = normal(500)
    test.image[0, 0, 6:10, 6:10, 6:10] = 1.0
    assert float(spoilt.score(test).map[0, 0, 7:9, 7:9, 7:9].min()) > 5


@pytest.mark.parametrize(
    ("tails", "bright", "dark"), [("both", True, True), ("high", True, False), ("low", False, True)]
)
def test_the_tails_decide_which_deviations_count(tails: str, bright: bool, dark: bool) -> None:
    detector = fitted(tails=tails)
    for delta, counts in ((0.3, bright), (-0.3, dark)):
        batch = normal(600)
        batch.image[0, 0, 7:10, 7:10, 7:10] += delta
        score = float(detector.score(batch).map[0, 0, 8, 8, 8])
        assert (score > 4) == counts and (score < 0 or counts)


def test_shading_is_not_a_lesion() -> None:
    ramp = torch.linspace(-0.06, 0.06, SHAPE[2])
    shaded = normal(700)
    shaded.image = torch.where(shaded.foreground, shaded.image + ramp, 0.0)
    heeding, blind = fitted(shading=0.0), fitted(shading=3.0)
    excess = [
        float(d.score(shaded).map[shaded.foreground].mean() - d.score(normal(700)).map[shaded.foreground].mean())
        for d in (heeding, blind)
    ]
    assert excess[0] > 1.0
    assert excess[1] < 0.35 * excess[0]


def test_nothing_is_scored_outside_the_foreground_or_the_atlas() -> None:
    detector = fitted()
    batch = normal(800)
    batch.foreground[...] = True
    batch.image[...] = 0.9
    scores = detector.score(batch)
    assert torch.equal(scores.scored, detector.support[None, None])
    assert float(scores.map[~scores.scored].abs().max()) == 0.0


def test_too_few_normals_are_refused() -> None:
    with pytest.raises(InputError, match="at least 5 normal cases to train on; there are 4"):
        fitted(4)


def test_an_option_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(InputError, match="tails 'upper'"):
        build("zscore", SPEC, {"tails": "upper"})
    with pytest.raises(InputError, match="cannot be negative"):
        build("zscore", SPEC, {"smooth": -1})


def test_a_rebuilt_detector_scores_the_same() -> None:
    detector = fitted()
    rebuilt = build("zscore", SPEC, detector.config())
    rebuilt.load_state_dict(detector.state_dict())
    assert torch.equal(rebuilt.score(normal(900)).map, detector.score(normal(900)).map)


def test_the_state_holds_the_patients_voxels_only_and_comes_back_to_the_last_bit() -> None:
    detector = fitted()
    detector.support[2, 2, 2:9] = False  # not everything that is covered is judged
    state = detector.state_dict()
    inside = 12 * 14 * 16
    assert {name: (value.dtype, value.numel()) for name, value in state.items()} == {
        "covered": (torch.uint8, 16 * 18 * 20 // 8),
        "support": (torch.uint8, 16 * 18 * 20 // 8),
        "reference": (torch.float16, inside),
        "median": (torch.float16, inside - 7),
        "deviation": (torch.float16, inside - 7),
    }
    rebuilt = build("zscore", SPEC, detector.config())
    rebuilt.load_state_dict(state)
    for name in ("reference", "support"):
        assert torch.equal(getattr(rebuilt, name), getattr(detector, name))
    for name in ("median", "deviation"):
        assert torch.equal(getattr(rebuilt, name)[detector.support], getattr(detector, name)[detector.support])


def test_a_state_that_does_not_fit_is_refused() -> None:
    state = fitted().state_dict()
    with pytest.raises(RuntimeError, match="median"):
        ZScore(SPEC, shape=SHAPE).load_state_dict({name: value for name, value in state.items() if name != "median"})
    for spoilt in ({"median": state["median"][:-1]}, {"support": state["support"][:-1]}):
        with pytest.raises(RuntimeError):
            ZScore(SPEC, shape=SHAPE).load_state_dict(state | spoilt)


def test_smoothing_takes_nothing_from_outside() -> None:
    image = torch.full((1, 1, 8, 8, 8), 5.0)
    foreground = torch.zeros_like(image, dtype=torch.bool)
    foreground[..., 2:6, 2:6, 2:6] = True
    image[~foreground] = 1000.0
    smoothed = smooth_within(image, foreground, 1.5)
    assert torch.allclose(smoothed[foreground], torch.tensor(5.0))
    assert float(smoothed[~foreground].abs().max()) == 0.0


def test_a_single_image_is_smoothed_within_its_plane() -> None:
    image = torch.rand(1, 1, 1, 12, 12)
    smoothed = smooth_within(image, torch.ones_like(image, dtype=torch.bool), 1.0)
    assert float(smoothed.std()) < 0.6 * float(image.std())
