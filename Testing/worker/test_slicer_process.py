"""The worker under Qt: the window's event loop runs on while it scores, and nothing is left when it is closed."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from worker.conftest import assert_same

import harness
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.models.bundle import load_bundle
from AnomalyDetectionLib.scoring.scorer import Scorer
from AnomalyDetectionLib.worker.client import Progress, Watcher
from AnomalyDetectionLib.worker.session import Failure
from AnomalyDetectionLib.worker.workspace import is_alive


@pytest.fixture(scope="module")
def qt_worker() -> Iterator[Any]:
    harness.start()
    from AnomalyDetectionLib.slicer_ui.process import QtWorker

    worker = QtWorker()
    yield worker
    worker.close()


class Outcome:
    """Collects what a watcher is told."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.failures: list[Failure] = []
        self.news: list[Progress] = []
        self.watcher = Watcher(self.values.append, self.failures.append, self.news.append)

    @property
    def is_over(self) -> bool:
        return bool(self.values or self.failures)


def run_events(until: Callable[[], Any], seconds: float = 60.0) -> float:
    """Let events in until something is true; the longest time that none could get in."""
    import qt

    beats = [time.monotonic()]
    timer = qt.QTimer()
    timer.setInterval(5)
    timer.connect("timeout()", lambda: beats.append(time.monotonic()))
    timer.start()
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "nothing happened in time"
        qt.QCoreApplication.processEvents()
        time.sleep(0.002)
    timer.stop()
    return max(later - earlier for earlier, later in itertools.pairwise([*beats, time.monotonic()]))


def test_a_score_through_qt_is_that_of_the_direct_call_and_events_get_in_meanwhile(
    qt_worker: Any, zscore_bundle: Path, lesioned: Volume
) -> None:
    direct = Scorer(load_bundle(zscore_bundle), "cpu").score(lesioned)
    warm = Outcome()
    qt_worker.client.load(zscore_bundle, warm.watcher)
    run_events(lambda: warm.is_over)
    outcome = Outcome()
    qt_worker.client.score(lesioned, zscore_bundle, outcome.watcher, device="cpu")
    longest = run_events(lambda: outcome.is_over)
    assert_same(direct, outcome.values[0])
    assert outcome.news[-1].fraction > 0.9
    assert longest < 0.1


def test_a_cancelled_score_answers_within_a_second_and_the_next_one_works(
    qt_worker: Any, zscore_bundle: Path, lesioned: Volume
) -> None:
    outcome = Outcome()
    number = qt_worker.client.score(lesioned, zscore_bundle, outcome.watcher)
    run_events(lambda: any("aligning" in news.stage for news in outcome.news))
    asked = time.monotonic()
    qt_worker.client.cancel(number)
    run_events(lambda: outcome.is_over)
    assert time.monotonic() - asked < 1.0
    assert [failure.kind for failure in outcome.failures] == ["cancelled"]
    again = Outcome()
    qt_worker.client.score(lesioned, zscore_bundle, again.watcher)
    run_events(lambda: again.is_over)
    assert again.values[0].findings


def test_a_worker_killed_in_the_middle_is_told_in_one_sentence_and_replaced(
    qt_worker: Any, zscore_bundle: Path, lesioned: Volume
) -> None:
    outcome = Outcome()
    qt_worker.client.score(lesioned, zscore_bundle, outcome.watcher)
    run_events(lambda: any("aligning" in news.stage for news in outcome.news))
    killed = qt_worker.client.hello["pid"]
    os.kill(killed, signal.SIGKILL)
    run_events(lambda: outcome.is_over)
    (failure,) = outcome.failures
    assert failure.kind == "out-of-memory" and "memory ran out" in failure.message
    again = Outcome()
    qt_worker.client.score(lesioned, zscore_bundle, again.watcher)
    run_events(lambda: again.is_over)
    assert again.values[0].findings and qt_worker.client.hello["pid"] != killed


def test_an_interpreter_that_is_not_there_is_named() -> None:
    harness.start()
    from AnomalyDetectionLib.slicer_ui.process import QtWorker

    outcome = Outcome()
    worker = QtWorker(program="/nirgends/python")
    worker.client.ping(outcome.watcher)
    run_events(lambda: outcome.is_over)
    worker.close()
    (failure,) = outcome.failures
    assert failure.kind == "worker" and "/nirgends/python" in failure.message


def test_closing_in_the_middle_of_a_score_ends_the_process_and_removes_the_files(
    zscore_bundle: Path, lesioned: Volume
) -> None:
    harness.start()
    from AnomalyDetectionLib.slicer_ui import process

    outcome = Outcome()
    others = set(process._running)
    worker = process.QtWorker()
    worker.client.score(lesioned, zscore_bundle, outcome.watcher)
    run_events(lambda: outcome.news)
    pid, folder = worker.client.hello["pid"], worker.client._workspace.path
    assert folder.exists() and is_alive(pid)
    worker.close()
    assert not folder.exists() and not is_alive(pid)
    run_events(lambda: process._running <= others, seconds=5)
    assert not outcome.is_over, "the panel's widgets may be gone by now"
