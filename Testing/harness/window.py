"""The main window: the selector of modules with the panel of the one that is open, beside the views."""

from __future__ import annotations

from typing import Any

import slicer
from PySide6 import QtCore, QtWidgets

#: The width of the column of panels in pixels, as it is beside the views of a window 1050 pixels wide.
PANEL_WIDTH = 310


class ModuleSelector(QtWidgets.QWidget):
    """Says which module is open; selecting another leaves one panel and enters the other."""

    moduleSelected = QtCore.Signal(str)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._selected = ""

    @QtCore.Property(str)
    def selectedModule(self) -> str:
        return self._selected

    def selectModule(self, name: str) -> None:
        if name != self._selected:
            self._selected = name
            self.moduleSelected.emit(name)


class MainWindow(QtWidgets.QMainWindow):
    """Slicer's main window, as far as code and pictures need it; it is shown only by who wants to see it."""

    def __init__(self, viewport: QtWidgets.QWidget) -> None:
        super().__init__()
        self.setObjectName("qSlicerMainWindow")
        self._selector = ModuleSelector(self)
        self._selector.moduleSelected.connect(self._open)
        self._selector.hide()
        self._open_panel: Any = None
        self._scroll = QtWidgets.QScrollArea()
        self._scroll.setWidgetResizable(True)
        self._scroll.setFixedWidth(PANEL_WIDTH)
        self._scroll.setHorizontalScrollBarPolicy(QtCore.Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        middle = QtWidgets.QWidget()
        layout = QtWidgets.QHBoxLayout(middle)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._scroll)
        layout.addWidget(viewport, 1)
        self.setCentralWidget(middle)
        self.resize(1050, 700)

    def moduleSelector(self) -> ModuleSelector:
        return self._selector

    def _open(self, name: str) -> None:
        if self._open_panel is not None:
            self._open_panel.exit()
            self._scroll.takeWidget()
        module = slicer.app.moduleManager().module(name)
        self._open_panel = module.widgetRepresentation() if module is not None else None
        if self._open_panel is not None:
            self._scroll.setWidget(self._open_panel)
            self._open_panel.enter()
