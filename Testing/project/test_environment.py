"""The set-up of `.venv`: done once, repeated when it was interrupted, repaired when it is broken."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import _environment
import pytest

SCRIPT = """\
import sys
from pathlib import Path
sys.path.insert(0, {scripts!r})
import _environment
_environment.run_inside(["demo"], Path({root!r}))
print(sys.prefix, sys.argv[1:])
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with the two files that say what is installed."""
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n", encoding="utf-8")
    (tmp_path / "requirements.lock").write_text("torch==2.13.0\n", encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment as `make` leaves it."""
    environment = tmp_path_factory.mktemp("fresh") / ".venv"
    _environment.make(environment)
    return environment


def stamp(root: Path, extras: list[str]) -> None:
    (root / ".venv").mkdir(exist_ok=True)
    text = json.dumps({"fingerprint": _environment.fingerprint(root), "extras": extras})
    (root / ".venv" / _environment.STAMP).write_text(text, encoding="utf-8")


def make_environment(root: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / ".venv"], check=True)


def test_a_new_environment_works_and_is_not_taken_for_half_made(fresh: Path) -> None:
    assert _environment.works(fresh)
    assert not (fresh / _environment.MAKING).exists()


def test_an_environment_whose_making_was_interrupted_is_made_anew(tmp_path: Path, capsys) -> None:
    environment = tmp_path / ".venv"
    (environment / "bin").mkdir(parents=True)
    (environment / _environment.MAKING).touch()
    assert not _environment.works(environment)
    _environment.make(environment)
    assert _environment.works(environment)
    assert "not usable" in capsys.readouterr().out


def test_a_folder_with_other_peoples_files_is_never_deleted(tmp_path: Path) -> None:
    environment = tmp_path / ".venv"
    environment.mkdir()
    (environment / "thesis.txt").write_text("irreplaceable", encoding="utf-8")
    with pytest.raises(_environment.SetupError, match="not a virtual environment; move it"):
        _environment.make(environment)
    assert (environment / "thesis.txt").read_text(encoding="utf-8") == "irreplaceable"


def test_nothing_is_missing_after_a_completed_installation_and_more_extras_are_told(root: Path) -> None:
    make_environment(root)
    stamp(root, ["demo"])
    assert _environment.missing_extras(root / ".venv", root, ["demo"]) == set()
    assert _environment.missing_extras(root / ".venv", root, ["demo", "test"]) == {"test"}


@pytest.mark.parametrize("name", ["pyproject.toml", "requirements.lock"])
def test_a_change_of_the_requirements_asks_for_another_installation(root: Path, name: str) -> None:
    make_environment(root)
    stamp(root, ["demo"])
    (root / name).write_text("changed", encoding="utf-8")
    assert _environment.missing_extras(root / ".venv", root, ["demo"]) is None


def test_without_a_stamp_or_with_its_python_gone_the_installation_is_repeated(root: Path) -> None:
    make_environment(root)
    assert _environment.missing_extras(root / ".venv", root, ["demo"]) is None
    stamp(root, ["demo"])
    _environment.python_of(root / ".venv").unlink()
    assert _environment.missing_extras(root / ".venv", root, ["demo"]) is None


def test_a_package_that_was_left_half_installed_is_forgotten_and_whole_ones_are_kept(
    fresh: Path, tmp_path: Path, capsys
) -> None:
    python = _environment.python_of(fresh)
    for name in ("halved", "whole"):
        wheel = tiny_wheel(tmp_path, name)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-index", str(wheel)], check=True)
    found = subprocess.run(
        [python, "-c", "import halved; print(halved.__file__)"], capture_output=True, text=True, check=True
    )
    Path(found.stdout.strip()).unlink()
    _environment.remove_half_installed(python)
    assert "halved was left half-installed" in capsys.readouterr().out
    listed = subprocess.run([python, "-m", "pip", "list", "--format", "freeze"], capture_output=True, text=True)
    assert "whole==1.0" in listed.stdout and "pip==" in listed.stdout and "halved" not in listed.stdout


def tiny_wheel(folder: Path, name: str) -> Path:
    """A wheel of one module."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "VALUE = 1\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


def test_a_script_starts_again_inside_the_environment_with_its_arguments(root: Path) -> None:
    make_environment(root)
    stamp(root, ["demo"])
    script = root / "script.py"
    scripts = str(Path(_environment.__file__).parent)
    script.write_text(SCRIPT.format(scripts=scripts, root=str(root)), encoding="utf-8")
    command = [_environment.base_python(), str(script), "--out", "a folder"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == f"{root / '.venv'} ['--out', 'a folder']", done.stderr


def test_a_second_command_waits_for_the_first_ones_installation(root: Path) -> None:
    scripts = str(Path(_environment.__file__).parent)
    code = f"import sys; sys.path.insert(0, {scripts!r}); import _environment; from pathlib import Path\n"
    code += f"with _environment.only_one_at_a_time(Path({str(root)!r})): print('entered', flush=True)"
    with _environment.only_one_at_a_time(root):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert "waiting for it" in child.stdout.readline()
        assert child.poll() is None
    assert child.communicate(timeout=60)[0].strip() == "entered"
