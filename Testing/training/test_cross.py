"""Calibration out of fold: few normals are all used twice, and what they say of new normals is true."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simulated
import torch
from torch import Tensor
from training.runs import run_here, run_stopped

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.imaging.write import write_labels, write_volume
from AnomalyDetectionLib.models.bundle import load_bundle
from AnomalyDetectionLib.scoring.contract import Batch, Detector, InputSpec, Scores
from AnomalyDetectionLib.scoring.decision import Decision
from AnomalyDetectionLib.scoring.model import Calibration
from AnomalyDetectionLib.scoring.prepare import prepare
from AnomalyDetectionLib.scoring.scorer import Scorer
from AnomalyDetectionLib.scoring.thresholds import LEVELS
from AnomalyTrainingLib.cohorts.manifest import Case, Cohort, ImageSource, load_case_volume, read_manifest
from AnomalyTrainingLib.training import calibrating
from AnomalyTrainingLib.training.calibrating import as_model, held_out, out_of_fold
from AnomalyTrainingLib.training.config import CalibrationSection, TrainConfig
from AnomalyTrainingLib.training.deciding import roc_decision, youden_level
from AnomalyTrainingLib.training.roles import Roles, check_folds, folds_of
from AnomalyTrainingLib.training.statistics import Fitted, training_facts


def case_of(name: str, patient: str = "", split: str = "train", label: int = 0) -> Case:
    return Case(name, patient or name, {"image": ImageSource(Path(name))}, label, split=split)


def cohort_of(*cases: Case) -> Cohort:
    return Cohort(cases, Path("cohort.csv"))


def config_of(method: str = "auto", folds: int = 5, **others: Any) -> TrainConfig:
    section = CalibrationSection(method=method, folds=folds)  # type: ignore[arg-type]
    return TrainConfig(name="x", detector="zscore", calibration=section, **others)


def test_folds_leave_every_normal_out_once_and_keep_patients_together() -> None:
    cases = tuple(case_of(f"c{n}", f"p{n // 2}") for n in range(26))
    folds = list(folds_of(cases, 5, 3))
    assert sorted(case.case for _, held in folds for case in held) == sorted(case.case for case in cases)
    for rest, held in folds:
        assert len(rest) + len(held) == 26 and not {c.patient for c in rest} & {c.patient for c in held}
        assert 4 <= len(held) <= 6
    assert folds == list(folds_of(cases, 5, 3)) != list(folds_of(cases, 5, 4))


def test_folds_spread_the_classes_and_sites_evenly() -> None:
    cases = tuple(
        replace(case_of(f"c{n}", label=int(n % 5 == 0)), covariates={"site": "south" if n % 3 == 0 else "north"})
        for n in range(60)
    )
    for seed in range(5):
        for rest, held in folds_of(cases, 4, seed):
            assert len(held) == 15 and sum(case.label for case in held) == 3
            for members in (rest, held):
                south = sum(case.covariates["site"] == "south" for case in members)
                assert abs(south - len(members) / 3) <= 2


def test_a_fold_that_would_be_fitted_without_a_class_is_refused_before_training() -> None:
    normals = [case_of(f"c{n}", f"p{n}") for n in range(20)]
    once = [case_of(f"i{n}", "one patient", label=1) for n in range(4)]
    cohort = cohort_of(*normals, *once)
    with pytest.raises(InputError, match=r"fold \d of 5 leaves out there is no abnormal one \(label 1\)"):
        check_folds(cohort, Roles(cohort.cases, tuple(normals), folds=5), seed=0)
    other = (*cohort.cases, case_of("i9", "another patient", label=1))
    check_folds(cohort, Roles(other, tuple(normals), folds=5), seed=0)
    check_folds(cohort, Roles(cohort.cases, tuple(normals), folds=0), seed=0)


def test_below_sixty_normals_all_are_used_for_both_unless_the_split_is_asked_for() -> None:
    few = cohort_of(*(case_of(f"c{n}", split="calibrate" if n % 3 == 0 else "train") for n in range(59)))
    many = cohort_of(*few, case_of("one more"))
    roles = Roles.of(few, config_of())
    assert roles.folds == 5 and roles.train == roles.calibrate and len(roles.train) == 59
    assert "6 detectors are fitted" in (roles.notice() or "")
    held_out = Roles.of(many, config_of())
    assert held_out.folds == 0 and len(held_out.calibrate) == 20 and held_out.notice() is None
    assert Roles.of(few, config_of("split")).folds == 0
    assert Roles.of(many, config_of("cross", folds=4)).folds == 4
    assert Roles.of(cohort_of(*few.cases[:3]), config_of()).folds == 3, "not more folds than patients"
    with pytest.raises(InputError, match=r"normals .* of at least 2 patients"):
        Roles.of(cohort_of(few.cases[0]), config_of())


def test_thresholds_by_roc_need_normal_and_abnormal_validation_cases() -> None:
    config = config_of(threshold={"method": "roc"})
    normals = [case_of(f"c{n}") for n in range(5)]
    ill, well = case_of("ill", split="validate", label=1), case_of("well", split="validate")
    for cases, said in (([], "0 normal and 0 abnormal"), ([well], "1 normal and 0"), ([ill], "0 normal and 1")):
        with pytest.raises(InputError, match=said):
            Roles.of(cohort_of(*normals, *cases), config)
    roles = Roles.of(cohort_of(*normals, ill, well), config)
    assert roles.decide == (ill, well) and roles.validate == (well,)
    assert Roles.of(cohort_of(*normals, ill), config_of()).decide == ()


class Nearest(Detector):
    """How far a pixel is from the nearest value that any normal has there: it knows its normals by heart."""

    def __init__(self, spec: InputSpec, bank: Tensor) -> None:
        super().__init__(spec)
        self.register_buffer("bank", bank)

    bank: Tensor

    def score(self, batch: Batch) -> Scores:
        return Scores(map=(batch.image[:, None] - self.bank).abs().amin(dim=1))


SPEC = InputSpec("slices", ("CT",), "ct-soft", foreground="everything", size=(16, 16))


def picture(case: Case) -> Volume:
    """A slice of noise about a level of the subject's own."""
    random = np.random.default_rng(int(case.case))
    array = 40 + 8 * random.standard_t(6) + random.normal(0, 6, (1, 16, 16))
    return Volume(array.astype(np.float32), np.eye(4), modality="CT", units="HU", name=case.case)


