"""Crops of volumes: the same for the same key, half of them on lesions, moved with their masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import simulated
import torch
from torch.utils.data import DataLoader

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.write import write_volume
from AnomalyDetectionLib.scoring.contract import InputSpec
from AnomalyDetectionLib.scoring.prepare import prepare
from AnomalyTrainingLib.cohorts.manifest import Case, read_manifest
from AnomalyTrainingLib.training.config import AugmentSection
from AnomalyTrainingLib.training.data import EpochOrder, PreparedCases, TrainingSlices, ValidationSlices, as_it_is
from AnomalyTrainingLib.training.kept import mask_items
from AnomalyTrainingLib.training.patches import Patches

SPEC = InputSpec("patches", ("MR",), "mr-robust", spacing=(6.0, 6.0, 6.0), size=(16, 12, 16))
SLICES = InputSpec("slices", ("MR",), "mr-robust", spacing=(6.0, 6.0, 6.0), size=(32, 32))
SIZE = (16, 12, 16)
PLAIN = AugmentSection(on=False)


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, ...]:
    """Two normals and two heads with a lesion each; one mask lies on a finer grid, in another voxel order."""
    folder = tmp_path_factory.mktemp("cohort")
    lines = ["case,patient,image,label,mask,split"]
    for n in range(4):
        lesion = (25.0 - 50 * (n % 2), 10.0, 10.0) if n > 1 else None
        volume = simulated.head(n, lesion_ras=lesion)
        write_volume(volume, folder / f"{n}.nii.gz")
        if lesion is not None:
            fine = {"spacing": (3.0, 3.0, 3.0), "flips": (-1, -1, 1)} if n == 3 else {}
            with_lesion, without = simulated.head(n, lesion_ras=lesion, **fine), simulated.head(n, **fine)
            mask = np.abs(with_lesion.array - without.array) > 5
            write_volume(with_lesion.with_array(mask.astype(np.float32)), folder / f"mask{n}.nii.gz")
        lines.append(f"n{n},p{n},{n}.nii.gz,{int(n > 1)},{f'mask{n}.nii.gz' if lesion else ''},train")
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n")
    return read_manifest(folder / "cohort.csv").cases


@pytest.fixture(scope="module")
def cases(listed: tuple[Case, ...], tmp_path_factory: pytest.TempPathFactory) -> PreparedCases:
    return PreparedCases(listed, SPEC, None, tmp_path_factory.mktemp("prepared"), masks=True)


def test_volumes_and_their_masks_stay_on_disk(cases: PreparedCases) -> None:
    assert [case.mask is not None for case in cases.kept] == [False, False, True, True]
    for case in cases.kept:
        assert isinstance(case.image, np.memmap) and case.image.dtype == np.float16 and case.image.shape[:2] == (1, 1)
    for case in cases.kept[2:]:
        assert isinstance(case.mask, np.memmap) and case.mask.shape == case.foreground.shape
        image, foreground = case.image[0, 0].astype(np.float32), case.foreground[0, 0]
        inside = image[case.mask[0, 0] & foreground].mean()
        assert inside > np.quantile(image[foreground], 0.9), "the mask lies on the bright lesion, whatever its grid"
        assert 3.0 < case.mask.sum() * 0.216 < 12.0, "a ball of 12 mm has 7.2 ml"


def test_a_crop_is_a_function_of_seed_epoch_and_index(cases: PreparedCases) -> None:
    first, second = (Patches(cases, SIZE, 4, 5, AugmentSection()) for _ in range(2))
    keys = [(2, 7), (2, 4)]
    one, other = first.__getitems__(keys), second.__getitems__(keys[::-1])
    assert one.image.shape == (2, 1, *SIZE) and one.foreground.shape == one.mask.shape == (2, 1, *SIZE)
    assert torch.equal(one.image, other.image.flip(0)) and torch.equal(one.mask, other.mask.flip(0))
    assert one.epoch == 2
    for seed, key in ((6, (2, 7)), (5, (3, 7)), (5, (2, 9))):
        different = Patches(cases, SIZE, 4, seed, AugmentSection()).__getitems__([key])
        assert not torch.equal(one.image[0], different.image[0])


def test_a_plain_crop_is_a_piece_of_its_volume(cases: PreparedCases) -> None:
    crop = Patches(cases, SIZE, 4, 0, PLAIN).__getitems__([(0, 3)]).image[0, 0].numpy()
    volumes = [np.array(case.image[0, 0], dtype=np.float32) for case in cases.kept]
    windows = [np.lib.stride_tricks.sliding_window_view(volume, SIZE) for volume in volumes]
    assert sum(int((window == crop).all(axis=(3, 4, 5)).sum()) for window in windows) == 1


@pytest.mark.parametrize("augment", [PLAIN, AugmentSection(rotate_degrees=20, zoom=0.1)])
def test_half_of_the_crops_hold_a_lesion_and_image_and_mask_move_together(
    cases: PreparedCases, augment: AugmentSection
) -> None:
    patches = Patches(cases, SIZE, 12, 1, augment)
    batch = patches.__getitems__([(0, index) for index in range(len(patches))])
    assert len(patches) == 48 and batch.mask is not None
    holding = batch.mask.flatten(1).any(dim=1)
    assert holding[::2].all(), "every other crop is laid around a lesion"
    assert 24 <= holding.sum() < 44
    image, mask, foreground = batch.image[holding], batch.mask[holding] > 0, batch.foreground[holding]
    brighter = [float(i[m & f].mean() - i[~m & f].mean()) for i, m, f in zip(image, mask, foreground, strict=True)]
    assert np.median(brighter) > 0.3, "the mask is where the bright lesion is"
    assert not batch.image[~batch.foreground].any() and batch.image.max() <= 1


def test_without_masks_every_volume_has_its_crops(cases: PreparedCases, listed: tuple, tmp_path: Path) -> None:
    plain = PreparedCases(listed[:2], SPEC, None, tmp_path)
    patches = Patches(plain, SIZE, 3, 0, PLAIN)
    batch = patches.__getitems__([(0, index) for index in range(6)])
    assert batch.mask is None and batch.image.shape == (6, 1, *SIZE) and batch.foreground.flatten(1).any(dim=1).all()


def test_crops_larger_than_the_volume_are_filled_up(cases: PreparedCases) -> None:
    depth = cases.kept[2].image.shape[2]
    batch = Patches(cases, (depth + 9, 8, 8), 1, 0, PLAIN).__getitems__([(0, 0)])
    assert batch.image.shape == (1, 1, depth + 9, 8, 8)
    assert not batch.image[:, :, :4].any() and not batch.image[:, :, -5:].any() and batch.image.any()


def test_validation_crops_are_the_same_in_every_epoch(cases: PreparedCases) -> None:
    patches = Patches(cases, SIZE, 4, 0, fixed=True)
    loader = DataLoader(patches, batch_size=4, shuffle=False, collate_fn=as_it_is)
    first, second = list(loader), list(loader)
    assert len(first) == 4 and all(batch.epoch is None for batch in first)
    assert all(torch.equal(a.image, b.image) for a, b in zip(first, second, strict=True))


def test_worker_processes_hand_out_the_same_crops(cases: PreparedCases) -> None:
    patches = Patches(cases, SIZE, 2, 3, AugmentSection())
    images = []
    for workers in (0, 1):
        loader = DataLoader(patches, batch_size=4, sampler=EpochOrder(8, 3), collate_fn=as_it_is, num_workers=workers)
        images.append(torch.cat([batch.image for batch in loader]))
    assert torch.equal(images[0], images[1])


def test_slices_bring_their_masks_along_and_move_them(listed: tuple[Case, ...], tmp_path: Path) -> None:
    slices = PreparedCases(listed, SLICES, None, tmp_path, masks=True)
    everything = list(range(len(slices)))
    plain = ValidationSlices(slices).__getitems__(everything)
    moved = TrainingSlices(slices, AugmentSection(rotate_degrees=30), 0).__getitems__([(0, i) for i in everything])
    for batch in (plain, moved):
        assert batch.mask is not None and batch.mask.shape == batch.foreground.shape
        painted = batch.mask.bool() & batch.foreground
        assert batch.image[painted].mean() > batch.image[batch.foreground & ~painted].mean() + 0.3
    assert plain.mask is not None and moved.mask is not None and not torch.equal(plain.mask, moved.mask)
    assert not plain.mask[: len(slices.kept[0].image)].any()


def test_a_mask_lands_on_the_slices_it_belongs_to(listed: tuple[Case, ...]) -> None:
    volume = simulated.head(2, lesion_ras=(25.0, 10.0, 10.0))
    painted = np.abs(volume.array - simulated.head(2).array) > 5
    prepared = prepare(volume, SLICES)
    items = mask_items(painted, prepared)
    back = prepared.to_input(prepared.whole(items), nearest=True)
    dice = 2 * (back & painted).sum() / (back.sum() + painted.sum())
    assert items.shape == prepared.batch.foreground.shape and dice > 0.75


def test_kinds_that_no_batch_can_be_made_of_are_refused() -> None:
    from AnomalyTrainingLib.training.gradient import check_trainable

    for spec, words in (
        (InputSpec("volume", (), "mr-robust"), "not 'volume'"),
        (InputSpec("patches", (), "mr-robust"), "needs `size:"),
        (InputSpec("patches", (), "mr-robust", size=(8, 8)), "needs `size:"),
    ):
        with pytest.raises(InputError, match=words):
            check_trainable(spec)
