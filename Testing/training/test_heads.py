"""Whole heads from label maps: upright however they lie, whole and stripped alike, and bad maps refused."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from label_maps import head_labels, write_head
from scipy import ndimage

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.geometry import Grid
from AnomalyDetectionLib.imaging.write import write_labels
from AnomalyTrainingLib.synthesis.acquisition import rotation
from AnomalyTrainingLib.synthesis.anatomy import OUTER_CHANNELS, TISSUES, Anatomy
from AnomalyTrainingLib.synthesis.heads import head, head_files, read_head
from AnomalyTrainingLib.synthesis.labels import CENTRES_MNI, MIXTURES
from AnomalyTrainingLib.synthesis.lesions import KINDS, LesionRequest
from AnomalyTrainingLib.synthesis.phantom import Phantom, synthesise

COARSE = (4.0, 4.0, 4.0)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return write_head(tmp_path_factory.mktemp("heads") / "anna.nii.gz")


@pytest.fixture(scope="module")
def anatomy(file) -> Anatomy:
    return read_head(file)


@pytest.fixture(scope="module")
def whole(anatomy) -> dict[str, Phantom]:
    return {name: synthesise(anatomy, 1, contrast=name, spacing=COARSE, stripped=False) for name in ("t1", "t2")}


def channel(anatomy: Anatomy, name: str) -> np.ndarray:
    return anatomy.maps[anatomy.channels.index(name)].numpy()


def at(anatomy: Anatomy, name: str, places: dict[str, tuple[float, float, float]]) -> dict[str, float]:
    """Values of a channel at places (RAS mm) of the anatomy."""
    points = torch.tensor(list(places.values()), dtype=torch.float32).view(1, 1, -1, 3)
    return dict(zip(places, anatomy.sample(points, (name,))[name].ravel().tolist(), strict=True))


def test_a_head_has_the_channels_of_an_anatomy_and_those_around_the_brain(anatomy):
    assert anatomy.name == "anna" and anatomy.whole
    total = sum(channel(anatomy, tissue) for tissue in TISSUES)
    inner = ndimage.binary_erosion(channel(anatomy, "brain") > 0.99, iterations=2)
    np.testing.assert_allclose(total[inner], 1, atol=1e-5)
    everything = total + sum(channel(anatomy, name) for name in OUTER_CHANNELS)
    assert everything.max() < 1 + 1e-5 and everything.min() >= 0
    litres = float((channel(anatomy, "brain") > 0.5).sum() / 1e6)
    assert 1.1 < litres < 1.6  # the ellipsoids of cerebrum and cerebellum have 1.3
    depth, ventricle = channel(anatomy, "depth"), channel(anatomy, "ventricle")
    assert (depth[channel(anatomy, "brain") < 0.01] == 0).mean() > 0.97
    assert 40 < depth.max() < 70 and -10 < ventricle.min() < -2
    looks = at(anatomy, "fat", {"beneath the scalp": (0, -14, 86), "bone": (0, -14, 77), "in the brain": (30, 0, 30)})
    assert looks["beneath the scalp"] > 0.7 and looks["bone"] < 0.3 and looks["in the brain"] == 0


def test_a_head_comes_out_upright_however_it_lies_in_its_file(tmp_path, anatomy):
    place = np.eye(4)
    place[:3, :3] = rotation(np.array([25.0, -8.0, 12.0]))
    place[:3, 3] = (12, -30, 44)
    labels, grid = head_labels()
    affine = place @ grid.ijk_to_ras  # and stored right to left and head first
    affine[:3, 3] += affine[:3, 0] * (grid.shape[2] - 1) + affine[:3, 2] * (grid.shape[0] - 1)
    affine[:3, [0, 2]] *= -1
    turned_labels = np.ascontiguousarray(labels[::-1, :, ::-1])
    path = write_labels(turned_labels, Grid(grid.shape, affine), tmp_path / "askew.nii.gz")
    turned = read_head(path)
    for (left, right), (x, y, z) in CENTRES_MNI.items():
        for side in (-1, 1) if MIXTURES[left] == MIXTURES[right] else ():
            for name in ("gm", "brain", "ventricle"):
                spot = {"here": (side * x, y, z)}
                assert at(turned, name, spot)["here"] == pytest.approx(at(anatomy, name, spot)["here"], abs=1.6), left
    assert at(turned, "ventricle", {"left": (-9, -12, 18)})["left"] < -2
    assert at(turned, "skin", {"vertex": (0, -14, 92.5)})["vertex"] > 0.2


def test_the_stripped_head_is_the_brain_of_the_whole_one(anatomy, whole):
    stripped = synthesise(anatomy, 1, contrast="t1", spacing=COARSE)
    shown = stripped.volume.array > 0
    assert stripped.volume.grid.same_place(whole["t1"].volume.grid)
    inner = ndimage.binary_erosion(shown, iterations=2)  # further out a 4 mm voxel may hold some bone
    np.testing.assert_array_equal(stripped.volume.array[inner], whole["t1"].volume.array[inner])
    assert 1.0 < shown.sum() * 64 / 1e6 < 1.8
    assert (stripped.volume.array == 0).mean() > 0.6


def test_a_whole_head_has_a_scalp_a_dark_skull_and_noise_in_the_air(whole):
    t1, t2 = whole["t1"].volume.array, whole["t2"].volume.array
    air = t1[-3:, :3, :]
    assert (t1 > 0).all() and air.std() > 0.3 * air.mean() > 0  # Rayleigh: the deviation is half the mean
    k, i = t1.shape[0] // 2 + 3, t1.shape[2] // 2
    line = t1[:, t1.shape[1] // 2, i]  # from the neck through the brain to the vertex and out
    top = int(np.flatnonzero(line > 3 * air.mean())[-1])
    scalp, skull = line[top - 3 : top + 1].max(), line[top - 8 : top - 1].min()
    brain = float(np.median(t1[k - 4 : k, 20:40, i - 6 : i + 6]))
    assert scalp > 0.8 * brain and skull < 0.55 * brain
    assert float(np.quantile(t2, 0.999)) > 1.5 * float(np.median(t2[k - 4 : k, 20:40, i - 6 : i + 6]))  # fluid


@pytest.mark.parametrize("kind", KINDS)
def test_a_lesion_of_a_head_shows_in_every_contrast_and_leaves_skull_and_scalp_where_they_are(anatomy, kind):
    for contrast in ("t1", "flair", "t2"):
        settings = {"contrast": contrast, "spacing": COARSE, "stripped": False}
        normal = synthesise(anatomy, 4, **settings)
        ill = synthesise(anatomy, 4, **settings, lesion=LesionRequest(kind))
        assert ill.mask is not None and ill.mask.sum() >= 3
        brain = synthesise(anatomy, 4, contrast=contrast, spacing=COARSE).volume.array > 0
        assert not (ill.mask & ~ndimage.binary_dilation(brain)).any()
        change = ill.volume.array / np.maximum(normal.volume.array, 1)
        assert float(np.median(np.abs(change[ill.mask] - 1))) > 0.1, contrast
        outside = ~ndimage.binary_dilation(brain, iterations=2)
        np.testing.assert_array_equal(ill.volume.array[outside], normal.volume.array[outside])


def test_only_the_last_head_is_kept_in_memory(tmp_path, file):
    first = head(file)
    assert head(file) is first
    gone = weakref.ref(first)
    del first
    assert head(write_head(tmp_path / "bert.nii.gz", width=0.9)).name == "bert"
    gc.collect()
    assert gone() is None


def test_heads_of_a_folder_are_named_after_their_files(tmp_path):
    for name in ("b.nii", "a.nii.gz", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in head_files(tmp_path)] == ["a.nii.gz", "b.nii"]
    (tmp_path / "a.nii").touch()
    with pytest.raises(InputError, match="two label maps are called 'a'"):
        head_files(tmp_path)
    with pytest.raises(InputError, match="no such file or folder; name label maps of heads, or 'icbm152'"):
        head_files(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no label map"):
        head_files(tmp_path / "empty")


def spoilt(folder: Path, name: str) -> Path:
    labels, grid = head_labels()
    array: np.ndarray = labels.astype(np.float32)
    if name == "no white matter":
        array[np.isin(labels, (2, 41))] = 3
    elif name == "one side":
        array[labels == 41] = 3
    elif name == "no ventricles":
        array[np.isin(labels, (4, 43, 14))] = 2
    elif name == "not whole":
        array *= 0.7
    elif name == "negative":
        array -= 5
    elif name == "tiny":
        array, grid = array[:20, :20, :20], Grid((20, 20, 20), grid.ijk_to_ras)
    elif name == "flat":
        array, grid = array[:1], Grid((1, *grid.shape[1:]), grid.ijk_to_ras)
    elif name == "foreign":
        array[labels == 507] = 777
    elif name == "no nuclei":
        array[np.isin(labels, (10, 11, 12, 13, 17, 18, 49, 50, 51, 52, 53, 54))] = 2
    path = folder / f"{name.replace(' ', '_')}.nii.gz"
    nibabel.save(nibabel.Nifti1Image(array.T, grid.ijk_to_ras), path)
    return path


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("no white matter", "0 mL of cerebral white matter"),
        ("one side", "on both sides"),
        ("no ventricles", "no lateral ventricles"),
        ("not whole", "not all whole numbers"),
        ("negative", "not all whole numbers from 0"),
        ("tiny", "too small for a head"),
        ("flat", "too small for a head"),
        ("foreign", "labels that are not FreeSurfer's, such as 777"),
        ("no nuclei", "to tell how the head lies"),
    ],
)
def test_what_is_no_label_map_of_a_head_is_refused_in_one_sentence(tmp_path, name, problem):
    path = spoilt(tmp_path, name)
    with pytest.raises(InputError, match=problem) as refusal:
        read_head(path)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_file_that_is_no_image_is_refused(tmp_path):
    path = tmp_path / "head.nii.gz"
    path.write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"head\.nii\.gz"):
        read_head(path)


def test_a_brain_without_a_head_cannot_be_shown_whole(tmp_path):
    labels, grid = head_labels()
    labels[np.isin(labels, (24, 506)) | (labels > 500)] = 0
    anatomy = read_head(write_labels(labels, grid, tmp_path / "brain.nii.gz"))
    assert not anatomy.whole
    with pytest.raises(InputError, match="a brain without a head"):
        synthesise(anatomy, 1, contrast="t1", spacing=COARSE, stripped=False)
    assert (synthesise(anatomy, 1, contrast="t1", spacing=COARSE).volume.array > 0).sum() * 64 > 1e6


def test_a_real_head_looks_like_one(shared_data):
    anatomy = read_head(shared_data / "heads" / "head_05.nii.gz")
    assert anatomy.name == "head_05" and anatomy.whole
    brain = channel(anatomy, "brain") > 0.5
    assert 1.1 < brain.sum() / 1e6 < 1.8
    assert ndimage.label(brain)[1] == 1
    middle = np.argwhere(brain).mean(axis=0)[::-1]
    np.testing.assert_allclose(anatomy.grid.to_ras(middle), [0, -20, 8], atol=12)
    phantom = synthesise(anatomy, 1, contrast="flair", spacing=COARSE, lesion=LesionRequest("tumour"), stripped=False)
    assert phantom.mask is not None and phantom.mask.sum() * 64 > 5000