def learned(cases: tuple[Case, ...]) -> Fitted:
    bank = torch.cat([prepare(picture(case), SPEC).batch.image for case in cases])
    return Fitted(Nearest(SPEC, bank), None, training_facts(cases))


@pytest.mark.slow
def test_out_of_fold_calibration_holds_on_new_normals_and_in_sample_calibration_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(calibrating, "load_case_volume", picture)
    nothing = lambda stage, fraction: None  # noqa: E731
    p_values: dict[str, list[float]] = {"out of fold": [], "in sample": []}
    for turn in range(16):
        cases = tuple(case_of(str(1000 * turn + n)) for n in range(30))
        config = config_of("cross", findings={"least_px": 1})
        roles = Roles.of(cohort_of(*cases), config)
        final = learned(cases)
        ways = {
            "out of fold": out_of_fold(
                config, roles, tmp_path / str(turn), lambda rest, folder, number: learned(rest), 0, "cpu", nothing
            ),
            "in sample": held_out(config, final, cases, "cpu", nothing),
        }
        for name, calibration in ways.items():
            assert calibration.n == 30
            scorer = Scorer(as_model(config, final, calibration, roles), "cpu")
            p_values[name] += [scorer.score(picture(case_of(str(1000 * turn + 500 + n)))).p_value for n in range(40)]
    for nominal in (0.1, 0.15, 0.2):
        realised = {name: float(np.mean(np.array(values) <= nominal)) for name, values in p_values.items()}
        # Somewhat below nominal, on the safe side: the detectors of the folds have seen fewer normals.
        assert 0.4 * nominal <= realised["out of fold"] <= 1.7 * nominal, (nominal, realised)
        assert realised["in sample"] > 0.9, "what a detector has learned by heart says nothing of new normals"


