"""The installation of what scoring needs: which step is next, what a failure says, and that it is taken up again."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from project.cmake_lists import CHECKOUT

import harness
from AnomalyDetectionLib.errors import InputError

from .conftest import RESOURCES, click, load_sample, picture, run_until

harness.start()

from AnomalyDetectionLib.slicer_ui.install import (  # noqa: E402
    Installation,
    SlicerEnvironment,
    Step,
    keeping_slicers_packages,
)


class Machine:
    """A Slicer on which nothing is installed yet; `fails` makes the next action fail."""

    def __init__(self) -> None:
        self.torch = self.extension_loaded = self.extension_fetched = False
        self.extension_enabled = True
        self.explains = False
        self.packages = ["nibabel>=5.2"]
        self.done: list[str] = []
        self.fails: Exception | None = None

    def has_torch(self) -> bool:
        return self.torch

    def has_torch_installer(self) -> bool:
        return self.extension_loaded

    def awaits_restart(self) -> bool:
        return self.extension_fetched and not self.extension_loaded

    def is_disabled(self) -> bool:
        return self.awaits_restart() and not self.extension_enabled

    def missing_packages(self) -> list[str]:
        return self.packages

    def want_explanations(self, wanted: bool) -> None:
        self.explains = wanted

    def _do(self, what: str) -> None:
        if self.fails is not None:
            raise self.fails
        self.done.append(what)

    def install_extension(self) -> None:
        self._do("extension")
        self.extension_fetched = True

    def enable_extension(self) -> None:
        self._do("enable")
        self.extension_enabled = True

    def restart(self) -> None:
        self._do("restart")
        self.extension_loaded = self.extension_fetched and self.extension_enabled

    def install_torch(self) -> None:
        self._do("torch")
        self.torch = True

    def install_packages(self) -> None:
        self._do("packages")
        self.packages = []


def test_each_step_leads_to_the_next_until_nothing_is_missing() -> None:
    machine = Machine()
    installation = Installation(machine)
    assert installation.steps() == [Step.EXTENSION, Step.RESTART, Step.TORCH, Step.PACKAGES]
    while installation.steps():
        installation.advance()
    assert machine.done == ["extension", "restart", "torch", "packages"]


def test_after_a_restart_a_new_slicer_goes_on_where_the_old_one_stopped() -> None:
    machine = Machine()
    Installation(machine).advance()
    assert Installation(machine).steps()[0] is Step.RESTART
    machine.extension_loaded = True  # the user restarted Slicer by hand
    assert Installation(machine).steps() == [Step.TORCH, Step.PACKAGES]


def test_a_disabled_extension_is_enabled_before_the_restart_that_would_not_load_it() -> None:
    machine = Machine()
    machine.extension_fetched, machine.extension_enabled = True, False
    installation = Installation(machine)
    assert installation.steps()[:2] == [Step.ENABLE, Step.RESTART]
    assert installation.describe(Step.ENABLE).startswith("PyTorch is installed but disabled: enable it")
    while installation.steps():
        installation.advance()
    assert machine.done == ["enable", "restart", "torch", "packages"]


class Extensions:
    """Slicer's model of extensions, with the PyTorch extension installed and switched off."""

    def __init__(self, compatible: bool) -> None:
        self.enabled, self.compatible = False, compatible

    def isExtensionInstalled(self, name: str) -> bool:
        return name == "PyTorch"

    def isExtensionEnabled(self, name: str) -> bool:
        return self.enabled

    def setExtensionEnabled(self, name: str, value: bool) -> None:
        self.enabled = value and self.compatible


def test_slicers_own_model_is_asked_and_a_refusal_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import slicer

    environment = SlicerEnvironment(RESOURCES / "requirements.txt")
    for compatible in (True, False):
        model = Extensions(compatible)
        monkeypatch.setattr(type(slicer.app), "extensionsManagerModel", lambda app, model=model: model, raising=False)
        assert environment.awaits_restart() and environment.is_disabled()
        if compatible:
            environment.enable_extension()
            assert environment.awaits_restart() and not environment.is_disabled()
        else:
            with pytest.raises(InputError, match="PyTorch is installed but disabled"):
                environment.enable_extension()


def test_an_extension_that_is_loaded_already_needs_no_restart() -> None:
    machine = Machine()
    machine.extension_loaded = True
    assert Installation(machine).steps()[0] is Step.TORCH


def test_a_step_that_fails_says_why_and_can_be_tried_again() -> None:
    machine = Machine()
    machine.fails = OSError("Name or service not known")
    installation = Installation(machine)
    with pytest.raises(InputError, match="The installation stopped: Name or service not known"):
        installation.advance()
    machine.fails = None
    installation.advance()
    assert machine.done == ["extension"]


