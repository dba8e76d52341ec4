"""The command line finds its verbs at once and turns every failure into one sentence and an exit code."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from AnomalyDetectionLib.cli import main as main_module
from AnomalyDetectionLib.cli.main import find_verbs, main
from AnomalyDetectionLib.errors import Cancelled, InputError, sentence_of

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "numpy", "SimpleITK", "pydicom", "nibabel", "PIL")


def run_python(*arguments: str, **settings) -> subprocess.CompletedProcess[str]:
    """A real process with this test run's import path."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=120, **settings
    )


def a_verb(monkeypatch: pytest.MonkeyPatch, body) -> None:
    """Make `slicer-anomaly doctor` run `body(args)`."""
    import AnomalyDetectionLib.cli.doctor as doctor

    monkeypatch.setattr(doctor, "run", body)


def raising(error: BaseException):
    def body(args):
        raise error

    return body


def test_help_of_a_real_process_takes_at_most_half_a_second() -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = run_python("-m", "AnomalyDetectionLib.cli", "--help")
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 0
        assert "score" in done.stdout
    assert min(seconds) <= 0.5


def test_help_imports_neither_numpy_nor_torch_nor_an_image_library() -> None:
    code = (
        "import sys; from AnomalyDetectionLib.cli.main import main; code = main(['--help']);"
        f"loaded = [m for m in {HEAVY!r} if m in sys.modules]; sys.exit(str(loaded) if loaded else code)"
    )
    assert run_python("-c", code).returncode == 0


def test_help_of_each_verb_answers_without_torch() -> None:
    code = (
        "import sys; from AnomalyDetectionLib.cli.main import main, find_verbs;"
        "codes = [main([verb, '--help']) for verb in find_verbs()];"
        "sys.exit('torch was imported' if 'torch' in sys.modules else max(codes))"
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    for verb in find_verbs():
        assert f"usage: slicer-anomaly {verb}" in done.stdout


def test_the_verbs_of_training_are_absent_where_the_package_is() -> None:
    """-S leaves out site-packages, where the package may be installed."""
    code = "from AnomalyDetectionLib.cli.main import find_verbs; print(*find_verbs())"
    scoring_only = {**os.environ, "PYTHONPATH": str(ROOT / "AnomalyDetection")}
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, env=scoring_only)
    assert done.stdout.split() == ["calibrate", "score", "doctor"], done.stderr
    assert {"cohort", "train", "export"} <= set(find_verbs())


def test_an_unknown_verb_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scroe"]) == 2
    assert capsys.readouterr().err == "slicer-anomaly: there is no verb 'scroe', did you mean score?\n"


def test_an_unknown_verb_like_no_other_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["xyzzy"]) == 2
    verbs = "cohort, train, export, evaluate, crossval, compare, review, calibrate, score, doctor"
    assert f"the verbs are {verbs}." in capsys.readouterr().err


def test_an_unknown_option_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "bundle", "image.nii.gz", "--out", "x", "--treshold", "3"]) == 2
    error = capsys.readouterr().err
    assert "did you mean --threshold?" in error
    assert error.count("\n") == 1


def test_options_are_never_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    """A script that says --thres would break on the day another option begins so."""
    assert main(["score", "bundle", "image.nii.gz", "--out", "x", "--thres", "3"]) == 2


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "high"])
def test_a_threshold_that_is_no_rarity_is_refused(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "bundle", "image.nii.gz", "--out", "x", f"--threshold={value}"]) == 2
    assert "a rarity is a number above 0" in capsys.readouterr().err


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    from AnomalyDetectionLib import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"slicer-anomaly {__version__}\n"


def test_no_verb_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "verbs:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (InputError("scan.nii.gz: this is\nno image."), 2, "scan.nii.gz: this is no image."),
        (MemoryError(), 2, "not enough memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 2, "not enough memory"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/out.nii.gz"), 2, "no space left to write out.nii.gz"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/out"), 2, "no permission"),
        (OSError(errno.EROFS, "Read-only file system", "/x/out"), 2, "no permission"),
        (KeyboardInterrupt(), 130, "Stopped"),
        (Cancelled(), 130, "Stopped"),
        (ZeroDivisionError("division by zero"), 1, "fault in slicer-anomaly (ZeroDivisionError: division by zero)"),
    ],
)
def test_each_failure_is_one_sentence_and_its_exit_code(
    error: BaseException, code: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a_verb(monkeypatch, raising(error))
    assert main(["doctor"]) == code
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert said.rstrip().endswith(".")
    assert "Traceback" not in said


def test_a_gpu_out_of_memory_is_told_by_torchs_own_error() -> None:
    import torch

    assert "not enough memory" in (sentence_of(torch.cuda.OutOfMemoryError("CUDA out of memory")) or "")


def test_a_fault_leaves_its_traceback_in_the_log_it_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    a_verb(monkeypatch, raising(ZeroDivisionError("division by zero")))
    assert main(["doctor"]) == 1
    (log,) = tmp_path.glob("slicer-anomaly-*.log")
    assert str(log) in capsys.readouterr().err
    assert "Traceback" in log.read_text()


@pytest.mark.parametrize("how", ["option", "environment"])
def test_debug_shows_the_traceback(
    how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a_verb(monkeypatch, raising(InputError("no image.")))
    if how == "environment":
        monkeypatch.setenv(main_module.DEBUG_VARIABLE, "1")
    assert main(["doctor"] + (["--debug"] if how == "option" else [])) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_unwinds_the_stack_and_gives_its_code(number: signal.Signals, code: int, tmp_path) -> None:
    marker = tmp_path / "unwound"
    script = (
        "import sys, time, pathlib; import AnomalyDetectionLib.cli.doctor as d\n"
        "from AnomalyDetectionLib.cli.main import main\n"
        "def run(args):\n"
        "    try: print('ready', flush=True); time.sleep(60)\n"
        f"    finally: pathlib.Path({str(marker)!r}).touch()\n"
        "d.run = run; sys.exit(main(['doctor']))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(number)
        _, said = child.communicate(timeout=30)
    assert child.returncode == code
    assert marker.exists()
    assert said.startswith("Stopped")
    assert "Traceback" not in said


def test_a_reader_that_goes_away_causes_no_traceback() -> None:
    script = (
        "import sys; import AnomalyDetectionLib.cli.doctor as d; from AnomalyDetectionLib.cli.main import main\n"
        "def run(args):\n    for n in range(200000): print('line', n)\n    return 0\n"
        "d.run = run; sys.exit(main(['doctor']))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as child:
        assert child.stdout is not None and child.stderr is not None
        child.stdout.readline()
        child.stdout.close()
        assert child.stderr.read() == ""
