"""Folds that hold out whole groups, and cross-validation from the command line."""

from __future__ import annotations

import copy
import json
import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evaluation.frames import write_cohort

from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.errors import InputError
from AnomalyTrainingLib.cohorts.manifest import Case, ImageSource, read_manifest
from AnomalyTrainingLib.cohorts.splits import folds
from AnomalyTrainingLib.evaluation.crossval import one_sided, write_summary
from AnomalyTrainingLib.evaluation.metrics_file import read_metrics
from AnomalyTrainingLib.evaluation.schema import fault, validator
from AnomalyTrainingLib.evaluation.summary import METRICS


def case(number: int, label: int, *, patient: str = "", split: str = "", **columns: str) -> Case:
    image = {"image": ImageSource(Path(f"{number}.nii"))}
    return Case(f"c{number}", patient or f"p{number}", image, label, split=split, covariates=columns)


def test_every_case_is_held_out_once_and_no_patient_has_two_roles() -> None:
    cases = [case(n, int(n >= 30), patient=f"p{n // 2}") for n in range(50)]
    made = folds(cases, 5, seed=3)
    held = Counter(c.case for fold in made for c in fold if c.split == "test")
    assert set(held) == {c.case for c in cases} and set(held.values()) == {1}
    for fold in made:
        assert [c.case for c in fold] == [c.case for c in cases]
        roles: dict[str, set[str]] = {}
        for c in fold:
            roles.setdefault(c.patient, set()).add(c.split)
        assert all(len(found) == 1 for found in roles.values())
        assert {c.split for c in fold if c.label} == {"test", "validate"}, "the abnormal are never learnt from"
        counts = Counter((c.split, c.label) for c in fold)
        assert counts["test", 0] == 6 and counts["test", 1] == 4
        assert min(counts[split, 0] for split in ("train", "calibrate", "validate")) >= 2


def test_folds_are_a_function_of_the_seed_not_of_the_order_of_rows() -> None:
    cases = [case(n, int(n >= 12)) for n in range(20)]
    one, other = folds(cases, 4, seed=1), folds(cases[::-1], 4, seed=1)
    assert [{c.case: c.split for c in fold} for fold in one] == [{c.case: c.split for c in fold} for fold in other]
    assert [{c.case: c.split for c in fold} for fold in one] != [
        {c.case: c.split for c in fold} for fold in folds(cases, 4, seed=2)
    ]


def test_a_group_is_held_out_whole_with_its_normal_and_its_abnormal_cases() -> None:
    cases = [case(n, n % 2, anatomy=f"a{n % 6}" if n % 2 else f"a{(n + 1) % 6}") for n in range(36)]
    cases.append(case(99, 0, split="external", anatomy="a1"))
    for fold in folds(cases, 3, group="anatomy"):
        held = {c.covariates["anatomy"] for c in fold if c.split == "test"}
        assert held and all((c.split == "test") == (c.covariates["anatomy"] in held) for c in fold)
        by_role = {c.covariates["anatomy"]: c.split for c in fold if c.split in ("train", "calibrate")}
        assert {c.split for c in fold if c.covariates["anatomy"] in by_role and not c.label} >= {"train", "calibrate"}
        assert "c99" not in {c.case for c in fold}


