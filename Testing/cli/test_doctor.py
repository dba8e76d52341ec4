"""The doctor tells the truth about this machine, and fills a wheelhouse or says why it cannot."""

from __future__ import annotations

import json
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest

from AnomalyDetectionLib.cli import machine
from AnomalyDetectionLib.cli.machine import REQUIREMENTS, check_package, satisfies
from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.cli.wheelhouse import make_wheelhouse
from AnomalyDetectionLib.errors import InputError, OutputError

ROOT = Path(__file__).resolve().parents[2]


def test_the_requirements_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert sorted(REQUIREMENTS) == sorted(project["dependencies"])


def test_this_machine_is_found_ready(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    packages = {package["name"]: package for package in report["packages"]}
    assert report["ready"] is True
    assert packages["numpy"]["installed"] == np.__version__
    assert report["cpu_cores"] >= 1
    assert report["memory_bytes"] >= report["memory_free_bytes"] > 1 << 28
    assert {disk["use"] for disk in report["disks"]} == {"temporary files", "working folder"}


def test_the_report_for_people_ends_with_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "Scoring would run."
    assert any("package  torch" in line and line.endswith("works") for line in lines)


@pytest.mark.parametrize(
    ("version", "specifier", "holds"),
    [
        ("2.13.0+cpu", ">=2.2.2,<3", True),
        ("3.0.0", ">=2.2.2,<3", False),
        ("3", "<3.0.0", False),
        ("2.2", ">=2.2.2", False),
        ("10.0", ">=9.9", True),
        ("1.26.0rc1", ">=1.26,<3", True),
        ("1.5", "==1.5.0", True),
        ("1.5", "!=1.5", False),
    ],
)
def test_versions_compare_by_release_number(version: str, specifier: str, holds: bool) -> None:
    assert satisfies(version, specifier) is holds


def test_a_package_that_is_too_old_is_named_with_its_version() -> None:
    package = check_package("numpy>=99")
    assert package.problem == f"numpy {np.__version__} is installed; >=99 is needed: pip install 'numpy>=99'"


def test_a_missing_package_makes_the_verdict_two(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "REQUIREMENTS", (*REQUIREMENTS, "no_such_package>=1"))
    assert main(["doctor"]) == 2
    said = capsys.readouterr().out
    assert "problem: The Python package no_such_package is not installed" in said
    assert said.rstrip().endswith("Scoring would not run; mend the problems above.")


def test_a_package_that_fails_to_import_is_a_problem_not_a_crash(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "broken_binary.py").write_text("raise OSError('libx.so.3: cannot open shared object file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    problem = check_package("broken_binary>=1").problem
    assert problem is not None
    assert "cannot be imported (libx.so.3" in problem


def test_a_folder_that_is_no_model_is_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(tmp_path), "--json"]) == 2
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert "not a model bundle" in model["problem"]


def test_a_gpu_computes_what_the_cpu_computes() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    gpu = machine.probe_gpu(0)
    assert gpu.problem is None
    assert 0 < gpu.free_bytes <= gpu.total_bytes


# -- wheelhouse


def tiny_wheel(folder: Path) -> str:
    """A real wheel of an empty package, in a folder that pip can look in."""
    folder.mkdir()
    info = "emptypkg-1.0.dist-info"
    with zipfile.ZipFile(folder / "emptypkg-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("emptypkg.py", "")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: emptypkg\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return "emptypkg>=1"


@pytest.fixture
def local_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    requirement = tiny_wheel(tmp_path / "index")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return requirement


def test_a_wheelhouse_holds_the_wheels_and_says_how_to_go_on(tmp_path: Path, local_index: str) -> None:
    out = tmp_path / "deep" / "wheels"
    wheels = make_wheelhouse([local_index], out)
    assert [wheel.name for wheel in wheels] == ["emptypkg-1.0-py3-none-any.whl"]
    assert (out / "requirements.txt").read_text() == "emptypkg>=1\n"
    assert "--no-index" in (out / "README.txt").read_text()
    assert [path.name for path in out.parent.iterdir()] == ["wheels"]


def test_a_wheel_that_is_nowhere_leaves_no_folder(tmp_path: Path, local_index: str) -> None:
    with pytest.raises(InputError, match="pip could not fetch all wheels: No matching distribution found for nowhere"):
        make_wheelhouse([local_index, "nowhere>=1"], tmp_path / "wheels")
    assert {path.name for path in tmp_path.iterdir()} == {"index"}


def test_no_network_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # the discard port: nobody listens
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="The package index cannot be reached"):
        make_wheelhouse(["emptypkg>=1"], tmp_path / "wheels")
    assert list(tmp_path.iterdir()) == []


def test_a_wheelhouse_does_not_mix_with_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(OutputError, match="choose an empty folder"):
        make_wheelhouse(["emptypkg>=1"], tmp_path)
