"""Methods of attribution on networks whose answer is known: sums, gradients, windows, and a blob that was planted."""

from __future__ import annotations

import captum.attr
import pytest
import torch
from scoring.explained import BLOB, Weighed, blobs, small_network, trained
from torch import Tensor, nn

from AnomalyDetectionLib.detectors.networks.backbones.catalogue import make_backbone
from AnomalyDetectionLib.detectors.networks.hybrid import Hybrid
from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.scoring import attribution_methods as methods
from AnomalyDetectionLib.scoring.explaining import METHODS, Explanation
from AnomalyDetectionLib.scoring.layers import Layer, default_layer, layer_named, layers_of

DRAWN = torch.Generator().manual_seed(5)


def answers(network: nn.Module) -> methods.Answer:
    return lambda image: network(image).flatten(1).sum(dim=1)


def layers(network: nn.Module, image: Tensor) -> dict[str, Layer]:
    return layers_of(network, lambda: network(image.clone().requires_grad_(True)), image.dim() - 2)


@pytest.fixture(scope="module", params=[0, 2])
def learnt(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor, Tensor]:
    """A network that has learnt to tell a blob, new images with one, and where it is."""
    image, _, corner = blobs(8, torch.Generator().manual_seed(100 + request.param))
    return trained(request.param), image[4:], corner[4:]


# -- of the input


def test_what_a_weighed_sum_is_made_of_is_each_pixel_times_its_weight() -> None:
    weight, image = torch.randn(1, 1, 6, 8, generator=DRAWN), torch.rand(1, 1, 6, 8, generator=DRAWN)
    answer = answers(Weighed(weight))
    assert torch.allclose(methods.integrated_gradients(answer, image), weight * image, atol=1e-6)
    assert torch.allclose(methods.slopes(answer, image), weight)


def test_integrated_gradients_add_up_to_the_difference_from_black(learnt: tuple[nn.Module, Tensor, Tensor]) -> None:
    network, images, _ = learnt
    answer, image = answers(network), images[:1]
    difference = float((answer(image) - answer(torch.zeros_like(image))).detach())
    assert abs(difference) > 1
    assert float(methods.integrated_gradients(answer, image).sum()) == pytest.approx(difference, rel=0.02)


def test_a_covered_window_takes_away_what_its_pixels_add_and_others_nothing() -> None:
    weight = torch.zeros(1, 1, 28, 28)
    weight[..., 8:12, 12:16] = 1.0
    image = torch.full((1, 1, 28, 28), 0.75)
    found = methods.occlusion(answers(Weighed(weight)), image, 0.25)[0, 0]
    # Windows of 4 x 4 move by 2: the window that is the blob takes away 16 * 0.5, those half over it half as much.
    assert float(found.max()) == pytest.approx((8 + 4 + 4 + 2) / 4)
    assert int(found.argmax()) // 28 in range(8, 12) and int(found.argmax()) % 28 in range(12, 16)
    outside = found.clone()
    outside[6:14, 10:18] = 0
    assert not outside.any()


# -- class activation


@pytest.mark.parametrize("dimensions", [2, 3])
def test_grad_cam_of_maps_is_that_of_captum(dimensions: int) -> None:
    torch.manual_seed(3)
    network, image = small_network(dimensions), torch.rand(1, 1, *[16] * dimensions)
    for name in ("1", "3", "5"):
        layer = layer_named(name, network, layers(network, image))
        own = methods.class_activation(answers(network), image, network, layer, plus_plus=False)
        theirs = captum.attr.LayerGradCam(answers(network), network.get_submodule(name)).attribute(
            image, relu_attributions=True
        )
        mode = "bilinear" if dimensions == 2 else "trilinear"
        theirs = captum.attr.LayerAttribution.interpolate(theirs, image.shape[2:], mode)
        assert own.any() and torch.allclose(own, theirs.detach(), atol=1e-7)


def test_grad_cam_plus_plus_is_the_papers_sum_over_places() -> None:
    torch.manual_seed(4)
    network, image = small_network(), torch.rand(1, 1, 8, 8)
    maps = network[:4](image)  # behind the second activation: its gradients differ from place to place
    answer = network[4:](maps).sum()
    (slope,) = torch.autograd.grad(answer, maps)
    maps = maps.detach()
    expected = torch.zeros(4, 4)
    for channel in range(16):
        total, weight = float(maps[0, channel].sum()), 0.0
        for g in slope[0, channel].flatten().tolist():
            weight += max(g, 0.0) * g**2 / (2 * g**2 + total * g**3) if g > 0 else 0.0
        expected += weight * maps[0, channel]
    layer = Layer("3", (4, 4))
    found = methods.class_activation(answers(network), image, network, layer, plus_plus=True)
    whole = nn.functional.interpolate(expected[None, None], (8, 8), mode="bilinear", align_corners=False)
    assert whole.any() and torch.allclose(found, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["grad-cam", "grad-cam++", "integrated-gradients", "occlusion"])
