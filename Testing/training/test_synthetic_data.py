"""Training on synthetic lesions: what they are is decided by seed, epoch and place; the epoch by another family."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import simulated
import torch
from training.runs import run_here, run_stopped

from AnomalyDetectionLib.imaging.write import write_volume
from AnomalyDetectionLib.scoring.contract import InputSpec
from AnomalyTrainingLib.cohorts.manifest import read_manifest
from AnomalyTrainingLib.synthesis import synthetic
from AnomalyTrainingLib.training.config import AugmentSection
from AnomalyTrainingLib.training.data import PreparedCases, TrainingSlices, ValidationSlices
from AnomalyTrainingLib.training.synthetic_data import WithSyntheticLesions, on_device

SPEC = InputSpec("2.5d", ("MR",), "mr-robust", spacing=(8.0, 8.0, 8.0), size=(32, 32), neighbours=1)
CONFIG = """
name: tiny-restore
detector: restore
few_normals: true
options: {widths: [4, 8]}
input: {kind: 2.5d, neighbours: 1, modalities: [MR], grid: own, spacing: [8.0, 8.0, 8.0], size: [32, 32]}
training: {epochs: 3, batch: 8, learning_rate: 0.003}
findings: {least_ml: 1.0}
calibration: {method: split}
baselines: none
"""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of two heads to train on, one to validate on and two to calibrate on, and a configuration."""
    folder = tmp_path_factory.mktemp("cohort")
    lines = ["case,patient,image,label,split"]
    for n, split in enumerate(["train"] * 2 + ["validate"] + ["calibrate"] * 2):
        write_volume(simulated.head(n), folder / f"head{n}.nii.gz")
        lines.append(f"n{n},p{n},head{n}.nii.gz,0,{split}")
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n")
    (folder / "config.yaml").write_text(CONFIG)
    return folder / "cohort.csv"


@pytest.fixture(scope="module")
def cases(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedCases:
    return PreparedCases(read_manifest(cohort).cases[:1], SPEC, None, tmp_path_factory.mktemp("prepared"))


def training(cases: PreparedCases, seed: int = 5) -> WithSyntheticLesions:
    return WithSyntheticLesions(TrainingSlices(cases, AugmentSection(), seed), seed, "train", SPEC.neighbours)


def test_an_altered_slice_is_a_function_of_seed_epoch_and_index(cases: PreparedCases) -> None:
    keys = [(2, 7), (2, 9), (2, 11)]
    first, again = (on_device(training(cases).__getitems__(keys)) for _ in range(2))
    assert first.image.shape == (3, 3, 32, 32) and first.target.shape == first.mask.shape == (3, 1, 32, 32)
    assert first.epoch == 2 and torch.equal(first.image, again.image) and torch.equal(first.mask, again.mask)
    plain = TrainingSlices(cases, AugmentSection(), 5).__getitems__(keys)
    assert torch.equal(first.target, plain.image[:, 1:2]), "lesions are put into the augmented normal"
    for other in (training(cases).__getitems__([(3, 7), (3, 9), (3, 11)]), training(cases, 6).__getitems__(keys)):
        assert not torch.equal(first.severity, on_device(other).severity)


def test_every_epoch_is_judged_by_the_same_lesions_of_the_other_family(
    cases: PreparedCases, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged_by = WithSyntheticLesions(ValidationSlices(cases), 0, "choose", SPEC.neighbours)
    first, again = (on_device(judged_by.__getitems__(range(12))) for _ in range(2))
    assert torch.equal(first.image, again.image) and first.epoch is None and first.mask.any()
    monkeypatch.setattr(synthetic, "FAMILIES", {"train": None, "choose": synthetic.FAMILIES["choose"]})
    assert torch.equal(on_device(judged_by.__getitems__(range(12))).image, first.image)
    with pytest.raises(AttributeError):
        on_device(training(cases).__getitems__([(0, n) for n in range(12)]))


@pytest.mark.slow
def test_a_stopped_training_on_synthetic_lesions_ends_with_the_same_weights_to_the_last_bit(
    cohort: Path, tmp_path: Path
) -> None:
    def arguments(out: str) -> list[str]:
        config = str(cohort.with_name("config.yaml"))
        return ["train", config, "--cohort", str(cohort), "--out", str(tmp_path / out), "--device", "cpu"]

    run_here(arguments("whole"))
    assert run_stopped(arguments("cut"), "training, epoch 2", signal.SIGKILL) == -signal.SIGKILL
    run_here([*arguments("cut"), "--resume"])
    whole, cut = (torch.load(tmp_path / run / "model/models/model.pt", weights_only=True) for run in ("whole", "cut"))
    assert whole.keys() == cut.keys() and all(torch.equal(whole[name], cut[name]) for name in whole)
