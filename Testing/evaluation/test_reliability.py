"""Probabilities against what came true, and the parts of a model that fuses image and clinical columns."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from evaluation.frames import write_cohort
from sklearn.metrics import roc_auc_score

from AnomalyDetectionLib.scoring.calibrate import calibrate
from AnomalyDetectionLib.scoring.contract import InputSpec
from AnomalyDetectionLib.scoring.model import Model
from AnomalyDetectionLib.scoring.registry import build
from AnomalyDetectionLib.scoring.result import ModelIdentity
from AnomalyDetectionLib.scoring.scorer import Scorer
from AnomalyTrainingLib.cohorts.manifest import load_case_volume, read_manifest
from AnomalyTrainingLib.evaluation.baselines.store import Baselines
from AnomalyTrainingLib.evaluation.candidates import candidates_of, judge_case
from AnomalyTrainingLib.evaluation.intervals import Bootstrap
from AnomalyTrainingLib.evaluation.judge import judge
from AnomalyTrainingLib.evaluation.plots import make_plots
from AnomalyTrainingLib.evaluation.pooling import Fold, note_on_scores, pooled
from AnomalyTrainingLib.evaluation.records import CaseRecord
from AnomalyTrainingLib.evaluation.reliability import reliability
from AnomalyTrainingLib.evaluation.report import report_html
from AnomalyTrainingLib.evaluation.run import Judged
from AnomalyTrainingLib.evaluation.summary import Method


def records(said: np.ndarray, came: np.ndarray) -> list[CaseRecord]:
    return [
        CaseRecord(f"c{n}", f"p{n}", f"p{n}", int(y), float(p), probability=float(p))
        for n, (p, y) in enumerate(zip(said, came, strict=True))
    ]


def found(said: np.ndarray, came: np.ndarray) -> dict:
    made = records(said, came)
    section = reliability(made, Bootstrap.of_records(made, resamples=200))
    assert section is not None
    return section


def test_brier_score_and_calibration_error_are_those_worked_out_by_hand() -> None:
    section = found(np.array([0.15, 0.15, 0.85, 0.85]), np.array([0, 1, 1, 1]))
    assert section["brier"]["value"] == pytest.approx((0.15**2 + 3 * 0.15**2 + 0.85**2 - 0.15**2) / 4)
    assert section["ece"]["value"] == pytest.approx((abs(0.15 - 0.5) + abs(0.85 - 1)) / 2)
    assert section["bins"] == [
        {"probability": 0.15, "share": 0.5, "cases": 2},
        {"probability": 0.85, "share": 1.0, "cases": 2},
    ]


def test_honest_probabilities_have_a_small_error_and_overconfident_ones_a_large_one() -> None:
    random = np.random.default_rng(0)
    true = random.normal(0, 1.5, 3000)
    came = random.random(3000) < 1 / (1 + np.exp(-true))
    honest, sure = (found(1 / (1 + np.exp(-factor * true)), came)["ece"] for factor in (1, 4))
    assert honest["value"] < 0.03 < 0.1 < sure["value"]
    assert sure["low"] < sure["value"] < sure["high"]


def test_a_method_without_probabilities_has_no_such_section() -> None:
    made = [CaseRecord("c", "p", "p", 1, 0.3)]
    assert reliability(made, Bootstrap.of_records(made, resamples=10)) is None


def test_a_model_that_fuses_is_judged_by_each_of_its_heads_beside_it(tmp_path) -> None:
    cases = read_manifest(write_cohort(tmp_path, {"calibrate": (3, 0), "test": (1, 1)}, columns={"age": ["40", "70"]}))
    spec = InputSpec("slices", (), "radiograph", size=(40, 40))
    clinical = [{"name": "age", "centre": 55.0, "scale": 15.0}]
    detector = build("classifier", spec, {"network": "hybrid", "weights": "random", "clinical": clinical})
    normals = (load_case_volume(case) for case in cases.of(split="calibrate"))
    model = Model(ModelIdentity("m", "1.0.0", "", "classifier"), detector, calibrate(detector, None, normals))
    methods = candidates_of(model, Baselines())
    assert [(m.name, m.kind) for m in methods[1:]] == [
        ("classifier (image only)", "ablation"),
        ("classifier (clinical only)", "ablation"),
    ]
    case = cases.of(split="test").cases[0]
    made = judge_case(methods, case, load_case_volume(case), None, cluster="p", device="cpu").records
    scores = {name: record.volume_score for name, record in made.items()}
    assert len(set(scores.values())) == 3
    assert scores["classifier"] == pytest.approx(Scorer(model, "cpu").score(load_case_volume(case)).volume_score)
    for name in ("classifier (image only)", "classifier (clinical only)"):
        assert made[name].called is None and made[name].p_value is None
    other = load_case_volume(cases.of(split="test").cases[1])  # another image, another age
    again = judge_case(methods, cases.of(split="test").cases[1], other, None, cluster="p", device="cpu").records
    assert again["classifier (clinical only)"].volume_score != scores["classifier (clinical only)"]


def test_a_report_of_a_model_with_probabilities_shows_their_reliability() -> None:
    made = tuple(records(np.array([0.2, 0.3, 0.7, 0.9, 0.6, 0.1]), np.array([0, 0, 1, 1, 0, 0])))
    facts = {"file": "c.csv", "sha256": "0" * 64, "split": "test", "cases": 6, "patients": 6}
    facts |= {"normal": 4, "abnormal": 2, "with_mask": 0, "simulated": 0}
    document = judge([Method("classifier", "model", "m", made)], model=None, cohort=facts, resamples=50)
    (plot,) = [plot for plot in make_plots(document) if plot.name == "reliability"]
    assert plot.png is not None and "Brier score 0.10" in plot.alt
    page = report_html(document, make_plots(document))
    assert "Its probabilities have a Brier score of" in page and "expected calibration error" in page
    plain = tuple(replace(record, probability=None) for record in made)
    document = judge([Method("zscore", "model", "m", plain)], model=None, cohort=facts, resamples=50)
    assert "reliability" not in [plot.name for plot in make_plots(document)]


def test_folds_of_log_odds_are_pooled_from_each_folds_own_threshold_and_other_scores_as_they_are() -> None:
    """Two models that rank alike but for their zero: pooled as they are, they would rank across folds by it."""
    scores, labels = np.array([0.0, 1.0, 2.0, 3.0]), np.array([0, 0, 1, 1])
    for probability, expected in ((0.5, 1.0), (None, 0.75)):
        folds = [fold_of(number, shift, scores, labels, probability) for number, shift in enumerate((0.0, 10.0))]
        method, baseline = pooled(folds)
        assert method.volume_threshold == (0.0 if probability else None)
        assert baseline.volume_threshold is None
        for pool, reached in ((method, expected), (baseline, 0.75)):
            found = [record.volume_score for record in pool.records]
            assert roc_auc_score([record.label for record in pool.records], found) == reached
        assert method.description == "m, a new one in each of 2 folds"
        assert baseline.description == "fitted to 0 cases; so in the first of 2 folds"


def test_a_reader_is_told_whose_scores_were_moved_before_the_folds_were_pooled() -> None:
    scores, labels = np.array([0.0, 1.0, 2.0, 3.0]), np.array([0, 0, 1, 1])
    spread = {name: {"volume": {"auroc": {"mean": mean}}} for name, mean in (("m", 0.9), ("metadata", 0.75))}
    (note,) = note_on_scores([fold_of(n, n, scores, labels, 0.5) for n in range(2)], spread)
    assert "the scores of m are counted from each fold's own threshold, which is 0 here" in note
    assert "while those of metadata are taken as they are" in note
    assert note.endswith("the mean AUROC of cases is m 0.900, metadata 0.750.")
    assert note_on_scores([fold_of(n, n, scores, labels, None) for n in range(2)], spread) == []


def fold_of(number: int, shift: float, scores: np.ndarray, labels: np.ndarray, probability: float | None) -> Fold:
    """A model's fold whose scores are shifted, its threshold with them, and a baseline's of the same scores."""
    plain = [
        CaseRecord(f"c{number}{n}", f"p{number}{n}", f"p{number}{n}", int(y), float(s + shift))
        for n, (s, y) in enumerate(zip(scores, labels, strict=True))
    ]
    made = {"m": [replace(record, probability=probability) for record in plain], "metadata": plain}
    candidates = [
        SimpleNamespace(
            name=name,
            kind=kind,
            description=description,
            threshold=None,
            volume_threshold=1.5 + shift,
            normal_scores=scores,
        )
        for name, kind, description in (("m", "model", "m"), ("metadata", "baseline", f"fitted to {number} cases"))
    ]
    return Fold(number, Judged(candidates, made, {}), {})  # type: ignore[arg-type]
