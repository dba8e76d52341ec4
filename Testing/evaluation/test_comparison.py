"""`slicer-anomaly compare`: paired differences of evaluated models from their files."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
from evaluation.made import method
from evaluation.test_report import HOSTILE, Page
from evaluation.test_summary import COHORT, MODEL

from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.errors import InputError
from AnomalyTrainingLib.evaluation.comparison import (
    compare_evaluations,
    comparison_html,
    read_evaluations,
    record_of_row,
    write_comparison,
)
from AnomalyTrainingLib.evaluation.judge import case_row, judge
from AnomalyTrainingLib.evaluation.metrics_file import write_metrics


def evaluated(folder: Path, name: str, quality: float, cohort: dict | None = None, **settings) -> Path:
    """A folder with the metrics.json of a model."""
    document = judge(
        [method("zscore", quality, "model", **settings), method("blur", 0.1)],
        model=replace(MODEL, id=name),
        cohort=cohort or COHORT,
        resamples=100,
    )
    write_metrics(document, folder / name / "metrics.json")
    return folder / name


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    out = tmp_path_factory.mktemp("evaluations")
    return [evaluated(out, name, quality) for name, quality in (("weak", 0.8), ("strong", 2.2))]


def test_a_row_gives_its_record_back():
    record = method("m", 1.0).records[-1]
    again = record_of_row(case_row(record))
    assert case_row(replace(again, voxels=record.voxels)) == case_row(record)
    assert (again.false_findings_at == record.false_findings_at).all()


def test_the_figures_are_those_of_the_evaluations_and_the_better_model_is_found(folders):
    models = read_evaluations(folders)
    comparison = compare_evaluations(models, resamples=300)
    for model in models:
        entry = model.document["methods"]["zscore"]
        figures = {(r["level"], r["metric"]): r["figure"] for r in comparison["models"][model.name]["figures"]}
        for level, metric in (
            ("volume", "auroc"),
            ("volume", "specificity"),
            ("voxel", "dice"),
            ("lesion", "froc_mean"),
        ):
            assert figures[level, metric]["value"] == pytest.approx(entry[level][metric]["value"], abs=2e-6)
    rows = {(r["level"], r["metric"]): r for r in comparison["differences"]}
    assert rows["volume", "auroc"]["verdict"] == rows["voxel", "average_precision"]["verdict"] == "worse"
    assert rows["lesion", "froc_mean"]["difference"]["high"] < 0
    turned = compare_evaluations(models[::-1], resamples=300)["differences"]
    assert {row["verdict"] for row in turned} <= {"better", "not shown"}


def test_however_many_normals_there_are_one_abnormal_patient_shows_nothing_that_needs_him(tmp_path):
    pair = [evaluated(tmp_path, name, q, abnormals=1) for name, q in (("weak", 0.0), ("strong", 3.0))]
    comparison = compare_evaluations(read_evaluations(pair), resamples=100)
    assert comparison["notes"] == [
        "The abnormal cases are of 1 cluster only: too few to show a difference in what needs them."
    ]
    shown = {(r["level"], r["metric"]) for r in comparison["differences"] if r["verdict"] != "not shown"}
    assert shown <= {("volume", "specificity"), ("lesion", "false_findings_per_normal")}
    assert ("lesion", "false_findings_per_normal") in shown
    for entry in comparison["models"].values():
        lows = {(r["level"], r["metric"]): r["figure"]["low"] for r in entry["figures"]}
        assert lows["volume", "auroc"] is None and lows["voxel", "dice"] is None
        assert lows["lesion", "false_findings_per_normal"] is not None


def test_the_command_writes_a_table_a_page_and_json(folders, tmp_path, capsys):
    assert (
        main(["compare", *map(str, folders), "--out", str(tmp_path / "c"), "--resamples", "100", "--progress", "json"])
        == 0
    )
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last == {"event": "result", "folder": str(tmp_path / "c"), "models": 2, "cases": 60}
    assert {path.name for path in (tmp_path / "c").iterdir()} == {
        "comparison.json",
        "comparison.csv",
        "comparison.html",
    }
    data = json.loads((tmp_path / "c" / "comparison.json").read_text(encoding="utf-8"))
    schema = json.loads(
        (files("AnomalyTrainingLib") / "schemas" / "comparison.schema.json").read_text(encoding="utf-8")
    )
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(data, schema)
    with (tmp_path / "c" / "comparison.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(data["differences"]) == 9
    for row in rows:
        difference = float(row["model_value"]) - float(row["other_value"])
        assert float(row["difference"]) == pytest.approx(difference, abs=2e-6)
    page = Page((tmp_path / "c" / "comparison.html").read_text(encoding="utf-8"))
    assert "weak 1.0 is worse than strong 1.0 in AUROC of cases" in page.text
    assert [tag for tag, _ in page.tags].count("img") == 1


def test_models_of_one_name_are_told_apart_by_their_folders(folders, tmp_path):
    other = evaluated(tmp_path / "other", "weak", 1.5)
    assert [m.name for m in read_evaluations([folders[0], other])] == ["weak 1.0 (weak) #1", "weak 1.0 (weak) #2"]


def test_other_manifests_are_warned_of_and_only_common_cases_compared(folders, tmp_path):
    other = evaluated(tmp_path, "other", 1.0, {**COHORT, "sha256": "ef" * 32}, abnormals=20)
    comparison = compare_evaluations(read_evaluations([folders[0], other]), resamples=50)
    assert comparison["cases"] == 50
    assert "different manifests; the 50 cases they have in common" in comparison["notes"][0]
    assert comparison["notes"][1] == "10 cases that not all evaluations have are left out."


def test_evaluations_that_cannot_be_compared_are_refused(folders, tmp_path):
    path = evaluated(tmp_path, "elsewhere", 1.0)
    document = json.loads((path / "metrics.json").read_text(encoding="utf-8"))
    renamed = [{**row, "case": "x" + row["case"]} for row in document["cases"]["zscore"]]
    write_metrics({**document, "cases": {"zscore": renamed}}, path / "metrics.json")
    with pytest.raises(InputError, match="have no case in common"):
        compare_evaluations(read_evaluations([folders[0], path]))
    turned = [{**row, "label": 1} for row in document["cases"]["zscore"]]
    write_metrics({**document, "cases": {"zscore": turned}}, path / "metrics.json")
    with pytest.raises(InputError, match="normal-000 has another label or patient"):
        compare_evaluations(read_evaluations([folders[0], path]))
    by_site = [{**row, "cluster": f"site {n % 2}"} for n, row in enumerate(document["cases"]["zscore"])]
    drawn = {**document["bootstrap"], "cluster": "site"}
    write_metrics({**document, "cases": {"zscore": by_site}, "bootstrap": drawn}, path / "metrics.json")
    for order in (1, -1):
        with pytest.raises(
            InputError, match=r"abnormal-030 is of the cluster .*'site 0' in elsewhere 1.0 \(by site\).*--cluster"
        ):
            compare_evaluations(read_evaluations([folders[0], path][::order]))
    with pytest.raises(InputError, match="at least two"):
        read_evaluations(folders[:1])
    with pytest.raises(InputError, match="the same evaluation is given twice"):
        read_evaluations([folders[0], folders[1], folders[0] / "." / ".." / folders[0].name])


def test_bad_input_ends_in_a_sentence_and_leaves_no_folder(folders, tmp_path, capsys):
    out = tmp_path / "c"
    assert main(["compare", str(folders[0]), str(tmp_path / "no"), "--out", str(out)]) == 2
    assert "there is no such file" in capsys.readouterr().err
    assert main(["compare", *map(str, folders), "--out", str(out), "--resamples", "5"]) == 2
    assert "--resamples is a whole number of at least 100" in capsys.readouterr().err
    assert main(["compare", *map(str, folders), "--out", str(out), "--seed", "-1"]) == 2
    assert "--seed is a whole number from 0, not -1" in capsys.readouterr().err
    assert not out.exists()


def test_hostile_model_names_stay_text(folders, tmp_path):
    models = [replace(m, name=HOSTILE + m.name) for m in read_evaluations(folders)]
    comparison = compare_evaluations(models, resamples=50)
    assert "<script" not in comparison_html(comparison)
    write_comparison(comparison, tmp_path)
    assert HOSTILE in Page(comparison_html(comparison)).text
