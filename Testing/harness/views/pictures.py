"""Pictures of views and widgets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PySide6 import QtCore, QtGui, QtWidgets
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonMath import vtkMatrix4x4
from vtkmodules.vtkRenderingCore import vtkWindowToImageFilter


def grab(view: Any) -> np.ndarray:
    """What a view or any other widget shows now.

    Parameters
    ----------
    view
        A slice view, a 3D view, one of the widgets around them, or any Qt widget.

    Returns
    -------
    uint8, (rows, columns, 3), RGB, the first row on top.
    """
    for method in ("sliceView", "threeDView"):
        view = getattr(view, method)() if hasattr(view, method) else view
    if hasattr(view, "renderWindow"):
        view.forceRender()
        return pixels_of(view.renderWindow())
    return pixels_of_image(view.grab().toImage())


def save_png(view: Any, path: str | Path) -> np.ndarray:
    """Write what a view or widget shows to a PNG file, and return it as `grab` does.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    picture = grab(view)
    if not image_of(picture).save(str(path)):
        raise OSError(f"{path} cannot be written")
    return picture


def pixel_of(slice_widget: Any, ras: tuple[float, float, float]) -> tuple[int, int]:
    """Where a position lies in the picture that `grab` makes of a slice view.

    Parameters
    ----------
    ras
        Right, anterior, superior, in mm.

    Returns
    -------
    Row and column; outside the picture if the position is not in view.
    """
    to_view = vtkMatrix4x4()
    vtkMatrix4x4.Invert(slice_widget.mrmlSliceNode().GetXYToRAS(), to_view)
    x, y, *_ = to_view.MultiplyPoint((*ras, 1.0))
    rows = slice_widget.sliceView().renderWindow().GetSize()[1]
    return rows - 1 - round(y), round(x)


def pixels_of(window: Any) -> np.ndarray:
    """The rendered contents of a `vtkRenderWindow`, as `grab` returns them."""
    reader = vtkWindowToImageFilter()
    reader.SetInput(window)
    reader.ReadFrontBufferOff()
    reader.ShouldRerenderOff()
    reader.Update()
    image = reader.GetOutput()
    columns, rows, _ = image.GetDimensions()
    scalars = vtk_to_numpy(image.GetPointData().GetScalars())
    return scalars.reshape(rows, columns, -1)[::-1, :, :3].copy()


def image_of(pixels: np.ndarray) -> QtGui.QImage:
    """A Qt image of an RGB array; it owns its memory."""
    rows, columns, _ = pixels.shape
    pixels = np.ascontiguousarray(pixels)
    return QtGui.QImage(pixels.data, columns, rows, 3 * columns, QtGui.QImage.Format.Format_RGB888).copy()


def pixels_of_image(image: QtGui.QImage) -> np.ndarray:
    image = image.convertToFormat(QtGui.QImage.Format.Format_RGB888)
    lines = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
    return lines[:, : 3 * image.width()].reshape(image.height(), image.width(), 3).copy()


class Canvas(QtWidgets.QWidget):
    """A widget that paints the picture it was given last."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._picture: QtGui.QImage | None = None

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        painter = QtGui.QPainter(self)
        if self._picture is not None:
            painter.drawImage(QtCore.QPoint(), self._picture)
        painter.end()
