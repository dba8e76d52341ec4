"""Synthetic lesions: where they are, what they look like, what they do to the brain around them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from AnomalyDetectionLib.errors import InputError
from AnomalyTrainingLib.synthesis.acquisition import Acquisition
from AnomalyTrainingLib.synthesis.anatomy import CHANNELS, Anatomy, icbm152
from AnomalyTrainingLib.synthesis.lesions import LesionRequest, Site, plan_tumour
from AnomalyTrainingLib.synthesis.phantom import synthesise, voxel_points

SPACING = (2.0, 2.0, 2.0)
CONNECTED = np.ones((3, 3, 3))


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return icbm152()


@pytest.fixture(scope="module")
def site(anatomy) -> Site:
    grid = Acquisition.draw(SPACING, np.random.default_rng(0)).grid
    points = voxel_points(grid)
    return Site(points, points[..., 0].numpy(), anatomy.at_resolution(SPACING).sample(points, CHANNELS), SPACING)


def pair(anatomy: Anatomy, subject: int, contrast: str, request: LesionRequest):
    """The same scan with and without the lesion."""
    settings = {"contrast": contrast, "spacing": SPACING}
    return synthesise(anatomy, subject, **settings), synthesise(anatomy, subject, **settings, lesion=request)


def test_a_tumour_has_a_dark_core_a_brighter_rim_and_bright_oedema_on_flair(anatomy, site):
    tumour = plan_tumour(site, np.random.default_rng(4))
    tissue = site.tissue
    parts = tumour.fractions(site.points, tissue)
    assert set(parts) == {"necrosis", "solid", "oedema"}
    total = sum(parts.values())
    assert float(total.min()) >= 0 and float(total.max()) <= 1 + 1e-5
    distance = (site.points - tumour.centre).norm(dim=-1).numpy()
    mean_distance = {name: float((distance * part).sum() / part.sum()) for name, part in parts.items()}
    assert mean_distance["necrosis"] < mean_distance["solid"] < mean_distance["oedema"]
    millilitres = {name: float(part.sum()) * 8 / 1000 for name, part in parts.items()}
    sphere = 4 / 3 * np.pi * tumour.radius**3 / 1000
    assert 0.5 * sphere < millilitres["necrosis"] + millilitres["solid"] < 1.6 * sphere
    assert millilitres["oedema"] > 0.3 * sphere


def test_oedema_follows_white_matter_and_spares_cortex(site):
    for seed in range(4):
        tumour = plan_tumour(site, np.random.default_rng(seed))
        wet = tumour.fractions(site.points, site.tissue)["oedema"] > 0.5
        shell = ndimage.binary_dilation(wet, iterations=3) & (site.tissue["brain"] > 0.5)
        assert float(site.tissue["wm"][wet].mean()) > 0.8
        assert float(site.tissue["wm"][wet].mean()) > float(site.tissue["wm"][shell & ~wet].mean()) + 0.2


def test_a_tumour_displaces_its_surroundings_without_folding_or_bulging_the_skull(site):
    for seed in range(4):
        tumour = plan_tumour(site, np.random.default_rng(seed))
        moved = (site.points - tumour.push(site.points)).numpy().astype(np.float64)
        size = np.linalg.norm(moved, axis=-1)
        distance = (site.points - tumour.centre).norm(dim=-1).numpy()
        shell = (np.abs(distance - tumour.radius) < 2) & (site.tissue["depth"] > 15)
        assert float(size[shell].mean()) == pytest.approx(tumour.growth, rel=0.1)
        assert 5 < tumour.growth < 11
        assert float(size[site.tissue["depth"] <= 0].max()) == 0
        outwards = np.einsum("...n,...n->...", moved, (site.points - tumour.centre).numpy())
        assert outwards.min() >= 0
        there = tumour.push(site.points).numpy().astype(np.float64)
        jacobian = np.stack(np.gradient(there, 2.0, axis=(2, 1, 0)), axis=-1)
        inside = site.tissue["depth"] > 3
        assert np.linalg.det(jacobian)[inside].min() > 0.05


def test_a_tumour_on_the_image_lies_where_the_mask_says(anatomy):
    normal, ill = pair(anatomy, 41, "flair", LesionRequest("tumour"))
    assert normal.mask is None and ill.mask is not None
    _, parts = ndimage.label(ill.mask, structure=CONNECTED)
    assert parts == 1
    assert 10 < ill.mask.sum() * 8 / 1000 < 160
    brain = (normal.volume.array > 0) & (ill.volume.array > 0)
    change = np.abs(ill.volume.array - normal.volume.array)
    far = brain & ~ndimage.binary_dilation(ill.mask, iterations=20)
    assert float(np.median(change[ill.mask])) > 4 * float(np.median(change[far]))
    oedema = float(np.quantile(ill.volume.array[ill.mask], 0.8))
    assert oedema > 1.3 * float(np.median(normal.volume.array[brain]))
    assert ill.volume.grid.same_place(normal.volume.grid)


def test_plaques_are_small_separate_and_of_the_right_brightness(anatomy):
    request = LesionRequest("plaques", {"count": 3})
    for contrast, brighter in (("flair", True), ("t1", False)):
        normal, ill = pair(anatomy, 33, contrast, request)
        labels, count = ndimage.label(ill.mask, structure=CONNECTED)
        assert count == 3
        volumes = np.bincount(labels.ravel())[1:] * 8.0
        assert (volumes > 4 / 3 * np.pi * 2.4**3).all() and (volumes < 4 / 3 * np.pi * 6.5**3).all()
        core = ndimage.binary_erosion(ill.mask)
        ratio = float(np.median(ill.volume.array[core] / np.maximum(normal.volume.array[core], 1)))
        assert ratio > 1.4 if brighter else ratio < 0.85
        outside = ~ndimage.binary_dilation(ill.mask, iterations=2)
        np.testing.assert_array_equal(ill.volume.array[outside], normal.volume.array[outside])  # no mass effect


def test_plaques_lie_in_white_matter_near_the_ventricles(site):
    depth, white = [], []
    for seed in range(10):
        plaques = LesionRequest("plaques", {"count": 4}).plan(site, np.random.default_rng(seed))
        core = plaques.fractions(site.points, site.tissue)["plaque"] > 0.5
        depth.append(site.tissue["ventricle"][core])
        white.append(site.tissue["wm"][core])
    assert float(np.concatenate(white).mean()) > 0.85
    assert 0 < float(np.median(np.concatenate(depth))) < 20


@pytest.mark.parametrize("subject", range(50, 56))
def test_a_plaque_asked_for_on_the_left_lies_on_the_patients_left(anatomy, subject):
    phantom = synthesise(
        anatomy,
        subject,
        contrast="flair",
        spacing=SPACING,
        lesion=LesionRequest("plaques", {"count": 1, "left": 1}),
    )
    assert phantom.mask is not None
    ijk = np.argwhere(phantom.mask)[:, ::-1]
    assert float(phantom.volume.grid.to_ras(ijk)[:, 0].max()) < 0


def test_lesions_repeat_with_the_seed_whatever_the_contrast(anatomy):
    request = LesionRequest("plaques")
    masks = [synthesise(anatomy, 60, contrast=c, spacing=SPACING, lesion=request).mask for c in ("t1", "flair")]
    np.testing.assert_array_equal(*masks)
    other = synthesise(anatomy, 60, contrast="t1", spacing=SPACING, seed=9, lesion=request).mask
    assert not np.array_equal(masks[0], other)


def test_what_cannot_be_planned_is_refused(site):
    with pytest.raises(InputError, match="no kind of lesion 'cyst'; known are tumour, plaques"):
        LesionRequest("cyst").plan(site, np.random.default_rng(0))
    with pytest.raises(InputError, match="no place for another plaque"):
        LesionRequest("plaques", {"count": 500}).plan(site, np.random.default_rng(0))


def test_requests_with_other_options_have_other_file_names():
    tags = [LesionRequest("plaques", options).tag for options in ({}, {"left": 1}, {"left": 2})]
    assert tags[0] == "plaques" and len(set(tags)) == 3
