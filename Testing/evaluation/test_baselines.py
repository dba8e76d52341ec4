"""Baselines as models: fitted on the same normals, kept in the bundle, and honest about what they know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation.conftest import Trained
from evaluation.frames import write_cohort

from AnomalyDetectionLib import Scorer, load_bundle, read_volume
from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.models.seen import patient_hash
from AnomalyDetectionLib.scoring.calibrate import Gathering, calibrate
from AnomalyDetectionLib.scoring.contract import Detector, InputSpec
from AnomalyDetectionLib.scoring.model import Model
from AnomalyDetectionLib.scoring.prepare import prepare
from AnomalyDetectionLib.scoring.raw import score_raw
from AnomalyDetectionLib.scoring.registry import build
from AnomalyDetectionLib.scoring.result import ModelIdentity
from AnomalyTrainingLib.cohorts.manifest import Case, load_case_volume, read_manifest
from AnomalyTrainingLib.evaluation.baselines.contender import FOLD_SEED
from AnomalyTrainingLib.evaluation.baselines.fit import fit_baselines
from AnomalyTrainingLib.evaluation.baselines.maps import CLASSES, RandomScores
from AnomalyTrainingLib.evaluation.baselines.store import from_files, stored_baselines
from AnomalyTrainingLib.evaluation.baselines.tables import (
    CaseClassifier,
    columns_of,
    covariates_of,
    out_of_fold,
    statistics_of,
)
from AnomalyTrainingLib.evaluation.judge import cohort_facts, judge
from AnomalyTrainingLib.evaluation.outcome import methods_of
from AnomalyTrainingLib.evaluation.run import Settings, judge_cohort
from AnomalyTrainingLib.training.roles import folds_of


def test_stored_baselines_are_to_the_last_bit_those_that_were_fitted(trained: Trained) -> None:
    model = load_bundle(trained.bundle)
    stored = stored_baselines(model)
    again = fit_baselines(model, read_manifest(trained.manifest))
    assert stored is not None and stored.names == again.names and stored.missing == again.missing
    volume = read_volume(trained.manifest.with_name("image30.nii.gz"))
    for name, baseline in again.maps.items():
        one, other = Scorer(stored.maps[name]).score(volume), Scorer(baseline).score(volume)
        assert np.array_equal(one.rarity.array, other.rarity.array), name
        assert (one.volume_score, one.p_value, one.threshold) == (other.volume_score, other.p_value, other.threshold)
    for name, classifier in again.cases.items():
        assert stored.cases[name].to_json() == classifier.to_json()


def test_baselines_are_calibrated_on_the_models_own_normals_with_its_own_rules(trained: Trained) -> None:
    model = load_bundle(trained.bundle)
    stored = stored_baselines(model)
    assert stored is not None
    for baseline in stored.maps.values():
        assert baseline.calibration.n == model.calibration.n == 6
        assert baseline.calibration.reducer == model.calibration.reducer
        assert baseline.calibration.threshold.least_size == model.calibration.threshold.least_size


@pytest.fixture(scope="module")
def crossed(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model that was calibrated out of fold on the same 14 normals."""
    out = tmp_path_factory.mktemp("crossed") / "run"
    sets = ["--set", "calibration.method=cross", "--set", "calibration.folds=3"]
    words = ["train", trained.manifest.with_name("config.yaml"), "--cohort", trained.manifest, "--out", out, *sets]
    assert main([str(word) for word in [*words, "--progress", "none"]]) == 0
    return load_bundle(out / "model")


