"""`slicer.app`, and the names that the application adds to the module `slicer`."""

from __future__ import annotations

import os
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import slicer
import slicer.util
from PySide6 import QtCore, QtWidgets

from AnomalyDetectionLib.slicer_ui.offscreen import hierarchy, scene

from . import dicom, pythonqt, widgets
from .files import CoreIOManager
from .modules import LoadableModule, Module, ModuleManager, ModulePanel
from .ui_files import UiLoader
from .views import LayoutManager
from .window import MainWindow

#: Slicer's own Python files are used from the folder that SLICER_PYTHON_DIR names, otherwise the stand-ins from here.
STAND_INS = Path(__file__).parent / "slicer_python"
PYTHON_FILES = ("i18n", "ScriptedLoadableModule", "parameterNodeWrapper", "packaging")


class Application(QtWidgets.QApplication):
    """Slicer's application (qSlicerApplication) around the real scene, always in testing mode."""

    startupCompleted = QtCore.Signal()

    def __init__(self) -> None:
        super().__init__(["Slicer"])
        self._folder = tempfile.TemporaryDirectory(prefix="Slicer-")
        self.setOrganizationName("Slicer")
        self.setApplicationName("Slicer")
        QtCore.QSettings.setDefaultFormat(QtCore.QSettings.Format.IniFormat)
        QtCore.QSettings.setPath(QtCore.QSettings.Format.IniFormat, QtCore.QSettings.Scope.UserScope, self._folder.name)
        self._settings = QtCore.QSettings()
        self._manager = ModuleManager()

    def make_scene(self) -> None:
        """Give the application its scene, logics, views and window."""
        self._scene, self._logic = scene.make_scene(Path(self._folder.name))
        self._module_logics = scene.make_module_logics(self._scene, self._logic)
        hierarchy.keep_up_to_date(self._scene)
        self._io_manager = CoreIOManager(self._scene, self._logic)

    def make_views(self) -> None:
        self._layout_manager = LayoutManager(self._scene, self._logic)
        self._window = MainWindow(self._layout_manager.viewport())

    def mrmlScene(self) -> Any:
        return self._scene

    def applicationLogic(self) -> Any:
        return self._logic

    def layoutManager(self) -> LayoutManager:
        return self._layout_manager

    def coreIOManager(self) -> CoreIOManager:
        return self._io_manager

    def moduleManager(self) -> ModuleManager:
        return self._manager

    def mainWindow(self) -> MainWindow:
        return self._window

    def testingEnabled(self) -> bool:
        return True

    def userSettings(self) -> QtCore.QSettings:
        return self._settings

    settings = revisionUserSettings = userSettings

    def moduleDocumentationUrl(self, module: str) -> str:
        return f"{self.documentationBaseUrl}user_guide/modules/{module.lower()}.html"

    def unload_modules(self) -> None:
        """What quitting does: everything that wants to know is told, then every scripted module is taken away."""
        self.aboutToQuit.emit()
        for module in list(vars(slicer.modules).values()):
            if isinstance(module, Module):
                self._manager.unload(module.name)

    def pauseRender(self) -> None:
        """Views render when they are asked to; nothing is to be paused."""

    def resumeRender(self) -> None:
        """The end of `pauseRender`."""

    def startupEnvironment(self) -> dict[str, str]:
        return dict(os.environ)

    @QtCore.Property(str)
    def documentationBaseUrl(self) -> str:
        return "https://slicer.readthedocs.io/en/latest/"

    @QtCore.Property(str)
    def temporaryPath(self) -> str:
        return self._folder.name

    @QtCore.Property(str)
    def slicerHome(self) -> str:
        return str(Path(sys.prefix))


def start() -> None:
    """Put everything where Slicer's Python code looks for it."""
    if hasattr(slicer, "mrmlScene"):
        return
    qt = pythonqt.make_qt()
    vars(qt)["QUiLoader"] = UiLoader
    sys.modules["qt"] = qt
    sys.modules["ctk"] = types.ModuleType("ctk")
    for name, cls in widgets.all_classes().items():
        setattr(slicer if name.startswith("q") else sys.modules["ctk"], name, cls)
    slicer.app = slicer.util.app = application = Application()
    application.make_scene()
    slicer.mrmlScene = application.mrmlScene()
    slicer.modules = sys.modules["slicer.modules"] = types.ModuleType("slicer.modules")
    slicer.moduleNames = types.ModuleType("slicer.moduleNames")
    for name, logic in application._module_logics.items():
        setattr(slicer.modules, name.lower(), LoadableModule(name, logic))
        setattr(slicer.moduleNames, name, name)
    application.make_views()
    dicom.provide(Path(str(application.temporaryPath)) / "DICOM")
    slicer.qSlicerScriptedLoadableModuleWidget = ModulePanel
    provide_python_files()


def provide_python_files() -> None:
    """`slicer.i18n`, `slicer.ScriptedLoadableModule` and so on: Slicer's own where at hand, else the stand-ins."""
    slicer.__path__.append(os.environ.get("SLICER_PYTHON_DIR") or str(STAND_INS))
    for name in PYTHON_FILES:
        setattr(slicer, name, __import__(f"slicer.{name}", fromlist=[name]))
