"""Synthetic lesions: two families that share nothing, inside the body, smooth, and just where the mask says."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from AnomalyDetectionLib.scoring.contract import Batch
from AnomalyTrainingLib.synthesis import synthetic_alterations as alterations
from AnomalyTrainingLib.synthesis import synthetic_shapes as shapes
from AnomalyTrainingLib.synthesis.synthetic import FAMILIES, Family, put_in
from AnomalyTrainingLib.synthesis.synthetic_alterations import Patch
from AnomalyTrainingLib.synthesis.synthetic_shapes import Room

SHAPES = {"slices": (64, 56), "slabs": (64, 56), "volumes": (24, 32, 28)}
SLABS = 3
GENERATORS = [(family, name) for family, made in FAMILIES.items() for name in made.shapes]
ALTERATIONS = [(family, name) for family, made in FAMILIES.items() for name in made.alterations]
FAMILY_NAMES: tuple[Family, ...] = ("train", "choose")


def normals(size: tuple[int, ...], count: int = 12, slices: int = 1) -> Batch:
    """Smooth structure and a little noise in an ellipsoid, which differs from item to item."""
    rng = np.random.default_rng(5)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij")
    inside = torch.from_numpy(sum(axis**2 for axis in axes) < 0.7)
    items = []
    for _ in range(count * slices):
        waves = sum(np.sin(4 * axis + phase) for axis, phase in zip(axes, rng.uniform(0, 6, len(axes)), strict=True))
        items.append(0.5 + 0.08 * waves + rng.normal(0, 0.004, size))
    image = torch.from_numpy(np.stack(items)).float().clamp(0.02, 1) * inside
    foreground = inside.expand(count, 1, *size).clone()
    return Batch(image.reshape(count, slices, *size), foreground, epoch=3)


def every_kind() -> Iterator[tuple[str, Batch, int]]:
    for name, size in SHAPES.items():
        slices = SLABS if name == "slabs" else 1
        yield name, normals(size, slices=slices), slices


def middle(batch: Batch, slices: int) -> Tensor:
    return batch.image[:, slices // 2 : slices // 2 + 1] if slices > 1 else batch.image


def test_the_families_share_no_shape_and_no_alteration() -> None:
    train, choose = FAMILIES["train"], FAMILIES["choose"]
    for first, second in ((train.shapes, choose.shapes), (train.alterations, choose.alterations)):
        assert len(first) >= 2 and len(second) >= 3
        assert not set(first) & set(second) and not set(first.values()) & set(second.values())


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_lesions_lie_inside_the_foreground_and_where_the_mask_says(family: Family) -> None:
    for kind, batch, slices in every_kind():
        made = put_in(batch, range(100, 112), family, slices)
        assert made.target is not None and made.mask is not None and made.severity is not None
        assert made.image.shape == batch.image.shape and made.epoch == 3, kind
        assert torch.equal(made.target, middle(batch, slices)) and made.mask.shape == batch.foreground.shape, kind
        assert not made.image[~batch.foreground.expand_as(made.image)].any(), kind
        assert not made.mask[~batch.foreground].any() and set(made.mask.unique().tolist()) == {0.0, 1.0}, kind
        change = (middle(made, slices) - made.target).abs()
        marked = made.mask > 0
        assert change[marked].mean() > 0.03, kind
        assert change[batch.foreground & ~marked].mean() < 0.002, kind
        assert (change[~marked] > 0.1).float().mean() < 0.001, f"{kind}: a strong change is always marked"
        whole = [item.any().item() for item in marked]
        assert 4 <= sum(whole) <= 11, f"{kind}: most items have lesions, some have none"
        assert 0 <= made.severity.min() and made.severity.max() <= 1 and made.severity.std() > 0.1
        assert 0 <= made.image.min() and made.image.max() <= 1
        assert marked[batch.foreground].float().mean() < 0.35, kind


def test_lesions_of_slices_go_through_the_neighbours_too() -> None:
    batch = normals(SHAPES["slabs"], slices=SLABS)
    made = put_in(batch, range(12), "train", SLABS)
    above = (made.image[:, 2] - batch.image[:, 2]).abs() > 0.05
    own = (made.image[:, 1] - batch.image[:, 1]).abs() > 0.05
    assert above.any() and not torch.equal(above, own)
    assert (above & own).sum() > 0.5 * torch.minimum(above.sum(), own.sum())


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_lesions_are_a_function_of_the_seed(family: Family) -> None:
    for kind, batch, slices in every_kind():
        first, again = (put_in(batch, range(12), family, slices) for _ in range(2))
        other = put_in(batch, range(12, 24), family, slices)
        assert torch.equal(first.image, again.image) and torch.equal(first.mask, again.mask), kind
        assert torch.equal(first.severity, again.severity)
        assert not torch.equal(first.image, other.image) and not torch.equal(first.severity, other.severity), kind
        swapped = Batch(batch.image[[0, 1]], batch.foreground[[0, 1]])
        assert torch.equal(put_in(swapped, [0, 9], family, slices).image[0], first.image[0]), "items are independent"


def test_the_batch_that_is_given_stays_as_it_is() -> None:
    batch = normals(SHAPES["slices"])
    before = batch.image.clone()
    put_in(batch, range(12), "train")
    assert torch.equal(batch.image, before)


def room(size: tuple[int, ...]) -> Room:
    batch = normals(size, 1)
    foreground = batch.foreground[0, 0]
    flat = foreground.dim() == 2
    return Room.of(foreground[None] if flat else foreground, flat)


@pytest.mark.parametrize(("family", "name"), GENERATORS)
def test_shapes_come_in_all_sizes_with_edges_as_wide_as_they_say(family: Family, name: str) -> None:
    for size in (SHAPES["slices"], SHAPES["volumes"]):
        place, voxels = room(size), []
        for seed in range(40):
            shape = shapes.drawn(FAMILIES[family].shapes[name], place, np.random.default_rng(seed))
            weight = shape.weight()
            assert 0 <= weight.min() and weight.max() <= 1 and not weight[~place.foreground].any()
            assert torch.isfinite(weight).all()
            voxels.append(int((weight > 0.5).sum()))
            if shape.edge > 2.5:  # an edge that is told to be wide is not crossed in one step
                both = place.foreground[..., 1:] & place.foreground[..., :-1]
                steps = weight.diff(dim=-1).abs()[both]
                assert steps[steps > 0.01].mean() < 0.6, (seed, shape.edge)
        assert min(v for v in voxels if v) <= 20 and max(voxels) > 0.02 * place.foreground.sum(), (size, voxels)


@pytest.mark.parametrize(("family", "name"), ALTERATIONS)
def test_every_alteration_changes_the_lesion_and_fades_with_the_severity(family: Family, name: str) -> None:
    batch = normals(SHAPES["slices"], 2)
    place = room(SHAPES["slices"])
    image, donor = batch.image[:, :, None]
    alter = FAMILIES[family].alterations[name]
    inside, sizes = [], []
    for seed in range(6):
        shape = shapes.drawn(shapes.ellipsoids, place, np.random.default_rng(seed + 50))
        changes = []
        for severity in (0.0, 0.3, 1.0):
            patch = Patch(image, donor, place.foreground, severity)
            altered, reach = alter(patch, shape, np.random.default_rng(seed))
            change = (altered - image).abs()
            assert not change[:, reach == 0].any(), "nothing changes where the alteration says that it does not reach"
            changes.append(float(change.mean()))
        assert changes[0] < 1e-6 and changes[1] < changes[2]
        inside.append(float(change[:, shape.weight() > 0.5].mean() if (shape.weight() > 0.5).any() else 0))
        sizes.append(changes[2])
    assert max(inside) > 0.01


def test_a_mass_pushes_tissue_and_adds_none() -> None:
    batch = normals(SHAPES["slices"], 2)
    place = room(SHAPES["slices"])
    image, donor = batch.image[:, :, None]
    shape = shapes.drawn(shapes.ellipsoids, place, np.random.default_rng(3))
    pushed, _ = alterations.mass(Patch(image, donor, place.foreground, 1.0), shape, np.random.default_rng(0))
    assert image.min() <= pushed.min() and pushed.max() <= image.max()
