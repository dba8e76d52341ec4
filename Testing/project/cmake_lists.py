"""The file lists in the modules' CMakeLists.txt: what they name, what they should name, and how to refresh them.

    python Testing/project/cmake_lists.py

rewrites MODULE_PYTHON_SCRIPTS and MODULE_PYTHON_RESOURCES of both modules from the files that are there.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

CHECKOUT = Path(__file__).resolve().parents[2]
MODULES = ("AnomalyDetection", "AnomalyTraining")
SCRIPTS, RESOURCES = "MODULE_PYTHON_SCRIPTS", "MODULE_PYTHON_RESOURCES"
LEFT_BEHIND = {"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".DS_Store"}


def listed(module: str, variable: str, checkout: Path = CHECKOUT) -> list[str]:
    """What `set(variable …)` in a module's CMakeLists.txt names, relative to the module's folder."""
    text = (checkout / module / "CMakeLists.txt").read_text(encoding="utf-8")
    return [name.replace("${MODULE_NAME}", module) for name in block(text, variable)[1].split()]


def present(module: str, variable: str, checkout: Path = CHECKOUT) -> list[str]:
    """The files of a module's folder that belong into `variable`."""
    names = sorted(name for name in project_files(checkout, module) if PurePosixPath(name).name != "CMakeLists.txt")
    scripts = [name for name in names if name.endswith(".py")]
    if variable == SCRIPTS:
        return scripts
    installed = ("Resources/", f"{module}Lib/")
    return [name for name in names if name.startswith(installed) and name not in scripts]


def project_files(checkout: Path, folder: str) -> list[str]:
    """The files under `folder`, relative to it, without what tools leave behind."""
    root = checkout / folder
    paths = (path for path in root.rglob("*") if path.is_file())
    names = (path.relative_to(root).as_posix() for path in paths)
    return [name for name in names if not LEFT_BEHIND.intersection(PurePosixPath(name).parts)]


def block(text: str, variable: str) -> tuple[int, str, int]:
    """Where the value of `set(variable …)` starts in a CMake text, the value, and where its bracket is."""
    found = re.search(rf"set\({variable}\n(.*?)\s*\)", text, re.DOTALL)
    if found is None:
        raise ValueError(f"there is no set({variable} …)")
    return found.start(1), found[1], found.end() - 1


def refresh(module: str, checkout: Path = CHECKOUT) -> None:
    """Write both lists of a module anew."""
    path = checkout / module / "CMakeLists.txt"
    text = path.read_text(encoding="utf-8")
    for variable in (SCRIPTS, RESOURCES):
        start, _, end = block(text, variable)
        names = "".join(f"  {name}\n" for name in present(module, variable, checkout))
        text = f"{text[:start]}{names}  {text[end:]}"
    path.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    for name in MODULES:
        refresh(name)
