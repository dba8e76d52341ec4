"""A cohort from elsewhere: what differs is found, what does not is not, and small groups are given no figure."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation.conftest import Trained
from evaluation.frames import frame, save, write_cohort
from scipy.special import expit
from scipy.stats import betabinom

from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.models.bundle import load_bundle
from AnomalyDetectionLib.scoring.decision import Decision
from AnomalyTrainingLib.evaluation.intervals import Bootstrap
from AnomalyTrainingLib.evaluation.metrics_file import read_metrics, write_metrics
from AnomalyTrainingLib.evaluation.records import CaseRecord
from AnomalyTrainingLib.evaluation.shift.groups import Judged, age_band, chance_of_more, group_rows, group_values
from AnomalyTrainingLib.evaluation.shift.mix import mix_rows, standardised
from AnomalyTrainingLib.evaluation.shift.reference import NAME, CohortSummary, Group, stored_summary
from AnomalyTrainingLib.evaluation.shift.report import worst
from AnomalyTrainingLib.evaluation.shift.words import is_notable, sentences

CUT = 1.6


def record(number: int, label: int, score: float, *, patient: str = "", **columns: str) -> CaseRecord:
    patient = patient or f"p{number}"
    called = score >= CUT
    probability = float(expit(score - 1))
    return CaseRecord(
        f"c{number}", patient, patient, label, score, 0.5, called, covariates=columns, probability=probability
    )


def judged(records: list[CaseRecord], chosen_on: tuple[int, int] = (9, 200)) -> Judged:
    bootstrap = Bootstrap.of_records(records, resamples=400)
    return Judged(records, bootstrap, np.random.default_rng(5).normal(size=200), chosen_on)


def two_sites(shift: float) -> list[CaseRecord]:
    """Eighty cases a site; in the south normals score higher.  Six more come from the west."""
    rng = np.random.default_rng(3)
    made = []
    for n in range(160):
        label, south = n % 2, n >= 80
        score = rng.normal() + 2.5 * label + (shift if south and not label else 0)
        made.append(record(n, label, score, site="south" if south else "north", age=str(20 + n % 60)))
    return made + [record(200 + n, n % 2, rng.normal(), site="west", age="25") for n in range(6)]


# -- differences between cohorts


def test_a_standardised_difference_is_that_of_means_over_their_spread_and_its_interval_holds_the_truth() -> None:
    figure = standardised((12.0, 3.0, 40), (9.0, 4.0, 60))
    assert figure.value == pytest.approx(3 / np.sqrt((9 + 16) / 2))
    rng, covered = np.random.default_rng(0), 0
    for _ in range(300):
        here, there = rng.normal(0.5, 1, 40), rng.normal(0, 1, 80)
        found = standardised((here.mean(), here.std(ddof=1), 40), (there.mean(), there.std(ddof=1), 80))
        covered += found.low <= 0.5 <= found.high
    assert 0.91 <= covered / 300 <= 0.985
    assert standardised((5.0, 0.0, 10), (5.0, 0.0, 10)).value == 0
    apart = standardised((5.0, 0.0, 10), (6.0, 0.0, 10))
    assert apart.value is None and is_notable(apart.to_json())
    assert standardised((5.0, 1.0, 0), (6.0, 1.0, 9)).value is None


def test_the_mix_of_cases_is_compared_class_by_class_with_what_is_missing_as_a_value_of_its_own() -> None:
    def group(count: int, ap: int, age: float, without_age: int = 0) -> Group:
        rows = [{"view": "AP" if n < ap else "PA", "finding": "mass", "study_id": f"s{n}"} for n in range(count)]
        ages = np.random.default_rng(count).normal(age, 10, count)
        for n in range(without_age, count):
            rows[n]["age"] = f"{ages[n]:.0f}"
        return Group.of([f"p{n // 2}" for n in range(count)], rows, [])

    reference = CohortSummary(group(200, 100, 45), group(100, 50, 45))
    here = CohortSummary(group(80, 80, 60, without_age=40), group(60, 30, 45))
    rows = {(row["class"], row["column"], row["value"]): row for row in mix_rows(reference, here)}
    assert {name for _, name, _ in rows} == {"view", "age"}, "what tells the label or who it is, is left out"
    view, age = rows["normal", "view", "AP"], rows["normal", "age", None]
    assert (view["reference"], view["here"]) == (0.5, 1.0) and view["difference"]["low"] > 0.8
    assert 1.0 < age["difference"]["value"] < 2.2 and is_notable(age["difference"])
    assert rows["normal", "age", "(not given)"]["here"] == 0.5
    assert not is_notable(rows["abnormal", "view", "AP"]["difference"])
    assert not is_notable(rows["abnormal", "age", None]["difference"])
    few = CohortSummary(replace(here.normal, patients=1), here.abnormal)
    wide = next(row for row in mix_rows(reference, few) if row["value"] == "AP" and row["class"] == "normal")
    assert not is_notable(wide["difference"]), "eighty images of one patient show nothing of patients"


# -- groups


def test_a_site_whose_normals_score_higher_is_named_and_a_small_one_gets_no_figure() -> None:
    rows = group_rows(judged(two_sites(1.5)))
    by_value = {row["value"]: row for row in rows}
    north, south, west = by_value["north"], by_value["south"], by_value["west"]
    assert rows[0]["column"] is None and rows[0]["normal"] + rows[0]["abnormal"] == 166
    assert north["false_positive_rate"]["low"] < 0.05 < south["false_positive_rate"]["low"]
    assert south["score_shift"]["p_value"] < 1e-4 < 0.01 < north["score_shift"]["p_value"]
    assert worst(rows) == {"column": "site", "value": "south", "of": 5}
    assert south["auroc_difference"]["high"] < 0 < north["auroc_difference"]["low"]
    assert west["auroc"]["value"] is None and west["auroc"]["reason"] == "fewer than 10 normal and abnormal cases"
    assert west["false_positive_rate"]["value"] is None and west["score_shift"]["distance"] is None
    calm = {row["value"]: row for row in group_rows(judged(two_sites(0.0)))}
    assert calm["south"]["auroc_difference"]["low"] < 0 < calm["south"]["auroc_difference"]["high"]


def test_the_luck_of_the_calibration_normals_is_not_called_too_many_beyond_chance() -> None:
    rng, found = np.random.default_rng(7), {0.0: 0, 1.5: 0}
    report = {"reference": None, "images": [], "worst": None, "expected_false_positive_rate": 0.05}
    for shift, runs in ((0.0, 120), (1.5, 10)):
        for _ in range(runs):
            calibration, scores = rng.normal(size=59), rng.normal(shift, 1, 200)
            cut = Decision.by_normals(calibration)
            cases = [
                replace(record(n, 0, score, site="north" if n < 100 else "south"), called=cut.calls(score))
                for n, score in enumerate(scores)
            ]
            before = int((calibration >= cut.score).sum())
            assert before == 2, "the case itself and two of 59 are 3 of 60: p = 0.05"
            rows = group_rows(replace(judged(cases, (before, 59)), normal_scores=calibration))
            found[shift] += "beyond chance" in " ".join(sentences({**report, "groups": rows}))
    assert found[0.0] <= 7, "3 of 120 are to be expected"
    assert found[1.5] >= 9


def test_the_chance_of_more_calls_is_the_beta_binomial_tail_that_p_values_are_checked_by() -> None:
    for called in range(31):
        assert chance_of_more(called, 30, 1, 40) == pytest.approx(betabinom(30, 2, 39).sf(called - 1))
    assert chance_of_more(30, 30, 40, 40) == 1, "a threshold that calls everybody abnormal calls nobody too many"


def test_images_of_one_patient_do_not_make_a_false_positive_rate_certain() -> None:
    alike = [record(n, 0, 2.0 if n < 30 else 0.0, patient=f"p{n // 10}") for n in range(100)]
    alone = [replace(one, patient=one.case, cluster=one.case) for one in alike]
    ill = [record(500 + n, 1, 3.0) for n in range(12)]
    together, apart = (group_rows(judged([*cases, *ill]))[0]["false_positive_rate"] for cases in (alike, alone))
    assert together["value"] == apart["value"] == 0.3
    assert together["high"] - together["low"] > 1.8 * (apart["high"] - apart["low"])


def test_ages_are_taken_in_bands() -> None:
    assert [age_band(age) for age in ("017Y", "18", "39.9", "40", "80", "99", "", "old", "-3")] == [
        "under 18", "18–39", "18–39", "40–59", "80 and over", "80 and over", *["(not given)"] * 3,
    ]  # fmt: skip
    values = group_values(two_sites(0.0))
    assert set(values["age"]) == {"18–39", "40–59", "60–79"}
    rows = group_rows(judged([record(n, n % 2, n / 9, age=str(10 + n)) for n in range(60)]))
    assert [row["value"] for row in rows[1:]] == ["under 18", "18–39", "40–59", "60–79"]


def test_probabilities_that_are_wrong_on_the_whole_are_off_by_what_was_added() -> None:
    rng = np.random.default_rng(1)
    odds = rng.normal(0, 1.5, 900)
    labels = (rng.random(900) < expit(odds)).astype(int)

    def found(added: float) -> dict:
        cases = [replace(record(n, int(labels[n]), 0.0), probability=float(expit(odds[n] + added))) for n in range(900)]
        return group_rows(judged(cases))[0]["calibration"]

    right, wrong = found(0.0), found(1.2)
    assert right["intercept"]["low"] < 0 < right["intercept"]["high"]
    assert wrong["intercept"]["value"] == pytest.approx(right["intercept"]["value"] - 1.2, abs=1e-4)
    assert wrong["intercept"]["high"] < -0.9 and wrong["difference"]["high"] < 0
    assert wrong["observed"] == pytest.approx(labels.mean(), abs=1e-5) and wrong["observed"] < wrong["expected"]
    without = [replace(record(n, n % 2, 0.0), probability=None) for n in range(30)]
    assert group_rows(judged(without))[0]["calibration"] is None


# -- the bundle and the command line


def test_a_bundle_keeps_how_its_cohort_was_distributed_and_nobodys_row(trained: Trained, tmp_path: Path) -> None:
    summary = stored_summary(load_bundle(trained.bundle))
    assert summary is not None
    with trained.manifest.open() as stream:
        seen = [row for row in csv.DictReader(stream) if row["split"] != "test"]
    normal = [row for row in seen if row["label"] == "0"]
    assert summary.normal.cases == len(normal) == 18 and summary.abnormal.cases == 4
    assert summary.normal.counts["sex"] == {s: sum(row["sex"] == s for row in normal) for s in "FM"}
    ages = [float(row["age"]) for row in normal if row["age"]]
    assert summary.normal.numbers["age"].mean == pytest.approx(np.mean(ages))
    assert summary.normal.images["stored p50"].known == 18
    text = (trained.bundle / NAME).read_text()
    assert not any(row[key] in text for row in seen for key in ("case", "patient", "image") if len(row[key]) > 2)
    for wrong in ("{", json.dumps({**json.loads(text), "schema": "other"}), "[" * 100_000):
        with pytest.raises(InputError, match="summary of the training cohort"):
            CohortSummary.from_bytes(wrong.encode(), "the model")


def elsewhere(folder: Path) -> Path:
    """A cohort of one sex whose images are brighter and stretched."""
    manifest = write_cohort(folder, {"external": (14, 12)}, first=500, columns={"sex": ["F"], "site": ["east", "west"]})
    for path in folder.glob("image*.nii.gz"):
        number = int(path.name.removeprefix("image").removesuffix(".nii.gz"))
        save(1.5 * frame(number, lesion=number >= 514)[0] + 200, path)
    return manifest


def test_an_external_cohort_is_compared_with_the_models_own(trained: Trained, tmp_path: Path) -> None:
    manifest, out = elsewhere(tmp_path / "cohort"), tmp_path / "out"
    arguments = [
        "evaluate",
        str(trained.bundle),
        "--cohort",
        str(manifest),
        "--split",
        "external",
        "--progress",
        "none",
    ]
    arguments += ["--no-baselines", "--resamples", "200"]
    assert main([*arguments, "--out", str(out)]) == 0
    document = read_metrics(out)
    shift = document["shift"]
    assert shift["reference"] == {"source": "the model's bundle", "normal": 18, "abnormal": 4}
    mix = {(row["class"], row["column"], row["value"]): row for row in shift["mix"]}
    assert mix["normal", "sex", "M"]["here"] == 0 and is_notable(mix["normal", "sex", "M"]["difference"])
    images = {row["column"]: row for row in shift["images"] if row["class"] == "normal"}
    assert images["stored p50"]["difference"]["low"] > 2 and not is_notable(images["given p50"]["difference"])
    assert {row["value"] for row in shift["groups"]} == {None, "east", "west"}
    said = " ".join(shift["sentences"])
    assert "stored p50" in said and "sex" in said and "Too small to be judged" in said
    page = (out / "report.html").read_text()
    assert "Another cohort than the model" in page and shift["sentences"][0].split(" (")[0] in page
    document["shift"]["groups"][0]["normal"] = -1
    with pytest.raises(ValueError, match=r"\$\.shift\.groups\[0\]"):
        write_metrics(document, tmp_path / "metrics.json")

    # A bundle of an earlier version keeps nothing; the manifest it was made from serves as well.
    old = tmp_path / "old"
    shutil.copytree(trained.run / "model", old)
    forget(old)
    arguments[1] = str(old)
    assert main([*arguments, "--out", str(tmp_path / "unknown")]) == 0
    unknown = read_metrics(tmp_path / "unknown")["shift"]
    assert unknown["reference"] is None and "--reference" in unknown["sentences"][0] and unknown["mix"] == []
    assert main([*arguments, "--out", str(tmp_path / "named"), "--reference", str(trained.manifest)]) == 0
    named = read_metrics(tmp_path / "named")["shift"]
    assert named["reference"]["source"] == "cohort.csv" and named["mix"] == shift["mix"]
    assert "shift" not in read_metrics(evaluated_within(trained, tmp_path / "test"))


def evaluated_within(trained: Trained, out: Path) -> Path:
    arguments = ["evaluate", str(trained.bundle), "--cohort", str(trained.manifest), "--out", str(out)]
    assert main([*arguments, "--no-baselines", "--resamples", "50", "--progress", "none"]) == 0
    return out


def forget(bundle: Path) -> None:
    """Take the summary out of a bundle, as if it had never been there."""
    from AnomalyDetectionLib.models.manifest import MANIFEST, manifest_hash

    (bundle / NAME).unlink()
    table = json.loads((bundle / MANIFEST).read_text())
    del table["files"][NAME]
    table["sha256"] = manifest_hash(table)
    (bundle / MANIFEST).write_text(json.dumps(table))