@pytest.mark.parametrize(
    ("cases", "k", "group", "sentence"),
    [
        ([case(n, 0) for n in range(3)], 5, "patient", "cannot make 5 folds: take from 2 to 3"),
        ([case(n, 0) for n in range(3)], 1, "patient", "cannot make 1 folds"),
        ([case(n, int(n > 1)) for n in range(6)], 2, "patient", "to train on and one to calibrate on"),
        ([case(0, 0, site="a"), case(1, 0)], 2, "site", "no value in the column 'site', .* are patient, site"),
        ([case(0, 0, site="a"), case(1, 0, patient="p0", site="b")], 2, "site", "'p0' is in 'a' and in 'b'"),
    ],
)
def test_folds_that_cannot_be_made_are_one_sentence(cases: list[Case], k: int, group: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        folds(cases, k, group=group)


def crossval(manifest: Path, out: Path, *more: str) -> int:
    arguments = ["crossval", manifest.with_name("config.yaml"), "--cohort", manifest, "--out", out, "--folds", "2"]
    arguments += ["--resamples", "100", "--progress", "none", *more]
    return main([str(argument) for argument in arguments])


def test_bad_input_names_the_fold_and_leaves_nothing_that_would_refuse_the_mended_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_cohort(tmp_path / "cohort", {"": (8, 2)})  # 2 to train on; zscore needs 5
    assert crossval(manifest, tmp_path / "out") == 2
    assert "Fold 1 of 2: zscore needs at least 5 normal cases" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def summary_of_two_folds() -> dict[str, Any]:
    values = {level: dict.fromkeys(names, 0.5) for level, names in METRICS.items()}
    spreads = {
        level: {name: {"mean": 0.5, "sd": 0.0, "folds": 2} for name in names} for level, names in METRICS.items()
    }
    fold = {"cases": 4, "normal": 2, "abnormal": 2, "model": 64 * "a", "methods": {"zscore": values}}
    return {
        "schema": "slicer-anomaly/crossval/1",
        "software": "0.1.0",
        "config": {"name": "x", "version": "1.0.0", "detector": "zscore", "input": {}},
        "cohort": 64 * "0",
        "folds": 2,
        "group": "patient",
        "seed": 0,
        "left_out": ["c9"],
        "per_fold": [{"fold": number, **fold} for number in (1, 2)],
        "mean_sd": {"zscore": spreads},
    }


def test_what_a_cross_validation_writes_agrees_with_its_schema_or_is_not_written(tmp_path: Path) -> None:
    validator("crossval").check_schema(validator("crossval").schema)
    summary, path = summary_of_two_folds(), tmp_path / "crossval.json"
    write_summary(summary, path)
    assert json.loads(path.read_text()) == summary
    begun = {key: value for key, value in summary.items() if key not in ("per_fold", "mean_sd")}
    assert fault(begun, "crossval") == "", "what a folder holds until all folds are done"

    def faulty(change: Callable[[dict[str, Any]], Any]) -> str:
        other = copy.deepcopy(summary)
        change(other)
        with pytest.raises(ValueError, match="would not agree with its schema"):
            write_summary(other, tmp_path / "other.json")
        return fault(other, "crossval")

    assert "mean_sd" in faulty(lambda other: other.pop("mean_sd"))
    assert "version" in faulty(lambda other: other.update(version=1))
    assert "crossval/1" in faulty(lambda other: other.update(schema="slicer-anomaly/crossval/0"))
    assert "$.per_fold[0]" in faulty(lambda other: other["per_fold"][0].update(normal=-1))
    assert "$.mean_sd.zscore.voxel.dice" in faulty(lambda o: o["mean_sd"]["zscore"]["voxel"]["dice"].update(folds=1))
    assert "pixel" in faulty(lambda other: other["mean_sd"]["zscore"].update(pixel={}))
    assert not (tmp_path / "other.json").exists()


def test_a_fold_without_a_class_to_judge_is_named_before_training(tmp_path: Path) -> None:
    few = read_manifest(write_cohort(tmp_path / "cohort", {"": (12, 2)}))
    divided = folds(few, 3)
    lacking = [n for n, cases in enumerate(divided, 1) if not any(c.label for c in cases if c.split == "test")]
    assert len(lacking) == 1
    assert one_sided(divided) == [
        f"Fold {lacking[0]} of 3 has no abnormal case to judge: its AUROC is not defined, and means over the folds are "
        "of the others."
    ]
    assert one_sided(folds(few, 2)) == []


@pytest.mark.slow
def test_cross_validation_judges_every_case_once_by_a_model_that_had_not_seen_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_cohort(tmp_path / "cohort", {"": (18, 6)}, columns={"sex": ["F", "M"]})
    out = tmp_path / "out"
    settings = ("--set", "options.smooth=1.5")
    assert crossval(manifest, out, *settings) == 0
    said = capsys.readouterr().err
    assert all(f"warning: Fold {n} of 2: The model is fitted to only 5 normals" in said for n in (1, 2))
    document, summary = read_metrics(out), json.loads((out / "crossval.json").read_text())
    assert fault(summary, "crossval") == "" and summary["config"]["options"] == {"smooth": 1.5, "shading": 0.0}
    names = [row["case"] for row in document["cases"]["zscore"]]
    assert sorted(names) == sorted(c.case for c in read_manifest(manifest)) and document["model"] is None
    assert {"report.html", "scores.csv"} <= {path.name for path in out.iterdir()}
    values = [fold["methods"]["zscore"]["volume"]["auroc"] for fold in summary["per_fold"]]
    spread = summary["mean_sd"]["zscore"]["volume"]["auroc"]
    assert spread["mean"] == pytest.approx(statistics.fmean(values), abs=1e-5) and spread["folds"] == 2
    assert spread["sd"] == pytest.approx(statistics.stdev(values), abs=1e-5)
    assert "volume_statistics" in document["methods"], "the training part holds both classes for the supervised ones"
    for number in (1, 2):
        fold = read_metrics(out / "folds" / str(number) / "evaluation")
        assert fold["cohort"]["cases"] == 12
        rows = {row["case"]: row["score"] for row in fold["cases"]["zscore"]}
        assert rows.items() <= {row["case"]: row["score"] for row in document["cases"]["zscore"]}.items()

    # What a stopped run leaves: a fold without its evaluation.  The other fold is not made again.
    trained = out / "folds" / "1" / "run" / "model" / "models" / "model.pt"
    before = trained.stat().st_mtime_ns
    (out / "folds" / "2" / "evaluation" / "records" / f"{next(iter(rows))}.npz").unlink()
    (out / "metrics.json").unlink()
    assert crossval(manifest, out, *settings) == 2
    assert "--resume" in capsys.readouterr().err
    assert crossval(manifest, out, "--resume") == 2
    assert "had another config" in capsys.readouterr().err
    assert crossval(manifest, out, *settings, "--resume") == 0
    assert trained.stat().st_mtime_ns == before
    assert read_metrics(out) | {"created": ""} == document | {"created": ""}
    assert crossval(manifest, out, *settings, "--resume", "--seed", "1") == 2
    assert "had another seed" in capsys.readouterr().err


@pytest.mark.slow
def test_cases_that_cannot_be_read_are_left_out_if_asked_and_resume_wants_the_same_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, out = write_cohort(tmp_path / "cohort", {"": (21, 4)}), tmp_path / "out"
    whole = (manifest.parent / "image3.nii.gz").read_bytes()
    (manifest.parent / "image3.nii.gz").write_bytes(b"no image")
    assert crossval(manifest, out) == 2
    assert "image3.nii.gz" in capsys.readouterr().err and not out.exists()
    assert crossval(manifest, out, "--skip-unreadable", "1") == 0
    document, summary = read_metrics(out), json.loads((out / "crossval.json").read_text())
    assert summary["left_out"] == ["c3"] and fault(summary, "crossval") == ""
    assert "Left out, for they cannot be read: c3." in document["notes"]
    assert {row["case"] for row in document["cases"]["zscore"]} == {f"c{n}" for n in range(25)} - {"c3"}

    (out / "metrics.json").unlink()
    assert crossval(manifest, out, "--resume") == 2
    assert "image3.nii.gz" in capsys.readouterr().err
    assert crossval(manifest, out, "--skip-unreadable", "1", "--resume") == 0
    assert read_metrics(out) | {"created": ""} == document | {"created": ""}
    (manifest.parent / "image3.nii.gz").write_bytes(whole)  # its case belongs to a fold again, and which ones move
    assert crossval(manifest, out, "--skip-unreadable", "1", "--resume") == 2
    assert "had another left_out" in capsys.readouterr().err
