"""Training by gradient: it learns, stops, can be killed at any time, and ends in a bundle."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import simulated
import torch
from monai.transforms import (
    RandAdjustContrast,
    RandAffine,
    RandFlip,
    RandScaleIntensity,
    RandShiftIntensity,
)
from torch.utils.data import DataLoader
from training.runs import run_here, run_stopped, train_arguments, weights_of, write_cohort

from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.read import read_volume
from AnomalyDetectionLib.imaging.write import write_volume
from AnomalyDetectionLib.models.bundle import load_bundle
from AnomalyDetectionLib.scoring.contract import InputSpec
from AnomalyDetectionLib.scoring.registry import build
from AnomalyDetectionLib.scoring.scorer import Scorer
from AnomalyTrainingLib.cohorts.manifest import Case, ImageSource, read_manifest
from AnomalyTrainingLib.training.augment import Augmentation
from AnomalyTrainingLib.training.config import AugmentSection, TrainConfig, TrainingSection
from AnomalyTrainingLib.training.data import EpochOrder, PreparedCases, TrainingSlices, ValidationSlices, as_it_is
from AnomalyTrainingLib.training.engine import fit_by_gradient
from AnomalyTrainingLib.training.gradient import validation_split

CONFIG = """
name: tiny
detector: autoencoder
few_normals: true
options: {widths: [4, 8], latent: 8, dropout: 0.1, variational: true, kl_weight: 1.0e-4, kl_warmup_epochs: 1}
input: {kind: slices, modalities: [MR], intensity: mr-robust, grid: own, spacing: [8.0, 8.0, 8.0], size: [32, 32]}
training: {epochs: 4, batch: 8, learning_rate: 0.003, plateau_patience: 0}
findings: {least_ml: 1.0}
calibration: {method: split}
baselines: none
"""
SPEC = InputSpec("slices", ("MR",), "mr-robust", spacing=(8.0, 8.0, 8.0), size=(32, 32))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven heads, and a configuration beside them."""
    return write_cohort(tmp_path_factory.mktemp("cohort"), CONFIG)


