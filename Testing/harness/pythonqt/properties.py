"""Qt properties as attributes: `label.text`, not `label.text()`, and `label.text = 3` converts as PythonQt does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PySide6 import QtCore

#: Left as methods: QTimer's property hides a static method of the same name, and the size hints are virtual methods
#: that Qt calls on classes written in Python, where an attribute would end in itself.
METHODS = {"singleShot", "sizeHint", "minimumSizeHint"}

READ, WRITE = QtCore.QObject.property, QtCore.QObject.setProperty


def as_text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


#: What PythonQt makes of a value that is not of the property's type (PythonQtConv::PyObjToQVariant, not strict).
CONVERSIONS: dict[str, Callable[[Any], Any]] = {"int": int, "double": float, "bool": bool, "QString": as_text}


def turn_into_attributes(owner: type) -> None:
    """Replace the getter methods of a class's own Qt properties by Python properties."""
    meta: QtCore.QMetaObject = owner.staticMetaObject  # type: ignore[attr-defined]
    for index in range(meta.propertyOffset(), meta.propertyCount()):
        described = meta.property(index)
        name = str(described.name())
        if name not in METHODS:
            setattr(owner, name, as_attribute(name, str(described.typeName()), described.isWritable()))


def as_attribute(name: str, kind: str, writable: bool) -> property:
    """A Python property that reads and writes the Qt property `name`."""

    def write(self: QtCore.QObject, value: Any) -> None:
        if not WRITE(self, name, converted(value, kind)):
            raise ValueError(f"Property {name!r} of type {kind!r} does not accept an object of type {type(value)!r}")

    return property(lambda self: READ(self, name), write if writable else None)


def converted(value: Any, kind: str) -> Any:
    """`value` as the type `kind`, where PythonQt converts to it; a value that cannot be converted stays as it is."""
    try:
        return CONVERSIONS[kind](value) if kind in CONVERSIONS else value
    except (TypeError, ValueError):
        return value
