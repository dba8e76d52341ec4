"""The rule that in CI nothing is skipped unforeseen, tried on a suite of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from project.cmake_lists import CHECKOUT

SUITE = """\
import pytest

def test_that_passes():
    pass

def test_that_is_skipped():
    pytest.skip(REASON)

@pytest.mark.xfail
def test_that_is_expected_to_fail():
    assert False
"""


def run_suite(folder: Path, reason: str, ci: str) -> subprocess.CompletedProcess[str]:
    shutil.copy2(CHECKOUT / "Testing" / "conftest.py", folder / "conftest.py")
    (folder / "test_suite.py").write_text(SUITE.replace("REASON", repr(reason)), encoding="utf-8")
    (folder / "pytest.ini").write_text(f"[pytest]\npythonpath = {CHECKOUT / 'Testing'}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    environment = os.environ | {"CI": ci}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("reason", "ci", "passes"),
    [
        ("it is Tuesday", "", True),
        ("it is Tuesday", "true", False),
        ("there is no folder ../shared/data beside this checkout", "true", True),
        ("no CUDA device", "true", True),
    ],
)
def test_an_unforeseen_skip_fails_in_ci_only(tmp_path: Path, reason: str, ci: str, passes: bool) -> None:
    done = run_suite(tmp_path, reason, ci)
    assert (done.returncode == 0) is passes, done.stdout
    assert ("1 skipped" in done.stdout) is passes
    assert "1 xfailed" in done.stdout
    if not passes:
        assert reason in done.stdout and "Nothing may be skipped in CI" in done.stdout
