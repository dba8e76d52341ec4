"""The output folder: one run at a time, whole files only, refused before the work where it cannot take the results."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from limits import forbidden_folder, small_disk

from AnomalyDetectionLib.cli.folder import LOCK_NAME, RUN_NAME, OutputFolder
from AnomalyDetectionLib.errors import InputError, OutputError


def hold(path: Path) -> subprocess.Popen[str]:
    """A real process that holds the folder until its standard input closes."""
    script = (
        "import sys; from pathlib import Path; from AnomalyDetectionLib.cli.folder import OutputFolder\n"
        f"with OutputFolder(Path({str(path)!r})): print('held', flush=True); sys.stdin.read()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


def test_a_folder_that_got_nothing_is_taken_away_again_with_its_parents(tmp_path: Path) -> None:
    with OutputFolder(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / LOCK_NAME).exists()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_got_something_stays_and_the_lock_goes(tmp_path: Path) -> None:
    with OutputFolder(tmp_path / "out") as folder:
        folder.write_text("x.txt", "content")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x.txt"]


def test_a_second_run_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with hold(out) as child:
        with pytest.raises(OutputError, match=f"another run writes into this folder .process {child.pid} on"):
            OutputFolder(out).__enter__()
        assert (out / LOCK_NAME).exists()
        child.communicate("", timeout=30)
    with OutputFolder(out):
        pass


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_the_lock_of_a_killed_run_is_taken_over(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with hold(out) as child:
        child.kill()
        child.wait(30)
    assert json.loads((out / LOCK_NAME).read_text())["pid"] == child.pid
    with OutputFolder(out):
        assert json.loads((out / LOCK_NAME).read_text())["pid"] == os.getpid()


def test_the_lock_of_another_host_is_not_taken_over(tmp_path: Path) -> None:
    lock = tmp_path / LOCK_NAME
    lock.write_text(json.dumps({"pid": 1, "host": socket.gethostname() + "-other"}))
    with pytest.raises(OutputError, match=r"delete \.lock in it"):
        OutputFolder(tmp_path).__enter__()
    assert lock.exists()


@pytest.mark.parametrize("content", ["", "rubbish", "[1]", '{"pid": 3}'])
def test_a_damaged_lock_that_nobody_holds_is_taken_over(content: str, tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text(content)
    with OutputFolder(tmp_path):
        assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="this is a file"):
        OutputFolder(tmp_path / "file").__enter__()
    with pytest.raises(OutputError, match="a part of this path is a file"):
        OutputFolder(tmp_path / "file" / "below").__enter__()


def test_a_folder_without_permission_is_refused_before_the_work(tmp_path: Path) -> None:
    with forbidden_folder(tmp_path / "forbidden") as place:
        for path in (place, place / "out"):
            with pytest.raises(OutputError, match="no permission to write"):
                OutputFolder(path).__enter__()


def test_a_full_disk_is_refused_before_the_work(tmp_path: Path) -> None:
    with small_disk(tmp_path / "full", 32 << 10) as place, pytest.raises(OutputError, match="free some space"):
        OutputFolder(place).__enter__()


def test_a_file_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 10 << 20) as place, OutputFolder(place) as folder:
        folder.write_text("scores.csv", "old")
        with pytest.raises(OSError, match=r"No space left|File too large"):
            folder.write_text("scores.csv", "x" * (20 << 20))
        assert (place / "scores.csv").read_text() == "old"
        assert {path.name for path in place.iterdir()} == {"scores.csv", LOCK_NAME}


def test_what_a_killed_run_left_under_temporary_names_goes(tmp_path: Path) -> None:
    (tmp_path / ".a.partial").mkdir()
    (tmp_path / ".a.partial" / "score.nii.gz").touch()
    (tmp_path / ".run.json.partial").touch()
    (tmp_path / "kept.partial").touch()
    with OutputFolder(tmp_path) as folder:
        folder.clear_leftovers()
    assert [path.name for path in tmp_path.iterdir()] == ["kept.partial"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": "slicer-anomaly/run/1", "model": 3, "cases": {}}'])
def test_a_run_file_that_is_none_of_ours_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / RUN_NAME).write_text(content)
    with OutputFolder(tmp_path) as folder, pytest.raises(InputError, match="not written by this version"):
        folder.read_run()
