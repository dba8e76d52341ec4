"""Expert reading: answers are checked before they are believed, and agreement is what the literature has it to be."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation.test_report import HOSTILE, Page
from sklearn.metrics import cohen_kappa_score

from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.errors import InputError
from AnomalyTrainingLib.evaluation.reading.agreement import cohen_kappa, fleiss_kappa, krippendorff_alpha
from AnomalyTrainingLib.evaluation.reading.analysis import analyse
from AnomalyTrainingLib.evaluation.reading.answers import Answer, Reader, read_answers, read_readers
from AnomalyTrainingLib.evaluation.reading.key import Key, KeyCase, KeyFinding, read_key
from AnomalyTrainingLib.evaluation.reading.report import write_review

ONCE = np.ones((1, 1), dtype=np.float32)
MODEL = {"id": "m", "version": "1.0.0", "sha256": "a" * 64, "detector": "zscore"}


def key_of(cases: int = 40, *, findings: bool = True) -> Key:
    """Every other case is abnormal; the model calls all abnormal ones, and every fifth normal one."""
    made = []
    for n in range(cases):
        label = n % 2
        shown = (KeyFinding(1, 2.5, "mL", bool(label)), KeyFinding(2, 0.5, "mL", None)) if findings else ()
        called = bool(label) or n % 10 == 0
        made.append(KeyCase(f"R{n:03d}", f"case{n}", f"p{n // 2}", label, float(label), called, shown))
    return Key("0123456789abcdef", 0, True, "cohort.csv", MODEL, 3.5 if findings else None, tuple(made))


def reader(key: Key, name: str, wrong: float, *, uncertain: float = 0.0, missing: float = 0.0, seed: int = 0) -> Reader:
    """One who is wrong, uncertain or silent in such shares of the cases."""
    rng, answers = np.random.default_rng([seed, *name.encode()]), {}
    for case in key.cases:
        at_random = rng.random(3)
        label = case.label if at_random[0] >= wrong else 1 - case.label
        verdict = "uncertain" if at_random[1] < uncertain else ("normal", "abnormal")[label]
        if at_random[2] >= missing:
            findings = {f.number: "true" if label else "false" for f in case.findings}
            answers[case.code] = Answer(verdict, int(rng.integers(1, 6)), findings)
    return Reader(name, answers, Path(name))


# -- coefficients


def test_cohens_kappa_is_that_of_scikit_learn_for_every_weighting() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 3, 80), rng.integers(0, 3, 80)
    other[:40] = one[:40]
    weights = np.vstack([np.ones(80), rng.integers(0, 4, (5, 80))]).astype(np.float32)
    expected = [cohen_kappa_score(one, other, sample_weight=row) for row in weights]
    assert cohen_kappa(one, other, weights, 3) == pytest.approx(expected, abs=1e-6)
    assert np.isnan(cohen_kappa(np.ones(5, dtype=int), np.ones(5, dtype=int), np.ones((1, 5)), 3)).all()


def test_fleiss_kappa_is_that_of_the_published_example() -> None:
    # Ten subjects, fourteen raters, five categories; kappa 0.210 (Fleiss, 1971, as in most textbooks).
    counts = [
        (0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1),
        (7, 7, 0, 0, 0), (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7),
    ]  # fmt: skip
    verdicts = np.array([np.repeat(np.arange(5), row) for row in counts])
    assert fleiss_kappa(verdicts, np.ones((1, 10)), 5)[0] == pytest.approx(0.210, abs=5e-4)
    doubled = fleiss_kappa(np.vstack([verdicts, verdicts[:3]]), np.ones((1, 13)), 5)[0]
    weights = np.array([[2.0, 2, 2, 1, 1, 1, 1, 1, 1, 1]])
    assert fleiss_kappa(verdicts, weights, 5)[0] == pytest.approx(doubled)


def test_krippendorffs_alpha_is_that_of_his_example_with_missing_verdicts() -> None:
    # Four observers, twelve units: 0.743 (Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011).
    observed = [
        "1 2 3 3 2 1 4 1 2 . . .",
        "1 2 3 3 2 2 4 1 2 5 . 3",
        ". 3 3 3 2 3 4 2 2 5 1 .",
        "1 2 3 3 2 4 4 1 2 5 1 .",
    ]
    codes = np.array([[-1 if cell == "." else int(cell) - 1 for cell in row.split()] for row in observed]).T
    assert krippendorff_alpha(codes, np.ones((1, 12)), 5)[0] == pytest.approx(0.743, abs=5e-4)
    again = np.vstack([codes, codes[5:6]])
    assert krippendorff_alpha(codes, np.array([[1.0] * 5 + [2] + [1] * 6]), 5)[0] == pytest.approx(
        krippendorff_alpha(again, np.ones((1, 13)), 5)[0]
    )


# -- analysis


def test_two_readers_are_compared_with_each_other_with_the_truth_and_with_the_model() -> None:
    key = key_of()
    good, poor = reader(key, "good", 0.05), reader(key, "poor", 0.35, uncertain=0.2)
    review = analyse(key, [good, poor], resamples=300)
    one, other = review["readers"]["good"], review["readers"]["poor"]
    assert one["read"] == 40 and one["uncertain"] == 0 < other["uncertain"]
    assert one["sensitivity"]["low"] > 0.6 and one["auroc"]["value"] > other["auroc"]["value"]
    (pair,) = review["pairs"]
    codes = [
        [("normal", "uncertain", "abnormal").index(r.answers[c.code].verdict) for c in key.cases] for r in (good, poor)
    ]
    assert pair["kappa"]["value"] == pytest.approx(cohen_kappa_score(*codes), abs=1e-5)
    assert pair["kappa"]["low"] < pair["kappa"]["value"] < pair["kappa"]["high"]
    assert sum(map(sum, pair["counts"])) == pair["cases"] == 40
    model = review["model_reading"]
    assert model["against_truth"]["sensitivity"]["value"] == 1.0
    assert model["against_truth"]["specificity"]["value"] == pytest.approx(0.8)
    assert model["consensus"] + model["no_consensus"] == 40
    assert "Cohen's kappa" in " ".join(review["sentences"])
    findings = review["findings"]
    assert findings["shown"] == 80 and findings["readers"]["good"]["true"] + findings["readers"]["good"]["false"] == 80
    assert findings["readers"]["good"]["as_the_truth"]["value"] > findings["readers"]["poor"]["as_the_truth"]["value"]


def test_one_abnormal_patient_gives_a_readers_auroc_no_interval() -> None:
    key = key_of()
    single = replace(key, cases=tuple(case for case in key.cases if case.label == 0 or case.case == "case1"))
    auroc = analyse(single, [reader(single, "one", 0.2)], resamples=100)["readers"]["one"]["auroc"]
    assert auroc["value"] is not None and (auroc["low"], auroc["reason"]) == (
        None,
        "one patient cluster has no interval",
    )


def test_intervals_of_kappa_draw_patients_and_hold_the_truth() -> None:
    key, covered, inside = key_of(60, findings=False), 0, []
    # Two readers, each wrong in one of five: they agree on 0.68 by expectation, half of it by chance.
    for seed in range(40):
        pair = analyse(key, [reader(key, "a", 0.2, seed=seed), reader(key, "b", 0.2, seed=seed)], resamples=200)[
            "pairs"
        ][0]
        covered += pair["kappa"]["low"] <= 0.36 <= pair["kappa"]["high"]
        inside.append(pair["kappa"]["value"])
    assert covered >= 34 and abs(np.mean(inside) - 0.36) < 0.08


def test_more_readers_who_did_not_read_everything_have_an_alpha(tmp_path: Path) -> None:
    key = key_of()
    readers = [reader(key, name, 0.1, missing=0.3) for name in (HOSTILE, "b", "c")]
    review = analyse(key, readers, resamples=100)
    agreement = review["agreement"]
    assert agreement["readers"] == 3 and 0 < agreement["read_by_all"] < agreement["read_by_two"] < 40
    assert agreement["krippendorff_alpha"]["low"] > 0.2 and len(review["pairs"]) == 3
    assert "Krippendorff" in " ".join(review["sentences"])
    assert [path.name for path in write_review(review, tmp_path)] == ["review.html", "review.json"]
    text = (tmp_path / "review.html").read_text()
    assert "<script" not in text and HOSTILE in Page(text).text
    review["cases"] = -1
    with pytest.raises(ValueError, match=r"would not agree with its schema: \$\.cases"):
        write_review(review, tmp_path)


def test_a_single_reader_or_one_of_findings_alone_has_no_agreement() -> None:
    key = key_of()
    alone = analyse(key, [reader(key, "a", 0.1)], resamples=20)
    assert alone["agreement"] is None and alone["pairs"] == []
    of_findings = Reader("slicer", {"R001": Answer(findings={1: "true"})}, Path("x"))
    both = analyse(key, [reader(key, "a", 0.1), of_findings], resamples=20)
    assert both["agreement"] is None and both["findings"]["judged_by_two"] == 1
    assert "slicer has judged findings only" in " ".join(both["sentences"])


# -- answers from anywhere


def answers_of(key: Key) -> dict[str, Any]:
    return {
        "schema": "slicer-anomaly/review-answers/1",
        "form": key.form,
        "reader": "AB",
        "saved": "2026-01-01T00:00:00Z",
        "answers": [
            {
                "case": case.code,
                "verdict": "abnormal",
                "confidence": 4,
                "findings": [{"number": 1, "verdict": "unsure"}],
                "comment": "=1+1",
            }
            for case in key.cases[:3]
        ],
    }


def as_csv(table: dict[str, Any]) -> str:
    """As the form writes it."""
    stream = io.StringIO()
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(["form", "reader", "case", "verdict", "confidence", "findings", "comment"])
    for one in table["answers"]:
        findings = ";".join(f"{f['number']}={f['verdict']}" for f in one["findings"])
        row = [table["form"], table["reader"], one["case"], one["verdict"], one["confidence"], findings]
        writer.writerow([*row, f"'{one['comment']}"])
    return stream.getvalue()


def test_json_and_csv_say_the_same(tmp_path: Path) -> None:
    key = key_of()
    (tmp_path / "a.json").write_text(json.dumps(answers_of(key)))
    (tmp_path / "a.csv").write_text(as_csv(answers_of(key)))
    one, other = (read_answers(key, tmp_path / name) for name in ("a.json", "a.csv"))
    assert one.answers == other.answers and one.name == other.name == "AB"
    assert one.answers["R000"] == Answer("abnormal", 4, {1: "unsure"}, "=1+1")
    with pytest.raises(InputError, match=r"the reader 'AB' has answers in .*a\.json already"):
        read_readers(key, [tmp_path / "a.json", tmp_path / "a.csv"], {})
    with pytest.raises(InputError, match="no answers to analyse"):
        read_readers(key, [], {})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.update(form="f" * 16), "these are answers to the form 'ffff"),
        (lambda table: table["answers"][1].update(case="R999"), "there is no case 'R999' in the form"),
        (lambda table: table["answers"][1].update(case="R000"), "the case 'R000' is answered twice"),
        (lambda table: table["answers"][0].update(confidence=6), "6 is greater than the maximum of 5"),
        (lambda table: table["answers"][0].update(verdict="maybe"), "'maybe' is not one of"),
        (
            lambda table: table["answers"][0]["findings"][0].update(number=7),
            "finding 7 is answered though the case has no",
        ),
        (
            lambda table: table["answers"][0]["findings"].append({"number": 1, "verdict": "true"}),
            "finding 1 is answered twice",
        ),
        (lambda table: table.update(reader=""), "no answers of a form"),
        (lambda table: table.update(reader="x" * 61), "no answers of a form"),
        (lambda table: table["answers"][0].update(comment="x" * 2001), "no answers of a form"),
        (lambda table: table.update(schema="slicer-anomaly/review-answers/0"), "no answers of a form"),
        (lambda table: table.update(answers={}), "no answers of a form"),
    ],
)
def test_answers_that_are_not_those_of_the_form_are_refused(
    change: Callable[[dict[str, Any]], Any], said: str, tmp_path: Path
) -> None:
    table = answers_of(key_of())
    change(table)
    (tmp_path / "a.json").write_text(json.dumps(table))
    with pytest.raises(InputError, match=r"a\.json") as refused:
        read_answers(key_of(), tmp_path / "a.json")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 600


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", "{", "not JSON"),
        ("a.json", "[" * 100_000, "not JSON"),
        ("a.json", "[]", "no answers of a form"),
        ("a.csv", "a,b\n1,2\n", "the columns are not form, reader"),
        ("a.csv", "\x00\xff", "no table of answers|columns are not"),
        ("a.csv", "form,reader,case,verdict,confidence,findings,comment\n", "there is no answer"),
        ("a.csv", "form,reader,case,verdict,confidence,findings,comment\nf,A,R000\n", "more or fewer cells"),
        ("a.csv", "form,reader,case,verdict,confidence,findings,comment\nf,A,R0,,,x,\n", "no answer on a finding"),
        (
            "a.csv",
            "form,reader,case,verdict,confidence,findings,comment\nf,A,R0,,,,\ng,A,R1,,,,\n",
            "more than one form",
        ),
        ("gone.json", None, "there is no such file"),
    ],
)
def test_damaged_files_of_answers_are_refused_in_a_sentence(
    name: str, content: str | None, said: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=said):
        read_answers(key_of(), tmp_path / name)


def test_a_key_comes_back_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    key = key_of()
    assert read_key(key.write(tmp_path / "key.json")) == key == read_key(tmp_path)
    table = json.loads((tmp_path / "key.json").read_text())
    table["cases"][1]["code"] = "R000"
    (tmp_path / "key.json").write_text(json.dumps(table))
    with pytest.raises(InputError, match="two cases of the key have the same code"):
        read_key(tmp_path)
    (tmp_path / "key.json").write_text(json.dumps({**table, "seed": "none"}))
    with pytest.raises(InputError, match="this is no key of a form"):
        read_key(tmp_path)


# -- the Slicer module's exports


def exported(folder: Path, case: str, rows: str, *, sha256: str = "a" * 64, threshold: float = 3.5) -> None:
    (folder / case).mkdir(parents=True)
    (folder / case / "review.csv").write_text("case,label,review,comment\n" + rows)
    (folder / case / "report.json").write_text(json.dumps({"model": {"sha256": sha256}, "threshold": threshold}))


def test_reviews_from_slicer_are_read_where_they_are_of_the_same_findings(tmp_path: Path) -> None:
    key = key_of()
    exported(tmp_path / "good", "case1", "case1,1,accept,\ncase1,2,reject,'=odd\n")
    exported(tmp_path / "good", "case2", "case2,1,unsure,\ncase2,2,,\n")
    (made,) = read_readers(key, [], {"Dr. S": tmp_path / "good"})
    assert made.answers["R001"].findings == {1: "true", 2: "false"}
    assert made.answers["R002"].findings == {1: "unsure"} and made.answers["R002"].verdict is None
    for name, settings, said in (
        ("other", {"sha256": "b" * 64}, "scored by another model"),
        ("lower", {"threshold": 3.0}, "made at the threshold 3, those of the form at 3.5"),
    ):
        exported(tmp_path / name, "case1", "case1,1,accept,\n", **settings)
        with pytest.raises(InputError, match=said):
            read_readers(key, [], {"x": tmp_path / name})
    for name, rows, said in (
        ("unknown", "elsewhere,1,accept,\n", "the case 'elsewhere' is not in the form"),
        ("odd", "case1,1,perhaps,\n", "'perhaps' is no decision"),
        ("number", "case1,one,accept,\n", "no decision on a finding"),
        ("more", "case1,9,accept,\n", "finding 9 is answered though the case has no such finding"),
        ("twice", "case1,1,accept,\ncase1,1,reject,\n", "decided twice"),
        ("open", "case1,1,,\n", "no review.csv with a decision"),
    ):
        exported(tmp_path / name, "case1", rows)
        with pytest.raises(InputError, match=said):
            read_readers(key, [], {"x": tmp_path / name})


def test_the_command_line_analyses_and_names_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = key_of()
    key.write(tmp_path / "key.json")
    for name, verdict in (("AB", "abnormal"), ("CD", "normal")):
        table = answers_of(key)
        table["reader"] = name
        table["answers"][0]["verdict"] = verdict
        (tmp_path / f"{name}.json").write_text(json.dumps(table))
    exported(tmp_path / "slicer", "case1", "case1,1,accept,\n")
    base = [
        "review",
        "analyse",
        str(tmp_path),
        "--out",
        str(tmp_path / "out"),
        "--progress",
        "none",
        "--resamples",
        "50",
    ]
    files = ["--answers", *(str(tmp_path / f"{name}.json") for name in ("AB", "CD"))]
    assert main([*base, *files, "--slicer", f"EF={tmp_path / 'slicer'}"]) == 0
    review = json.loads((tmp_path / "out" / "review.json").read_text())
    assert list(review["readers"]) == ["AB", "CD", "EF"] and review["pairs"][0]["cases"] == 3
    assert "AB and CD agree on 3 cases" in capsys.readouterr().out
    assert main([*base, *files, "--slicer", "EF"]) == 2
    assert "READER=DIR" in capsys.readouterr().err
    assert main([*base, *files, "--resamples", "0"]) == 2
    assert main(["review", "analyse", str(tmp_path / "none"), "--out", str(tmp_path / "other"), *files]) == 2
    assert "give a folder that `slicer-anomaly review form` wrote" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
