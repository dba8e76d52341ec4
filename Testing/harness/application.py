"""The application object, the module manager and the scene, around Slicer's own libraries."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
from PySide6 import QtCore, QtUiTools, QtWidgets

from . import pythonqt, scripted

MODULE_PROPERTIES = (
    "title",
    "categories",
    "dependencies",
    "contributors",
    "helpText",
    "acknowledgementText",
    "icon",
    "hidden",
)


class qMRMLWidget(QtWidgets.QWidget):
    """A widget that is told of the scene; what is inside it learns of the scene through the .ui file's connections."""

    mrmlSceneChanged = QtCore.Signal(object)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


class ModulePanel(qMRMLWidget):
    """What holds a scripted module's widget (qSlicerScriptedLoadableModuleWidget)."""

    def __init__(self, module: Module) -> None:
        super().__init__()
        self._module = module
        self._python: Any = None
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


class ModuleManager:
    """Knows the loaded modules; its signals are kept, as no module is ever unloaded here."""

    def __init__(self) -> None:
        self.connected: list[tuple[str, Callable[..., None]]] = []

    def module(self, name: str) -> Module | None:
        return getattr(slicer.modules, name.lower(), None)

    def connect(self, signal: str, slot: Callable[..., None]) -> None:
        self.connected.append((signal, slot))

    def disconnect(self, signal: str, slot: Callable[..., None]) -> None:
        self.connected.remove((signal, slot))


class Application:
    """The few members of `slicer.app` that opening a module reaches."""

    def __init__(self) -> None:
        self._manager = ModuleManager()

    def moduleManager(self) -> ModuleManager:
        return self._manager

    def userSettings(self) -> QtCore.QSettings:
        return QtCore.QSettings()

    def translate(self, context: str, text: str) -> str:
        return QtCore.QCoreApplication.translate(context, text)


class UiLoader(QtUiTools.QUiLoader):
    """Reads .ui files; knows Slicer's own widgets."""

    def __init__(self) -> None:
        super().__init__()
        self.registerCustomWidget(qMRMLWidget)


def start() -> None:
    """Put everything where Slicer's Python code looks for it."""
    if hasattr(slicer, "mrmlScene"):
        return
    qt = pythonqt.make_qt()
    vars(qt)["QUiLoader"] = UiLoader
    sys.modules["qt"] = qt
    sys.modules["ctk"] = types.ModuleType("ctk")
    slicer.mrmlScene = slicer.vtkMRMLScene()
    slicer.modules = types.ModuleType("slicer.modules")
    slicer.app = Application()
    slicer.qMRMLWidget = qMRMLWidget
    slicer.qSlicerScriptedLoadableModuleWidget = ModulePanel
    provide_python_files()


def provide_python_files() -> None:
    """`slicer.i18n` and `slicer.ScriptedLoadableModule`: Slicer's own where they are to be had, else stand-ins."""
    folder = os.environ.get("SLICER_PYTHON_DIR")
    if folder:
        slicer.__path__.append(folder)
        for name in ("i18n", "ScriptedLoadableModule"):
            importlib.import_module(f"slicer.{name}")
        return
    for module in scripted.stand_ins():
        sys.modules[module.__name__] = module
        setattr(slicer, module.__name__.rpartition(".")[2], module)


def load(path: str) -> Module:
    """Run a module's file and make its module object, as Slicer does when it starts."""
    file = Path(path).resolve()
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
