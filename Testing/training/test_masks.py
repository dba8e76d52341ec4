"""Learning from masks: who is learnt from, what is refused, and a training from the manifest to the ceiling."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import simulated
import torch
from training.runs import run_here, run_stopped

from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.read import read_volume
from AnomalyDetectionLib.imaging.write import write_volume
from AnomalyDetectionLib.models.bundle import load_bundle
from AnomalyDetectionLib.scoring.scorer import Scorer
from AnomalyTrainingLib.cohorts.manifest import Case, Cohort, ImageSource
from AnomalyTrainingLib.training.config import CalibrationSection, TrainConfig, TrainingSection
from AnomalyTrainingLib.training.gradient import split_by_label
from AnomalyTrainingLib.training.roles import Roles

CONFIG = """
name: tiny-unet
detector: unet
options: {widths: [4, 8]}
input: {kind: patches, modalities: [MR], intensity: mr-robust, grid: own, spacing: [8.0, 8.0, 8.0], size: [16, 16, 16]}
training: {epochs: 16, batch: 2, patches_per_case: 6, learning_rate: 0.004}
findings: {least_ml: 1.0}
volume_score: {fraction: 0.005}
calibration: {method: split}
baselines: none
"""
ZSCORE = """
name: tiny-zscore
detector: zscore
input: {modalities: [MR], spacing: [8.0, 8.0, 8.0]}
findings: {least_ml: 1.0}
volume_score: {fraction: 0.005}
calibration: {method: split}
baselines: none
"""
COUNTS = {"train": (5, 4), "validate": (1, 1), "calibrate": (4, 0), "test": (3, 3)}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads, some with a bright ball in either half, and two configurations beside the manifest."""
    folder = tmp_path_factory.mktemp("cohort")
    lines = ["case,patient,image,label,mask,split"]
    n = 0
    for split, (normals, abnormal) in COUNTS.items():
        for label in [0] * normals + [1] * abnormal:
            lesion = {"lesion_ras": (25.0 - 50 * (n % 2), 10.0, 10.0), "lesion_mm": 18.0} if label else {}
            volume = simulated.head(n, **lesion)
            write_volume(volume, folder / f"{n}.nii.gz")
            if label:
                mask = (np.abs(volume.array - simulated.head(n).array) > 5).astype(np.float32)
                write_volume(volume.with_array(mask), folder / f"mask{n}.nii.gz")
            lines.append(f"c{n},p{n},{n}.nii.gz,{label},{f'mask{n}.nii.gz' if label else ''},{split}")
            n += 1
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n")
    (folder / "unet.yaml").write_text(CONFIG)
    (folder / "zscore.yaml").write_text(ZSCORE)
    return folder / "cohort.csv"


def arguments(cohort: Path, out: Path, config: str = "unet") -> list[str]:
    chosen = str(cohort.with_name(f"{config}.yaml"))
    return ["train", chosen, "--cohort", str(cohort), "--out", str(out), "--device", "cpu"]


