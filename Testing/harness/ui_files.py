"""Reading of .ui files, as Qt does it inside Slicer."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

from PySide6 import QtCore, QtUiTools, QtWidgets

from . import widgets
from .pythonqt import signals


class UiLoader(QtUiTools.QUiLoader):
    """A QUiLoader that knows the widgets of ctk and Slicer, and their signals and slots.

    Qt's own cannot make connections whose arguments are MRML types, so all of a file's connections are made here; and
    no other: a widget that the file does not connect to the scene has none.
    """

    def __init__(self, parent: QtCore.QObject | None = None) -> None:
        super().__init__(parent)
        for cls in widgets.WIDGETS:
            self.registerCustomWidget(cls)

    def load(self, device: QtCore.QIODevice, parent: QtWidgets.QWidget | None = None) -> Any:  # type: ignore[override]
        """The widget that an open .ui file describes."""
        tree = ElementTree.fromstring(device.readAll().data())
        connections = list(tree.iterfind("connections/connection"))
        for element in tree.findall("connections"):
            tree.remove(element)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(tree))
        buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        widget = super().load(buffer, parent)
        for connection in connections:
            self._connect(widget, connection)
        return widget

    def _connect(self, widget: QtWidgets.QWidget, connection: ElementTree.Element) -> None:
        sender, receiver = (self._find(widget, connection.findtext(end, "")) for end in ("sender", "receiver"))
        signal, slot = connection.findtext("signal", ""), connection.findtext("slot", "")
        if sender is None or receiver is None or not signals.connect(sender, signal, receiver, slot):
            print(f"QObject::connect: no such connection: {ElementTree.tostring(connection, 'unicode').strip()}")

    @staticmethod
    def _find(widget: QtWidgets.QWidget, name: str) -> QtCore.QObject | None:
        if widget.property("objectName") == name:
            return widget
        return widget.findChild(QtCore.QObject, name)
