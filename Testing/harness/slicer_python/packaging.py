"""Stand-in for Slicer's `slicer.packaging`: requirements of a module, whether they are met, and how they would be.

As in Slicer, `pip_ensure` installs nothing in testing mode unless it is told to, and says so in the log only.
"""

from __future__ import annotations

import importlib.metadata
import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import slicer
from packaging.requirements import Requirement

Requirements = str | Requirement | Sequence[str | Requirement]


def load_requirements(path: str | Path) -> list[Requirement]:
    """The requirements in a file, without comments and pip's options."""
    lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]


def to_requirements(requirements: Requirements) -> list[Requirement]:
    """A list, from text separated by spaces, one requirement, or a list of either."""
    if isinstance(requirements, Requirement):
        return [requirements]
    parts = requirements.split() if isinstance(requirements, str) else requirements
    return [part if isinstance(part, Requirement) else Requirement(part) for part in parts]


def pip_check(req: Requirements) -> bool:
    """Whether packages are installed in acceptable versions; a marker that does not apply counts as met."""
    return all(is_met(requirement) for requirement in to_requirements(req))


def is_met(requirement: Requirement) -> bool:
    if requirement.marker is not None and not requirement.marker.evaluate():
        return True
    try:
        return importlib.metadata.version(requirement.name) in requirement.specifier
    except importlib.metadata.PackageNotFoundError:
        return False


def pip_ensure(
    requirements: Requirements,
    constraints: str | Path | None = None,
    requester: str | None = None,
    skip_in_testing: bool = True,
    prompt_install: bool = True,
    **ignored: Any,
) -> None:
    """Install what is missing, after asking; in testing mode only with `skip_in_testing=False`.

    Raises
    ------
    RuntimeError
        If the user declines.
    """
    missing = [requirement for requirement in to_requirements(requirements) if not is_met(requirement)]
    if not missing:
        return
    if skip_in_testing and slicer.app.testingEnabled():
        logging.info(f"Testing mode is enabled: skipping pip_ensure for [{', '.join(map(str, missing))}]")
        return
    if prompt_install and not slicer.util.confirmOkCancelDisplay("Install Python packages?", requester or ""):
        raise RuntimeError("User declined package installation")
    pip_install(missing, constraints)


def pip_install(requirements: Requirements, constraints: str | Path | None = None, **ignored: Any) -> None:
    """Run pip.

    Raises
    ------
    subprocess.CalledProcessError
        If it fails.
    """
    options = ["-c", str(constraints)] if constraints else []
    wanted = [str(requirement) for requirement in to_requirements(requirements)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *wanted], check=True)
