"""Plots and the HTML report: what they show of an evaluation, what they leave out, and hostile names in them."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from evaluation.made import method
from evaluation.test_summary import COHORT, MODEL, judged
from PIL import Image

from AnomalyTrainingLib.evaluation.failures import failures
from AnomalyTrainingLib.evaluation.judge import judge
from AnomalyTrainingLib.evaluation.plots import make_plots, size_text
from AnomalyTrainingLib.evaluation.plotting import Plot, line_style
from AnomalyTrainingLib.evaluation.report import report_html, write_evaluation
from AnomalyTrainingLib.evaluation.spoilt import Battery
from AnomalyTrainingLib.evaluation.words import against_baselines, calibration_sentence, threshold_cost, warnings

HOSTILE = "<script>alert(1)</script>\"'&$x_1$"
ARTEFACTS = [
    {
        "artefact": artefact,
        "severity": severity,
        "method": "zscore",
        "cases": 5,
        "false_findings_per_case": severity * 1.5,
        "volume_score_mean": 2.0,
        "share_called": 0.2,
        "share_poor_quality": None,
    }
    for artefact in ("motion", HOSTILE)
    for severity in (1.0, 2.0)
]


@pytest.fixture(scope="module")
def document() -> dict:
    methods = [
        method("zscore", 1.8, "model"),
        method("random", 0.0),
        method("close", 1.7),
        method("unet", 3.0, "ceiling"),
    ]
    return judged(methods, artefacts=ARTEFACTS, notes=["The cases are simulated."])


@pytest.fixture(scope="module")
def plots(document) -> list[Plot]:
    return make_plots(document)


class Page(HTMLParser):
    """Tags, attributes and text of a page; complains of tags that are not closed."""

    VOID = {"meta", "img", "br", "link", "input"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_every_plot_is_a_picture_with_words_for_it(document, plots):
    plots = {plot.name: plot for plot in plots}
    assert list(plots) == [
        "roc",
        "precision_recall",
        "froc",
        "confusion",
        "scores",
        "calibration",
        "recall_by_size",
        "artefacts",
    ]
    for plot in plots.values():
        with Image.open(io.BytesIO(plot.png)) as picture:
            assert picture.format == "PNG" and min(picture.size) > 300
            low, high = picture.convert("L").getextrema()
            assert low < 80 and high == 255
        assert len(plot.alt) > 40
    auroc = document["methods"]["zscore"]["volume"]["auroc"]
    assert f"zscore {auroc['value']:.2f} ({auroc['low']:.2f}–{auroc['high']:.2f})" in plots["roc"].alt
    assert f"severity {2:g}" in plots["artefacts"].alt and "3.0" in plots["artefacts"].alt


def spoilt(artefact: str, severity: float, false: float, poor: float = 0.0) -> dict:
    return {
        **ARTEFACTS[0],
        "artefact": artefact,
        "severity": severity,
        "false_findings_per_case": false,
        "share_poor_quality": poor,
    }


def test_the_battery_is_a_row_an_artefact_and_says_what_is_mistaken_for_a_lesion_and_not_noticed(document):
    rows = [spoilt("none", 0.0, 0.4)]
    rows += [spoilt("blur", severity, false) for severity, false in ((1.0, 0.45), (2.0, 0.7), (3.0, 2.0))]
    rows += [spoilt("metal", severity, 3.0, poor=0.8) for severity in (1.0, 2.0, 3.0)]
    rows += [spoilt("noise", severity, 0.3) for severity in (1.0, 3.0)]  # none could be scored at severity 2
    changed = {**document, "artefacts": [*rows, {**spoilt("noise", 1.0, 9.0), "method": "random"}]}
    battery = Battery.of(changed)
    assert battery is not None and battery.severities == (1.0, 2.0, 3.0)
    assert [*battery.rows] == ["blur", "metal", "noise"] and battery.rows["noise"][1] is None
    assert battery.sentences() == [
        "5 normal images were spoilt; as they are, they have 0.40 false findings each.",
        "Mistaken for lesions more often than that are blur from severity 2 on and metal from severity 1 on.",
        "The image quality check does not notice blur there.",
    ]
    shown = "".join(Page(report_html(changed, [])).text.split())
    assert "blur0.4520%called·0%poor0.7020%called·0%poor2.00" in shown
    assert "noise0.3020%called·0%poor–0.30" in shown
    harmless = Battery.of({**document, "artefacts": [rows[0], *rows[-2:]]})
    assert harmless is not None and harmless.sentences()[1:] == ["No artefact raises that notably."]
    assert Battery.of({**document, "artefacts": rows[:1]}) is None
    (plot,) = (plot for plot in make_plots(changed) if plot.name == "artefacts")
    assert "0.4 as they are; the most are 3.0 with metal of severity 1" in plot.alt


@pytest.mark.parametrize(
    ("settings", "left_out"),
    [
        ({"abnormals": 0}, {"roc", "precision_recall", "froc", "recall_by_size", "artefacts"}),
        ({"normals": 0}, {"roc", "precision_recall", "calibration", "artefacts"}),
        ({"masks": False}, {"froc", "recall_by_size", "artefacts"}),
        ({"normals": 1, "abnormals": 1}, {"artefacts"}),
    ],
)
def test_a_plot_that_cannot_be_made_is_left_out_with_its_reason(settings, left_out):
    document = judged([method("m", 1.0, "model", **settings), method("b", 0.5, **settings)], resamples=50)
    plots = make_plots(document)
    assert {plot.name for plot in plots if plot.png is None} == left_out
    assert all(plot.reason for plot in plots if plot.png is None)
    page = Page(report_html(document, plots))
    assert page.text.count("Left out: ") == len(left_out)


def test_a_table_without_any_figure_is_a_sentence_with_the_reason(document, plots):
    assert "no method has a figure" not in report_html(document, plots)
    plain = judged([method("m", 1.0, "model", masks=False), method("b", 0.5, masks=False)], resamples=20)
    page = Page(report_html(plain, []))
    assert "Voxels: left out, no method has a figure: no case has a map and a mask of its lesions (m, b)." in page.text
    assert "Whole cases: left out" not in page.text


def test_methods_differ_in_colour_or_dashes_as_far_as_there_are_many():
    styles = [line_style(number, False) for number in range(28)]
    assert len({(style["color"], str(style["linestyle"])) for style in styles}) == 28


def test_sizes_are_said_as_ranges():
    assert size_text({"from": 0.0, "to": 0.1, "unit": "mL"}) == "under 0.1 mL"
    assert size_text({"from": 50.0, "to": None, "unit": "mL"}) == "50 mL or more"
    assert size_text({"from": 0.5, "to": 2.0, "unit": "mL"}) == "0.5–2 mL"


def test_the_report_says_first_which_baselines_are_beaten(document):
    said = against_baselines(document)
    assert said[0] == "The model beats 1 of 2 baselines in AUROC of cases and is not shown to beat close."
    row = next(r for r in document["comparisons"] if (r["baseline"], r["metric"]) == ("random", "auroc"))
    figure = {end: f"{row['difference'][end]:+.2f}" for end in ("value", "low", "high")}
    assert f"AUROC of cases {figure['value']} ({figure['low']} to {figure['high']})" in said[1]
    assert said[1].startswith("Against random: better in ") and "no difference shown in" in said[2]
    assert said[3].startswith("Against unet (a ceiling: it has seen lesions): worse in")
    page = report_html(document, [])
    assert page.index(said[0]) < page.index("To mind") < page.index('<h2 id="comparisons">')


def test_a_model_that_beats_nothing_is_called_not_worth_its_time():
    worse = judged([method("m", 0.0, "model"), method("b", 2.0)], resamples=200)
    assert against_baselines(worse)[0] == (
        "The model beats no baseline in AUROC of cases and is worse than b. "
        "A model that is worse than a baseline is not worth its computing time."
    )
    alike = judged([method("m", 1.0, "model"), method("b", 1.0)], resamples=200)
    assert against_baselines(alike)[0] == "The model beats no baseline in AUROC of cases and is not shown to beat b."
    best = judged([method("m", 2.0, "model"), method("b", 0.0)], resamples=200)
    assert against_baselines(best)[0] == "The model beats the one baseline in AUROC of cases."
    assert "is not known" in against_baselines(judged([method("m", 1.0, "model")], resamples=50))[0]


def test_what_the_threshold_costs_is_said_with_figures(document):
    first, second = threshold_cost(document)
    lesion = document["methods"]["zscore"]["lesion"]
    assert f"{lesion['false_findings_per_normal']['value']:.2f} (" in first
    assert f"finds {lesion['found']} of {lesion['lesions']} lesions" in first
    counts = document["methods"]["zscore"]["volume"]["confusion"]
    assert f"{counts['false_positives']} of 30 normal cases" in second
    assert calibration_sentence(document) == document["calibration"]["sentence"]


def test_warnings_name_few_cases_missing_masks_and_one_class(document):
    assert warnings(document) == ["The cases are simulated."]
    cohort = {**COHORT, "normal": 4, "abnormal": 0, "with_mask": 0}
    few = judge(
        [method("m", 1.0, "model", normals=4, abnormals=0)], model=MODEL, cohort=cohort, resamples=20, cluster="anatomy"
    )
    said = " ".join(warnings(few))
    assert "There are 4 normal cases only" in said and "There is no abnormal case" in said
    assert (
        "The normal cases are of 4 clusters (anatomy) only: intervals that need them may be too narrow, and with"
        in said
    )
    assert "No abnormal case has a mask" in " ".join(warnings({**few, "cohort": {**COHORT, "with_mask": 0}}))
    single = judge([method("m", 1.0, "model", abnormals=1)], model=MODEL, cohort=COHORT, resamples=20)
    assert "The abnormal cases are of 1 cluster (patient) only" in " ".join(warnings(single))
    assert warnings({**document, "cohort": {**COHORT, "simulated": 60}})[0].startswith("The cases are simulated")
    assert warnings({**document, "cohort": {**COHORT, "simulated": 4}})[0].startswith("4 of 60 cases are simulated")
    assert "7 of 30 abnormal cases have no mask" in " ".join(warnings({**few, "cohort": {**COHORT, "with_mask": 23}}))


def test_the_worst_failures_are_named_worst_first(document):
    rows = document["cases"]["zscore"]
    found = failures(rows, most=3)
    wrong = [row["score"] for row in rows if row["label"] == 1 and not row["called"]]
    assert [row["score"] for row in found.false_negatives] == sorted(wrong)[:3]
    missed = [lesion["size"] for row in rows for lesion in row["lesions"] if not lesion["hit"]]
    assert [size for _, size, _ in found.missed_lesions] == sorted(missed, reverse=True)[:3]
    page = report_html(document, [])
    assert found.false_negatives[0]["case"] in page and found.missed_lesions[0][0] in page


def test_hostile_names_stay_text_and_the_page_refers_to_nothing_outside(document):
    cases = {"zscore": [{**row, "case": row["case"] + HOSTILE} for row in document["cases"]["zscore"]]}
    methods = {HOSTILE if name == "random" else name: entry for name, entry in document["methods"].items()}
    methods["zscore"] = {
        **methods["zscore"],
        "description": HOSTILE,
        "subgroups": {HOSTILE: next(iter(methods["zscore"]["subgroups"].values()))},
    }
    comparisons = [
        {**r, "baseline": HOSTILE if r["baseline"] == "random" else r["baseline"]} for r in document["comparisons"]
    ]
    hostile = {
        **document,
        "cases": cases,
        "methods": methods,
        "comparisons": comparisons,
        "notes": [HOSTILE],
        "cohort": {**COHORT, "file": HOSTILE},
    }
    text = report_html(hostile, make_plots(hostile))
    page = Page(text)
    assert HOSTILE in page.text and "<script" not in text
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "a"})
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), name
            assert name not in ("src", "href") or value.startswith("data:image/png;base64,")
    assert not re.search(r"https?://|url\(|@import", text)


def test_the_page_can_be_read_aloud_and_found_in(document, plots):
    page = Page(report_html(document, plots))
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1 and headings.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 8 and all(len(image["alt"]) > 40 for image in images)
    names = [tag for tag, _ in page.tags]
    assert names.count("table") == names.count("caption") > 8
    assert all("scope" in attributes for tag, attributes in page.tags if tag == "th")
    assert ("html", {"lang": "en"}) in page.tags


def test_the_folder_of_an_evaluation_is_complete_when_its_metrics_are_there(document, tmp_path):
    written = write_evaluation(document, tmp_path)
    names = {path.name for path in written}
    assert names == {path.name for path in tmp_path.iterdir()} and written[-1].name == "metrics.json"
    assert {"scores.csv", "report.html", "roc.png", "artefacts.png"} < names
