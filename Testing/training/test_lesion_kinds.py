"""Infarcts, haemorrhages and atrophy: where they lie, how they look, and that space does not fold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from AnomalyTrainingLib.synthesis.acquisition import Acquisition
from AnomalyTrainingLib.synthesis.anatomy import CHANNELS, Anatomy, icbm152
from AnomalyTrainingLib.synthesis.lesions import LesionRequest, Site
from AnomalyTrainingLib.synthesis.phantom import synthesise, voxel_points

SPACING = (3.0, 3.0, 3.0)


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return icbm152()


@pytest.fixture(scope="module")
def site(anatomy) -> Site:
    points = voxel_points(Acquisition.draw(SPACING, np.random.default_rng(0)).grid)
    return Site(points, points[..., 0].numpy(), anatomy.at_resolution(SPACING).sample(points, CHANNELS), SPACING)


@pytest.mark.parametrize(
    ("kind", "contrast", "low", "high"),
    [
        ("infarct", "t1", 0.5, 0.9),
        ("infarct", "flair", 1.3, 2.0),
        ("infarct", "t2", 1.3, 2.3),
        ("haemorrhage", "t1", 1.2, 1.7),
        ("haemorrhage", "flair", 0.3, 0.7),
        ("haemorrhage", "t2", 0.25, 0.6),
        ("atrophy", "t1", 0.2, 0.6),
        ("atrophy", "t2", 1.6, 3.2),
    ],
)
def test_a_lesion_has_the_brightness_of_its_kind(anatomy, kind, contrast, low, high):
    settings = {"contrast": contrast, "spacing": SPACING}
    normal = synthesise(anatomy, 31, **settings)
    ill = synthesise(anatomy, 31, **settings, lesion=LesionRequest(kind))
    assert ill.mask is not None and ill.volume.grid.same_place(normal.volume.grid)
    assert 0.5 < ill.mask.sum() * 27 / 1000 < 150  # mL
    core = ndimage.binary_erosion(ill.mask, iterations=2) if kind == "haemorrhage" else ill.mask
    ratio = float(np.median(ill.volume.array[core] / np.maximum(normal.volume.array[core], 1)))
    assert low < ratio < high


def test_an_infarct_is_a_wedge_of_one_hemisphere_that_widens_towards_the_cortex(site):
    for seed in range(5):
        infarct = LesionRequest("infarct").plan(site, np.random.default_rng(seed))
        dead = infarct.fractions(site.points, site.tissue)["infarct"] > 0.5
        x = site.points[..., 0].numpy()[dead]
        assert (x > 0).all() or (x < 0).all()
        away = ((site.points - infarct.apex) @ infarct.axis).numpy()[dead]
        assert (away > 0).all() and away.max() > 25
        middle = (away.min() + away.max()) / 2
        assert (away > middle).sum() > 1.3 * (away < middle).sum()
        assert float(site.tissue["csf"][dead].mean()) < 0.3 and site.tissue["depth"][dead].min() < 5


def test_atrophy_widens_the_ventricles_on_every_side(anatomy, site):
    atrophy = LesionRequest("atrophy").plan(site, np.random.default_rng(1))
    after = anatomy.at_resolution(SPACING).sample(atrophy.push(site.points), CHANNELS)
    before, now = (float((tissue["ventricle"] < 0).sum()) for tissue in (site.tissue, after))
    assert 1.5 < now / before < 6
    turned = atrophy.fractions(site.points, after)["fluid"] > 0.5
    assert float(np.median(site.tissue["ventricle"][turned])) < 8


@pytest.mark.parametrize("kind", ["haemorrhage", "atrophy"])
def test_displacement_never_folds_space(site, kind):
    for seed in range(4):
        there = LesionRequest(kind).plan(site, np.random.default_rng(seed)).push(site.points).numpy().astype(np.float64)
        by_axis = np.stack(np.gradient(there, *SPACING, axis=(2, 1, 0)), axis=-1)
        inside = site.tissue["depth"] > 3
        assert np.linalg.det(by_axis)[inside].min() > 0.02, seed


def test_in_t2_ventricles_are_brightest_and_grey_matter_is_brighter_than_white(anatomy: Anatomy) -> None:
    t1, t2 = (
        synthesise(anatomy, 7, contrast=contrast, spacing=(3, 3, 3), seed=3).volume.array for contrast in ("t1", "t2")
    )
    # Away from the surface, where voxels are half air, the darkest of T1 are ventricle and the brightest white matter.
    deep = ndimage.binary_erosion(t1 > 0, iterations=6)
    fluid, grey, white = (
        np.median(t2[deep & (t1 >= np.quantile(t1[deep], low)) & (t1 <= np.quantile(t1[deep], high))])
        for low, high in ((0.0, 0.02), (0.2, 0.3), (0.7, 0.95))
    )
    assert fluid > 1.4 * grey > 1.4 * 1.1 * white
