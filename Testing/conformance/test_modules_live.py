"""A module's life: it opens, is entered and left, reloads, and is cleaned up when it or the application goes."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import harness

CODE = """\
import slicer
from slicer.ScriptedLoadableModule import *
from slicer.util import VTKObservationMixin

LIVES = []

class Example(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = "An example"

class ExampleWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.heard = []

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, lambda *_: self.heard.append("close"))
        self.addObserver(scene, scene.EndCloseEvent, lambda *_: self.heard.append("closed"))

    def enter(self):
        self.heard.append("enter")

    def exit(self):
        self.heard.append("exit")

    def cleanup(self):
        self.heard.append("cleanup")
        self.removeObservers()

class ExampleLogic(ScriptedLoadableModuleLogic):
    pass

class ExampleTest(ScriptedLoadableModuleTest):
    def setUp(self):
        slicer.mrmlScene.Clear()

    def test_nothing_is_in_an_empty_scene(self):
        LIVES.append(slicer.util.getNodesByClass("vtkMRMLVolumeNode"))
"""


@pytest.fixture
def widget(scene: Any, tmp_path: Path) -> Iterator[Any]:
    """The panel of a module that writes down what it is told."""
    import slicer

    (tmp_path / "Example.py").write_text(textwrap.dedent(CODE), encoding="utf-8")
    yield harness.open_module(str(tmp_path / "Example.py"))
    slicer.util.selectModule("Colors")
    if hasattr(slicer.modules, "example"):
        slicer.app.moduleManager().unload("Example")
    sys.path.remove(str(tmp_path))
    del sys.modules["Example"]


def test_selecting_a_module_enters_it_and_selecting_another_leaves_it(widget: Any) -> None:
    import slicer

    slicer.util.selectModule("Example")
    assert widget.parent.isEntered()
    slicer.util.selectModule("Colors")
    assert widget.heard == ["enter", "exit"]


def test_closing_the_scene_is_told_before_and_after(widget: Any) -> None:
    import slicer

    slicer.mrmlScene.Clear(0)
    assert widget.heard == ["close", "closed"]


def test_reloading_cleans_up_the_old_widget_once_and_makes_another(widget: Any) -> None:
    import slicer

    widget.onReload()
    new = slicer.util.getModuleWidget("Example")
    assert new is not widget and widget.heard == ["cleanup"] and new.heard == []
    slicer.app.moduleManager().unload("Example")
    assert widget.heard == ["cleanup"] and new.heard == ["cleanup"]


def test_quitting_leaves_the_open_module_and_cleans_it_up(widget: Any) -> None:
    import slicer

    slicer.util.selectModule("Example")
    tell = lambda: widget.heard.append("about to quit")  # noqa: E731 (PythonQt counts the arguments of functions)
    slicer.app.connect("aboutToQuit()", tell)
    try:
        slicer.app.unload_modules()
    finally:
        slicer.app.disconnect("aboutToQuit()", tell)
    assert widget.heard == ["enter", "about to quit", "exit", "cleanup"]
    assert not hasattr(slicer.modules, "example")


def test_a_modules_own_tests_are_run_by_its_test_button(widget: Any) -> None:
    import slicer

    slicer.selfTests["Example"](msec=0)
    assert sys.modules["Example"].LIVES == [[]]


def test_a_logic_keeps_one_parameter_node_per_module(widget: Any) -> None:
    import slicer

    logic = sys.modules["Example"].ExampleLogic()
    node = logic.getParameterNode()
    assert node.GetAttribute("ModuleName") == "Example"
    slicer.mrmlScene.Clear(0)
    assert logic.getParameterNode().GetAttribute("ModuleName") == "Example"


def test_the_parameter_node_of_a_saved_scene_takes_the_place_of_the_one_that_is_there(
    widget: Any, tmp_path: Path
) -> None:
    import slicer

    logic = sys.modules["Example"].ExampleLogic()
    logic.getParameterNode().SetParameter("threshold", "3")
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    assert logic.getParameterNode().GetParameter("threshold") == ""
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert logic.getParameterNode().GetParameter("threshold") == "3"
    assert len(logic.getAllParameterNodes()) == 1
