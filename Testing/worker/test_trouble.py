"""Workers that crash, run out of memory, babble or hang: one sentence each, no file left, and the next score works."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worker.conftest import wait_until

from AnomalyDetectionLib.errors import Cancelled, InputError
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.models.bundle import load_bundle
from AnomalyDetectionLib.scoring.scorer import Scorer
from AnomalyDetectionLib.worker import client, protocol
from AnomalyDetectionLib.worker.arrays import save_volume, volume_message
from AnomalyDetectionLib.worker.client import Progress
from AnomalyDetectionLib.worker.process import Worker, WorkerError, deliver
from AnomalyDetectionLib.worker.session import Failure, launch_of
from AnomalyDetectionLib.worker.workspace import Workspace, is_alive

Pretend = Callable[..., Worker]


def failure_of(worker: Worker, volume: Volume, bundle: Path, **settings: object) -> Failure:
    with pytest.raises(WorkerError) as caught:
        worker.score(volume, bundle, **settings)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    return caught.value.failure


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has waited for does not."""
    status = Path(f"/proc/{pid}/status")
    try:
        return "State:\tZ" not in status.read_text() if status.parents[1].exists() else is_alive(pid)
    except FileNotFoundError:
        return False


def left_over(worker: Worker) -> list[Path]:
    assert worker.client._workspace is not None
    return list(worker.client._workspace.path.glob("*.npy"))


def test_a_plug_in_that_fails_in_every_way_costs_one_sentence_each_and_the_next_score_is_right(
    troubled: Worker, trouble: Callable[[str], None], plugins: Path, zscore_bundle: Path, lesioned: Volume
) -> None:
    bundle = plugins / "bundle"
    for what, kind, words in (
        ("raise", "fault", "fault in scoring (KeyError"),
        ("allocate", "out-of-memory", "not enough memory"),
        ("kill", "out-of-memory", "killed by the system, most likely because memory ran out"),
        ("crash", "worker", "crashed (SIGABRT)"),
    ):
        trouble(what)
        failure = failure_of(troubled, lesioned, bundle)
        assert failure.kind == kind and words in failure.message, what
        assert not left_over(troubled)
        if what == "raise":
            assert "Traceback" in failure.details
        if what == "crash":
            assert "Fatal Python error: Aborted" in failure.details
    trouble("nothing")
    direct = Scorer(load_bundle(zscore_bundle), "cpu").score(lesioned)
    assert troubled.score(lesioned, bundle).rarity.array.tobytes() == direct.rarity.array.tobytes()


def test_what_libraries_print_from_python_and_from_c_goes_to_the_log(
    trouble: Callable[[str], None], plugins: Path, troubled: Worker, lesioned: Volume
) -> None:
    lines: list[str] = []
    troubled.client._log = lines.append
    trouble("print")
    assert troubled.score(lesioned, plugins / "bundle").findings
    assert {"garbage from Python", "garbage from os.write", "garbage from C"} <= set(lines)


def test_a_score_that_does_not_heed_cancel_is_killed_after_a_second_and_the_next_one_works(
    troubled: Worker, trouble: Callable[[str], None], plugins: Path, lesioned: Volume
) -> None:
    trouble("hang")
    asked: list[float] = []

    def stop(news: Progress) -> None:
        if news.stage == "scoring":
            asked.append(time.monotonic())
            raise Cancelled

    pids: list[int] = []
    with pytest.raises(Cancelled):
        troubled.ping()
        assert troubled.client.hello is not None
        pids.append(troubled.client.hello["pid"])
        troubled.score(lesioned, plugins / "bundle", progress=stop)
    assert client.CANCEL_GRACE_S <= time.monotonic() - asked[0] < client.CANCEL_GRACE_S + 1
    assert wait_until(lambda: not is_alive(pids[0]))
    assert not left_over(troubled)
    trouble("nothing")
    assert troubled.score(lesioned, plugins / "bundle").findings


def test_an_image_too_large_for_the_memory_is_told_and_the_worker_goes_on(
    zscore_bundle: Path, lesioned: Volume, worker: Worker
) -> None:
    resource = pytest.importorskip("resource")
    large = dataclasses.replace(
        lesioned,
        array=lesioned.array.repeat(6, 0).repeat(6, 1).repeat(6, 2),
        ijk_to_ras=lesioned.ijk_to_ras @ np.diag([1 / 6, 1 / 6, 1 / 6, 1]),
    )
    worker.load(zscore_bundle)
    assert worker.client.hello is not None
    pid = worker.client.hello["pid"]
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + large.array.nbytes + 150_000_000  # of the 500 MB needed
    resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))
    failure = failure_of(worker, large, zscore_bundle)
    assert failure.kind == "out-of-memory" and "not enough memory" in failure.message
    assert worker.ping() and worker.client.hello["pid"] == pid and not left_over(worker)


