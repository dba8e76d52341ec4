"""PySide6 with the manners that PythonQt gives Qt inside Slicer, as far as modules' panels show them.

What differs, and which file mends it: Qt properties are attributes (`properties`); signals are connected by their
written signature and slots get no more arguments than they take (`signals`); a C++ widget takes no new attributes
(`attributes`); and some names and return values differ (`names`).  `make_qt` does it all, once.
"""

from __future__ import annotations

import types

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

from . import attributes, names, properties, signals

MODULES = (QtCore, QtGui, QtWidgets, QtUiTools)


def make_qt() -> types.ModuleType:
    """The module `qt`; from then on all of PySide6 has PythonQt's manners in this process."""
    classes = classes_of(*MODULES)
    for owner in classes:
        properties.turn_into_attributes(owner)
    attributes.refuse_new_ones(classes)
    signals.connect_by_signature(classes)
    qt = types.ModuleType("qt")
    for module in MODULES:
        vars(qt).update({name: getattr(module, name) for name in dir(module) if not name.startswith("_")})
    names.give_pythonqt_names()
    return qt


def classes_of(*modules: types.ModuleType) -> list[type]:
    """Every QObject class of the given PySide6 modules (which make them only when asked for)."""
    found = [getattr(module, name) for module in modules for name in dir(module)]
    return [cls for cls in found if isinstance(cls, type) and issubclass(cls, QtCore.QObject)]