def test_a_fold_that_is_done_is_not_repeated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(calibrating, "load_case_volume", picture)
    cases = tuple(case_of(str(n)) for n in range(10))
    config = config_of("cross", folds=5, findings={"least_px": 1})
    roles, fitted = Roles.of(cohort_of(*cases), config), []

    def fit(rest: tuple[Case, ...], folder: Path, number: int) -> Fitted:
        if number == 3 and not fitted.count(3):
            fitted.append(3)
            raise KeyboardInterrupt
        fitted.append(number)
        return learned(rest)

    def calibrated() -> Calibration:
        return out_of_fold(config, roles, tmp_path, fit, 0, "cpu", lambda stage, fraction: None)

    with pytest.raises(KeyboardInterrupt):
        calibrated()
    stopped = calibrated()
    assert fitted == [1, 2, 3, 3, 4, 5]
    whole = out_of_fold(config, roles, tmp_path / "other", fit, 0, "cpu", lambda stage, fraction: None)
    assert np.array_equal(stopped.normal_scores, whole.normal_scores) and stopped.n == 10


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of eight small heads, none of them in the split calibrate, and four to choose thresholds on."""
    folder = tmp_path_factory.mktemp("heads")
    lines = ["case,patient,image,label,split,mask"]
    for n in range(12):
        ill = n >= 10
        image = (
            simulated.head(n, lesion_ras=(-30, 10, 10), lesion_mm=20.0, lesion_gain=2.0) if ill else simulated.head(n)
        )
        write_volume(image, folder / f"{n}.nii.gz")
        if n == 10:
            truth = np.abs(image.array - simulated.head(n).array) > 20
            write_labels(truth.astype(np.uint8), image.grid, folder / "mask.nii.gz")
        split = "train" if n < 8 else "validate"
        lines.append(f"c{n},p{n},{n}.nii.gz,{int(ill)},{split},{'mask.nii.gz' if n == 10 else ''}")
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n")
    return folder / "cohort.csv"


CONFIG = """
name: tiny
detector: autoencoder
few_normals: true
options: {widths: [4, 8], latent: 8}
input: {kind: slices, modalities: [MR], intensity: mr-robust, grid: own, spacing: [8.0, 8.0, 8.0], size: [32, 32]}
training: {epochs: 2, batch: 8, learning_rate: 0.003}
findings: {least_ml: 1.0}
calibration: {folds: 2}
threshold: {method: roc}
baselines: none
"""


def arguments(heads: Path, out: Path) -> list[str]:
    config = heads.with_name("config.yaml")
    config.write_text(CONFIG)
    return ["train", str(config), "--cohort", str(heads), "--out", str(out), "--device", "cpu"]


def training_events(events: list[dict]) -> list[dict]:
    return [event for event in events if event["event"] == "training"]


@pytest.fixture(scope="module")
def whole(heads: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped; what it told is in `events.json`."""
    out = tmp_path_factory.mktemp("whole") / "run"
    events = run_here(arguments(heads, out))
    (out / "events.json").write_text(json.dumps(events))
    return out


@pytest.mark.slow
def test_a_run_calibrates_out_of_fold_and_chooses_thresholds_by_roc(whole: Path, heads: Path) -> None:
    events = json.loads((whole / "events.json").read_text())
    assert {event.get("fold") for event in training_events(events)} == {1, 2, None}
    warnings = [event["message"] for event in events if event["event"] == "warning"]
    assert any("calibrated on 8 normals: no case can reach p = 0.05" in message for message in warnings)
    assert not (whole / "folds").exists() and not (whole / "prepared").exists()
    model = load_bundle(whole / "model")
    assert model.info["calibration"]["method"] == "cross-conformal, 2 folds by patient"
    assert model.info["training"]["normals"] == model.info["calibration"]["normals"] == model.calibration.n == 8
    decision = model.calibration.decision
    assert (decision.method, decision.sensitivity, decision.specificity) == ("roc", 1.0, 1.0)
    assert (decision.normals, decision.abnormals) == (2, 2)
    assert "1 cases with masks" in model.info["threshold"]["findings"]
    scorer = Scorer(model, "cpu")
    called = [scorer.score(load_case_volume(case)).abnormal for case in read_manifest(heads).of(split="validate")]
    assert called == [False, False, True, True]
    assert "sensitivity 1.00" in (whole / "model" / "docs" / "README.md").read_text()


@pytest.mark.slow
def test_a_run_killed_in_a_fold_goes_on_there_and_ends_as_if_it_had_not_been(
    whole: Path, heads: Path, tmp_path: Path
) -> None:
    killed = arguments(heads, tmp_path / "run")
    assert run_stopped(killed, "fold 2/2: training, epoch 2", signal.SIGKILL) == -signal.SIGKILL
    first = training_events(run_here([*killed, "--resume"]))[0]
    assert (first["fold"], first["epoch"]) == (2, 2), "neither the first fold nor the first epoch again"
    models = [load_bundle(run / "model") for run in (whole, tmp_path / "run")]
    states = [model.detector.state_dict() for model in models]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert np.array_equal(*(model.calibration.normal_scores for model in models))


def test_youdens_index_chooses_the_cut_between_and_none_where_there_is_nothing_to_choose() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    decision = roc_decision(labels, np.array([1.0, 2.0, 3.0, 9.0, 5.0, 8.0]))
    assert decision == Decision(5.0, "roc", 1.0, 0.75, 4, 2)
    assert roc_decision(labels, np.array([5.0, 6.0, 7.0, 8.0, 1.0, 2.0])) is None
    assert roc_decision(labels, np.ones(6)) is None
    counts = np.zeros((2, LEVELS.size + 1), dtype=np.int64)
    assert youden_level(counts) is None
    counts[0, 3], counts[0, 0], counts[1, 12], counts[1, 2] = 40, 60, 5, 1
    assert youden_level(counts) == LEVELS[3], "five of six lesion voxels reach it, and no other does"