@pytest.fixture(scope="module")
def cases(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedCases:
    """The prepared slices of two heads."""
    return PreparedCases(read_manifest(cohort).cases[:2], SPEC, None, tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def run_folder(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped; what it told is in `events.json`."""
    out = tmp_path_factory.mktemp("run") / "run"
    events = run_here(train_arguments(cohort, out))
    (out / "events.json").write_text(json.dumps(events))
    return out


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_run_stopped_in_mid_epoch_ends_with_the_same_weights_to_the_last_bit(
    sent: signal.Signals, code: int, cohort: Path, run_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert run_stopped(train_arguments(cohort, out), "training, epoch 3", sent) == code
    assert not (out / "model").exists() and (out / "checkpoints" / "last.ckpt").exists()
    epochs = [e["epoch"] for e in run_here([*train_arguments(cohort, out), "--resume"]) if e["event"] == "training"]
    assert epochs[0] == 3, "the epoch that was cut off is begun again"
    expected, found = weights_of(run_folder), weights_of(out)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    last, other = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (run_folder, out))
    assert all(torch.equal(value, other["state_dict"][name]) for name, value in last["state_dict"].items())
    assert last["plateau"] == other["plateau"]
    log, continued = (run / "checkpoints" / "log" / "metrics.csv" for run in (run_folder, out))
    assert log.read_text() == continued.read_text(), "the epochs before the stop are in the log too"


@pytest.mark.slow
def test_a_run_leaves_events_logs_and_a_bundle_that_finds_a_lesion(run_folder: Path, tmp_path: Path) -> None:
    events = json.loads((run_folder / "events.json").read_text())
    told = [event for event in events if event["event"] == "training"]
    ends = [event for event in told if event["validation_loss"] is not None]
    assert [event["epoch"] for event in ends] == [1, 2, 3, 4]
    assert ends[-1]["train_loss"] < ends[0]["train_loss"]
    assert ends[-1]["step"] == ends[-1]["steps"] > 3 and ends[-1]["memory_bytes"] > 10e6 and ends[-1]["eta_s"] == 0
    log = run_folder / "checkpoints" / "log"
    lines = (log / "metrics.csv").read_text().splitlines()
    assert lines[0] == "epoch,train_loss,val_loss,learning_rate" and len(lines) == 5
    assert float(lines[4].split(",")[2]) == ends[3]["validation_loss"]
    assert list(log.glob("events.out.tfevents.*"))
    assert not (run_folder / "prepared").exists()
    assert main(["export", str(run_folder), "--out", str(tmp_path / "bundle")]) == 0
    kept, exported = load_bundle(run_folder / "model"), load_bundle(tmp_path / "bundle")
    assert exported.info["training"]["normals"] == 3 and exported.info["training"]["epochs"] == 4
    assert exported.info["run"]["config"]["training"]["batch"] == 8 and exported.info["run"]["seed"] == 0
    assert exported.info["run"]["software"]["torch"] == torch.__version__
    card = (tmp_path / "bundle" / "docs" / "README.md").read_text()
    assert "| epoch | training loss | validation loss | learning rate |" in card
    for number, row in enumerate(exported.info["training"]["curve"], 1):
        assert f"| {number} | {row[0]:.4g} | {row[1]:.4g} |" in card
    for said in ("voxel sizes (mm): 4 × 4 × 4", "modality: not said", "seed: 0", "device: cpu", "Not a medical device"):
        assert said.lower() in card.lower(), said
    assert "simulated:" not in card, "these images do not say that they are"
    write_volume(simulated.head(50, lesion_ras=(-30, 10, 10), lesion_mm=20.0, lesion_gain=2.0), tmp_path / "x.nii.gz")
    volume = read_volume(tmp_path / "x.nii.gz")
    first, second = Scorer(kept, "cpu").score(volume), Scorer(exported, "cpu").score(volume)
    assert first.rarity.array.std() > 0.1
    assert np.abs(first.rarity.array - second.rarity.array).max() <= 1e-4
    truth = np.abs(volume.array - simulated.head(50).array) > 20
    lesion, healthy = second.foreground & truth, second.foreground & ~truth
    assert second.rarity.array[lesion].mean() > second.rarity.array[healthy].mean()


def settings(**changes) -> TrainingSection:
    return TrainingSection(batch=16, learning_rate=3e-3, augment=AugmentSection(on=False), **changes)


def small():
    torch.manual_seed(0)
    return build("autoencoder", SPEC, {"widths": [4, 8], "latent": 8})


def fit(
    cases: PreparedCases,
    folder: Path,
    section: TrainingSection,
    progress: Callable[[str, float], None] = lambda stage, fraction: None,
) -> dict:
    return fit_by_gradient(
        small(),
        TrainingSlices(cases, section.augment, 0),
        ValidationSlices(cases),
        section,
        folder,
        device=torch.device("cpu"),
        seed=0,
        progress=progress,
    )


def test_a_continued_training_knows_the_epochs_before_it_was_stopped(cases: PreparedCases, tmp_path: Path) -> None:
    def stop(stage: str, fraction: float) -> None:
        if stage.endswith("epoch 3"):
            raise RuntimeError("stopped")

    section = settings(epochs=4)
    whole = fit(cases, tmp_path / "whole", section)
    with pytest.raises(RuntimeError, match="stopped"):
        fit(cases, tmp_path / "stopped", section, stop)
    log = "log/metrics.csv"
    assert len((tmp_path / "stopped" / log).read_text().splitlines()) == 3
    continued = fit(cases, tmp_path / "stopped", section)
    assert whole["epochs"] == len(whole["curve"]) == 4 and whole["seconds"] > 0
    assert {**continued, "seconds": 0} == {**whole, "seconds": 0}
    assert (tmp_path / "whole" / log).read_text() == (tmp_path / "stopped" / log).read_text()


def test_a_network_that_learns_nothing_is_pointed_out(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    collapsing = ["--set", "options.variational=false", "--set", "training.learning_rate=0.5"]
    assert main([*train_arguments(cohort, tmp_path / "run"), *collapsing, "--set", "baselines=none"]) == 0
    assert "the network has learnt nothing of the normals" in capsys.readouterr().err
    assert "has learnt nothing" in (tmp_path / "run" / "model" / "docs" / "README.md").read_text(encoding="utf-8")


def test_training_stops_when_the_validation_loss_no_longer_falls(cases: PreparedCases, tmp_path: Path) -> None:
    section = settings(epochs=30, patience=2)
    blind = section.model_copy(update={"learning_rate": 1e-30})
    summary = fit(cases, tmp_path / "blind", blind)
    assert (summary["epochs"], summary["best_epoch"]) == (3, 1)
    before = (tmp_path / "blind" / "last.ckpt").stat().st_mtime_ns
    assert fit(cases, tmp_path / "blind", blind) == summary, "what has stopped is not trained further"
    assert (tmp_path / "blind" / "last.ckpt").stat().st_mtime_ns == before


def test_a_damaged_checkpoint_is_named(cases: PreparedCases, tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match=r"last\.ckpt: the checkpoint is damaged"):
        fit(cases, tmp_path, settings(epochs=1))


def test_a_slice_is_a_function_of_seed_epoch_and_index(cases: PreparedCases) -> None:
    first, second = (TrainingSlices(cases, AugmentSection(), 5) for _ in range(2))
    batch = first.__getitems__([(2, 7), (2, 3)])
    second.__getitems__([(0, 1), (0, 3), (0, 7)])
    again = second.__getitems__([(2, 11), (2, 7)])
    image, mask = batch.image[0], batch.foreground[0]
    assert torch.equal(image, again.image[1]) and torch.equal(mask, again.foreground[1]) and batch.epoch == 2
    assert not torch.equal(image, first.__getitems__([(3, 7)]).image[0])
    assert not torch.equal(image, TrainingSlices(cases, AugmentSection(), 6).__getitems__([(2, 7)]).image[0])
    assert image.dtype == torch.float32 and mask.dtype == torch.bool and mask.shape == (1, 32, 32)
    assert 0 <= image.min() and image.max() <= 1 and not image[~mask].any()
    plain = ValidationSlices(cases).__getitems__([7]).image[0]
    assert 0.3 < np.corrcoef(image.ravel(), plain.ravel())[0, 1]


def test_a_batch_is_changed_as_monais_transforms_would_change_each_slice(cases: PreparedCases) -> None:
    settings = AugmentSection(flip=0.5, rotate_degrees=30, shift_pixels=5)
    zoom, shift = (-settings.zoom, settings.zoom), (settings.shift_pixels, settings.shift_pixels)
    affine = RandAffine(
        1.0, float(np.radians(30)), translate_range=shift, scale_range=(zoom, zoom), padding_mode="zeros"
    )
    flip = RandFlip(settings.flip, spatial_axis=1)
    intensity = [
        RandScaleIntensity(settings.gain, prob=1.0),
        RandShiftIntensity(settings.offset, prob=1.0),
        RandAdjustContrast(1.0, (1 - settings.gamma, 1 + settings.gamma)),
    ]
    stack, augmentation, flipped = cases.stacked(range(8, 20)), Augmentation(settings), 0
    images, masks = augmentation.apply(augmentation.draw(range(12), (32, 32)), stack)
    for seed, slice_ in enumerate(stack):
        state = np.random.RandomState(seed)
        for part in (affine.rand_affine_grid, flip, *intensity):
            part.set_random_state(state=state)
        affine._do_transform = True
        affine.rand_affine_grid.randomize()
        moved = flip(affine(slice_, randomize=False)).as_tensor()
        changed = moved[:1]
        for part in intensity:
            changed = part(changed)
        changed = torch.as_tensor(changed).clamp(0, 1)
        inside = moved[1:] > 0.5
        assert (inside != masks[seed]).sum() <= 2, "rounding may decide about a pixel on the border"
        both = inside & masks[seed]
        torch.testing.assert_close(images[seed][both], changed[both], rtol=0, atol=1e-3)
        flipped += flip._do_transform
    assert 2 < flipped < 10


def test_worker_processes_hand_out_the_same_batches(cases: PreparedCases) -> None:
    def batches(workers: int) -> list:
        order = EpochOrder(len(cases), 3)
        order.set_epoch(1)
        slices = TrainingSlices(cases, AugmentSection(), 3)
        return list(DataLoader(slices, 16, sampler=order, num_workers=workers, collate_fn=as_it_is))

    own, others = batches(0), batches(2)
    assert len(own) == len(others) == -(-len(cases) // 16)
    assert all(torch.equal(a.image, b.image) and a.epoch == b.epoch == 1 for a, b in zip(own, others, strict=True))


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list:
        sampler = EpochOrder(20, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 2) == order(1, 2)
    assert sorted(index for _, index in order(1, 2)) == list(range(20))
    assert [i for _, i in order(1, 2)] != [i for _, i in order(1, 3)] != [i for _, i in order(2, 3)]


def open_files() -> int:
    count = 0
    for descriptor in range(1024):
        with contextlib.suppress(OSError):
            os.fstat(descriptor)
            count += 1
    return count


def test_prepared_slices_stay_on_disk_and_are_not_prepared_twice(cohort: Path, tmp_path: Path) -> None:
    listed = read_manifest(cohort).cases[:2]
    before = open_files()
    first = PreparedCases(listed, SPEC, None, tmp_path)
    first.stacked([0, len(first) - 1])
    assert open_files() == before, "two a case would soon be more than a system lets a process have"
    assert all(isinstance(array, np.memmap) for case in first.kept for array in (case.image, case.foreground))
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(times) == 4
    second = PreparedCases(listed, SPEC, None, tmp_path)
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert torch.equal(first.stacked([len(first) - 1]), second.stacked([len(second) - 1]))


def test_neighbours_are_put_together_in_the_batch_and_changed_alike(cohort: Path, tmp_path: Path) -> None:
    listed = read_manifest(cohort).cases[:2]
    spec = dataclasses.replace(SPEC, kind="2.5d", neighbours=1)
    alone, thick = PreparedCases(listed, SPEC, None, tmp_path), PreparedCases(listed, spec, None, tmp_path)
    assert len(list(tmp_path.iterdir())) == 4, "nothing is kept twice"
    last = len(alone.kept[0].image) - 1
    for index, around in ((0, (0, 0, 1)), (5, (4, 5, 6)), (last, (last - 1, last, last)), (last + 1, (last + 1,) * 2)):
        image, expected = thick.stacked([index])[0, :3], alone.stacked(around)
        assert all(torch.equal(image[place], slice_) for place, slice_ in enumerate(expected[:, 0])), index
    batch = TrainingSlices(thick, AugmentSection(), 5).__getitems__([(2, 7), (2, 9)])
    plain = TrainingSlices(alone, AugmentSection(), 5).__getitems__([(2, 7), (2, 9)])
    assert batch.image.shape == (2, 3, 32, 32) and torch.equal(batch.foreground, plain.foreground)
    assert np.corrcoef(batch.image[:, 1].ravel(), plain.image[:, 0].ravel())[0, 1] > 0.99
    assert not batch.image[:, 1:2][~batch.foreground].any() and not torch.equal(batch.image[:, 0], batch.image[:, 2])
    seen = ValidationSlices(thick).__getitems__([5])
    assert torch.equal(seen.image, thick.stacked([5])[:, :3])
    assert torch.equal(seen.foreground, ValidationSlices(alone).__getitems__([5]).foreground)


def normal(name: str, patient: str) -> Case:
    return Case(name, patient, {"image": ImageSource(Path("x"))}, 0, split="train")


def test_without_validation_normals_whole_training_patients_are_held_out() -> None:
    config = TrainConfig(name="x", detector="autoencoder", training=TrainingSection(validate_share=0.25))
    listed = tuple(normal(f"c{n}", f"p{n // 2}") for n in range(16))
    kept, held = validation_split(listed, (), config, 3)
    assert len(held) == 4 and len(kept) == 12
    assert not {case.patient for case in kept} & {case.patient for case in held}
    assert validation_split(listed, (), config, 3) == (kept, held)
    assert validation_split(listed, (), config, 4) != (kept, held)
    assert validation_split(listed, listed[:1], config, 3) == (listed, listed[:1])
    with pytest.raises(InputError, match="at least 2 patients"):
        validation_split(listed[:2], (), config, 3)


def test_a_warm_up_longer_than_training_is_refused(cases: PreparedCases, tmp_path: Path) -> None:
    detector = build("autoencoder", SPEC, {"widths": [4], "latent": 2, "variational": True})
    section = settings(epochs=5)
    with pytest.raises(InputError, match="must exceed the 10 epochs of warm-up"):
        fit_by_gradient(
            detector,
            TrainingSlices(cases, section.augment, 0),
            ValidationSlices(cases),
            section,
            tmp_path,
            device=torch.device("cpu"),
            seed=0,
            progress=lambda stage, fraction: None,
        )
