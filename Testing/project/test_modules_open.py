"""Both Slicer modules under the harness: they open, say what they do, and reload with their library."""

from __future__ import annotations

import ast
import os
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from project.cmake_lists import CHECKOUT, MODULES

import harness

CONTROLS = ("PushButton", "ToolButton", "ComboBox", "CheckBox", "SliderWidget", "LineEdit", "TableWidget")
STAND_INS = CHECKOUT / "Testing" / "harness" / "slicer_python"
SLICER_CATEGORIES = {"Informatics", "Registration", "Segmentation", "Quantification", "Diffusion", "IGT", "Filtering"}


def open_module(name: str) -> Any:
    return harness.open_module(str(CHECKOUT / name / f"{name}.py"))


def test_training_opens_and_says_in_a_line_each_what_it_does_and_what_is_to_come() -> None:
    widget = open_module("AnomalyTraining")
    texts = [label.text for label in (widget.ui.purposeLabel, widget.ui.outlookLabel)]
    assert all(text.endswith(".") and 20 < len(text) < 130 for text in texts), texts
    assert "still to come" in texts[1]


@pytest.mark.parametrize("name", MODULES)
def test_a_panel_fits_the_narrow_column_beside_the_views(name: str) -> None:
    panel = open_module(name).panel
    assert panel.minimumSizeHint().width() <= 310


@pytest.mark.parametrize("name", MODULES)
def test_a_module_describes_itself_in_a_category_of_slicer(name: str) -> None:
    import slicer

    open_module(name)
    module = slicer.app.moduleManager().module(name)
    assert set(module.categories) <= SLICER_CATEGORIES and module.categories
    assert module.title and module.contributors and not module.icon.isNull()
    assert "not a medical device" in module.helpText


def test_training_is_loaded_after_the_module_that_it_builds_on() -> None:
    import slicer

    open_module("AnomalyTraining")
    assert slicer.app.moduleManager().module("AnomalyTraining").dependencies == ["AnomalyDetection"]


@pytest.mark.parametrize("name", MODULES)
def test_a_panel_explains_every_control_and_hands_the_scene_to_every_mrml_widget(name: str) -> None:
    tree = ElementTree.parse(CHECKOUT / name / "Resources" / "UI" / f"{name}.ui")
    top = tree.getroot().find("widget")
    assert top is not None and top.get("class") == "qMRMLWidget" and top.get("name") == name
    widgets = [widget for widget in top.iter("widget") if widget is not top]
    controls = [widget for widget in widgets if str(widget.get("class")).endswith(CONTROLS)]
    assert [w.get("name") for w in controls if w.find("property[@name='toolTip']") is None] == []
    told = {
        connection.findtext("receiver")
        for connection in tree.iter("connection")
        if connection.findtext("sender") == name
        and connection.findtext("signal") == "mrmlSceneChanged(vtkMRMLScene*)"
        and connection.findtext("slot") == "setMRMLScene(vtkMRMLScene*)"
    }
    assert {widget.get("name") for widget in widgets if str(widget.get("class")).startswith("qMRML")} <= told


def test_reloading_a_module_reads_its_library_again_and_rebuilds_the_panel() -> None:
    widget = open_module("AnomalyDetection")
    old_library, old_panel = sys.modules["AnomalyDetectionLib"], widget.panel
    kept = {name: module for name, module in sys.modules.items() if name.startswith("AnomalyDetectionLib")}
    try:
        widget.onReload()
        import slicer

        assert sys.modules["AnomalyDetectionLib"] is not old_library
        rebuilt = slicer.util.getModuleWidget("AnomalyDetection")
        assert rebuilt is not widget and rebuilt.panel is not old_panel
        assert rebuilt.ui.scoreButton.text == widget.ui.scoreButton.text == "Score"
    finally:
        for name in [name for name in sys.modules if name.startswith("AnomalyDetectionLib")]:
            del sys.modules[name]
        sys.modules.update(kept)  # other tests hold classes of the library as it was imported first


def test_forgetting_a_library_leaves_others_with_a_longer_name_alone() -> None:
    from AnomalyDetectionLib.slicer_ui.common.reloading import forget_library

    for name in ("forgettable", "forgettable.part", "forgettable_but_not_this"):
        sys.modules[name] = type(sys)(name)
    assert forget_library("forgettable") == ["forgettable", "forgettable.part"]
    assert sys.modules.pop("forgettable_but_not_this")


def test_the_icons_are_square_and_of_the_size_that_slicer_shows() -> None:
    icons = [CHECKOUT / name / "Resources" / "Icons" / f"{name}.png" for name in MODULES]
    for path in [*icons, CHECKOUT / "Resources" / "Icons" / "AnomalyDetection.png"]:
        with Image.open(path) as icon:
            assert icon.size == (128, 128) and icon.mode == "RGBA"


def test_the_stand_ins_offer_nothing_that_slicers_own_files_do_not() -> None:
    folder = os.environ.get("SLICER_PYTHON_DIR")
    if not folder:
        pytest.skip("SLICER_PYTHON_DIR is not set: Slicer's own ScriptedLoadableModule.py is not at hand")
    own, real = classes_in(STAND_INS), classes_in(Path(folder))
    assert set(own) <= set(real)
    private = {"new_parent", "foundParameterNode"}
    for name, members in own.items():
        assert members - private <= real[name], name


def classes_in(folder: Path) -> dict[str, set[str]]:
    """The methods of each class of a folder's ScriptedLoadableModule.py."""
    source = ast.parse((folder / "ScriptedLoadableModule.py").read_text(encoding="utf-8"))
    classes = [node for node in source.body if isinstance(node, ast.ClassDef)]
    return {node.name: {child.name for child in node.body if hasattr(child, "name")} for node in classes}
