"""The extension as CMake installs it: both modules open there, and the command line runs, without the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from project import cmake_lists
from project.cmake_lists import CHECKOUT, MODULES, RESOURCES, SCRIPTS

IMPORT_ALL = """\
import importlib, json, pkgutil, sys
import harness
harness.start()
for library in ("AnomalyDetectionLib", "AnomalyTrainingLib"):
    package = importlib.import_module(library)
    for found in pkgutil.walk_packages(package.__path__, library + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
print(json.dumps({name: module.__file__ for name, module in sys.modules.items() if name.startswith("Anomaly")}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of Slicer's scripted modules, holding what both CMakeLists.txt name and nothing else."""
    folder = tmp_path_factory.mktemp("installed") / "qt-scripted-modules"
    for module in MODULES:
        for name in cmake_lists.listed(module, SCRIPTS) + cmake_lists.listed(module, RESOURCES):
            target = folder / name  # NO_INSTALL_SUBDIR: the modules share one folder and keep their sub-folders
            assert not target.exists(), f"{name} is installed by both modules"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / module / name, target)
    return folder


def run_python(arguments: list[str], cwd: Path, paths: list[Path]) -> subprocess.CompletedProcess[str]:
    """Run a child Python that finds the given folders before anything that is installed."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONUTF8": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240)


def test_both_installed_modules_open_and_pass_their_own_tests(installed: Path, tmp_path: Path) -> None:
    paths = [str(installed / f"{module}.py") for module in MODULES]
    done = run_python(["-m", "harness", *paths], tmp_path, [installed, CHECKOUT / "Testing"])
    assert done.returncode == 0, done.stderr
    assert "Ran 2 tests" in done.stderr


def test_every_part_of_both_libraries_is_importable_from_where_it_is_installed(installed: Path, tmp_path: Path) -> None:
    done = run_python(["-c", IMPORT_ALL], tmp_path, [installed, CHECKOUT / "Testing"])
    assert done.returncode == 0, done.stderr
    homes = {name: Path(file) for name, file in json.loads(done.stdout.splitlines()[-1]).items()}
    assert {"AnomalyDetectionLib.imaging.volume", "AnomalyTrainingLib.cohorts.manifest"} <= set(homes)
    strangers = {name: str(file) for name, file in homes.items() if not file.is_relative_to(installed)}
    assert not strangers


def test_the_tests_that_slicer_runs_pass_on_the_installed_files(installed: Path, tmp_path: Path) -> None:
    tests = [path.stem for path in sorted((installed / "Testing" / "Python").glob("*.py"))]
    assert len(tests) == 2
    done = run_python(["-m", "unittest", *tests], tmp_path, [installed, installed / "Testing" / "Python"])
    assert done.returncode == 0, done.stderr


def test_the_command_line_runs_as_a_child_process_of_the_installed_modules(installed: Path, tmp_path: Path) -> None:
    done = run_python(["-m", "AnomalyDetectionLib.cli", "--help"], tmp_path, [installed])
    assert done.returncode == 0, done.stderr
    for verb in ("score", "calibrate", "cohort", "train", "doctor"):
        assert verb in done.stdout
