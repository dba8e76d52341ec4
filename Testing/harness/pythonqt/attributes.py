"""A C++ object of Qt takes no new attributes in PythonQt; its dynamic properties are attributes."""

from __future__ import annotations

import inspect
from typing import Any

from PySide6 import QtCore

#: Classes whose objects are C++ objects in Slicer: Qt's own, and those that this package writes in Python for ctk's
#: and Slicer's, which keep their own state in names that begin with an underscore.
CPP_PACKAGES = ("PySide6", __name__.partition(".")[0])


def refuse_new_ones(classes: list[type]) -> None:
    """Make assignments to unknown attributes of C++ objects an AttributeError, as PythonQt does."""
    own_write: Any = QtCore.QObject.__mro__[1].__setattr__  # that of Shiboken.Object: QObject has none of its own

    def write(self: QtCore.QObject, name: str, value: Any) -> None:
        declared = inspect.getattr_static(type(self), name, None)
        if isinstance(declared, QtCore.Property):
            declared.fset(self, value)
        elif not hasattr(type(self), name) and is_cpp(type(self)) and not name.startswith("_"):
            if name not in dynamic_properties(self):
                raise AttributeError(
                    f"Attribute '{name}' does not exist and creation of new attributes on C++ objects is not allowed"
                )
            self.setProperty(name, value)
        else:
            own_write(self, name, value)

    def read(self: QtCore.QObject, name: str) -> Any:
        if not name.startswith("_") and name in dynamic_properties(self):
            return self.property(name)
        raise AttributeError(f"{type(self).__name__} has no attribute named '{name}'")

    setattr(QtCore.QObject, "__getattr__", read)  # noqa: B010 (no attribute of PySide6's declared class)
    for cls in {QtCore.QObject, *(cls for cls in classes if "__setattr__" in vars(cls))}:
        setattr(cls, "__setattr__", write)  # noqa: B010


def is_cpp(cls: type) -> bool:
    """Whether objects of `cls` are C++ objects in Slicer (and not of a class that a module wrote in Python)."""
    return cls.__module__.partition(".")[0] in CPP_PACKAGES


def dynamic_properties(self: QtCore.QObject) -> list[str]:
    return [bytes(name.data()).decode() for name in self.dynamicPropertyNames()]
