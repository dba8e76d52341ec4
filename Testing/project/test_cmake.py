"""What CMake reads: the extension's description, and the list of every file that an installed extension holds."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from project import cmake_lists
from project.cmake_lists import CHECKOUT, MODULES, RESOURCES, SCRIPTS

EXTENSION = (CHECKOUT / "CMakeLists.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("variable", [SCRIPTS, RESOURCES])
def test_every_file_of_a_module_is_listed_and_every_listed_file_is_there(module: str, variable: str) -> None:
    listed, present = cmake_lists.listed(module, variable), cmake_lists.present(module, variable)
    missing, vanished = sorted(set(present) - set(listed)), sorted(set(listed) - set(present))
    assert not missing and not vanished, (
        f"{module}/CMakeLists.txt, {variable}: not listed {missing}; listed but not there {vanished}. "
        "`python Testing/project/cmake_lists.py` mends it."
    )
    assert len(listed) == len(set(listed))


def test_refreshing_the_lists_adds_new_files_drops_vanished_ones_and_keeps_the_rest(tmp_path: Path) -> None:
    module = "AnomalyTraining"
    shutil.copytree(CHECKOUT / module, tmp_path / module)
    (tmp_path / module / f"{module}.py").unlink()
    (tmp_path / module / f"{module}Lib" / "added.py").touch()
    (tmp_path / module / f"{module}Lib" / "recipes" / "added.yaml").touch()
    before = (tmp_path / module / "CMakeLists.txt").read_text(encoding="utf-8")
    cmake_lists.refresh(module, tmp_path)
    after = (tmp_path / module / "CMakeLists.txt").read_text(encoding="utf-8")
    assert set(cmake_lists.listed(module, SCRIPTS, tmp_path)) ^ set(cmake_lists.present(module, SCRIPTS)) == {
        f"{module}.py",
        f"{module}Lib/added.py",
    }
    assert f"{module}Lib/recipes/added.yaml" in cmake_lists.listed(module, RESOURCES, tmp_path)
    assert before.partition("set(MODULE_PYTHON_SCRIPTS")[0] == after.partition("set(MODULE_PYTHON_SCRIPTS")[0]
    assert before.partition("slicerMacroBuild")[2] == after.partition("slicerMacroBuild")[2]


@pytest.mark.parametrize(
    "variable", ["HOMEPAGE", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS"]
)
def test_the_extension_is_described_by_literal_one_line_values(variable: str) -> None:
    values = re.findall(rf'^set\(EXTENSION_{variable} "([^"$\n]+)"\)$', EXTENSION, re.MULTILINE)
    assert len(values) == 1


def test_the_extension_depends_on_the_one_that_installs_torch() -> None:
    assert 'set(EXTENSION_DEPENDS "PyTorch")' in EXTENSION


def test_the_extension_has_a_name_that_the_index_accepts_and_asks_for_the_cmake_of_slicer() -> None:
    project = re.search(r"^project\((\w+)\)$", EXTENSION, re.MULTILINE)
    assert project is not None and not project[1].lower().startswith("slicer")
    assert EXTENSION.startswith("cmake_minimum_required(VERSION 3.28.0...3.28.0 FATAL_ERROR)\n")


def test_both_modules_are_part_of_the_extension() -> None:
    assert tuple(re.findall(r"^add_subdirectory\((\w+)\)$", EXTENSION, re.MULTILINE)) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_built_with_slicers_generic_tests_and_its_own(module: str) -> None:
    text = (CHECKOUT / module / "CMakeLists.txt").read_text(encoding="utf-8")
    build = text.partition("slicerMacroBuildScriptedModule(")[2].partition(")\n")[0].split()
    expected = ["NAME", "${MODULE_NAME}", "SCRIPTS", f"${{{SCRIPTS}}}", "RESOURCES", f"${{{RESOURCES}}}"]
    assert build == [*expected, "WITH_GENERIC_TESTS"]
    testing = text.partition("if(BUILD_TESTING)")[2]
    assert "slicer_add_python_unittest(SCRIPT ${MODULE_NAME}.py)" in testing


@pytest.mark.parametrize("module", MODULES)
def test_every_test_that_slicer_runs_is_registered_from_its_own_folder(module: str) -> None:
    folder = CHECKOUT / module / "Testing" / "Python"
    registered = re.findall(r"slicer_add_python_unittest\(SCRIPT (\S+)\)", (folder / "CMakeLists.txt").read_text())
    assert registered and sorted(registered) == sorted(path.name for path in folder.glob("*.py"))