def test_a_planted_blob_is_where_a_network_that_learnt_it_is_said_to_look(
    method: str, learnt: tuple[nn.Module, Tensor, Tensor]
) -> None:
    """Over eight seeds the share about the blob was 0.66 or more, of a map that knows nothing of it 0.14."""
    network, images, corners = learnt
    answer, shares = answers(network), []
    for image, (row, column) in zip(images.split(1), corners.tolist(), strict=True):
        if method.startswith("grad-cam"):
            layer = default_layer(network, layers(network, image))
            found = methods.class_activation(answer, image, network, layer, plus_plus=method.endswith("++"))
        elif method == "occlusion":
            found = methods.occlusion(answer, image, float(image.mean()))
        else:
            found = methods.integrated_gradients(answer, image).abs()
        found = found.clamp(min=0)[0, 0]
        around = found[max(0, row - 4) : row + BLOB + 4, max(0, column - 4) : column + BLOB + 4]
        shares.append(float(around.sum() / found.sum()))
    assert sum(shares) / len(shares) > 0.4, shares


# -- layers


def test_only_layers_with_places_are_offered_and_the_last_one_is_the_default() -> None:
    network, image = small_network(), torch.rand(1, 1, 16, 16)
    found = layers(network, image)
    assert list(found) == ["0", "1", "2", "3", "4", "5"] and found["5"].grid == (4, 4)
    assert default_layer(network, found).name == "5"
    with pytest.raises(InputError, match=r"no layer '55' with places; the nearest are 5; without a name it is 5"):
        layer_named("55", network, found)
    with pytest.raises(InputError, match="no layer whose output has places"):
        default_layer(network, {})


@pytest.mark.parametrize(
    ("name", "side", "default"),
    [
        ("efficientnet-lite0", 64, "_active"),
        ("efficientnet-b0", 64, "features.8"),
        ("resnet18", 64, "layer4"),
        ("densenet121", 64, "active"),
        ("vit-b16", 64, "encoder.layers.encoder_layer_11.ln_1"),
    ],
)
def test_every_backbone_is_explained_at_its_last_maps(name: str, side: int, default: str) -> None:
    torch.manual_seed(0)
    network, image = make_backbone(name, 1).eval(), torch.rand(1, 1, side, side)
    layer = layer_named(None, network, layers(network, image))
    assert layer.name == default
    assert layer.grid == ((4, 4) if name == "vit-b16" else (2, 2))
    for plus_plus in (False, True):
        found = methods.class_activation(answers(network), image, network, layer, plus_plus=plus_plus)
        assert found.shape == image.shape and torch.isfinite(found).all() and (found >= 0).all()


def test_a_transformers_tokens_are_read_as_the_places_they_stand_for() -> None:
    torch.manual_seed(0)
    network, image = Hybrid(1).eval(), torch.rand(1, 1, 64, 96)
    found = layers(network, image)
    assert found["stages"].grid == found["transformer.layers.0"].grid == (4, 6)
    assert found["transformer.layers.0"].extra == 0 and default_layer(network, found).name == "stages"
    tokens = torch.arange(24.0).view(1, 24, 1).expand(1, 24, 192)
    assert torch.equal(found["transformer.layers.0"].maps(tokens)[0, 7], torch.arange(24.0).view(4, 6))
    class_token = Layer("x", (4, 6), 1).maps(torch.cat([torch.full((1, 1, 192), 99.0), tokens], dim=1))
    assert torch.equal(class_token[0, 0], torch.arange(24.0).view(4, 6))


# -- what can be asked for


@pytest.mark.parametrize(
    ("method", "layer", "sentence"),
    [
        ("gradcam", None, "there is no explanation by 'gradcam' .did you mean 'grad-cam'"),
        ("lime", None, f"known are {', '.join(METHODS)}".replace("+", r"\+")),
        ("occlusion", "layer4", "'occlusion' looks at no layer"),
    ],
)
def test_what_there_is_not_is_refused_in_one_sentence(method: str, layer: str | None, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Explanation(method, layer)


def test_without_captum_its_methods_are_refused_and_grad_cam_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "captum.attr", None)
    with pytest.raises(InputError, match=r"by 'saliency' needs the Python package 'captum\.attr'; install it"):
        methods.slopes(answers(small_network()), torch.rand(1, 1, 8, 8))
    network, image = small_network(), torch.rand(1, 1, 8, 8)
    layer = layer_named(None, network, layers(network, image))
    assert methods.class_activation(answers(network), image, network, layer, plus_plus=False).shape == image.shape
