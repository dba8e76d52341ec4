"""The layout manager: Slicer's own layout logic says which views there are, this makes and finds their widgets."""

from __future__ import annotations

from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtWidgets

from .rendering import register_managers
from .widgets import qMRMLSliceWidget, qMRMLThreeDWidget

#: Where the views of the four-up layout stand: row and column.
PLACES = {"Red": (0, 0), "1": (0, 1), "Green": (1, 0), "Yellow": (1, 1)}


class LayoutManager(QtCore.QObject):
    """Slice and 3D views of the scene's layout (tables and plots have no views here).

    A view's widget is made when its node first appears in a layout, and kept.
    """

    layoutChanged = QtCore.Signal(int)

    def __init__(self, scene: Any, application_logic: Any) -> None:
        super().__init__()
        register_managers(application_logic)
        self._application_logic = application_logic
        self._viewport = QtWidgets.QWidget()
        self._grid = QtWidgets.QGridLayout(self._viewport)
        self._slices: dict[str, qMRMLSliceWidget] = {}
        self._volumes: dict[str, qMRMLThreeDWidget] = {}
        self._logic = slicer.vtkMRMLLayoutLogic()
        self._logic.SetMRMLApplicationLogic(application_logic)
        self._logic.SetMRMLScene(scene)
        node = self.layoutLogic().GetLayoutNode()
        node.SetViewArrangement(node.SlicerLayoutFourUpView)
        self._arrangement = node.GetViewArrangement()
        node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._follow_node())
        self._make_widgets()

    def _follow_node(self) -> None:
        arrangement = self._logic.GetLayoutNode().GetViewArrangement()
        if arrangement != self._arrangement:
            self._arrangement = arrangement
            self._make_widgets()
            self.layoutChanged.emit(arrangement)

    def _make_widgets(self) -> None:
        nodes = self._logic.GetViewNodes()
        shown = [nodes.GetItemAsObject(index) for index in range(nodes.GetNumberOfItems())]
        for node in shown:
            name = node.GetLayoutName()
            if node.IsA("vtkMRMLSliceNode") and name not in self._slices:
                self._slices[name] = self._placed(qMRMLSliceWidget(node, self._application_logic), name)
            elif node.IsA("vtkMRMLViewNode") and name not in self._volumes:
                self._volumes[name] = self._placed(qMRMLThreeDWidget(node, self._application_logic), name)
        names = {node.GetLayoutName() for node in shown}
        for name, widget in [*self._slices.items(), *self._volumes.items()]:
            widget.setVisible(name in names)

    def _placed(self, widget: Any, name: str) -> Any:
        row, column = PLACES.get(name, (2, self._grid.columnCount()))
        self._grid.addWidget(widget, row, column)
        return widget

    def layoutLogic(self) -> Any:
        return self._logic

    def viewport(self) -> QtWidgets.QWidget:
        return self._viewport

    @QtCore.Property(int)
    def layout(self) -> int:
        return int(self._logic.GetLayoutNode().GetViewArrangement())

    def setLayout(self, arrangement: int) -> None:
        self._logic.GetLayoutNode().SetViewArrangement(arrangement)

    def sliceViewNames(self) -> tuple[str, ...]:
        return tuple(self._slices)

    def sliceWidget(self, name: str) -> qMRMLSliceWidget | None:
        return self._slices.get(name)

    def mrmlSliceLogics(self) -> Any:
        return self._application_logic.GetSliceLogics()

    def threeDWidget(self, which: int | str) -> qMRMLThreeDWidget | None:
        if isinstance(which, str):
            return self._volumes.get(which)
        return list(self._volumes.values())[which] if 0 <= which < len(self._volumes) else None

    @QtCore.Property(int)
    def threeDViewCount(self) -> int:
        return len(self._volumes)

    @QtCore.Property(int)
    def tableViewCount(self) -> int:
        return 0

    @QtCore.Property(int)
    def plotViewCount(self) -> int:
        return 0

    def resetSliceViews(self) -> None:
        """Show the whole background volume in every slice view."""
        for widget in self._slices.values():
            widget.sliceController().fitSliceToBackground()

    def resetThreeDViews(self) -> None:
        """Show everything in every 3D view."""
        for widget in self._volumes.values():
            widget.threeDView().resetFocalPoint()
            widget.threeDView().resetCamera()