def test_beside_a_model_calibrated_out_of_fold_no_baseline_judges_a_normal_it_has_learnt_from(
    crossed: Model, trained: Trained
) -> None:
    cohort = read_manifest(trained.manifest)
    normals = (*cohort.of(split="train", label=0), *cohort.of(split="calibrate", label=0))
    stored = stored_baselines(crossed)
    assert stored is not None and crossed.calibration.n == len(normals) == 14
    assert {baseline.calibration.n for baseline in stored.maps.values()} == {14}
    assert stored.cases["volume_statistics"].normal_scores.size == 14

    def learnt(name: str, cases: Sequence[Case]) -> Detector:
        baseline = stored.maps[name].detector
        detector = CLASSES[name](baseline.spec, **baseline.config())
        for case in cases:
            detector.absorb(prepare(load_case_volume(case), detector.spec, crossed.template).batch)
        detector.finish()
        return detector

    def calibrated(name: str, judges: Sequence[tuple[Detector, Sequence[Case]]]) -> np.ndarray:
        rules = crossed.calibration
        with Gathering(rules.reducer, rules.threshold.least_size) as gathering:
            for detector, cases in judges:
                for case in cases:
                    volume = load_case_volume(case)
                    gathering.add(volume, score_raw(detector, crossed.template, volume))
            return gathering.calibration().normal_scores

    folds = list(folds_of(normals, 3, FOLD_SEED))
    for name in ("voxel_intensity", "mean_image_residual"):
        scores = stored.maps[name].calibration.normal_scores
        assert np.allclose(scores, calibrated(name, [(learnt(name, rest), held) for rest, held in folds])), name
        whole = learnt(name, normals)
        assert not np.allclose(scores, calibrated(name, [(whole, normals)])), name
        for key, value in whole.state_dict().items():
            assert torch.allclose(stored.maps[name].detector.state_dict()[key], value, atol=1e-5), "it learns from all"
    direct = stored.maps["blur_residual"]
    again = calibrated("blur_residual", [(direct.detector, normals)])
    assert np.allclose(direct.calibration.normal_scores, again)


def test_beside_a_model_of_lesions_calibrated_out_of_fold_no_regression_judges_a_normal_it_was_fitted_to(
    tmp_path: Path,
) -> None:
    columns = {"age": [str(20 + 7 * n % 50) for n in range(23)], "site": ["north", "south", "north"]}
    counts = {"train": (8, 5), "calibrate": (4, 0), "validate": (3, 3)}
    cohort = read_manifest(write_cohort(tmp_path, counts, first=700, columns=columns))
    normals = (*cohort.of(split="train", label=0), *cohort.of(split="calibrate", label=0))
    others = (*cohort.of(split="train", label=1), *cohort.of(split="validate"))
    detector = build("unet", InputSpec("slices", (), "radiograph", size=(32, 32)), {"widths": [4, 8]}).eval()
    calibration = calibrate(detector, None, [load_case_volume(case) for case in normals])
    model = Model(ModelIdentity("tiny", "1.0.0", "", "unet"), detector, calibration)
    model = replace(model, info={"calibration": {"folds": 3}})
    found = fit_baselines(model, cohort, ["metadata", "volume_statistics"]).cases
    rows = {
        "metadata": {case.case: covariates_of(case.covariates)[0] for case in (*normals, *others)},
        "volume_statistics": {
            case.case: statistics_of(load_case_volume(case), detector.spec) for case in (*normals, *others)
        },
    }
    assert found.keys() == rows.keys()
    for name, of in rows.items():
        scores = []
        for rest, held in folds_of(normals, 3, FOLD_SEED):
            learnt = [*rest, *others]
            new = CaseClassifier.fit([of[case.case] for case in learnt], [case.label for case in learnt])
            scores += [new.score(of[case.case]) for case in held]
        assert np.allclose(found[name].normal_scores, sorted(scores)), name
        assert found[name].fitted_on == (11 + 4, 8), "it learns from all"
        assert not np.allclose(found[name].normal_scores, sorted(found[name].score(of[c.case]) for c in normals)), name


