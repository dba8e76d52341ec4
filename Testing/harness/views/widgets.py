"""The widgets around a view: they hold its logic, and the calls by which modules steer it."""

from __future__ import annotations

from typing import Any

import slicer
import vtk
from PySide6 import QtGui, QtWidgets

from .rendering import qMRMLSliceView, qMRMLThreeDView


class qMRMLSliceControllerWidget(QtWidgets.QWidget):
    """The bar above a slice view, as far as code calls it."""

    def __init__(self, logic: Any, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._logic = logic

    def fitSliceToBackground(self) -> None:
        self._logic.StartSliceNodeInteraction(slicer.vtkMRMLSliceNode.ResetFieldOfViewFlag)
        self._logic.FitSliceToBackground()
        self._logic.GetSliceNode().UpdateMatrices()
        self._logic.EndSliceNodeInteraction()

    def setSliceOffsetValue(self, offset: float) -> None:
        self._logic.SetSliceOffset(offset)

    def setSliceVisible(self, visible: bool) -> None:
        self._logic.GetSliceNode().SetSliceVisible(visible)


class ViewFrame(QtWidgets.QWidget):
    """A widget with a view in it."""

    def __init__(self, view: QtWidgets.QWidget, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(view)


class qMRMLSliceWidget(ViewFrame):
    """A slice view with its logic and controller."""

    def __init__(self, node: Any, application_logic: Any, parent: QtWidgets.QWidget | None = None) -> None:
        self._logic = slicer.vtkMRMLSliceLogic()
        view = qMRMLSliceView()
        super().__init__(view, parent)
        self._view = view
        self._logic.SetMRMLApplicationLogic(application_logic)
        self._logic.SetMRMLScene(node.GetScene())
        self._logic.SetSliceNode(node)
        self._logic.SetDisplayableManagerGroup(view.displayableManagerGroup())
        self._controller = qMRMLSliceControllerWidget(self._logic, self)
        self._controller.hide()
        view.setMRMLSliceNode(node)
        application_logic.GetSliceLogics().AddItem(self._logic)
        self._logic.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._update_image())
        self._update_image()
        self._set_size(*view.renderWindow().GetSize())

    def _update_image(self) -> None:
        self._view.setImageDataConnection(self._logic.GetImageDataConnection())

    def _set_size(self, width: int, height: int) -> None:
        self._view.renderWindow().SetSize(width, height)
        self._logic.ResizeSliceNode(width, height)

    def resizeEvent(self, event: QtGui.QResizeEvent) -> None:
        super().resizeEvent(event)
        self._set_size(max(event.size().width(), 1), max(event.size().height(), 1))

    def sliceLogic(self) -> Any:
        return self._logic

    def sliceView(self) -> qMRMLSliceView:
        return self._view

    def sliceController(self) -> qMRMLSliceControllerWidget:
        return self._controller

    def mrmlSliceNode(self) -> Any:
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self) -> Any:
        return self._logic.GetSliceCompositeNode()

    def fitSliceToBackground(self) -> None:
        self._controller.fitSliceToBackground()


class qMRMLThreeDWidget(ViewFrame):
    """A 3D view with its logic."""

    def __init__(self, node: Any, application_logic: Any, parent: QtWidgets.QWidget | None = None) -> None:
        self._logic = slicer.vtkMRMLViewLogic()
        view = qMRMLThreeDView()
        super().__init__(view, parent)
        self._view = view
        self._logic.SetMRMLApplicationLogic(application_logic)
        self._logic.SetName(node.GetLayoutName())  # by this it finds its node in the scene
        self._logic.SetMRMLScene(node.GetScene())
        self._logic.SetDisplayableManagerGroup(view.displayableManagerGroup())
        view.setMRMLViewNode(node)
        application_logic.GetViewLogics().AddItem(self._logic)

    def resizeEvent(self, event: QtGui.QResizeEvent) -> None:
        super().resizeEvent(event)
        self._view.renderWindow().SetSize(max(event.size().width(), 1), max(event.size().height(), 1))

    def threeDView(self) -> qMRMLThreeDView:
        return self._view

    def viewLogic(self) -> Any:
        return self._logic

    def mrmlViewNode(self) -> Any:
        return self._view.mrmlViewNode()