@pytest.fixture(scope="module")
def run_folder(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped; what it told is in `events.json`."""
    out = tmp_path_factory.mktemp("run") / "run"
    events = run_here(arguments(cohort, out))
    (out / "events.json").write_text(json.dumps(events))
    return out


@pytest.mark.slow
def test_it_learns_lesions_from_masks_and_its_bundle_scores_the_same(
    cohort: Path, run_folder: Path, tmp_path: Path
) -> None:
    events = json.loads((run_folder / "events.json").read_text())
    assert not any(event["event"] == "warning" and "not used" in event["message"] for event in events)
    model = load_bundle(run_folder / "model")
    training = model.info["training"]
    assert (training["normals"], training["abnormal cases"], training["validation normals"]) == (5, 4, 1)
    assert training["curve"][-1][1] < 0.6 * training["curve"][0][1]
    assert model.calibration.n == 4, "calibration stays on normals"
    assert main(["export", str(run_folder), "--out", str(tmp_path / "bundle")]) == 0
    exported = load_bundle(tmp_path / "bundle")
    assert exported.detector.config() == model.detector.config()
    case = sum(map(sum, COUNTS.values())) - 1
    volume = read_volume(cohort.with_name(f"{case}.nii.gz"))
    truth = read_volume(cohort.with_name(f"mask{case}.nii.gz")).array > 0
    before, after = Scorer(model, "cpu").score(volume), Scorer(exported, "cpu").score(volume)
    assert np.abs(before.rarity.array - after.rarity.array).max() <= 1e-4
    inside, outside = after.rarity.array[truth], after.rarity.array[after.foreground & ~truth]
    assert np.median(inside) > np.quantile(outside, 0.99)


@pytest.mark.slow
def test_a_run_stopped_in_mid_epoch_ends_with_the_same_weights_to_the_last_bit(
    cohort: Path, run_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert run_stopped(arguments(cohort, out), "training, epoch 3", signal.SIGKILL) == -signal.SIGKILL
    epochs = [e["epoch"] for e in run_here([*arguments(cohort, out), "--resume"]) if e["event"] == "training"]
    assert epochs[0] == 3
    expected, found = (
        torch.load(run / "model" / "models" / "model.pt", weights_only=True) for run in (run_folder, out)
    )
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.slow
def test_it_stands_beside_another_model_as_the_ceiling(cohort: Path, run_folder: Path, tmp_path: Path) -> None:
    run_here(arguments(cohort, tmp_path / "zscore", "zscore"))
    evaluate = ["evaluate", str(tmp_path / "zscore" / "model"), "--cohort", str(cohort), "--out", str(tmp_path / "out")]
    evaluate += ["--ceiling", str(run_folder / "model"), "--no-baselines", "--resamples", "20", "--device", "cpu"]
    assert main([*evaluate, "--progress", "none"]) == 0
    methods = json.loads((tmp_path / "out" / "metrics.json").read_text())["methods"]
    assert methods["unet"]["kind"] == "ceiling"
    assert methods["unet"]["voxel"]["average_precision"]["value"] > 0.6
    assert methods["unet"]["lesion"]["recall"]["value"] == 1.0


def case_of(name: str, split: str, label: int, mask: bool = True, patient: str = "") -> Case:
    case = Case(name, patient or name, {"image": ImageSource(Path(name))}, label, split=split)
    return replace(case, mask=Path("mask")) if mask and label else case


NORMALS = (*(case_of(f"n{n}", "train", 0) for n in range(6)), case_of("c", "calibrate", 0), case_of("v", "validate", 0))


def config_of(method: str = "split", detector: str = "unet") -> TrainConfig:
    return TrainConfig(name="x", detector=detector, calibration=CalibrationSection(method=method))  # type: ignore[arg-type]


def roles_of(*cases: Case, **settings: str) -> Roles:
    return Roles.of(Cohort((*NORMALS, *cases), Path("cohort.csv")), config_of(**settings))


def names(cases: tuple[Case, ...]) -> set[str]:
    return {case.case for case in cases}


def test_abnormal_cases_with_masks_are_learnt_from_and_calibration_stays_on_normals() -> None:
    ill = [case_of("a", "train", 1), case_of("b", "validate", 1), case_of("t", "test", 1)]
    roles = roles_of(*ill)
    assert names(roles.train) == {f"n{n}" for n in range(6)} | {"a"}
    assert names(roles.calibrate) == {"c"} and names(roles.validate) == {"v", "b"}
    crossed = roles_of(*ill, method="cross")
    assert names(crossed.calibrate) == {f"n{n}" for n in range(6)} | {"c"}
    assert names(crossed.train) == names(crossed.calibrate) | {"a"}
    others = roles_of(*ill, detector="autoencoder")
    assert names(others.train) == {f"n{n}" for n in range(6)} and names(others.validate) == {"v"}


@pytest.mark.parametrize(
    ("cases", "complaint"),
    [
        ([], r"learns from abnormal cases with masks, and there is none \(label 1\) in the split 'train'"),
        ([case_of("t", "test", 1)], "there is none"),
        (
            [case_of("a", "train", 1), case_of("bare", "train", 1, mask=False)],
            r"1 of 2 abnormal cases of the split 'train' have none \(bare\)",
        ),
        (
            [case_of("a", "train", 1), case_of("bare", "validate", 1, mask=False)],
            r"1 of 1 abnormal cases of the split 'validate' have none \(bare\)",
        ),
    ],
)
def test_a_cohort_without_the_masks_to_learn_from_is_refused_by_name(cases: list[Case], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        roles_of(*cases)


def test_where_nothing_is_set_aside_for_validation_patients_of_both_kinds_are() -> None:
    config = TrainConfig(name="x", detector="unet", training=TrainingSection(validate_share=0.3))
    both = (*(case_of(f"n{n}", "train", 0) for n in range(10)), *(case_of(f"a{n}", "train", 1) for n in range(10)))
    kept, held = split_by_label(both, (), config, 0)
    assert sum(case.label for case in held) == 3 and len(held) == 6
    assert not names(kept) & names(held) and len(kept) == 14
    given = (case_of("v", "validate", 0),)
    kept, held = split_by_label(both, given, config, 0)
    assert names(given) < names(held) and len(held) == 4, "abnormal cases are set aside where only normals were given"
    shared = (*both[:10], *(case_of(f"a{n}", "train", 1, patient=f"n{n}") for n in range(10)))
    kept, held = split_by_label(shared, (), config, 0)
    assert not {case.patient for case in kept} & {case.patient for case in held}
    with pytest.raises(InputError, match="abnormal cases of at least 2 patients"):
        split_by_label(both[:11], (), config, 0)
