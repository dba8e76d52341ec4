"""What scoring needs and Slicer does not bundle: found out when the user asks for a score, installed step by step.

Which step is next is looked up in the machine's state every time, not remembered: the installation can be left at any
point, also by restarting Slicer for the PyTorch extension, and is taken up where it was.
"""

from __future__ import annotations

import enum
import importlib
import importlib.metadata
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import slicer
import slicer.packaging
from slicer.i18n import tr as _

from AnomalyDetectionLib.errors import InputError, one_line

REQUESTER = "Anomaly Detection"
EXTENSION = "PyTorch"
TORCH = ">=2.2.2"
"""As in pyproject.toml: the last version for Intel Macs."""

OF_EXPLANATIONS = "requirements-explain.txt"
"""Beside the module's requirements: what some explanations need, installed when one of them is asked for."""

KEPT = ("numpy", "SimpleITK")
"""Packages of Slicer's that must stay as they are: its own libraries are built with them."""


class Step(enum.Enum):
    """What has to be done before a volume can be scored, in this order."""

    EXTENSION = "extension"
    ENABLE = "enable"
    RESTART = "restart"
    TORCH = "torch"
    PACKAGES = "packages"


class Environment(Protocol):
    """The state of Slicer's Python, and what can be done about it."""

    def has_torch(self) -> bool:
        """Whether a torch is installed that will do; torch is not imported."""

    def has_torch_installer(self) -> bool:
        """Whether the PyTorch extension is loaded."""

    def awaits_restart(self) -> bool:
        """Whether the PyTorch extension is installed but not loaded yet."""

    def is_disabled(self) -> bool:
        """Whether the PyTorch extension is installed but switched off, so that no restart would load it."""

    def missing_packages(self) -> list[str]:
        """Requirements of the module that are not met, torch aside."""

    def want_explanations(self, wanted: bool) -> None:
        """Count what explanations need as requirements too, or no longer."""

    def install_extension(self) -> None:
        """Fetch the PyTorch extension."""

    def enable_extension(self) -> None:
        """Switch the PyTorch extension on; it is loaded by the next restart."""

    def restart(self) -> None:
        """Restart Slicer."""

    def install_torch(self) -> None:
        """Install torch as fits this computer's graphics card."""

    def install_packages(self) -> None:
        """Install what `missing_packages` names."""


class Installation:
    """Leads from any state of the machine to one that can score."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def want_explanations(self, wanted: bool) -> None:
        """Lead to one that has what explanations need too, or need not."""
        self._environment.want_explanations(wanted)

    def steps(self) -> list[Step]:
        """What is still to be done, in order; empty when volumes can be scored."""
        steps = []
        if not self._environment.has_torch():
            if not self._environment.has_torch_installer():
                if self._environment.is_disabled():
                    steps.append(Step.ENABLE)
                elif not self._environment.awaits_restart():
                    steps.append(Step.EXTENSION)
                steps.append(Step.RESTART)
            steps.append(Step.TORCH)
        if self._environment.missing_packages():
            steps.append(Step.PACKAGES)
        return steps

    def advance(self) -> None:
        """Do the first of `steps`.

        Raises
        ------
        InputError
            If it did not work: one sentence that says why and what to do without a network.
        """
        steps = self.steps()
        if not steps:
            return
        action = {
            Step.EXTENSION: self._environment.install_extension,
            Step.ENABLE: self._environment.enable_extension,
            Step.RESTART: self._environment.restart,
            Step.TORCH: self._environment.install_torch,
            Step.PACKAGES: self._environment.install_packages,
        }[steps[0]]
        try:
            action()
        except InputError:
            raise
        except Exception as error:
            reason = one_line(str(error) or type(error).__name__, 300).rstrip(".")
            raise InputError(_("The installation stopped: {reason}.").format(reason=reason)) from error
        if steps[0] not in (Step.RESTART, Step.EXTENSION) and self.steps()[:1] == steps[:1]:
            raise InputError(_("The installation ended, but what it should have installed is not there; see the log."))

    def describe(self, step: Step) -> str:
        """A step in the user's words, with its size."""
        if step is Step.PACKAGES:
            return _("Packages: {names}").format(names=", ".join(self._environment.missing_packages()))
        return {
            Step.EXTENSION: _("Slicer's PyTorch extension (small)"),
            Step.ENABLE: _("PyTorch is installed but disabled: enable it here or in the Extensions Manager"),
            Step.RESTART: _("Restart of Slicer (your scene is not kept: save it first)"),
            Step.TORCH: _("PyTorch (0.2 GB, with a graphics card about 3 GB; takes minutes)"),
        }[step]


