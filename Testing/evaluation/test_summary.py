"""An evaluation as a whole: figures of every level, paired differences, subgroups, and the file they go into."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from evaluation.made import VOLUME_THRESHOLD, method, records
from sklearn.metrics import roc_auc_score

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.scoring.result import ModelIdentity
from AnomalyTrainingLib.cohorts.manifest import Case, Cohort, ImageSource
from AnomalyTrainingLib.evaluation.froc import FALSE_POSITIVES, froc_name
from AnomalyTrainingLib.evaluation.intervals import Bootstrap
from AnomalyTrainingLib.evaluation.judge import cohort_facts, judge
from AnomalyTrainingLib.evaluation.metrics_file import SCORES_COLUMNS, read_metrics, write_metrics, write_scores
from AnomalyTrainingLib.evaluation.subgroups import groupings, subgroup
from AnomalyTrainingLib.evaluation.summary import METRICS, Method, compare_methods, summarise

MODEL = ModelIdentity("brain", "1.0", "ab" * 32, "zscore")
COHORT = {
    "file": "cohort.csv",
    "sha256": "cd" * 32,
    "split": "test",
    "cases": 60,
    "patients": 60,
    "normal": 30,
    "abnormal": 30,
    "with_mask": 30,
}


def judged(methods: list[Method], **settings) -> dict:
    return judge(methods, model=MODEL, cohort=COHORT, **{"resamples": 300, **settings})


@pytest.fixture(scope="module")
def document() -> dict:
    random = method("random", 0.0)
    return judged([method("zscore", 1.8, "model"), random, replace(random, name="again"), method("blur", 0.5)])


def test_every_level_has_every_figure_with_its_value_inside_its_interval(document):
    for name, entry in document["methods"].items():
        for level, metrics in METRICS.items():
            for metric in metrics:
                figure = entry[level][metric]
                assert figure["value"] is not None, (name, level, metric)
                if "reason" in figure:  # exactly 0 or 1 in every resample
                    assert figure["value"] in (0, 1) and "all resamples" in figure["reason"], (name, level, metric)
                else:
                    assert figure["low"] <= figure["value"] <= figure["high"], (name, level, metric)
    volume = document["methods"]["zscore"]["volume"]
    rows = records(1.8)
    expected = roc_auc_score([r.label for r in rows], [r.volume_score for r in rows])
    assert volume["auroc"]["value"] == pytest.approx(expected, abs=1e-6)
    assert volume["confusion"]["true_positives"] == sum(r.label and r.volume_score >= VOLUME_THRESHOLD for r in rows)
    lesion = document["methods"]["zscore"]["lesion"]
    assert lesion["found"] == sum(hit.hit for r in rows for hit in r.lesions)
    assert lesion["recall"]["value"] == pytest.approx(lesion["found"] / lesion["lesions"], abs=1e-6)


def test_a_better_model_is_shown_to_be_better_and_an_equal_one_is_not(document):
    verdicts = {(r["baseline"], r["level"], r["metric"]): r["verdict"] for r in document["comparisons"]}
    assert verdicts["random", "volume", "auroc"] == verdicts["blur", "volume", "auroc"] == "better"
    assert verdicts["random", "lesion", "false_findings_per_normal"] == "better"  # fewer of them
    assert {level for _, level, _ in verdicts} == set(METRICS)
    same = compare_methods(method("a", 1.0), method("b", 1.0), Bootstrap.of_records(records(1.0), resamples=100))
    assert {row["verdict"] for row in same} == {"not shown"} and same[0]["difference"]["value"] == 0


def test_the_difference_is_that_of_the_figures_and_paired(document):
    ours, theirs = (document["methods"][name]["volume"]["auroc"] for name in ("zscore", "blur"))
    row = next(r for r in document["comparisons"] if (r["baseline"], r["metric"]) == ("blur", "auroc"))
    assert row["difference"]["value"] == pytest.approx(ours["value"] - theirs["value"], abs=2e-6)
    width = row["difference"]["high"] - row["difference"]["low"]
    unpaired = np.hypot(ours["high"] - ours["low"], theirs["high"] - theirs["low"])
    assert width < 0.95 * unpaired


def test_methods_are_compared_on_the_cases_both_have():
    model, other = method("m", 2.0, "model"), method("b", 0.5)
    bootstrap = Bootstrap.of_records(model.records, resamples=100)
    part = replace(other, records=other.records[5:50])
    kept = replace(model, records=model.records[5:50])
    assert compare_methods(model, part, bootstrap) == compare_methods(kept, part, bootstrap)
    assert compare_methods(model, replace(other, records=()), bootstrap) == []


def test_a_perfect_model_is_better_than_a_score_that_is_the_same_for_all():
    same = tuple(replace(r, volume_score=1.0) for r in records(9.0))
    rows = judged([method("m", 9.0, "model"), Method("prevalence", "baseline", "", same)])["comparisons"]
    auroc = next(row for row in rows if (row["level"], row["metric"]) == ("volume", "auroc"))
    assert (auroc["difference"]["value"], auroc["verdict"]) == (0.5, "better")


def test_few_clusters_show_nothing():
    few = {"normals": 6, "abnormals": 6, "cluster_size": 3}  # four clusters
    rows = judged([method("m", 5.0, "model", **few), method("b", 0.0, **few)])["comparisons"]
    assert rows[0]["difference"]["value"] > 0.2 and {row["verdict"] for row in rows} == {"not shown"}


@pytest.mark.parametrize("abnormals", [1, 5])
def test_however_many_normals_there_are_few_abnormal_patients_show_nothing_that_needs_them(abnormals):
    few = {"normals": 40, "abnormals": abnormals}
    rows = judged([method("m", 6.0, "model", **few), method("b", 0.0, **few)])["comparisons"]
    rows = {(row["level"], row["metric"]): row for row in rows}
    free = rows.pop(("lesion", "false_findings_per_normal"))
    assert (free["clusters"], free["verdict"]) == (40, "better"), "it needs normals alone"
    assert {row["clusters"] for row in rows.values()} == {abnormals}
    assert {row["verdict"] for row in rows.values()} == {"not shown"}
    assert rows["volume", "auroc"]["difference"]["value"] > 0.1
    assert (rows["volume", "auroc"]["difference"]["low"] is None) == (abnormals == 1)


@pytest.mark.parametrize(
    ("settings", "level", "metric", "reason"),
    [
        ({"abnormals": 0}, "volume", "auroc", "no abnormal case"),
        ({"normals": 0}, "volume", "auroc", "no normal case"),
        ({"normals": 0}, "lesion", "false_findings_per_normal", "no normal case with a map"),
        ({"masks": False}, "voxel", "dice", "no case has a map and a mask"),
        ({"masks": False}, "lesion", "recall", "no lesion is known"),
        ({"maps": False}, "slice", "auroc", "no normal and no abnormal slice"),
        ({"abnormals": 1}, "voxel", "dice", "one patient cluster"),
    ],
)
def test_what_is_not_defined_is_null_with_its_reason_and_the_file_can_be_written(
    settings, level, metric, reason, tmp_path
):
    document = judged([method("m", 1.0, "model", **settings), method("b", 0.5, **settings)])
    write_metrics(document, tmp_path / "metrics.json")
    figure = document["methods"]["m"][level][metric]
    assert figure["low"] is None and reason in figure["reason"]
    assert "NaN" not in (tmp_path / "metrics.json").read_text()


def test_a_method_without_a_decision_says_so():
    rows = tuple(replace(record, called=None) for record in records(1.0))
    bootstrap = Bootstrap.of_records(rows, resamples=50)
    entry = summarise(Method("m", "baseline", "", rows), bootstrap)
    assert entry["volume"]["confusion"] is None and "no fixed threshold" in entry["volume"]["f1"]["reason"]
    assert "no fixed threshold" in entry["slice"]["accuracy"]["reason"]
    assert entry["volume"]["auroc"]["value"] > 0.5


@pytest.mark.parametrize("false", ["merging", "none"])
def test_the_froc_curve_is_the_one_its_figures_are_read_from(false):
    made = method("m", 1.8)
    if false == "none":
        rows = [replace(r, false_findings_at=np.zeros_like(r.false_findings_at)) for r in made.records]
    else:  # at the lowest levels all regions merge into one
        rows = [
            replace(r, false_findings_at=np.minimum(np.arange(r.false_findings_at.size) // 3, r.false_findings_at))
            for r in made.records
        ]
    entry = judged([replace(made, records=tuple(rows))], resamples=20)["methods"]["m"]["lesion"]
    cost, found = (np.array(entry["froc"][key]) for key in ("false_positives_per_image", "sensitivity"))
    assert (np.diff(cost) >= 0).all() and (np.diff(found) >= 0).all()
    for rate in FALSE_POSITIVES:
        within = found[cost <= rate]
        assert entry[froc_name(rate)]["value"] == pytest.approx(within[-1] if within.size else 0, abs=1e-5)


def test_calibration_of_the_model_is_checked_on_its_normals():
    assert judged([method("m", 1.0, "model", normals=100)])["calibration"]["normals"] == 100
    shifted = judged([method("m", 1.0, "model", normals=100, shift=1.5)])["calibration"]
    assert shifted["verdict"] == "too small"
    assert judged([method("b", 1.0)])["calibration"] is None


def test_the_cohort_is_counted_and_phantoms_are_told_from_patients(tmp_path):
    images = []
    for folder in ("volumes", "patients"):
        (tmp_path / folder).mkdir()
        images += [tmp_path / folder / f"{n}.nii.gz" for n in range(2)]
    (tmp_path / "volumes" / "phantom.json").write_text("{}")
    (tmp_path / "cohort.csv").write_text("case,patient,image,label\n")
    cases = [
        Case(f"c{n}", f"p{n // 2}", {"image": ImageSource(path)}, n % 2, mask=path if n == 1 else None)
        for n, path in enumerate(images)
    ]
    facts = cohort_facts(Cohort(tuple(cases), tmp_path / "cohort.csv"), cases, "test")
    assert facts.pop("sha256") == hashlib.sha256(b"case,patient,image,label\n").hexdigest()
    assert facts == {
        "file": "cohort.csv",
        "split": "test",
        "cases": 4,
        "patients": 2,
        "normal": 2,
        "abnormal": 2,
        "with_mask": 1,
        "simulated": 2,
    }


# -- subgroups


def with_view(record, view: str, lift: float):
    return replace(record, covariates={"view": view}, volume_score=record.volume_score + lift)


def test_a_covariate_that_goes_with_the_label_does_not_lift_the_stratified_auroc():
    rows = records(0.0, normals=60, abnormals=60)
    # Lateral views score higher whatever the label, and most abnormal cases are lateral.
    mixed = tuple(
        with_view(r, view, 3.0 * (view == "lateral"))
        for n, r in enumerate(rows)
        for view in ["lateral" if (n % 5 == 0) != bool(r.label) else "frontal"]
    )
    bootstrap = Bootstrap.of_records(mixed, resamples=200)
    group = subgroup(mixed, "view", bootstrap)
    plain = summarise(Method("m", "model", "", mixed), bootstrap)["volume"]["auroc"]["value"]
    assert plain > 0.7 and group["auroc_stratified"]["low"] < 0.5 < group["auroc_stratified"]["high"]
    pairs = [(s["normal"] * s["abnormal"], s["auroc"]["value"]) for s in group["strata"]]
    mean = sum(count * area for count, area in pairs) / sum(count for count, _ in pairs)
    assert group["auroc_stratified"]["value"] == pytest.approx(mean, abs=1e-5)
    assert [s["value"] for s in group["strata"]] == ["frontal", "lateral"]


def test_kinds_of_lesion_are_each_compared_with_all_normals():
    rows = tuple(
        replace(r, covariates={"lesion": "plaque" if n % 2 else "tumour"} if r.label else {})
        for n, r in enumerate(records(1.5))
    )
    group = subgroup(rows, "lesion", Bootstrap.of_records(rows, resamples=100))
    assert group["normals_shared"] and [s["normal"] for s in group["strata"]] == [30, 30]
    assert [s["abnormal"] for s in group["strata"]] == [15, 15]
    assert sum(s["lesions"] for s in group["strata"]) == sum(len(r.lesions) for r in rows)


def test_ages_and_single_values_are_no_groups():
    assert groupings(records(1.0)) == ["sex"]  # not age, with 60 values; not lesion, with one


# -- files


def test_the_file_comes_back_as_it_was_written_and_names_every_case(document, tmp_path):
    write_metrics(document, tmp_path / "metrics.json")
    assert read_metrics(tmp_path) == json.loads(json.dumps(document))
    write_scores(document["cases"]["zscore"], tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == SCORES_COLUMNS and SCORES_COLUMNS[:5] == ("case", "patient", "label", "score", "p_value")
    first = records(1.8)[0]
    assert (rows[0]["case"], float(rows[0]["score"]), rows[0]["called"]) == (
        first.case,
        first.volume_score,
        str(int(first.called)),
    )


def test_a_document_against_the_schema_is_not_written(document, tmp_path):
    for broken in ({**document, "model": {}}, {k: v for k, v in document.items() if k != "cases"}):
        with pytest.raises(ValueError, match="would not agree with its schema"):
            write_metrics(broken, tmp_path / "metrics.json")
    with pytest.raises(ValueError, match="JSON"):
        write_metrics({**document, "notes": [float("nan")]}, tmp_path / "metrics.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "this is not JSON"),
        ("[]", "it names no schema"),
        ('{"schema": "slicer-anomaly/metrics/1"}', "metrics/1' and not 'slicer-anomaly/metrics/2'"),
        ('{"schema": "slicer-anomaly/metrics/2"}', "the file is damaged"),
    ],
)
def test_a_file_that_is_not_ours_is_refused_in_a_sentence(text, sentence, tmp_path):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_metrics(tmp_path)
    with pytest.raises(InputError, match="there is no such file"):
        read_metrics(tmp_path / "elsewhere")


def test_methods_need_names_of_their_own_and_one_model():
    one = method("m", 1.0, "model")
    for methods in ([], [one, one], [one, replace(one, name="n")], [replace(one, records=())]):
        with pytest.raises(ValueError, match="method"):
            judged(methods)
