"""Learning from labels: roles, folds, clinical columns, schedules, thresholds and a training from end to end."""

from __future__ import annotations

import json
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluation.frames import write_cohort

from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.detectors.networks.backbones.catalogue import make_backbone
from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.models.bundle import load_bundle
from AnomalyDetectionLib.scoring.contract import Batch, InputSpec
from AnomalyDetectionLib.scoring.registry import build
from AnomalyDetectionLib.scoring.scorer import Scorer
from AnomalyTrainingLib.cohorts.checks import check_cohort
from AnomalyTrainingLib.cohorts.manifest import Case, ImageSource, load_case_volume, read_manifest
from AnomalyTrainingLib.cohorts.splits import assign_splits, folds
from AnomalyTrainingLib.training.clinical import area_with_interval, fit_columns, missingness_warnings
from AnomalyTrainingLib.training.config import AugmentSection, TrainConfig, TrainingSection
from AnomalyTrainingLib.training.data import PreparedCases, TrainingSlices, ValidationSlices
from AnomalyTrainingLib.training.deciding import fitted_probability, roc_decision
from AnomalyTrainingLib.training.labelled import WholeVolumes, WithLabels
from AnomalyTrainingLib.training.probing import probe
from AnomalyTrainingLib.training.roles import Roles
from AnomalyTrainingLib.training.schedule import Schedule

SPEC = InputSpec("slices", (), "radiograph", grid="own", size=(40, 40))
COUNTS = {"train": (10, 8), "calibrate": (5, 0), "validate": (4, 4), "test": (4, 4)}
COLUMNS = {"age": ["40", "51", "62", "", "73"], "sex": ["F", "M"]}
CONFIG = """
name: labelled
detector: classifier
options: {network: resnet18, weights: WEIGHTS, clinical: [age, sex], test_time_flips: true, label_smoothing: 0.1}
input: {kind: slices, intensity: radiograph, grid: own, size: [40, 40]}
calibration: {method: split}
threshold: {method: roc, sensitivity: 0.75}
training: {epochs: 3, batch: 6, learning_rate: 1.0e-3, probe_epochs: 20, frozen_epochs: 1, schedule: cosine}
baselines: [metadata, untrained]
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file under torchvision's names."""
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.manual_seed(5)
    torch.save(make_backbone("resnet18").state_dict(), path)
    return path


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    """Small single images of both classes in every split, with clinical columns, and a configuration beside them."""
    made = write_cohort(tmp_path_factory.mktemp("labelled"), COUNTS, columns=COLUMNS, masks=False)
    made.with_name("config.yaml").write_text(CONFIG.replace("WEIGHTS", str(weights)))
    return made


def config(**changes: Any) -> TrainConfig:
    plain = {
        "name": "c",
        "detector": "classifier",
        "options": {"network": "hybrid", "weights": "random"},
        "input": {"kind": "slices", "intensity": "radiograph", "grid": "own", "size": [40, 40]},
        "calibration": {"method": "split"},
    }
    return TrainConfig.model_validate({**plain, **changes})


def case(number: int, label: int = 0, patient: str | None = None, **covariates: str) -> Case:
    return Case(f"c{number}", patient or f"p{number}", {"image": ImageSource(Path("x"))}, label, covariates=covariates)


# -- from end to end


