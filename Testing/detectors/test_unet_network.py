"""The U-Net answers in the size it is given, sees beyond a voxel, learns, and comes back from its state unchanged."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from AnomalyDetectionLib.detectors.networks.unet import UNet
from AnomalyDetectionLib.errors import InputError


def built(*args, **options) -> UNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet(*args, **options)


@pytest.mark.parametrize("norm", ["instance", "group", "none"])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (37, 21), (1, 5), (16, 24, 8), (13, 9, 17), (1, 3, 2)])
def test_the_answer_has_the_size_of_the_image_whatever_it_is(size: tuple[int, ...], residual: bool, norm: str) -> None:
    network = built(2, 3, (4, 6, 12), dimensions=len(size), norm=norm, residual=residual)
    image = torch.rand(2, 2, *size)
    answer = network(image)
    assert answer.shape == (2, 3, *size) and torch.isfinite(answer).all()
    answer.square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_filling_up_odd_sizes_changes_nothing_but_the_border() -> None:
    network = built(1, 1, (4, 8, 8), norm="none").eval()
    image = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        whole, part = network(image), network(image[..., :49, :])
    torch.testing.assert_close(part[..., :24, :], whole[..., :24, :])
    assert not torch.allclose(part[..., 45:, :], whole[..., 45:49, :])


def test_each_level_has_its_width_and_halves_the_size() -> None:
    network = built(1, 2, (4, 8, 16, 32), dimensions=3)
    seen: list[tuple[int, ...]] = []
    for block in network.down:
        block.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape[1:])))
    network(torch.rand(1, 1, 16, 32, 24))
    assert seen == [(4, 16, 32, 24), (8, 8, 16, 12), (16, 4, 8, 6), (32, 2, 4, 3)]
    assert len(network.up) == len(network.join) == 3


def test_skips_carry_what_the_coarsest_level_cannot() -> None:
    network = built(1, 1, (4, 8), norm="none").eval()
    for up in network.up:
        nn.init.zeros_(up.weight)
    first, second = torch.rand(2, 1, 1, 16, 16)
    with torch.inference_mode():
        assert not torch.allclose(network(first), network(second))


def test_items_of_a_batch_do_not_touch_each_other() -> None:
    for dimensions, norm in itertools.product((2, 3), ("instance", "group")):
        network = built(1, 1, (4, 8), dimensions=dimensions, norm=norm).eval()
        images = torch.rand(3, 1, *[12] * dimensions)
        with torch.inference_mode():
            torch.testing.assert_close(network(images)[1:2], network(images[1:2]))


def test_instance_normalisation_is_that_of_torch() -> None:
    network = built(1, 1, (4, 8))
    values = torch.rand(2, 4, 9, 9)
    expected = nn.InstanceNorm2d(4)(values)
    torch.testing.assert_close(network.down[0].first_norm(values), expected)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_it_learns_to_outline_bright_balls_in_noise_and_survives_its_state(dimensions: int) -> None:
    network = built(1, 1, (6, 12, 12), dimensions=dimensions)
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(1)
    side = 32 if dimensions == 2 else 16

    def balls(count: int) -> tuple[Tensor, Tensor]:
        centres = torch.randint(4, side - 4, (count, dimensions), generator=generator)
        places = torch.stack(torch.meshgrid(*[torch.arange(side)] * dimensions, indexing="ij"), dim=-1)
        away = (places - centres.view(count, *[1] * dimensions, dimensions)).square().sum(dim=-1)[:, None]
        truth = (away < 9).float()
        return torch.rand(truth.shape, generator=generator) + 0.6 * truth, truth

    for _ in range(60):
        image, truth = balls(4)
        optimiser.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(network(image), truth).backward()
        optimiser.step()
    image, truth = balls(8)
    with torch.inference_mode():
        found = network(image) > 0
        dice = 2 * (found & (truth > 0)).sum() / (found.sum() + truth.sum())
        assert dice > 0.8
        other = built(1, 1, (6, 12, 12), dimensions=dimensions)
        other.load_state_dict(network.state_dict())
        assert torch.equal(other(image), network(image))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"widths": ()}, "1 to 8 whole numbers above 0"),
        ({"widths": (8, 0)}, "1 to 8 whole numbers above 0"),
        ({"widths": (8,) * 9}, "1 to 8 whole numbers above 0"),
        ({"dimensions": 4}, "dimensions 4 is neither 2 nor 3"),
        ({"norm": "batch"}, "norm 'batch' is none of instance, group, none"),
        ({"dropout": 1.0}, "0 <= dropout < 1"),
    ],
)
def test_settings_that_make_no_network_are_refused(options: dict, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        UNet(1, 1, **options)
