"""The module `slicer` as far as showing results needs it, made of `slicer-core` alone: no Qt, no window, no display."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import slicer

from . import hierarchy, scene

VIEW_PIXELS = 400
"""Width and height for which slices are fitted; Slicer fits them anew to its windows."""


def start(home: Path) -> Any:
    """Make an empty scene with the views of Slicer's four-up layout, and put it where the module's code looks for it.

    To be called once, in a process that has no other scene.

    Parameters
    ----------
    home
        An empty folder for temporary files, which must outlive the scene.

    Returns
    -------
    `slicer.mrmlScene`.

    Raises
    ------
    RuntimeError
        If the process has a scene already.
    """
    if hasattr(slicer, "mrmlScene"):
        raise RuntimeError("this process has a scene of Slicer's already")
    _provide_translation()
    made, logic = scene.make_scene(home)
    slicer.mrmlScene = made
    slicer.app = types.SimpleNamespace(applicationLogic=lambda: logic)
    slicer.modules = types.ModuleType("slicer.modules")
    for name, module_logic in scene.make_module_logics(made, logic).items():
        setattr(slicer.modules, name.lower(), _Module(module_logic))
    hierarchy.keep_up_to_date(made)
    _make_views(made, logic)
    return made


class _Module:
    """One of Slicer's own modules: its logic, without a panel."""

    def __init__(self, logic: Any) -> None:
        self._logic = logic

    def logic(self) -> Any:
        return self._logic


def _provide_translation() -> None:
    """`slicer.i18n`, which is part of the application: no language but the source's."""
    module = types.ModuleType("slicer.i18n")
    vars(module).update(tr=lambda text: text, translate=lambda context, text: text)
    sys.modules["slicer.i18n"] = module
    slicer.i18n = module


def _make_views(made: Any, application_logic: Any) -> None:
    """Slicer's own layout logic makes the nodes of the views; each slice gets the logic that fits it to its volume."""
    layout = slicer.vtkMRMLLayoutLogic()
    layout.SetMRMLApplicationLogic(application_logic)
    layout.SetMRMLScene(made)
    layout.GetLayoutNode().SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    views = layout.GetViewNodes()
    for node in [views.GetItemAsObject(index) for index in range(views.GetNumberOfItems())]:
        if node.IsA("vtkMRMLSliceNode"):
            logic = slicer.vtkMRMLSliceLogic()
            logic.SetMRMLApplicationLogic(application_logic)
            logic.SetMRMLScene(made)
            logic.SetSliceNode(node)
            logic.ResizeSliceNode(VIEW_PIXELS, VIEW_PIXELS)
            application_logic.GetSliceLogics().AddItem(logic)
    scene.kept.append(layout)