def test_a_classifier_is_trained_on_both_classes_judged_and_says_what_it_is(manifest: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    settings = str(manifest.with_name("config.yaml"))
    quiet = ["--cohort", str(manifest), "--progress", "none", "--device", "cpu"]
    assert main(["train", settings, "--out", out, *quiet]) == 0
    assert main(["export", out, "--out", str(tmp_path / "bundle")]) == 0
    model = load_bundle(tmp_path / "bundle")
    facts = model.info["training"]
    assert (facts["normals"], facts["abnormal cases"], facts["validation abnormal cases"]) == (10, 8, 4)
    assert facts["starting weights"].startswith("the file resnet18.pth (SHA-256 ")
    assert model.calibration.n == 5 and model.calibration.decision.target == "sensitivity 0.75"
    assert model.calibration.decision.sensitivity >= 0.75 and model.calibration.probability.abnormals == 4
    age, sex = model.detector.columns
    train = [c for c in read_manifest(manifest) if c.split == "train"]
    known = [float(c.covariates["age"]) for c in train if "age" in c.covariates]
    assert (age.centre, age.scale) == (pytest.approx(np.mean(known)), pytest.approx(np.std(known)))
    assert sex.categories == ("F", "M") and model.detector.abnormal_share == pytest.approx(8 / 18)
    card = (tmp_path / "bundle/docs/README.md").read_text(encoding="utf-8")
    assert "starting weights: the file resnet18.pth" in card
    used = model.info["used"]["train"]
    assert len(used["patients_sha256"]) == len(used["images_sha256"]) == 18, "abnormal cases were learnt from as well"

    judged = tmp_path / "evaluation"
    arguments = ["evaluate", str(tmp_path / "bundle"), "--out", str(judged), "--resamples", "50", *quiet]
    assert main(arguments) == 0
    document = json.loads((judged / "metrics.json").read_text(encoding="utf-8"))
    method = document["methods"]["classifier"]
    assert (method["volume"]["normal"], method["volume"]["abnormal"]) == (4, 4)
    assert method["volume"]["confusion"] is not None and method["voxel"]["dice"]["value"] is None
    assert method["lesion"]["images"] == 0
    first = read_manifest(manifest).of(split="test").cases[0]
    result = Scorer(model, "cpu").score(load_case_volume(first))
    row = next(row for row in document["cases"]["classifier"] if row["case"] == first.case)
    assert row["score"] == pytest.approx(result.volume_score, abs=1e-6)
    assert "untrained" in document["methods"] and "metadata" in document["methods"]


# -- who learns, who is held out


def test_abnormal_cases_are_learnt_from_and_never_calibrated_on(manifest: Path) -> None:
    cohort = read_manifest(manifest)
    roles = Roles.of(cohort, config())
    assert Counter(c.label for c in roles.train) == {0: 10, 1: 8}
    assert {c.label for c in roles.calibrate} == {0} and len(roles.calibrate) == 5
    assert Counter(c.label for c in roles.validate) == Counter(c.label for c in roles.decide) == {0: 4, 1: 4}
    crossed = Roles.of(cohort, config(calibration={"method": "cross"}))
    assert len(crossed.train) == 23 and {c.label for c in crossed.calibrate} == {0} and len(crossed.calibrate) == 15


@pytest.mark.parametrize(("split", "label"), [("train", 1), ("validate", 1), ("validate", 0)])
def test_a_cohort_without_a_class_to_learn_from_is_refused_by_split_and_class(
    split: str, label: int, tmp_path: Path
) -> None:
    counts = {name: list(pair) for name, pair in COUNTS.items()}
    counts[split][label] = 0
    cohort = read_manifest(write_cohort(tmp_path, {name: tuple(pair) for name, pair in counts.items()}))
    with pytest.raises(InputError, match=f"{split!r} has no {('normal', 'abnormal')[label]} one"):
        Roles.of(cohort, config())


def test_folds_for_labels_hold_both_classes_in_every_part_and_keep_patients_whole() -> None:
    cases = [case(n, n % 2, f"p{n // 3 * 2 + n % 2}") for n in range(240)]
    made = folds(cases, 5, supervised=True)
    held = Counter()
    for fold in made:
        held.update(c.case for c in fold if c.split == "test")
        splits: dict[str, set[str]] = {}
        for c in fold:
            splits.setdefault(c.patient, set()).add(c.split)
        assert all(len(found) == 1 for found in splits.values())
        for split in ("train", "validate", "test"):
            share = np.mean([c.label for c in fold if c.split == split])
            assert 0.3 < share < 0.75, split
        assert {c.label for c in fold if c.split == "calibrate"} == {0}
    assert set(held.values()) == {1} and len(held) == 240


def test_a_fold_without_a_class_is_named_with_what_to_do() -> None:
    cases = [*(case(n) for n in range(20)), *(case(n, 1) for n in range(100, 103))]
    with pytest.raises(InputError, match=r"Fold \d of 5 has no abnormal case in the split .* make fewer folds"):
        folds(cases, 5, supervised=True)
    with pytest.raises(InputError, match="2 abnormal patients are too few"):
        assign_splits(cases[:-1], supervised=True)


# -- batches


def test_labels_and_columns_stay_with_their_images_in_whatever_order_they_are_asked_for(
    manifest: Path, tmp_path: Path
) -> None:
    cases = read_manifest(manifest).of(split="train").cases
    prepared = PreparedCases(cases, SPEC, None, tmp_path)
    columns = fit_columns(["age", "sex"], cases)
    items = WithLabels(TrainingSlices(prepared, AugmentSection(on=False), 0), prepared, cases, columns)
    order = [15, 2, 9, 3]
    batch = items.__getitems__([(4, n) for n in order])
    plain = ValidationSlices(prepared).__getitems__(order)
    assert torch.equal(batch.image, plain.image) and batch.epoch == 4
    assert batch.label.tolist() == [cases[n].label for n in order]
    for row, n in zip(batch.covariates, order, strict=True):
        age = cases[n].covariates.get("age")
        assert torch.isnan(row[0]) if age is None else row[0] == pytest.approx(columns[0].encode(age)[0][0])
        assert row[1:].tolist() == [*(float(cases[n].covariates["sex"] == s) for s in "FM"), 0.0]


def test_whole_volumes_are_changed_alike_by_seed_epoch_and_index_and_must_be_of_one_shape() -> None:
    class Kept:
        def __init__(self, seed: int, side: int = 8) -> None:
            self.image = np.random.default_rng(seed).random((1, 1, side, side, side)).astype(np.float16)
            self.foreground = np.ones((1, 1, side, side, side), dtype=bool)

    class Prepared:
        kept = [Kept(1), Kept(2)]

    volumes = WholeVolumes(Prepared(), AugmentSection(), 3)  # type: ignore[arg-type]
    first, again = (volumes.__getitems__([(0, 1), (0, 0)]) for _ in range(2))
    assert first.image.shape == (2, 1, 8, 8, 8) and torch.equal(first.image, again.image)
    assert not torch.equal(first.image, volumes.__getitems__([(1, 1), (1, 0)]).image)
    untouched = WholeVolumes(Prepared(), None, 3).__getitems__([1])  # type: ignore[arg-type]
    assert torch.equal(untouched.image[0], torch.from_numpy(Prepared.kept[1].image[0].astype(np.float32)))
    Prepared.kept.append(Kept(3, side=9))
    with pytest.raises(InputError, match="grid: template"):
        WholeVolumes(Prepared(), None, 0)  # type: ignore[arg-type]


# -- clinical columns


def test_a_column_that_is_missing_everywhere_or_is_a_list_of_names_is_refused() -> None:
    cases = [case(n, n % 2, name=f"person {n}", age=str(n), mass="") for n in range(40)]
    for name, sentence in (("mass", "missing in all 40"), ("height", "missing in all 40"), ("name", "40 different")):
        with pytest.raises(InputError, match=sentence):
            fit_columns(["age", name], cases)
    with pytest.raises(InputError, match="twice"):
        fit_columns(["age", "age"], cases)


def test_absence_that_tells_the_label_is_named_with_its_interval_and_chance_is_not() -> None:
    telling = [case(n, n % 2, **({} if n % 2 and n % 3 else {"age": "50"})) for n in range(90)]
    (said,) = missingness_warnings(["age"], telling)
    assert said.startswith("Whether age is missing tells the label: AUROC 0.8")
    harmless = [case(n, n % 2, **({} if n % 5 == 0 else {"age": "50"})) for n in range(90)]
    assert missingness_warnings(["age"], harmless) == []
    low, area, high = area_with_interval(np.array([0] * 40 + [1] * 40), np.arange(80.0))
    assert (low, area, high) == (1.0, 1.0, 1.0)


# -- schedules


def test_pretrained_layers_stand_still_then_learn_more_slowly_and_every_rate_rises_from_nothing(weights: Path) -> None:
    torch.manual_seed(0)
    detector = build("classifier", SPEC, {"network": "resnet18", "weights": str(weights)})
    settings = TrainingSection(
        epochs=10, learning_rate=1e-2, warmup_epochs=2, frozen_epochs=3, pretrained_rate=0.1, schedule="cosine"
    )
    schedule = Schedule(detector, settings)
    new, old = schedule.optimiser.param_groups
    assert len(old["params"]) == len(list(detector.encoder.parameters())) and len(new["params"]) == 2

    def rates(epoch: int, step: int = 9) -> tuple[float, float]:
        schedule.before_step(epoch, step, 10)
        return new["lr"], old["lr"]

    for epoch, still in ((0, True), (2, True), (3, False), (9, False)):
        schedule.before_epoch(epoch)
        assert all(parameter.requires_grad != still for parameter in detector.encoder.parameters())
    assert rates(0, 0)[0] == pytest.approx(1e-2 / 20, rel=0.01) and rates(1)[0] > 0.85e-2
    assert rates(2)[1] == 0 and rates(3, 0)[1] == pytest.approx(1e-3 / 20, rel=0.01)
    assert rates(5)[1] > 0.5e-3 and rates(9) == (pytest.approx(0, abs=1e-9), pytest.approx(0, abs=1e-9))
    assert schedule.settled == 5
    with pytest.raises(InputError, match="frozen_epochs is 3, and no part"):
        Schedule(build("classifier", SPEC, {"network": "hybrid", "weights": "random"}), settings)
    with pytest.raises(InputError, match="warmup_epochs is 7, and there are 7 epochs to learn in"):
        Schedule(detector, settings.model_copy(update={"warmup_epochs": 7}))
    Schedule(detector, settings.model_copy(update={"warmup_epochs": 6}))


def test_probing_fits_the_new_layers_alone_to_features_made_once(manifest: Path, weights: Path, tmp_path: Path) -> None:
    cases = read_manifest(manifest).of(split="train").cases
    prepared = PreparedCases(cases, SPEC, None, tmp_path)
    items = WithLabels(ValidationSlices(prepared), prepared, cases, ())
    torch.manual_seed(0)
    detector = build("classifier", SPEC, {"network": "resnet18", "weights": str(weights), "dropout": 0.0})
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    passes = []
    detector.encoder.register_forward_hook(lambda module, given, made: passes.append(len(made)))
    batch = items.__getitems__(range(len(cases)))
    loss = float(detector.eval().loss(batch).detach())
    passes.clear()
    settings = TrainingSection(probe_epochs=30, probe_rate=1e-2, batch=6)
    probe(detector, items, items, settings, device=torch.device("cpu"), seed=0, progress=lambda stage, part: None)
    assert sum(passes) == 3 * len(cases), "once as they are, once mirrored, once for validation"
    assert float(detector.eval().loss(batch).detach()) < loss - 0.01
    changed = [name for name, value in detector.state_dict().items() if not torch.equal(value, before[name])]
    assert changed and all(name.startswith("head.") for name in changed)


def test_probing_holds_no_more_images_than_a_batch_or_two(
    manifest: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = read_manifest(manifest).of(split="train").cases
    prepared = PreparedCases(cases, SPEC, None, tmp_path)
    items = WithLabels(ValidationSlices(prepared), prepared, cases, ())
    shown: list[weakref.ref] = []
    held: list[int] = []
    made = items.__getitems__

    def watched(keys: Any) -> Batch:
        held.append(sum(image() is not None for image in shown))
        batch = made(keys)
        shown.append(weakref.ref(batch.image))
        return batch

    monkeypatch.setattr(items, "__getitems__", watched)
    detector = build("classifier", SPEC, {"network": "resnet18", "weights": str(weights)})
    settings = TrainingSection(probe_epochs=1, batch=2)
    probe(detector, items, items, settings, device=torch.device("cpu"), seed=0, progress=lambda stage, part: None)
    assert len(shown) == 18 and max(held) <= 2


def test_layers_that_probing_has_fitted_are_not_said_to_have_learnt_nothing(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", manifest.with_name("config.yaml"), "--cohort", manifest, "--out", tmp_path / "run"]
    still = ["--set", "training.learning_rate=1.0e-12", "--set", "baselines=none", "--progress", "none"]
    assert main([*map(str, arguments), *still, "--device", "cpu"]) == 0
    assert "has learnt nothing" not in capsys.readouterr().err
    assert "warning" not in load_bundle(tmp_path / "run" / "model").info["training"]


# -- what is fitted to validation cases


def test_the_threshold_reaches_the_sensitivity_or_specificity_that_was_asked_for() -> None:
    labels = np.array([0] * 10 + [1] * 10)
    scores = np.concatenate([np.arange(10.0), np.arange(5.0, 15.0) + 0.5])
    for target in (0.5, 0.9, 1.0):
        decision = roc_decision(labels, scores, target_sensitivity=target)
        assert decision.sensitivity >= target and decision.target == f"sensitivity {target:g}"
        assert np.mean(scores[:10] < decision.score) == decision.specificity
    strict = roc_decision(labels, scores, target_specificity=0.9)
    assert strict.specificity >= 0.9 and strict.sensitivity == np.mean(scores[10:] >= strict.score)
    assert roc_decision(labels, scores).target is None
    with pytest.raises(ValueError, match="not both"):
        config(threshold={"method": "roc", "sensitivity": 0.9, "specificity": 0.9})
    with pytest.raises(ValueError, match="needs `method: roc`"):
        config(threshold={"sensitivity": 0.9})


def test_the_temperature_takes_back_overconfidence() -> None:
    random = np.random.default_rng(0)
    true = random.normal(0, 1.5, 4000)
    labels = (random.random(4000) < 1 / (1 + np.exp(-true))).astype(int)
    fitted = fitted_probability(labels, 3 * true)
    assert fitted.temperature == pytest.approx(3.0, rel=0.1)
    assert fitted(3 * 1.0) == pytest.approx(1 / (1 + np.exp(-1)), abs=0.03)
    assert fitted_probability(labels, true / 2).temperature == pytest.approx(0.5, rel=0.1)


def test_up_to_so_many_unreadable_images_are_left_out_by_name_and_one_more_ends_the_run(tmp_path: Path) -> None:
    cohort = read_manifest(write_cohort(tmp_path, COUNTS))
    for number in (1, 12):
        cohort.cases[number].image.write_bytes(b"no image")
    with pytest.raises(InputError, match="2 problems"):
        check_cohort(cohort, skip_unreadable=1, remember=False)
    report = check_cohort(cohort, skip_unreadable=2, remember=False)
    assert len(report.cohort) == len(cohort) - 2 and "c1" not in {c.case for c in report.cohort}
    assert any("cases c1, c12 cannot be read; 2 of 39" in text for text in report.texts("warning"))