class SlicerEnvironment:
    """Slicer's own Python.

    Parameters
    ----------
    requirements
        The module's requirements.txt.
    """

    def __init__(self, requirements: Path | str) -> None:
        self._requirements = Path(requirements)
        self._explains = False

    def has_torch(self) -> bool:
        importlib.invalidate_caches()
        return bool(slicer.packaging.pip_check(f"torch{TORCH}"))

    def has_torch_installer(self) -> bool:
        return hasattr(slicer.modules, "pytorchutils")

    def awaits_restart(self) -> bool:
        model = _extensions()
        return model is not None and bool(model.isExtensionInstalled(EXTENSION)) and not self.has_torch_installer()

    def is_disabled(self) -> bool:
        return self.awaits_restart() and not _extensions().isExtensionEnabled(EXTENSION)

    def want_explanations(self, wanted: bool) -> None:
        self._explains = wanted

    def missing_packages(self) -> list[str]:
        return [str(requirement) for requirement in self._needed() if not slicer.packaging.pip_check(requirement)]

    def _needed(self) -> list[Any]:
        files = [self._requirements, *([self._requirements.with_name(OF_EXPLANATIONS)] if self._explains else [])]
        return [requirement for file in files for requirement in slicer.packaging.load_requirements(file)]

    def install_extension(self) -> None:
        model = _extensions()
        if model is None:
            raise InputError(
                _("This Slicer was built without an extensions manager; run “slicer-anomaly doctor” for another way.")
            )
        asks, model.interactive = model.interactive, False  # no second window about dependencies
        try:
            fetched = model.installExtensionFromServer(EXTENSION, False)
        finally:
            model.interactive = asks
        if not fetched:
            raise InputError(
                _("The PyTorch extension could not be fetched; install it in the Extensions Manager, and try again.")
            )

    def enable_extension(self) -> None:
        _extensions().setExtensionEnabled(EXTENSION, True)
        if self.is_disabled():  # Slicer refuses one that was made for another version
            raise InputError(
                _("PyTorch is installed but disabled, and cannot be enabled here: look into the Extensions Manager.")
            )

    def restart(self) -> None:
        slicer.util.restart()

    def install_torch(self) -> None:
        import PyTorchUtils  # the extension's module, there when `has_torch_installer` says so

        with keeping_slicers_packages():
            PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=True, torchVersionRequirement=TORCH)
        if not self.has_torch():
            raise InputError(_("PyTorch was not installed."))

    def install_packages(self) -> None:
        with keeping_slicers_packages() as constraints:
            slicer.packaging.pip_ensure(self._needed(), constraints=constraints, requester=REQUESTER)
        importlib.invalidate_caches()
        if missing := self.missing_packages():  # in testing mode `pip_ensure` installs nothing, and is silent about it
            raise InputError(_("Not installed: {names}.").format(names=", ".join(missing)))


@contextmanager
def keeping_slicers_packages() -> Iterator[Path]:
    """Let no pip that runs meanwhile replace `KEPT`: a file of constraints, which pip also finds by PIP_CONSTRAINT."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "constraints.txt"
        file.write_text("".join(f"{line}\n" for line in _kept_versions()), encoding="utf-8")
        before = os.environ.get("PIP_CONSTRAINT")
        # By its address, in which a space is written otherwise: pip splits the variable at every one.
        os.environ["PIP_CONSTRAINT"] = " ".join(filter(None, (before, file.as_uri())))
        try:
            yield file
        finally:
            if before is None:
                del os.environ["PIP_CONSTRAINT"]
            else:
                os.environ["PIP_CONSTRAINT"] = before


def _kept_versions() -> list[str]:
    kept = []
    for name in KEPT:
        try:
            kept.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return kept


def _extensions() -> Any:
    """Slicer's model of extensions; None in a Slicer that was built without."""
    getter = getattr(slicer.app, "extensionsManagerModel", None)
    return getter() if getter is not None else None