def test_what_baselines_were_calibrated_on_is_said_and_roles_stay_those_of_the_split(
    crossed: Model, trained: Trained
) -> None:
    assert "out of fold (3 folds by patient)" in crossed.info["baselines"]["calibrated on"]
    assert load_bundle(trained.bundle).info["baselines"]["calibrated on"] == "held-out normals"
    for role, count in (("train", 8), ("calibrate", 6), ("validate", 8)):
        used = crossed.info["used"][role]
        assert len(used["patients_sha256"]) == len(used["images_sha256"]) == count
    assert crossed.info["used"] == load_bundle(trained.bundle).info["used"]


def test_a_network_brings_its_untrained_self_and_an_atlas_of_its_own(tmp_path: Path) -> None:
    """An autoencoder on the images' own grid has no template: the placed baselines stretch frames onto one."""
    manifest = write_cohort(tmp_path / "cohort", {"train": (6, 0), "calibrate": (3, 0), "test": (1, 1)})
    cohort = read_manifest(manifest)
    spec = InputSpec("slices", (), "radiograph", size=(32, 32))
    detector = build("autoencoder", spec, {"widths": [4, 4], "latent": 4}).eval()
    volumes = [load_case_volume(case) for case in cohort.of(split="calibrate")]
    model = Model(ModelIdentity("tiny", "1.0.0", "", "autoencoder"), detector, calibrate(detector, None, volumes))
    fitted = fit_baselines(model, cohort)
    assert {"untrained", "zscore", "mean_image_residual"} <= set(fitted.maps)
    assert fitted.maps["zscore"].detector.spec.grid == "frame" and fitted.maps["random"].template is None
    files = fitted.to_files(model)
    assert "baselines/untrained.npz" not in files and "baselines/atlas.npz" in files
    again = from_files(files, model)
    volume = load_case_volume(cohort.of(split="test").cases[1])
    for name in fitted.maps:
        one, other = Scorer(fitted.maps[name]).score(volume), Scorer(again.maps[name]).score(volume)
        assert np.array_equal(one.rarity.array, other.rarity.array), name


def test_what_cannot_be_fitted_is_named_with_the_reason(trained: Trained, tmp_path: Path) -> None:
    model = load_bundle(trained.bundle)
    only_test = fit_baselines(model, read_manifest(write_cohort(tmp_path / "a", {"test": (2, 2)}, first=900)))
    assert only_test.names == []
    assert "fewer than 2 calibration normals" in only_test.missing["random"]
    assert "no normal and no abnormal case" in only_test.missing["metadata"]
    other_site = fit_baselines(model, read_manifest(write_cohort(tmp_path / "b", {"calibrate": (3, 0)}, first=910)))
    assert "no training normals" in other_site.missing["voxel_intensity"]
    assert set(other_site.maps) == {"random", "prevalence", "blur_residual", "mean_image_residual"}


def test_another_sites_calibration_leaves_the_baselines_behind_and_says_so(trained: Trained, tmp_path: Path) -> None:
    site = write_cohort(tmp_path / "site", {"calibrate": (4, 0)}, first=920)
    arguments = ["calibrate", trained.bundle, "--cohort", site, "--out", tmp_path / "bundle", "--progress", "none"]
    assert main([str(argument) for argument in arguments]) == 0
    model = load_bundle(tmp_path / "bundle")
    assert stored_baselines(model) is None
    assert "another site" in (tmp_path / "bundle" / "docs" / "README.md").read_text()
    normals = [patient_hash(case.patient) for case in read_manifest(site)]
    assert model.info["used"]["calibrate"]["patients_sha256"] == sorted(normals), "the former ones may be judged now"


