"""Modules, their panels and their manager: what opens, enters, leaves, reloads and unloads a scripted module."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import slicer
from PySide6 import QtCore, QtWidgets

from .widgets import qMRMLWidget

MODULE_PROPERTIES = (
    "title",
    "categories",
    "dependencies",
    "contributors",
    "helpText",
    "acknowledgementText",
    "icon",
    "hidden",
    "index",
    "widgetRepresentationCreationEnabled",
    "associatedNodeTypes",
)


class ModulePanel(qMRMLWidget):
    """What holds a scripted module's widget (qSlicerScriptedLoadableModuleWidget)."""

    def __init__(self, module: Module) -> None:
        super().__init__()
        self._module = module
        self._python: Any = None
        self._is_entered = False
        self.setLayout(QtWidgets.QVBoxLayout())
        self.setMRMLScene(slicer.mrmlScene)
        self.reload()

    def reload(self) -> None:
        """Make the module's widget from the code that is loaded now."""
        name = self._module.name
        self._python = getattr(sys.modules[name], f"{name}Widget")(self)
        setattr(slicer.modules, f"{name}Widget", self._python)
        self._python.setup()

    def self(self) -> Any:
        return self._python

    def enter(self) -> None:
        """The user comes to the module."""
        self._is_entered = True
        self._tell("enter")

    def exit(self) -> None:
        """The user leaves the module."""
        self._is_entered = False
        self._tell("exit")

    def isEntered(self) -> bool:
        return self._is_entered

    def setEditedNode(self, node: Any, role: str = "", context: str = "") -> bool:
        edit = getattr(self._python, "setEditedNode", None)
        return bool(edit(node, role, context)) if edit else False

    def _tell(self, what: str) -> None:
        method = getattr(self._python, what, None)
        if method is not None:
            method()


class Module:
    """What a module's own class is given as `parent` (qSlicerScriptedLoadableModule): it takes known names only."""

    __slots__ = (*MODULE_PROPERTIES, "_panel", "name", "path")

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.name = path.stem
        self._panel: ModulePanel | None = None

    def widgetRepresentation(self) -> ModulePanel:
        """The panel, made when it is first asked for."""
        if self._panel is None:
            self._panel = ModulePanel(self)
        return self._panel

    def isWidgetRepresentationCreated(self) -> bool:
        return self._panel is not None

    def logic(self) -> Any:
        """Scripted modules have no logic in C++ of their own."""
        return None


class LoadableModule:
    """One of Slicer's own modules: its logic, without a panel."""

    def __init__(self, name: str, logic: Any) -> None:
        self.name = self.title = name
        self.path = ""
        self._logic = logic

    def logic(self) -> Any:
        return self._logic


class ModuleManager(QtCore.QObject):
    """Finds modules, and unloads them when the application quits."""

    moduleLoaded = QtCore.Signal(str)
    moduleAboutToBeUnloaded = QtCore.Signal(str)
    moduleUnloaded = QtCore.Signal(str)

    def module(self, name: str) -> Any:
        return getattr(slicer.modules, name.lower(), None)

    def modulesNames(self) -> tuple[str, ...]:
        return tuple(module.name for module in vars(slicer.modules).values() if isinstance(module, KINDS))

    def load(self, path: str) -> Module:
        """Run a scripted module's file and make its module object, as Slicer does when it starts."""
        module = run(Path(path).resolve())
        self.moduleLoaded.emit(module.name)
        return module

    def unload(self, name: str) -> None:
        """Take a module away, as quitting does: its panel leaves, and its `cleanup` runs."""
        module = self.module(name)
        if module.isWidgetRepresentationCreated() and module.widgetRepresentation().isEntered():
            module.widgetRepresentation().exit()
        self.moduleAboutToBeUnloaded.emit(name)
        delattr(slicer.modules, name.lower())
        self.moduleUnloaded.emit(name)


KINDS = (Module, LoadableModule)


def run(file: Path) -> Module:
    """Execute a scripted module's file and instantiate its module class."""
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python file")
    code = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = code
    spec.loader.exec_module(code)
    module = Module(file)
    setattr(slicer.modules, file.stem.lower(), module)
    setattr(slicer.modules, f"{file.stem}Instance", getattr(code, file.stem)(module))
    return module
