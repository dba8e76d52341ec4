"""The wheel: built from a copy of the checkout, installed into an environment that knows nothing of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from project.cmake_lists import CHECKOUT, LEFT_BEHIND, MODULES

BUILT_FROM = ("pyproject.toml", "README.md", "LICENSE", *MODULES)
DESCRIBE = """\
import json, AnomalyDetectionLib, AnomalyTrainingLib, AnomalyDetectionLib.imaging.read
import importlib.metadata as metadata
print(json.dumps({
    "files": [AnomalyDetectionLib.imaging.read.__file__, AnomalyTrainingLib.__file__],
    "versions": [metadata.version("slicer-anomaly"), AnomalyDetectionLib.__version__],
}))
"""


def run(command: list[str], cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built apart from the checkout: a build folder there may hold files of older states."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in BUILT_FROM:
        if (CHECKOUT / name).is_dir():
            shutil.copytree(CHECKOUT / name, source / name, ignore=shutil.ignore_patterns(*LEFT_BEHIND, "*.egg-info"))
        else:
            shutil.copy2(CHECKOUT / name, source / name)
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
    run([sys.executable, "-m", "pip", "wheel", ".", *options, "--wheel-dir", str(folder)], source)
    (built,) = folder.glob("slicer_anomaly-*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of a new environment with the wheel; only the packages it depends on are borrowed."""
    folder = tmp_path_factory.mktemp("environment")
    run([sys.executable, "-m", "venv", "--without-pip", str(folder)], folder)
    python = folder / "bin" / "python"
    options = ["--no-deps", "--no-index", "--quiet", "--disable-pip-version-check"]
    run([sys.executable, "-m", "pip", "--python", str(python), "install", *options, str(wheel)], folder)
    site = run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip()
    # A folder that a .pth file adds has its own .pth files ignored: an editable installation stays invisible.
    (Path(site) / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return folder / "bin"


def test_the_wheel_holds_every_file_of_both_libraries_and_the_licence(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for module in MODULES:
        files = (path for path in (CHECKOUT / module / f"{module}Lib").rglob("*") if path.is_file())
        relative = {path.relative_to(CHECKOUT / module).as_posix() for path in files if not in_cache(path)}
        assert relative <= names, sorted(relative - names)
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)
    tops = {name.partition("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"AnomalyDetectionLib", "AnomalyTrainingLib"}


def test_both_libraries_come_from_the_wheel_and_agree_on_the_version(environment: Path, tmp_path: Path) -> None:
    described = json.loads(run([str(environment / "python"), "-c", DESCRIBE], tmp_path))
    assert all(Path(file).is_relative_to(environment.parent) for file in described["files"])
    assert len(set(described["versions"])) == 1


@pytest.mark.parametrize("command", [["slicer-anomaly"], ["python", "-m", "AnomalyDetectionLib.cli"]])
def test_the_installed_command_explains_itself(environment: Path, tmp_path: Path, command: list[str]) -> None:
    shown = run([str(environment / command[0]), *command[1:], "--help"], tmp_path)
    assert "score" in shown and "calibrate" in shown


def in_cache(path: Path) -> bool:
    return bool(LEFT_BEHIND.intersection(path.parts))