def test_the_end_of_its_input_ends_the_worker_in_the_middle_of_a_score(zscore_bundle: Path, lesioned: Volume) -> None:
    space = Workspace()
    launch = launch_of(space.path)
    command = [launch.program, *launch.arguments]
    environment = os.environ | dict(launch.environment)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdin is not None and process.stdout is not None
        save_volume(lesioned, space.path, 1)
        request = {"type": "score", "id": 1, "bundle": str(zscore_bundle), "device": "cpu", "threshold": None}
        request |= {"case": None, "volume": volume_message(lesioned, 1)}
        process.stdin.write(protocol.encode(request))
        process.stdin.flush()
        for line in process.stdout:
            if b"aligning" in line:
                break
        start = time.monotonic()
        process.stdin.close()
        ended = wait_until(lambda: process.poll() is not None, 5)
        seconds = time.monotonic() - start
        process.kill()
        assert ended and seconds < 2
    space.remove()


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("hello(protocol=2)", "is version .* \\(protocol 2\\)"),
        ("hello(software='9.9')", "is version 9.9 \\(protocol 1\\).*two installations are mixed"),
        ("hello(protocol=2, news='a key we do not know')", "\\(protocol 2\\)"),
        ("say(type='progress', id=1, stage='s', fraction=0.5, eta_s=None)", "no message .*the greeting is missing"),
        ("hello(); ask(); print('Hello from a library', flush=True); time.sleep(9)", "no message .*not JSON: 'Hello"),
        ("hello(); ask(); say(type='result', id=1, value={'pong': True}); time.sleep(9)", "no message .*value.score"),
        ("hello(); ask(); say(type='result', id=7, value={'pong': True}); time.sleep(9)", "not under way"),
        ("hello(); ask(); sys.stdout.write('x' * 17_000_000); sys.stdout.flush(); time.sleep(9)", "is longer than"),
        ("sys.exit('a package is missing')", "could not start \\(exit code 1: a package is missing\\)"),
        ("hello(); ask(); sys.exit(5)", "failed \\(exit code 5\\)"),
        ("hello(); ask(); sys.exit(137)", "most likely because memory ran out"),
        ("hello(); ask(); sys.exit('cannot allocate memory for thread-local data: ABORT')", "ran out of memory"),
        ("hello(); ask()", "ended without a result"),
    ],
)
def test_what_a_broken_worker_does_is_told_in_one_sentence(
    pretend: Pretend, program: str, words: str, lesioned: Volume, tmp_path: Path
) -> None:
    worker = pretend(program)
    failure = failure_of(worker, lesioned, tmp_path)
    assert re.search(words, failure.message), failure.message
    assert not left_over(worker)


RESULT = """
hello()
request = ask()
shape = request["volume"]["array"]["shape"]
def array(what, kind, name=None):
    return {"file": name or f"1-{what}.npy", "dtype": kind, "shape": shape}
least = {"ml": 1.0, "mm2": 1.0, "px": 1.0}
scored = {"rarity": array("rarity", "float32", NAME), "labels": array("labels", "int32")}
scored |= {"foreground": array("foreground", "uint8"), "volume_score": 1.0, "p_value": 1.0, "calibration_n": 1}
scored |= {"threshold": 1.0, "false_findings_per_normal": None, "findings": [], "notes": [], "case": "c"}
scored |= {"quality": {"verdict": "good", "reasons": []}, "device": "cpu", "midline": None, "timings": {}}
scored |= {"model": {"id": "m", "version": "1", "sha256": "0" * 64, "detector": "d"}, "decision": None}
scored |= {"thresholds": {"default": 1.0, "levels": [1.0], "findings_per_normal": [0.0], "least_size": least}}
import numpy
for what, kind in (("rarity", "float32"), ("labels", "int32"), ("foreground", "uint8")):
    numpy.save(os.path.join(FOLDER, f"1-{what}.npy"), numpy.ones(shape, kind)[:KEPT])
"""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("'../1-rarity.npy'", "does not match"),
        ("'/etc/passwd'", "does not match"),
        ("'1-rarity.npy\\n'", "does not match"),
        ("'2-rarity.npy'", "cannot be read"),
    ],
)
def test_a_result_that_names_a_file_elsewhere_is_refused(
    pretend: Pretend, name: str, words: str, lesioned: Volume, tmp_path: Path
) -> None:
    program = RESULT.replace("NAME", name).replace("KEPT", "None")
    worker = pretend(program + "say(type='result', id=1, value={'scored': scored}); time.sleep(9)")
    assert words in failure_of(worker, lesioned, tmp_path).message


def test_an_array_of_another_shape_or_behind_a_link_is_refused(
    pretend: Pretend, lesioned: Volume, tmp_path: Path
) -> None:
    program = RESULT.replace("NAME", "None").replace("KEPT", "3")
    end = "say(type='result', id=1, value={'scored': scored}); time.sleep(9)"
    assert "not the array" in failure_of(pretend(program + end), lesioned, tmp_path).message
    link = "path = os.path.join(FOLDER, '1-rarity.npy'); os.rename(path, path + 'x'); os.symlink(path + 'x', path)\n"
    program = RESULT.replace("NAME", "None").replace("KEPT", "None")
    assert "no name of a file" in failure_of(pretend(program + link + end), lesioned, tmp_path).message