def test_a_model_that_is_random_is_not_said_to_beat_intensity(trained: Trained, tmp_path: Path) -> None:
    model = load_bundle(trained.bundle)
    cohort = read_manifest(trained.manifest)
    detector = RandomScores(model.detector.spec)
    normals = [load_case_volume(case) for case in cohort.of(split="calibrate")]
    calibration = calibrate(detector, model.template, normals, reducer=model.calibration.reducer)
    chance = replace(
        model,
        identity=ModelIdentity("chance", "1.0.0", "0" * 64, "random"),
        detector=detector,
        calibration=calibration,
        info={},
        path=None,
    )
    (tmp_path / "out").mkdir()
    judged = judge_cohort(chance, cohort, tmp_path / "out", Settings())
    assert any("does not say whom it was trained on" in note for note in judged.notes)
    document = judge(
        methods_of(judged),
        model=chance.identity,
        cohort=cohort_facts(cohort, cohort.of(split="test").cases, "test"),
        resamples=200,
    )
    rows = [row for row in document["comparisons"] if row["baseline"] in ("voxel_intensity", "zscore", "blur_residual")]
    assert rows and all(row["verdict"] != "better" for row in rows if row["level"] in ("volume", "voxel"))


# -- judges of whole cases


ROWS = [{"age": str(30 + n % 40), "sex": "FM"[n % 2], "site": "ABC"[n % 3]} for n in range(60)]
LABELS = [int(n % 40 > 20) for n in range(60)]


def test_hostile_covariates_are_kept_out() -> None:
    used, left_out = covariates_of(
        dict.fromkeys(
            ["age", "sex", "view", "site", "scanner", "Patient ID", "study_uid", "file_name", "accession"], "1"
        )
        | dict.fromkeys(["lesion", "diagnosis", "tumour_grade", "true_label"], "1")
    )
    assert set(used) == {"age", "sex", "view", "site", "scanner"}
    assert left_out["lesion"] == "it may tell the label" and "identifies" in left_out["Patient ID"]


def test_text_that_differs_for_everybody_says_nothing_whatever_it_is_called() -> None:
    rows = [{**row, "note": f"seen by nurse {n}", "always": "yes"} for n, row in enumerate(ROWS)]
    assert [column.name for column in columns_of(rows)] == ["age", "sex", "site"]


def test_odd_values_neither_break_the_fit_nor_the_score() -> None:
    rows = [dict(row) for row in ROWS]
    rows[3]["age"], rows[4]["age"], rows[5]["age"], rows[6]["age"] = "inf", "1e308", "", "unknown"
    rows[7]["age"] = "063Y"
    del rows[8]["sex"]
    classifier = CaseClassifier.fit(rows, LABELS, rows[:20])
    odd = {"age": "-1e400", "sex": "X; DROP TABLE", "site": "a site that nobody has seen", "more": "9"}
    for row in ({}, odd, {"age": "nan"}, {"age": "063Y", "sex": "F"}):
        assert np.isfinite(classifier.score(row))
    assert 1 / 21 <= classifier.p_value(classifier.score(odd)) <= 1
    again = CaseClassifier.from_json(classifier.to_json())
    assert [again.score(row) for row in rows] == [classifier.score(row) for row in rows]


def test_a_covariate_that_tells_the_classes_apart_is_used_and_one_class_is_refused() -> None:
    classifier = CaseClassifier.fit(ROWS, LABELS)
    scores = np.array([classifier.score(row) for row in ROWS])
    assert scores[np.array(LABELS) == 1].mean() > scores[np.array(LABELS) == 0].mean() + 1
    with pytest.raises(ValueError, match="one class only"):
        CaseClassifier.fit(ROWS, [0] * 60)
    with pytest.raises(ValueError, match="no column"):
        CaseClassifier.fit([{}] * 60, LABELS)


def test_out_of_fold_scores_know_nothing_of_the_cases_own_patient() -> None:
    random = np.random.default_rng(0)
    rows = [{"a": float(value)} for value in random.standard_normal(40)]
    labels = [int(n >= 20) for n in range(40)]
    memorising = [{**row, "key": float(n)} for n, row in enumerate(rows)]  # a number tells the label of those seen
    scores = out_of_fold(rows, labels, [f"p{n}" for n in range(40)])
    assert scores is not None and abs(np.corrcoef(scores, labels)[0, 1]) < 0.5
    assert out_of_fold(memorising, labels, ["one"] * 20 + ["two"] * 20) is None
