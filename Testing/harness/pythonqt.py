"""PySide6 with the manners that PythonQt gives Qt inside Slicer, as far as the modules' panels need them.

In PythonQt a Qt property is an attribute (`label.text`, `label.text = "…"`), not a method, and every QObject's
`objectName` is also called `name`.
"""

from __future__ import annotations

import os
import tempfile
import types
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

MODULES = (QtCore, QtGui, QtWidgets, QtUiTools)
#: Left as methods: QTimer's property hides a static method of the same name, and the size hints are virtual methods
#: that Qt calls on classes written in Python, where an attribute would end in itself.
METHODS = {"singleShot", "sizeHint", "minimumSizeHint"}


def make_qt() -> types.ModuleType:
    """The module `qt`, and an application for it to run in with settings of its own."""
    for owner in classes_of(*MODULES):
        turn_properties_into_attributes(owner)
    setattr(QtCore.QObject, "name", as_attribute("objectName", writable=True))  # noqa: B010 (no attribute of PySide6)
    qt = types.ModuleType("qt")
    for module in MODULES:
        vars(qt).update({name: getattr(module, name) for name in dir(module) if not name.startswith("_")})
    start_application()
    return qt


def start_application() -> None:
    application = QtWidgets.QApplication.instance() or QtWidgets.QApplication([])
    folder = tempfile.TemporaryDirectory()
    vars(application)["_settings_folder"] = folder  # removed when the application goes
    QtCore.QSettings.setDefaultFormat(QtCore.QSettings.Format.IniFormat)
    QtCore.QSettings.setPath(QtCore.QSettings.Format.IniFormat, QtCore.QSettings.Scope.UserScope, folder.name)
    QtCore.QCoreApplication.setOrganizationName("Slicer")
    QtCore.QCoreApplication.setApplicationName("Slicer")


def classes_of(*modules: types.ModuleType) -> list[type]:
    """Every QObject class of the given PySide6 modules (which make them only when asked for)."""
    found = [getattr(module, name) for module in modules for name in dir(module)]
    return [cls for cls in found if isinstance(cls, type) and issubclass(cls, QtCore.QObject)]


def turn_properties_into_attributes(owner: type) -> None:
    """Replace the getter methods of a class's own Qt properties by Python properties."""
    meta: QtCore.QMetaObject = owner.staticMetaObject  # type: ignore[attr-defined]
    for index in range(meta.propertyOffset(), meta.propertyCount()):
        name = str(meta.property(index).name())
        if name not in METHODS:
            setattr(owner, name, as_attribute(name, meta.property(index).isWritable()))


READ, WRITE = QtCore.QObject.property, QtCore.QObject.setProperty


def as_attribute(name: str, writable: bool) -> property:
    def write(self: QtCore.QObject, value: Any) -> None:
        if not WRITE(self, name, value):
            raise ValueError(f"Property {name!r} does not accept {value!r}")

    return property(lambda self: READ(self, name), write if writable else None)