def test_a_result_that_crosses_with_the_wish_to_stop_is_dropped(
    pretend: Pretend, lesioned: Volume, tmp_path: Path
) -> None:
    program = RESULT.replace("NAME", "None").replace("KEPT", "None")
    program += "say(type='progress', id=1, stage='s', fraction=0.9, eta_s=None); ask()\n"
    worker = pretend(program + "say(type='result', id=1, value={'scored': scored}); time.sleep(9)")
    told: list[Any] = []
    watcher = client.Watcher(told.append, told.append, lambda news: worker.client.cancel(1))
    worker.client.score(lesioned, tmp_path, watcher)
    while not told:
        deliver(worker._events, 0.05)
        worker.client.poll()
    assert told == [client.CANCELLED] and not left_over(worker)


def test_a_worker_that_fails_after_its_result_is_reported_and_the_result_stands(
    pretend: Pretend, lesioned: Volume, tmp_path: Path
) -> None:
    troubles: list[Failure] = []
    program = RESULT.replace("NAME", "None").replace("KEPT", "None")
    program += "say(type='result', id=1, value={'scored': scored}); sys.exit(4)"
    worker = pretend(program, trouble=troubles.append)
    assert worker.score(lesioned, tmp_path).rarity.array.min() == 1
    assert worker.client._session is None or worker.client._session._process.wait(10)
    assert [trouble.kind for trouble in troubles] == ["worker"] and "exit code 4" in troubles[0].message


def test_lines_before_the_greeting_are_logged_and_do_no_harm(pretend: Pretend) -> None:
    lines: list[str] = []
    program = "print('conda says hello'); hello(); say(type='result', id=ask()['id'], value={'pong': True})"
    worker = pretend(program, log=lines.append)
    assert worker.ping() and "conda says hello" in lines


def test_a_worker_that_never_greets_is_given_up(
    pretend: Pretend, lesioned: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "START_LIMIT_S", 0.5)
    failure = failure_of(pretend("time.sleep(30)"), lesioned, tmp_path)
    assert "said nothing" in failure.message


def test_what_a_worker_started_is_killed_with_it(pretend: Pretend, lesioned: Volume, tmp_path: Path) -> None:
    worker = pretend(
        "os.setpgid(0, 0); other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(other.pid))\n"
        "hello(); ask(); say(type='progress', id=1, stage='s', fraction=0.1, eta_s=None); time.sleep(60)"
    )

    def stop(news: Progress) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        worker.score(lesioned, tmp_path, progress=stop)
    grandchild = int((tmp_path / "pid").read_text())
    assert wait_until(lambda: not runs(grandchild))


def test_a_worker_behind_a_launcher_is_killed_though_only_the_launcher_was_started(
    pretend: Pretend, lesioned: Volume, tmp_path: Path
) -> None:
    """As PythonSlicer does: a program that starts Python and waits for it."""
    launcher = tmp_path / "launcher"
    launcher.write_text(f'#!/bin/sh\n"{sys.executable}" "$@"\nexit $?\n')
    launcher.chmod(0o755)
    worker = pretend(
        "os.setpgid(0, 0); hello(); ask(); say(type='progress', id=1, stage='s', fraction=0.1, eta_s=None)\n"
        "time.sleep(60)"
    )
    worker.client._program = str(launcher)
    pids: list[int] = []

    def stop(news: Progress) -> None:
        assert worker.client.hello is not None
        pids.append(worker.client.hello["pid"])
        raise Cancelled

    with pytest.raises(Cancelled):
        worker.score(lesioned, tmp_path, progress=stop)
    assert wait_until(lambda: not runs(pids[0]))


def test_an_image_that_finds_no_room_is_told_and_nothing_is_left(
    pretend: Pretend, lesioned: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from AnomalyDetectionLib.worker import arrays

    def full(*arguments: object, **settings: object) -> None:
        raise OSError(28, "No space left on device", "/tmp/1-image.npy")

    worker = pretend("hello(); ask()")
    monkeypatch.setattr(arrays.np, "save", full)
    with pytest.raises(InputError, match=r"cannot be handed to the worker.*no space left"):
        worker.score(lesioned, tmp_path)
    assert not left_over(worker)


def test_a_folder_that_cannot_be_made_fails_each_request_once_and_the_next_one_works(
    pretend: Pretend, lesioned: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that has no room for the second file, which says whose the folder is."""
    worker = pretend("hello()\nwhile True: say(type='result', id=ask()['id'], value={'pong': True})")
    write_text, place = Path.write_text, tmp_path / "temporary"
    place.mkdir()

    def full(self: Path, *arguments: Any, **settings: Any) -> int:
        if self.name == "owner.json":
            raise OSError(28, "No space left on device", str(self))
        return write_text(self, *arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "gettempdir", lambda: str(place))
        patch.setattr(Path, "write_text", full)
        for ask in (
            worker.ping,
            worker.devices,
            lambda: worker.load(tmp_path),
            lambda: worker.score(lesioned, tmp_path),
        ):
            with pytest.raises(InputError, match=r"no folder can be made .*No space left on device"):
                ask()
            assert not worker.client.is_busy and not list(place.iterdir())
    assert worker.ping()
