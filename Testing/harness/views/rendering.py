"""The two kinds of views: a slice through the volumes, and the scene in 3D."""

from __future__ import annotations

from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtWidgets

from .pictures import Canvas, image_of, pixels_of

#: Width and height of a view in pixels until it is resized.
SIZE = (400, 400)

#: Those that Slicer's own views register (qMRMLSliceView, qMRMLThreeDView), then those of its loadable modules.
SLICE_MANAGERS = (
    "vtkMRMLVolumeGlyphSliceDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLScalarBarDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLColorLegendDisplayableManager",
)
THREE_D_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLThreeDReformatDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager3D",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLColorLegendDisplayableManager",
    "vtkMRMLVolumeRenderingDisplayableManager",
)


def register_managers(application_logic: Any) -> None:
    """Make the displayable managers known to the two factories that equip views with them."""
    for factory, managers in (
        (slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance(), SLICE_MANAGERS),
        (slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance(), THREE_D_MANAGERS),
    ):
        factory.SetMRMLApplicationLogic(application_logic)
        for name in managers:
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)


class RenderedView(Canvas):
    """A view with its render window; it renders when it is asked to, and by itself only while it can be seen."""

    def __init__(self, factory: Any, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._renderer = vtk.vtkRenderer()
        self._window = vtk.vtkRenderWindow()
        self._window.OffScreenRenderingOn()
        self._window.ShowWindowOff()
        self._window.AddRenderer(self._renderer)
        self._interactor = vtk.vtkRenderWindowInteractor()
        self._interactor.SetRenderWindow(self._window)
        self._group = factory.InstantiateDisplayableManagers(self._renderer)
        self._timer = QtCore.QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(0)
        self._timer.timeout.connect(self.forceRender)
        self._group.AddObserver(vtk.vtkCommand.UpdateEvent, lambda *_: self.scheduleRender())
        self._window.SetSize(*SIZE)

    def renderWindow(self) -> Any:
        return self._window

    def renderer(self) -> Any:
        return self._renderer

    def interactor(self) -> Any:
        return self._interactor

    def displayableManagerGroup(self) -> Any:
        return self._group

    def displayableManagerByClassName(self, name: str) -> Any:
        return self._group.GetDisplayableManagerByClassName(name)

    def scheduleRender(self) -> None:
        """Render when the event loop is idle next, if anybody can see it."""
        if self.isVisible():
            self._timer.start()

    def forceRender(self) -> None:
        """Render now."""
        self._window.Render()
        if self.isVisible():
            self._picture = image_of(pixels_of(self._window))
            self.update()

    def showEvent(self, event: Any) -> None:
        super().showEvent(event)
        self.scheduleRender()


class qMRMLSliceView(RenderedView):
    """A slice: the blended layers of a slice logic below what the displayable managers draw."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance(), parent)
        self._node: Any = None
        self._renderer.GetActiveCamera().ParallelProjectionOn()
        self._mapper = vtk.vtkImageMapper()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        self._actor = vtk.vtkActor2D()
        self._actor.SetMapper(self._mapper)
        self._actor.GetProperty().SetDisplayLocationToBackground()

    def mrmlSliceNode(self) -> Any:
        return self._node

    def setMRMLSliceNode(self, node: Any) -> None:
        self._node = node
        self._group.SetMRMLDisplayableNode(node)

    def setImageDataConnection(self, connection: Any) -> None:
        """Show the output of a slice logic's pipeline; None where it has no volume to show."""
        self._mapper.SetInputConnection(connection)
        if connection is None:
            self._renderer.RemoveViewProp(self._actor)
        else:
            self._renderer.AddViewProp(self._actor)
        self.scheduleRender()


class qMRMLThreeDView(RenderedView):
    """The scene in 3D."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance(), parent)
        self._node: Any = None
        # Without these two a translucent surface stays invisible under depth peeling.
        self._window.SetMultiSamples(0)
        self._window.SetAlphaBitPlanes(1)
        self._renderer.GradientBackgroundOn()

    def mrmlViewNode(self) -> Any:
        return self._node

    def setMRMLViewNode(self, node: Any) -> None:
        self._node = node
        self._group.SetMRMLDisplayableNode(node)

    def cameraNode(self) -> Any:
        return self.displayableManagerByClassName("vtkMRMLCameraDisplayableManager").GetCameraNode()

    def resetFocalPoint(self) -> None:
        """Look at the middle of what is visible."""
        bounds = self._renderer.ComputeVisiblePropBounds()
        if vtk.vtkMath.AreBoundsInitialized(bounds):
            middle = [(bounds[2 * axis] + bounds[2 * axis + 1]) / 2 for axis in range(3)]
            self.cameraNode().GetCamera().SetFocalPoint(middle)

    def resetCamera(self) -> None:
        """Move the camera so far that everything is seen."""
        self._renderer.ResetCamera()
        self._renderer.ResetCameraClippingRange()

    def forceRender(self) -> None:
        if self._node is not None:
            self._renderer.SetUseDepthPeeling(self._node.GetUseDepthPeeling())
        super().forceRender()
