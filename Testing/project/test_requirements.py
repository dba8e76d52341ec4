"""The locked versions: exact, complete for the tests and the quickstart, and within the project's own ranges."""

from __future__ import annotations

import importlib.metadata
import re
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from project.cmake_lists import CHECKOUT

PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LINES = [
    line
    for line in (CHECKOUT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
LOCKED = {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, LINES)}
INSTALLED_EXTRAS = ("train", "demo", "explain", "features", "test")


def locked_version(name: str) -> Version:
    (exact,) = LOCKED[canonicalize_name(name)].specifier
    return Version(exact.version)


def test_every_locked_version_is_exact_and_named_once_without_an_address() -> None:
    assert len(LOCKED) == len(LINES)
    for line in LINES:
        assert re.fullmatch(r'[\w.-]+==[\w.]+( ; python_version < "3\.12")?', line), line
    assert "://" not in (CHECKOUT / "requirements.lock").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "version"), [("torch", "2.13.0"), ("slicer-core", "5.13.31053.0"), ("PySide6-Essentials", "6.11.1")]
)
def test_the_versions_that_are_known_to_work_together_are_locked(name: str, version: str) -> None:
    assert locked_version(name) == Version(version)


def test_the_project_has_the_extras_that_its_documentation_names() -> None:
    assert set(PROJECT["optional-dependencies"]) == {
        *("train", "test", "service", "interop", "demo", "explain", "features")
    }


@pytest.mark.parametrize("extra", [None, *INSTALLED_EXTRAS])
def test_what_the_tests_and_the_quickstart_install_is_locked_within_its_range(extra: str | None) -> None:
    wanted = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(locked_version(requirement.name)), str(requirement)


def test_the_lock_holds_everything_that_is_needed_in_turn() -> None:
    pending = list(map(Requirement, PROJECT["dependencies"]))
    for extra in INSTALLED_EXTRAS:
        pending += map(Requirement, PROJECT["optional-dependencies"][extra])
    seen: set[tuple[str, str]] = set()
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        assert name in LOCKED, f"{name} is missing from requirements.lock"
        if name == "torch":  # its own needs differ between the build for the CPU and those for graphics cards
            continue
        for extra in requirement.extras or {""}:
            if (name, extra) not in seen:
                seen.add((name, extra))
                pending += needs_of(name, extra)


def needs_of(name: str, extra: str) -> list[Requirement]:
    needs = map(Requirement, importlib.metadata.requires(name) or [])
    return [need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})]


def test_these_tests_run_with_the_locked_versions() -> None:
    differing = {
        name: importlib.metadata.version(name)
        for name, requirement in LOCKED.items()
        if requirement.marker is None or requirement.marker.evaluate()
        if Version(importlib.metadata.version(name).partition("+")[0]) != locked_version(name)
    }
    assert not differing
    assert sys.version_info >= (3, 11)
