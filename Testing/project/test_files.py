"""Rules for the repository's files that tools outside it rely on."""

from __future__ import annotations

import ast
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from project.cmake_lists import CHECKOUT, LEFT_BEHIND

FOLDERS = ("AnomalyDetection", "AnomalyTraining", "Testing", "training_scripts", "Resources", ".ci")
TEXTS = {".py", ".ui", ".txt", ".json", ".yaml", ".toml", ".md", ".lock", ".cmake", ".sh", ""}


def text_files() -> Iterator[Path]:
    """The project's own text files."""
    yield from (path for path in CHECKOUT.glob("*") if path.is_file() and path.suffix in TEXTS)
    for folder in FOLDERS:
        for path in (CHECKOUT / folder).rglob("*"):
            if path.is_file() and path.suffix in TEXTS and not LEFT_BEHIND.intersection(path.parts):
                yield path


def test_text_files_end_their_lines_as_slicers_index_asks() -> None:
    files = list(text_files())
    assert len(files) > 40
    assert not [str(path.relative_to(CHECKOUT)) for path in files if b"\r" in path.read_bytes()]


def test_the_licence_is_the_whole_apache_licence() -> None:
    text = (CHECKOUT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text and "Version 2.0, January 2004" in text
    for section in ("1. Definitions.", "9. Accepting Warranty or Additional Liability.", "END OF TERMS AND CONDITIONS"):
        assert section in text


def test_ci_runs_the_test_command_and_nothing_of_its_own() -> None:
    path = CHECKOUT / ".ci" / "run"
    lines = path.read_text(encoding="utf-8").splitlines()
    commands = [line for line in lines if line and not line.startswith("#")]
    assert commands == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "exec python3 Testing/run_tests.py"]
    assert path.stat().st_mode & stat.S_IXUSR


@pytest.mark.parametrize(
    "path", sorted([*CHECKOUT.glob("training_scripts/[!_]*.py"), CHECKOUT / "Testing/run_tests.py"])
)
def test_a_script_that_people_start_is_readable_by_an_old_python_3(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 7))


def test_the_test_command_asks_for_a_newer_python_before_it_does_anything() -> None:
    namespace: dict = {"__name__": "run_tests"}
    exec(compile((CHECKOUT / "Testing/run_tests.py").read_text(encoding="utf-8"), "run_tests.py", "exec"), namespace)
    real = namespace["sys"]
    namespace["sys"] = type("Old", (), {"version_info": (3, 8, 10), "exit": staticmethod(real.exit)})
    with pytest.raises(SystemExit, match=r"needs Python 3\.11 or newer, and this is Python 3\.8\."):
        namespace["main"]([])
