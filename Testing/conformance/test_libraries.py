"""Missing libraries of the system are named with the command that installs them."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from harness import libraries


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretend that these libraries, and a graphics card's driver, are not there."""

    def pretend(*names: str) -> None:
        monkeypatch.setattr(libraries.sys, "platform", "linux")
        monkeypatch.setattr(libraries, "loads", lambda name: name not in (*names, libraries.CARD_DRIVER))

    return pretend


def test_what_is_missing_is_named_with_the_command_that_installs_it(without: Any) -> None:
    without("libEGL.so.1", "libgthread-2.0.so.0", "libglib-2.0.so.0")
    with pytest.raises(ImportError, match=r"libEGL\.so\.1, .*libgthread-2\.0\.so\.0 missing") as told:
        libraries.require()
    assert "`sudo apt-get install -y --no-install-recommends libegl1 libglib2.0-0` helps" in str(told.value)


def test_without_a_graphics_card_mesa_and_its_software_renderer_are_needed(
    without: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    without("libEGL_mesa.so.0")
    monkeypatch.setattr(libraries, "has_software_renderer", lambda: False)
    assert set(libraries.missing().values()) == {"libegl-mesa0", "libgl1-mesa-dri"}
    monkeypatch.setattr(libraries, "loads", lambda name: name != "libEGL_mesa.so.0")
    assert libraries.missing() == {}


def test_only_root_installs_and_everybody_else_is_told(
    without: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without("libEGL.so.1")
    ran: list[list[str]] = []
    monkeypatch.setattr(libraries.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(
        libraries.subprocess, "run", lambda command, **_: ran.append(command) or subprocess.CompletedProcess(command, 0)
    )
    monkeypatch.setattr(libraries.os, "geteuid", lambda: 1000)
    assert libraries.main() == 1 and ran == []
    assert "sudo apt-get install" in capsys.readouterr().err
    monkeypatch.setattr(libraries.os, "geteuid", lambda: 0)
    libraries.main()
    assert [command[1] for command in ran] == ["update", "install"] and ran[1][-1] == "libegl1"


def test_nothing_is_missing_where_the_tests_run() -> None:
    assert libraries.missing() == {}
