"""The parts of the feature detectors: alignment, bounded samples, neighbours, Gaussians, training on normals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from AnomalyDetectionLib.detectors import alignment, cutpaste
from AnomalyDetectionLib.detectors.album import Album
from AnomalyDetectionLib.detectors.gaussians import fit_gaussians, mahalanobis
from AnomalyDetectionLib.detectors.nearest import PlacedBank, coreset
from AnomalyDetectionLib.detectors.networks.backbones.catalogue import make_backbone
from AnomalyDetectionLib.detectors.projection import Projection
from AnomalyDetectionLib.detectors.reservoir import Reservoir


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def picture(seed: int, size: int = 96) -> Tensor:
    return F.interpolate(draw(1, 1, 8, 8, seed=seed), (size, size), mode="bicubic").clamp(-2, 2) / 4 + 0.5


def test_an_image_that_was_moved_is_laid_back_whatever_its_brightness() -> None:
    image = picture(0)
    moved_by = torch.tensor([[[1.06, 0.03, 0.05], [-0.04, 0.96, -0.06]]])
    found = alignment.align(0.5 * image + 0.2, alignment.warp(image, moved_by)[0, 0])
    assert (found - moved_by).abs().max() < 0.03
    before = (image - alignment.warp(image, moved_by))[..., 12:-12, 12:-12].abs().mean()
    there_and_back = alignment.warp(alignment.warp(image, found), alignment.inverse(found))
    assert (image - there_and_back)[..., 12:-12, 12:-12].abs().mean() < 0.2 * before


@pytest.mark.parametrize("size", [(300, 200), (224, 192), (384, 320), (200, 300)])
def test_images_of_any_shape_are_aligned_with_their_mean(size: tuple[int, int]) -> None:
    images = torch.cat([F.interpolate(picture(seed), size, mode="bilinear") for seed in range(3)])
    found = alignment.align(images, alignment.mean_image(images))
    assert found.shape == (3, 2, 3) and found.isfinite().all()


def test_an_image_that_cannot_be_aligned_keeps_its_frame() -> None:
    empty = torch.zeros(1, 1, 64, 64)
    assert torch.equal(alignment.align(empty, picture(0)[0, 0]), torch.eye(2, 3)[None])


def test_the_mean_of_moved_images_is_sharper_when_they_are_aligned() -> None:
    shifts = [torch.tensor([[[1.0, 0.0, dx], [0.0, 1.0, dy]]]) for dx, dy in ((0.1, 0), (-0.1, 0), (0, 0.1), (0, -0.1))]
    images = torch.cat([alignment.warp(picture(1), shift) for shift in shifts])
    assert alignment.mean_image(images).std() > 1.05 * images.mean(dim=0).std()


def test_a_reservoir_keeps_each_vector_with_the_same_chance_and_no_more_than_it_may() -> None:
    reservoir = Reservoir(places=2, capacity=50, width=1, seed=3)
    for number in range(1000):
        value = np.full((2, 1), number, np.float16)
        reservoir.offer(value, np.array([True, number % 2 == 0]), number)
    assert reservoir.filled.tolist() == [50, 50] and reservoir.seen.tolist() == [1000, 500]
    assert np.array_equal(reservoir.values[0, :, 0], reservoir.cases[0])  # float16 holds these whole numbers
    assert abs(reservoir.cases[0].mean() - 500) < 130 and (reservoir.cases[1] % 2 == 0).all()
    anywhere = Reservoir(places=1, capacity=50, width=1, seed=3)
    for number in range(20):
        anywhere.offer_anywhere(np.full((37, 1), number, np.float16), number)
    assert len(set(anywhere.cases[0].tolist())) > 10 and anywhere.seen[0] == 740


def test_an_album_keeps_images_to_a_byte_within_its_bounds() -> None:
    album = Album((1, 4, 4), most=160, seed=0)
    for value in np.linspace(0, 1, 30):
        album.offer(torch.full((1, 1, 4, 4), float(value)))
    images = album.images()
    assert images.shape == (10, 1, 4, 4) and images.dtype == torch.uint8 and len(set(images[:, 0, 0, 0].tolist())) == 10


@pytest.mark.parametrize("reach", [0, 1, 9])
def test_distances_are_those_of_a_search_by_hand(reach: int) -> None:
    rows, columns, count, k = 3, 4, 6, 2
    bank, queries = draw(rows * columns, count, 5), draw(rows * columns, 3, 5, seed=1)
    filled = torch.full((rows * columns,), count)
    filled[0], filled[1] = 4, 0
    cases = torch.arange(count).expand(rows * columns, -1)
    found = PlacedBank(bank, filled, (rows, columns), reach, cases).distances(queries, k, cases[:, :3])
    for row in range(rows):
        for column in range(columns):
            near = [
                r * columns + c
                for r in range(rows)
                for c in range(columns)
                if abs(r - row) <= reach and abs(c - column) <= reach
            ]
            for item in range(3):
                others = [bank[p, n] for p in near for n in range(int(filled[p])) if n != item]
                query = queries[row * columns + column, item]
                distances = sorted(float((query - other).norm()) for other in others)[:k]
                wanted = np.mean(distances) if distances else np.inf
                assert found[row * columns + column, item] == pytest.approx(wanted, abs=1e-4)


def test_searching_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, queries = draw(4, 30, 8), draw(4, 25, 8, seed=1)
    searched = PlacedBank(bank, torch.full((4,), 30), (2, 2), 1)
    whole = searched.distances(queries, 3)
    monkeypatch.setattr("AnomalyDetectionLib.detectors.nearest.CHUNK_NUMBERS", 500)
    torch.testing.assert_close(searched.distances(queries, 3), whole)


def test_a_coreset_is_the_greedy_one_and_covers_better_than_chance() -> None:
    vectors = draw(400, 6)
    chosen = coreset(vectors, 20, seed=0)
    assert len(set(chosen.tolist())) == 20
    for number in range(1, 20):
        distance = torch.cdist(vectors, vectors[chosen[:number]]).amin(dim=1)
        assert distance[chosen[number]] == pytest.approx(float(distance.max()), abs=1e-4)
    farthest = torch.cdist(vectors, vectors[chosen]).amin(dim=1).max()
    by_chance = torch.cdist(vectors, vectors[torch.arange(20)]).amin(dim=1).max()
    assert farthest < by_chance
    assert torch.equal(coreset(vectors, 500, seed=0), torch.arange(400))


def test_gaussians_have_the_covariance_of_ledoit_and_wolf() -> None:
    vectors = draw(2, 30, 12) @ draw(12, 12, seed=1)
    mean, whitening = fit_gaussians(vectors, torch.tensor([30, 20]))
    queries = draw(2, 5, 12, seed=2)
    found = mahalanobis(queries, mean, whitening)
    for place, count in enumerate((30, 20)):
        values = vectors[place, :count].double().numpy()
        covariance, _ = ledoit_wolf(values)
        difference = queries[place].double().numpy() - values.mean(axis=0)
        wanted = np.sqrt(np.einsum("md,dk,mk->m", difference, np.linalg.inv(covariance), difference) / 12)
        np.testing.assert_allclose(found[place], wanted, rtol=1e-3)


def test_a_projection_standardises_channels_weighs_maps_alike_and_keeps_distances() -> None:
    scales = torch.cat([torch.full((200,), 5.0), torch.full((400,), 0.01)])
    values = (draw(1, 300, 600) * scales + 3).half().numpy()
    whole, short = Projection((200, 400), 0, 0), Projection((200, 400), 256, 0)
    for projection in (whole, short):
        projection.fit(values, np.array([300]))
    standard = whole.of_stored(values)[0].float()
    assert standard[:, :200].var(dim=0).sum() == pytest.approx(0.5, rel=0.02)
    assert standard.var(dim=0).sum() == pytest.approx(1, rel=0.02)
    kept = torch.pdist(short.of_stored(values)[0].float()) / torch.pdist(standard)
    assert abs(kept.mean() - 1) < 0.05 and kept.std() < 0.06


def test_pasted_patches_and_scars_change_a_small_part_of_an_image_only() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 48, 48)
    for change, most in ((cutpaste.patched, 0.2), (cutpaste.scarred, 0.1)):
        shares = [float((change(image) != image).float().mean()) for _ in range(20)]
        assert 0 < np.mean(shares) and max(shares) <= most


@pytest.mark.slow
def test_training_on_normals_learns_to_tell_pasted_patches_and_is_the_same_for_a_seed() -> None:
    images = (torch.cat([picture(seed, 32) for seed in range(8)]) * 255).to(torch.uint8)
    told, states = [], []
    for steps in (2, 2, 40):
        torch.manual_seed(0)
        backbone = make_backbone("resnet18", in_channels=1)
        told.append(cutpaste.train_backbone(backbone, images, steps, seed=1))
        states.append(backbone.state_dict()["layer1.0.conv1.weight"])
        assert not backbone.training and not any(p.requires_grad for p in backbone.parameters())
    assert told[2] > 0.42  # chance: 0.33
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])
