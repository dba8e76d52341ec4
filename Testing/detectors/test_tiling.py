"""Tiles cover every voxel, agree with MONAI's sliding window, and can be stopped between two of them."""

from __future__ import annotations

import pytest
import torch
from monai.inferers import sliding_window_inference
from torch import Tensor

from AnomalyDetectionLib.detectors.networks.unet import UNet
from AnomalyDetectionLib.detectors.tiling import score_by_tiles


def network(dimensions: int) -> UNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet(1, 2, (4, 8), dimensions=dimensions).eval()


@pytest.mark.parametrize(
    ("spatial", "size", "overlap"),
    [
        ((40, 33, 27), (16, 16, 16), 0.25),
        ((40, 33, 27), (16, 24, 16), 0.5),
        ((10, 33, 16), (16, 16, 16), 0.25),
        ((7, 9, 11), (16, 16, 16), 0.5),
        ((50, 37), (24, 16), 0.25),
    ],
)
def test_the_map_is_that_of_monai(spatial: tuple[int, ...], size: tuple[int, ...], overlap: float) -> None:
    net, image = network(len(size)), torch.rand(1, 1, *spatial)
    everywhere = torch.ones(1, 1, *spatial, dtype=torch.bool)
    with torch.inference_mode():
        ours = score_by_tiles(net, image, everywhere, size, overlap=overlap)
        theirs = sliding_window_inference(image, size, 1, net, overlap=overlap, mode="gaussian")
    assert ours.shape == theirs.shape == (1, 2, *spatial)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_tiles_without_foreground_are_left_out_and_change_nothing_where_there_is_some() -> None:
    net, image = network(3), torch.rand(1, 1, 48, 48, 48)
    foreground = torch.zeros(1, 1, 48, 48, 48, dtype=torch.bool)
    foreground[..., 20:30, 5:12, 40:48] = True
    seen: list[Tensor] = []

    def watched(tile: Tensor) -> Tensor:
        seen.append(tile)
        return net(tile)

    with torch.inference_mode():
        whole = score_by_tiles(net, image, torch.ones_like(foreground), (16, 16, 16))
        part = score_by_tiles(watched, image, foreground, (16, 16, 16))
    assert 0 < len(seen) < 16
    inside = foreground.expand(1, 2, 48, 48, 48)
    torch.testing.assert_close(part[inside], whole[inside])
    assert not part[..., :4, 30:, :4].any(), "nothing is said of what was not looked at"
    with torch.inference_mode():
        assert not score_by_tiles(net, image, torch.zeros_like(foreground), (16, 16, 16)).any()


def test_it_tells_how_far_it_is_and_stops_between_two_tiles() -> None:
    shares: list[float] = []

    def stop_half_way(share: float) -> None:
        shares.append(share)
        if share >= 0.5:
            raise KeyboardInterrupt

    image = torch.rand(1, 1, 64, 16, 16)
    with pytest.raises(KeyboardInterrupt):
        score_by_tiles(lambda tile: tile, image, image > -1, (16, 16, 16), overlap=0, progress=stop_half_way)
    assert shares == [0.0, 0.25, 0.5]
