"""Progress: a bar for a terminal, few lines for a log, JSON lines for a program."""

from __future__ import annotations

import io
import json
import re

import pytest

from AnomalyDetectionLib.cli import progress as progress_module
from AnomalyDetectionLib.cli.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Time that passes only when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress_module.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_json_lines_carry_stage_case_fraction_and_time_left(clock: Clock) -> None:
    out = io.StringIO()
    with Progress("json", total=2, out=out, err=io.StringIO()) as progress:
        progress.start_case("a", 0)
        progress("reading", 0.0)
        clock.now += 10
        progress.start_case("b", 1)
        progress("scoring", 0.0)
        progress.result({"done": 2})
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    assert events == [
        {"event": "progress", "stage": "reading", "case": "a", "fraction": 0.0, "eta_s": None},
        {"event": "progress", "stage": "scoring", "case": "b", "fraction": 0.5, "eta_s": 10.0},
        {"event": "result", "done": 2},
    ]


def test_json_lines_do_not_flood(clock: Clock) -> None:
    out = io.StringIO()
    progress = Progress("json", out=out, err=io.StringIO())
    for step in range(1000):
        progress("scoring", step / 1000)
        clock.now += 0.001
    assert 2 <= len(out.getvalue().splitlines()) <= 6


def test_the_fraction_never_falls(clock: Clock) -> None:
    out = io.StringIO()
    progress = Progress("json", out=out, err=io.StringIO())
    for fraction in (0.2, 0.6, 0.1, 5.0, -1.0):
        clock.now += 1
        progress("scoring", fraction)
    found = [json.loads(line)["fraction"] for line in out.getvalue().splitlines()]
    assert found == [0.2, 0.6, 0.6, 1.0, 1.0]


def test_each_stage_of_training_starts_at_nothing_again(clock: Clock) -> None:
    out = io.StringIO()
    progress = Progress("json", by_stage=True, out=out, err=io.StringIO())
    for stage, fraction in (("template", 0.5), ("template", 1.0), ("statistics", 0.25)):
        clock.now += 1
        progress(stage, fraction)
    assert [json.loads(line)["fraction"] for line in out.getvalue().splitlines()] == [0.5, 1.0, 0.25]


def test_a_log_gets_few_lines(clock: Clock) -> None:
    err = io.StringIO()
    progress = Progress("auto", total=4, out=io.StringIO(), err=err)
    for case in range(4):
        progress.start_case(f"case-{case}", case)
        for step in range(100):
            progress("scoring", step / 100)
            clock.now += 0.05
    lines = err.getvalue().splitlines()
    assert 1 <= len(lines) <= 4
    assert "\r" not in err.getvalue()
    assert re.search(r"50%  case-2  scoring  0:10 left", err.getvalue())


def test_a_terminal_gets_a_bar_that_is_wiped_before_other_text(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    err, out = Terminal(), io.StringIO()
    with Progress("auto", out=out, err=err) as progress:
        progress.start_case("head", 0)
        clock.now += 6
        progress("scoring", 0.5)
        drawn = err.getvalue().rpartition("\r\x1b[K")[2]
        assert re.fullmatch(r"\[#{15}-{15}\]  50%  head  scoring  0:06 left", drawn)
        assert len(drawn) < 80
        progress.say("head: done")
    assert err.getvalue().endswith("\r\x1b[K")
    assert out.getvalue() == "head: done\n"


def test_a_narrow_terminal_gets_no_second_line(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("TERM", "xterm")
    err = Terminal()
    progress = Progress("auto", err=err)
    progress.start_case("a-very-long-name-of-a-case", 0)
    progress("scoring", 0.5)
    assert len(err.getvalue().replace("\r\x1b[K", "")) < 20


def test_people_and_programs_do_not_get_each_others_lines() -> None:
    out, err = io.StringIO(), io.StringIO()
    with Progress("json", out=out, err=err) as progress:
        progress.say("for people")
        progress.warn("mind this", "head")
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [
        {"event": "warning", "message": "mind this", "case": "head"}
    ]
    assert err.getvalue() == "warning: head: mind this\n"
