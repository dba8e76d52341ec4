"""An explanation takes the road of scoring: slices, neighbours, mirror images, and back into the image's geometry."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scoring.explained import Explained, Weighed, ready, spec, volume_of
from torch import Tensor, nn

from AnomalyDetectionLib.errors import Cancelled, InputError
from AnomalyDetectionLib.imaging.geometry import Grid
from AnomalyDetectionLib.imaging.template import frame_template
from AnomalyDetectionLib.scoring.attribution import attribute
from AnomalyDetectionLib.scoring.calibrate import calibrate
from AnomalyDetectionLib.scoring.contract import Detector, InputSpec
from AnomalyDetectionLib.scoring.explaining import EXPLAINABLE, LABEL, METHODS, Explanation
from AnomalyDetectionLib.scoring.model import Model
from AnomalyDetectionLib.scoring.prepare import as_normal
from AnomalyDetectionLib.scoring.raw import make_ready
from AnomalyDetectionLib.scoring.registry import BUILT_IN, build, detector_class
from AnomalyDetectionLib.scoring.result import ModelIdentity
from AnomalyDetectionLib.scoring.scorer import Scorer


def stack(seed: int = 0, shape: tuple[int, int, int] = (4, 24, 20)) -> np.ndarray:
    """A body of noise in air that is everywhere a little different."""
    array = np.zeros(shape)
    array[:, 2:-2, 2:-2] = np.random.default_rng(seed).uniform(50, 200, (shape[0], shape[1] - 4, shape[2] - 4))
    return array


def images_of(detector: Detector, array: np.ndarray) -> Tensor:
    """What the detector is given of it, (N, C, *spatial)."""
    return ready(detector, volume_of(array)).prepared.items().image


def gradients(detector: Detector, array: np.ndarray, method: str = "integrated-gradients") -> np.ndarray:
    return attribute(detector, ready(detector, volume_of(array)), Explanation(method), "cpu")[0].map.array


def model_of(detector: Detector, name: str = "classifier") -> Model:
    calibration = calibrate(detector, None, (volume_of(stack(seed)) for seed in range(1, 6)), device="cpu")
    return Model(ModelIdentity("known", "1.0.0", "", name), detector, calibration)


class Bright(nn.Module):
    """How much of the image is brighter than most of it."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.relu(image - 0.8)


# -- the case and its items


def test_slices_of_a_mean_share_the_score_and_of_a_worst_one_it_has_it_all() -> None:
    weight = torch.rand(24, 20, generator=torch.Generator().manual_seed(1))
    array = stack()
    array[2] *= np.linspace(1.0, 1.4, 24)[:, None]
    mean = Explained(spec("slices", (24, 20)), Weighed(weight))
    image = images_of(mean, array)
    expected = (weight * image)[:, 0].numpy()
    assert np.allclose(gradients(mean, array), expected / 4, atol=1e-5)
    worst = Explained(spec("slices", (24, 20)), Weighed(weight), worst=True)
    highest = int(expected.sum(axis=(1, 2)).argmax())
    found = gradients(worst, array)
    assert np.allclose(found[highest], expected[highest], atol=1e-5)
    assert not np.delete(found, highest, axis=0).any()


def test_what_a_slices_neighbours_add_is_counted_for_them() -> None:
    """Each slice is judged by its lower neighbour alone: the lowest one counts for itself and for the one above."""
    weight = torch.zeros(3, 1, 1)
    weight[0] = 1.0
    detector = Explained(spec("2.5d", (24, 20), neighbours=1), Weighed(weight.expand(3, 24, 20).clone()))
    array = stack()
    alone = ready(detector, volume_of(array)).prepared.batch.image[:, 0].numpy()
    found = gradients(detector, array)
    times = np.array([2.0, 1.0, 1.0, 0.0])
    assert np.allclose(found, times[:, None, None] * alone / 4, atol=1e-5)
    slopes = gradients(detector, array, "saliency")
    assert np.allclose(slopes, (times / 4)[:, None, None] * np.ones((4, 24, 20)), atol=1e-6)


def test_where_the_mirror_image_is_judged_too_both_are_explained() -> None:
    weight = torch.zeros(24, 20)
    weight[:, :10] = 1.0
    straight, mirrored = (Explained(spec("slices", (24, 20)), Weighed(weight), mirrored=m) for m in (False, True))
    half, whole = (gradients(detector, stack(), "saliency") for detector in (straight, mirrored))
    assert np.allclose(half[:, :, :10], 0.25) and not half[:, :, 10:].any()
    assert np.allclose(whole, 0.125)


def test_a_whole_volume_is_explained_in_three_dimensions() -> None:
    network = nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv3d(2, 1, 3, padding=1))
    torch.manual_seed(0)
    detector = Explained(spec("volume", None), network)
    array = stack(3, (12, 16, 14))
    for method in METHODS:
        found = gradients(detector, array, method)
        assert found.shape == array.shape and np.isfinite(found).all(), method
        assert found.any() or method.startswith("grad-cam"), method


@pytest.mark.parametrize("method", ["grad-cam", "grad-cam++", "integrated-gradients", "saliency", "occlusion"])
def test_the_map_lies_where_the_patient_does_on_a_flipped_anisotropic_grid(method: str) -> None:
    """One bright spot is all that the detector sees: the map's peak must be at its place in the world."""
    affine = np.array([[-1.5, 0, 0, 40], [0, 2.0, 0, -30], [0, 0, -4.0, 9], [0, 0, 0, 1.0]])
    array = stack(5, (5, 40, 36)) * 0.4
    array[1, 26:31, 7:12] = 200.0
    volume = volume_of(array, affine)
    network = Bright() if method not in ("grad-cam", "grad-cam++") else nn.Sequential(Bright(), nn.Identity())
    detector = Explained(spec("slices", (64, 64)), network)
    attribution, notes = attribute(detector, make_ready(volume, detector.spec, None), Explanation(method), "cpu")
    assert not notes and attribution.map.grid.same_place(volume.grid)
    k, j, i = np.unravel_index(int(attribution.map.array.argmax()), volume.shape)
    assert k == 1 and 24 <= j <= 32 and 5 <= i <= 13
    assert Grid(volume.shape, affine, "x").same_place(attribution.map.grid)


