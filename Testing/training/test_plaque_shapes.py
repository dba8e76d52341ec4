"""Plaques in the shapes of real ones: taken from masks, put into white matter, refused where there are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from label_maps import write_plaque_masks
from scipy import ndimage

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.geometry import Grid
from AnomalyDetectionLib.imaging.write import write_labels
from AnomalyTrainingLib.synthesis.anatomy import CHANNELS, Anatomy, icbm152
from AnomalyTrainingLib.synthesis.lesions import LesionRequest
from AnomalyTrainingLib.synthesis.phantom import synthesise, voxel_points
from AnomalyTrainingLib.synthesis.plaque_shapes import plan_shaped_plaques, plaque_shapes
from AnomalyTrainingLib.synthesis.site import Site

SPACING = (2.5, 2.5, 2.5)


@pytest.fixture(scope="module")
def masks(tmp_path_factory) -> Path:
    return write_plaque_masks(tmp_path_factory.mktemp("masks"))


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return icbm152()


@pytest.fixture(scope="module")
def site(anatomy) -> Site:
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = (-80, -110, -60)
    points = voxel_points(Grid((60, 76, 64), affine))
    return Site(points, points[..., 0].numpy(), anatomy.at_resolution(SPACING).sample(points, CHANNELS), SPACING)


def test_every_component_of_the_masks_is_a_shape_where_it_was_and_specks_are_none(masks):
    shapes = plaque_shapes(str(masks))
    assert len(shapes) == 4  # two of each mask; the speck of 8 mm3 is not one
    assert [shape.mm3 for shape in shapes] == [510, 4 * 5 * 9 + 4 * 7 * 4, 510, 292]
    np.testing.assert_allclose(shapes[0].centre, (23 + 8, -27.5, 24), atol=1)
    long = np.argwhere(shapes[0].values > 0.5)
    assert (np.ptp(long, axis=0) + 1).tolist() == [5, 6, 17]
    assert all(shape.values.sum() == shape.mm3 for shape in shapes)
    assert plaque_shapes(str(masks / "mask_[2].nii.gz"))[0].centre[0] == pytest.approx(shapes[2].centre[0])


def test_plaques_keep_size_and_shape_and_lie_in_white_matter_of_either_side(masks, site):
    shapes = plaque_shapes(str(masks))
    white = site.tissue["wm"]
    sides = set()
    for seed in range(6):
        plaques = plan_shaped_plaques(site, np.random.default_rng(seed), shapes, count=3)
        inside = plaques.fractions(site.points, site.tissue)["plaque"]
        volume = float(inside.sum() * np.prod(SPACING))
        assert 0.55 * 3 * 290 < volume < 1.6 * 3 * 510
        assert (inside * white).sum() / inside.sum() > 0.7
        regions, _ = ndimage.label(inside > 0.25, structure=np.ones((3, 3, 3)))
        largest = np.argmax(np.bincount(regions.ravel())[1:]) + 1
        spread = np.cov(site.points.numpy()[regions == largest].T)
        lengths = np.sqrt(np.linalg.eigvalsh(spread))
        assert lengths[2] > 1.4 * lengths[0]  # long or bent, no ball
        sides |= set(np.sign(site.points[..., 0].numpy()[inside > 0.5]))
    assert sides == {-1.0, 1.0}


def test_the_same_seed_gives_the_same_plaques_and_none_leaves_the_brain(anatomy, masks):
    request = LesionRequest("plaques", {"shapes": str(masks)})
    settings = {"contrast": "flair", "spacing": (3.0, 3.0, 3.0)}
    normal = synthesise(anatomy, 8, **settings)
    ill, again = (synthesise(anatomy, 8, **settings, lesion=request) for _ in range(2))
    assert ill.mask is not None and ill.volume.sha256() == again.volume.sha256()
    assert ill.mask.sum() * 27 > 300
    assert not (ill.mask & (normal.volume.array == 0)).any()
    np.testing.assert_array_equal(ill.volume.array > 0, normal.volume.array > 0)
    assert float(np.median(ill.volume.array[ill.mask] / normal.volume.array[ill.mask])) > 1.2
    other = synthesise(anatomy, 9, **settings, lesion=request)
    assert other.mask is not None and (other.mask != ill.mask).any()


def test_what_is_no_mask_of_plaques_is_refused_in_one_sentence(tmp_path):
    affine = np.eye(4)
    affine[:3, 3] = (-20, -30, 10)
    grid, empty = Grid((40, 40, 40), affine), np.zeros((40, 40, 40), dtype=np.uint8)

    def refusal(name: str, mask: np.ndarray, where: Grid = grid) -> str:
        folder = tmp_path / name
        folder.mkdir()
        write_labels(mask, where, folder / "mask.nii.gz")
        with pytest.raises(InputError) as error:
            plaque_shapes(str(folder))
        return str(error.value)

    speck, large, far = empty.copy(), empty.copy(), empty.copy()
    speck[5, 5, 5] = 1
    large[10:30, 10:30, 10:30] = 1
    far[10:15, 10:15, 10:15] = 1
    elsewhere = Grid(grid.shape, np.array([[1.0, 0, 0, 300], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    assert "the lesion mask is empty" in refusal("empty", empty)
    assert "no lesion of the masks has between 30 and 12000 mm3" in refusal("speck", speck)
    assert "12% of the image is lesion" in refusal("large", large)
    assert "outside MNI space's brain" in refusal("far", far, elsewhere)
    with pytest.raises(InputError, match="no such folder of lesion masks"):
        plaque_shapes(str(tmp_path / "absent"))
    with pytest.raises(InputError, match="there is no lesion mask"):
        plaque_shapes(str(tmp_path))


def test_the_masks_of_real_patients_give_many_shapes(shared_data):
    shapes = plaque_shapes(str(shared_data / "ms" / "mask_*.nii.gz"))
    assert len(shapes) > 200
    assert max(shape.mm3 for shape in shapes) > 5000
    with pytest.raises(InputError, match="not whole numbers; give a pattern"):
        plaque_shapes(str(shared_data / "ms"))
