"""Names and return values that PythonQt and PySide6 have differently."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

FILE_DIALOGS = ("getOpenFileName", "getOpenFileNames", "getSaveFileName")
WITH_EVENT_LOOP = (QtWidgets.QDialog, QtWidgets.QMenu, QtCore.QEventLoop, QtGui.QDrag)


def give_pythonqt_names() -> None:
    """Adapt the classes of PySide6."""
    setattr(QtCore.QObject, "name", property(object_name, set_object_name))  # noqa: B010 (not in PySide6's types)
    setattr(QtCore.QObject, "className", lambda self: self.metaObject().className())  # noqa: B010
    for cls in WITH_EVENT_LOOP:
        setattr(cls, "exec_", executed(cls.exec))  # noqa: B010 (gone from some classes of PySide6)
    setattr(QtCore.QTimer, "singleShot", staticmethod(single_shot))  # noqa: B010
    for name in FILE_DIALOGS:
        setattr(QtWidgets.QFileDialog, name, staticmethod(without_filter(getattr(QtWidgets.QFileDialog, name))))


def object_name(self: QtCore.QObject) -> str:
    return str(self.property("objectName"))


def set_object_name(self: QtCore.QObject, name: str) -> None:
    self.setProperty("objectName", name)


def executed(method: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, *arguments: method(self, *arguments)


def single_shot(milliseconds: int, slot: Callable[[], Any]) -> None:
    """Call `slot` once; the timer lives in the application, so that it fires after its maker is gone."""
    timer = QtCore.QTimer(QtCore.QCoreApplication.instance())
    timer.setSingleShot(True)

    def fire() -> None:
        timer.deleteLater()
        slot()

    timer.timeout.connect(fire)
    timer.start(milliseconds)


def without_filter(method: Callable[..., tuple[Any, str]]) -> Callable[..., Any]:
    """PySide6 returns the chosen filter too, PythonQt the path alone."""
    return lambda *arguments: method(*arguments)[0]