def test_a_radiograph_whose_frame_was_stretched_gets_its_map_back_in_its_own_frame() -> None:
    normal = volume_of(stack(1, (1, 60, 30)))
    of_frame = InputSpec("slices", ("MR",), "mr-robust", grid="frame", size=(48, 48))
    template = frame_template([as_normal(normal, of_frame)], (48, 48))
    array = stack(5, (1, 90, 40)) * 0.4
    array[0, 60:70, 6:12] = 200.0
    detector = Explained(of_frame, nn.Sequential(Bright(), nn.Identity()))
    case = make_ready(volume_of(array), detector.spec, template)
    for method in METHODS:
        found = attribute(detector, case, Explanation(method), "cpu")[0].map.array[0]
        row, column = np.unravel_index(int(found.argmax()), found.shape)
        assert 57 <= row <= 72 and 4 <= column <= 13, method


# -- through the scorer


def test_a_result_has_the_attribution_that_was_asked_for_and_nothing_else_of_it_changes() -> None:
    detector = Explained(spec("slices", (24, 20)), Weighed(torch.rand(24, 20)))
    scorer = Scorer(model_of(detector), "cpu")
    seen: list[tuple[str, float]] = []
    plain = scorer.score(volume_of(stack(9)))
    explained = scorer.score(
        volume_of(stack(9)), explain=Explanation("occlusion"), progress=lambda stage, part: seen.append((stage, part))
    )
    assert plain.attribution is None and explained.attribution is not None
    assert explained.attribution.label == LABEL == "attribution, not segmentation"
    assert explained.attribution.map.units == "attribution" and explained.attribution.layer is None
    assert not explained.findings and not explained.labels.any() and not explained.rarity.array.any()
    assert (plain.volume_score, plain.p_value) == (explained.volume_score, explained.p_value)
    parts = [part for _, part in seen]
    assert parts == sorted(parts) and parts[-1] == 1.0 and "explaining" in dict(seen)
    assert "explain" in explained.timings and "explain" not in plain.timings


def test_an_image_of_which_nothing_speaks_for_abnormal_is_said_to_be_one() -> None:
    detector = Explained(spec("slices", (24, 20)), nn.Sequential(nn.Identity(), Weighed(-torch.ones(24, 20))))
    result = Scorer(model_of(detector), "cpu").score(volume_of(stack()), explain=Explanation("grad-cam"))
    assert result.attribution is not None and not result.attribution.map.array.any()
    assert "By Grad-CAM no part of the image speaks for abnormal." in result.notes


def test_an_explanation_can_be_stopped_in_the_middle() -> None:
    detector = Explained(spec("slices", (24, 20)), Weighed(torch.rand(24, 20)))
    asked = []

    def stop(share: float) -> None:
        asked.append(share)
        if share > 0.4:
            raise Cancelled

    with pytest.raises(Cancelled):
        attribute(detector, ready(detector, volume_of(stack())), Explanation("occlusion"), "cpu", stop)
    assert asked[-1] < 0.6


def test_the_clinical_columns_of_the_patient_stand_beside_the_image_while_it_is_explained() -> None:
    column = {"name": "age", "centre": 50.0, "scale": 10.0}
    torch.manual_seed(0)
    options = {"network": "hybrid", "weights": "random", "dropout": 0.0, "clinical": [column], "test_time_flips": True}
    detector = build("classifier", spec("slices", (32, 32)), options).eval()
    maps = []
    for age in ("20", "80"):
        volume = volume_of(stack(1, (1, 32, 32)))
        told = volume.with_array(volume.array, covariates={"age": age})
        maps.append(attribute(detector, ready(detector, told), Explanation("saliency"), "cpu")[0].map.array)
    assert np.isfinite(maps).all() and not np.allclose(maps[0], maps[1])


def test_a_detector_that_makes_a_map_is_refused_before_it_scores() -> None:
    classifier = model_of(Explained(spec("slices", (24, 20)), Weighed(torch.rand(24, 20))))
    model = replace(classifier, detector=Detector(spec("slices")), identity=replace(classifier.identity, detector="ae"))
    with pytest.raises(InputError, match="the detector 'ae' cannot be explained by 'grad-cam': only classifier can"):
        Scorer(model, "cpu").score(volume_of(stack()), explain=Explanation("grad-cam"))


def test_those_who_may_not_import_torch_are_told_the_same_of_what_can_be_explained() -> None:
    assert {name for name in BUILT_IN if detector_class(name).explainable} == set(EXPLAINABLE)


def test_a_layer_that_is_not_there_is_named_with_those_that_are_nearest() -> None:
    torch.manual_seed(0)
    detector = build("classifier", spec("slices", (32, 32)), {"network": "hybrid", "weights": "random"}).eval()
    case = ready(detector, volume_of(stack(1, (1, 32, 32))))
    chosen, _ = attribute(detector, case, Explanation("grad-cam", "stages.1"), "cpu")
    assert chosen.layer == "stages.1"
    with pytest.raises(InputError, match=r"no layer 'stage\.1' with places; the nearest are stages\.1, "):
        attribute(detector, case, Explanation("grad-cam", "stage.1"), "cpu")