def test_a_step_that_ends_without_effect_is_not_taken_for_done() -> None:
    machine = Machine()
    machine.torch = True
    machine.install_packages = lambda: None  # type: ignore[method-assign]
    with pytest.raises(InputError, match="is not there"):
        Installation(machine).advance()


def test_slicers_own_python_has_all_here_and_says_so_without_importing_torch() -> None:
    environment = SlicerEnvironment(RESOURCES / "requirements.txt")
    assert environment.has_torch() and environment.missing_packages() == []
    assert not environment.has_torch_installer() and not environment.awaits_restart()
    assert Installation(environment).steps() == []


def test_what_is_missing_is_named_and_not_installed_in_testing_mode(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("nibabel>=5.2\nnot-a-package-of-anyone>=1\n")
    environment = SlicerEnvironment(tmp_path / "requirements.txt")
    assert environment.missing_packages() == ["not-a-package-of-anyone>=1"]
    with pytest.raises(InputError, match="Not installed: not-a-package-of-anyone"):
        environment.install_packages()


def test_without_slicers_extensions_manager_the_sentence_says_so() -> None:
    with pytest.raises(InputError, match="built without an extensions manager"):
        SlicerEnvironment(RESOURCES / "requirements.txt").install_extension()


def test_no_pip_may_replace_slicers_numpy_or_simpleitk(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy

    monkeypatch.setenv("PIP_CONSTRAINT", "/site/constraints.txt")
    with keeping_slicers_packages() as file:
        lines = file.read_text().splitlines()
        assert f"numpy=={numpy.__version__}" in lines and any(line.startswith("SimpleITK==") for line in lines)
        assert os.environ["PIP_CONSTRAINT"].split() == ["/site/constraints.txt", file.as_uri()]
    assert os.environ["PIP_CONSTRAINT"] == "/site/constraints.txt" and not file.exists()


def test_pip_finds_the_constraints_in_a_temporary_folder_with_a_space_in_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "Jörg Müller"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with keeping_slicers_packages():
        asked = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "--no-input", "numpy<1"]
        said = subprocess.run(asked, capture_output=True, text=True, encoding="utf-8", check=False)
    assert "The user requested (constraint) numpy==" in said.stdout, said.stderr


def test_the_requirements_are_those_of_the_project_without_torch_and_slicers_own() -> None:
    import tomllib

    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["dependencies"]
    wanted = {Requirement(line) for line in project if Requirement(line).name not in ("torch", "numpy", "SimpleITK")}
    lines = (RESOURCES / "requirements.txt").read_text().splitlines()
    assert {Requirement(line) for line in lines if line and not line.startswith("#")} == wanted


def test_what_explanations_need_is_asked_for_with_them_alone() -> None:
    import tomllib

    (captum,) = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["explain"]
    lines = (RESOURCES / "requirements-explain.txt").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == [captum]
    environment = SlicerEnvironment(RESOURCES / "requirements.txt")
    for wanted in (True, False):
        environment.want_explanations(wanted)
        assert (Requirement(captum) in environment._needed()) == wanted


def test_score_shows_what_is_missing_and_scores_when_it_is_there(panel: Any) -> None:
    machine, former = Machine(), panel.setup.installation
    panel.setup.installation = Installation(machine)
    try:
        panel.parameters.inputVolume = load_sample()
        panel.parameters.device = "cpu"
        assert not panel.ui.setupBox.isVisible(), "what is missing is looked up on Score only"
        click(panel.ui.scoreButton)
        assert panel.ui.setupBox.isVisible() and "PyTorch" in panel.ui.setupLabel.text
        assert "doctor --wheelhouse" in panel.ui.setupHintLabel.text and not panel.session.is_scoring
        picture("setup")
        machine.fails = OSError("ProxyError: 407")
        click(panel.ui.setupButton)
        run_until(lambda: "407" in panel.ui.messageLabel.text)
        machine.fails = None
        while panel.ui.setupBox.isVisible():
            done = len(machine.done)
            click(panel.ui.setupButton)
            run_until(lambda done=done: len(machine.done) > done)
            run_until(lambda: panel.ui.setupButton.enabled or not panel.ui.setupBox.isVisible())
        run_until(lambda: panel.session.is_scoring)
        assert panel.ui.deviceCombo.findData("cpu") > 0 and machine.done[-1] == "packages"
        panel.cancel()
        run_until(lambda: not panel.session.is_scoring)
    finally:
        panel.setup.installation = former
