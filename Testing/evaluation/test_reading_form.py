"""The form for expert reading: it is blinded, stands alone, and a real browser fills it in."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation.conftest import Trained
from evaluation.frames import write_cohort
from evaluation.test_report import HOSTILE, Page

from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.models.bundle import load_bundle
from AnomalyDetectionLib.scoring.scorer import Scorer
from AnomalyTrainingLib.cohorts.manifest import load_case_volume, read_manifest
from AnomalyTrainingLib.evaluation.reading.answers import read_answers
from AnomalyTrainingLib.evaluation.reading.key import Key, read_key
from AnomalyTrainingLib.evaluation.reading.pictures import pictures_of

DRIVER = Path(__file__).with_name("form_driver.js")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("reading") / "cohort", {"test": (4, 4)}, first=400)


def form(trained: Trained, cohort: Path, out: Path, *more: str) -> tuple[Key, str]:
    arguments = ["review", "form", str(trained.bundle), "--cohort", str(cohort), "--out", str(out), "--device", "cpu"]
    assert main([*arguments, "--progress", "none", *more]) == 0
    return read_key(out), (out / "form.html").read_text()


@pytest.fixture(scope="module")
def made(trained: Trained, cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Key, str, Path]:
    out = tmp_path_factory.mktemp("form") / "out"
    return *form(trained, cohort, out, "--title", HOSTILE), out


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_the_form_tells_its_readers_neither_who_a_case_is_nor_what_the_model_says(made: tuple[Key, str, Path]) -> None:
    key, page, _ = made
    assert [case.code for case in key.cases] == [f"R{n:03d}" for n in range(1, 9)]
    assert {case.case for case in key.cases} == {f"c{n}" for n in range(400, 408)}
    words = re.sub(r"[A-Za-z0-9+/]{200,}=*", "", page)  # without the pictures
    assert not any(re.search(rf"\b({case.case}|{case.patient})\b", words) for case in key.cases)
    data = data_of(page)
    assert set(data) == {"schema", "form", "withMap", "cases"} and data["form"] == key.form
    assert all(set(one) == {"code", "first", "caption", "slices", "findings"} for one in data["cases"])
    shown = {one["code"]: [finding["number"] for finding in one["findings"]] for one in data["cases"]}
    assert shown == {case.code: [finding.number for finding in case.findings] for case in key.cases}
    ill = [finding.true for case in key.cases if case.label for finding in case.findings]
    assert any(ill), "the lesions are found"
    assert all(not finding.true for case in key.cases if not case.label for finding in case.findings)


def test_the_order_is_shuffled_by_the_seed_and_the_form_is_known_by_it(
    made: tuple[Key, str, Path], trained: Trained, cohort: Path, tmp_path: Path
) -> None:
    key, _, _ = made
    again, _ = form(trained, cohort, tmp_path / "again")
    other, _ = form(trained, cohort, tmp_path / "other", "--seed", "1")
    assert [case.case for case in again.cases] == [case.case for case in key.cases] and again.form == key.form
    assert [case.case for case in other.cases] != [case.case for case in key.cases] and other.form != key.form
    assert [case.label for case in key.cases] != sorted(case.label for case in key.cases)
    few, page = form(trained, cohort, tmp_path / "few", "--cases", "4", "--without-map")
    assert sorted(case.label for case in few.cases) == [0, 0, 1, 1] and few.form != key.form
    assert all(not case.findings for case in few.cases) and few.threshold is None and not few.with_map
    assert all(one["marked"] is None for case in data_of(page)["cases"] for one in case["slices"])


def test_the_page_stands_alone_and_its_one_script_is_allowed_by_its_hash(made: tuple[Key, str, Path]) -> None:
    _, text, _ = made
    assert "alert(1)" not in re.sub(r"&lt;script&gt;alert\(1\)", "", text), "a hostile title stays text"
    page = Page(text)
    assert HOSTILE in page.text
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    script = text[text.rindex("<script>") + len("<script>") : text.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert not [
        a for _, a in page.tags for name in ("src", "href", "action") if str(a.get(name) or "").startswith("http")
    ]
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert text.count("<script") == 2


def test_bad_input_is_a_sentence_and_a_form_is_not_written_over(
    made: tuple[Key, str, Path], trained: Trained, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    base = ["review", "form", str(trained.bundle), "--cohort", str(cohort), "--progress", "none", "--device", "cpu"]
    for more, said in (
        (["--cases", "0"], "--cases is a number from 1"),
        (["--slices", "65"], "--slices is a number from 1 to 64"),
        (["--split", "external"], "no case is in the split 'external'"),
    ):
        assert main([*base, "--out", str(tmp_path / "out"), *more]) == 2
        assert said in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert main([*base, "--out", str(made[2])]) == 2
    assert "form.html: there is such a file already" in capsys.readouterr().err
    monkeypatch.setattr("AnomalyTrainingLib.evaluation.reading.form.MOST_BYTES", 1000)
    assert main([*base, "--out", str(tmp_path / "out")]) == 2
    assert "ask for fewer with --cases" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_of_a_volume_slices_are_spread_and_those_of_findings_are_among_them(trained: Trained, cohort: Path) -> None:
    case = next(case for case in read_manifest(cohort) if case.label)
    flat = load_case_volume(case)
    result = Scorer(load_bundle(trained.bundle), "cpu").score(flat)
    deep = Volume(np.repeat(flat.array, 20, axis=0), np.eye(4), name="deep")
    labels = np.zeros(deep.shape, dtype=np.int32)
    labels[17, 10:14, 10:14] = 1
    finding = replace(result.findings[0], label=1, peak_ras=(12.0, 12.0, 17.0))
    whole = replace(
        result,
        rarity=deep.with_array(np.repeat(result.rarity.array, 20, axis=0), units="rarity"),
        labels=labels,
        foreground=np.ones(deep.shape, dtype=bool),
        findings=(finding,),
    )
    made = pictures_of(deep, whole, 5, with_map=True)
    assert len(made.slices) in (5, 6) and made.findings == {1: made.first}
    assert all(one.marked is not None for one in made.slices)
    assert made.slices[made.first].marked != made.slices[made.first].plain
    unaided = pictures_of(deep, whole, 5, with_map=False)
    assert len(unaided.slices) == 5 and unaided.findings == {} and unaided.first == 2


def test_a_real_browser_fills_the_form_in_and_its_files_are_read(made: tuple[Key, str, Path], tmp_path: Path) -> None:
    chromium = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
    )
    if not chromium:
        pytest.skip("no headless Chromium is installed")
    key, text, _ = made
    driver = DRIVER.read_text()
    digest = base64.b64encode(hashlib.sha256(driver.encode()).digest()).decode()
    text = text.replace("script-src '", f"script-src 'sha256-{digest}' '", 1)
    driven = tmp_path / "form.html"
    driven.write_text(text.replace("</body>", f"<script>{driver}</script></body>"))

    def browse(page: Path) -> dict[str, Any]:
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
        options += ["--virtual-time-budget=5000", "--dump-dom"]
        ended = subprocess.run(
            [chromium, *options, page.as_uri()], capture_output=True, text=True, timeout=240, check=True
        )
        found = re.search(r'<pre id="result">(.*?)</pre>', ended.stdout, re.DOTALL)
        assert found is not None, ended.stdout[-2000:] + ended.stderr[-2000:]
        return json.loads(html.unescape(found[1]))

    said = browse(driven)
    assert said["begun"] == {"code": "Case R001", "done": "0 of 8 cases answered", "reader": ""}
    assert said["unnamed"] == "Give your name or initials first."
    assert said["done"] == "2 of 8 cases answered" and said["second"] == "Case R002" and said["map"] is True
    assert said["plain"] != said["marked"], "the picture changes with the map"
    readers = []
    for ending, content in zip(("json", "csv"), said["files"], strict=True):
        (tmp_path / f"saved.{ending}").write_text(content)
        readers.append(read_answers(key, tmp_path / f"saved.{ending}"))
    one, other = readers
    assert one.name == other.name == "=Dr. <b>" and one.answers == other.answers
    first, second = one.answers["R001"], one.answers["R002"]
    assert (first.verdict, first.confidence, first.comment) == ("abnormal", 5, '=1+1, "quoted"\nnext line')
    assert (second.verdict, second.confidence) == ("uncertain", 4), "keys do not count while a comment is written"
    asked = next(case for case in key.cases if case.findings)
    number = asked.findings[0].number
    assert one.answers[asked.code].findings == {number: "false"}
    assert all(one.answers[case.code].verdict is None for case in key.cases[2:])
    assert browse(driven)["begun"] == {"code": "Case R002", "done": "2 of 8 cases answered", "reader": "=Dr. <b>"}
