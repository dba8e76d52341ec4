"""3D Slicer's scripted modules opened without the application.

The scene and everything in it, its logics, and the drawing of slice and 3D views are Slicer's own (`slicer-core`), Qt
is real (PySide6, off screen).  What neither has is stood in for, and only that:

* `pythonqt`: PythonQt's manners,
* `widgets`: those widgets of ctk and Slicer that this project's panels use,
* `application`, `modules`, `window`: the application object, the modules and the main window,
* `hierarchy`, `files`, `views`: what Slicer has in Qt classes between its logics and the user,
* `slicer_python`: the Python files that modules import, for which Slicer's own are used instead where the variable
  SLICER_PYTHON_DIR names a folder that holds them.

    python -m harness AnomalyDetection/AnomalyDetection.py

opens modules and runs their own test classes.
"""

from __future__ import annotations

import os
from typing import Any

__all__ = ["grab", "open_module", "pixel_of", "save_png", "start"]

# Read by Qt and VTK when they are imported: no display is needed, and enums are integers as in PythonQt.
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("PYSIDE6_OPTION_PYTHON_ENUM", "0x02")
os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")


def start() -> None:
    """Make `slicer`, `qt` and `ctk` importable as inside Slicer; does nothing the second time.

    Raises
    ------
    libraries.LibrariesMissing
        If libraries of the system are missing; the message names the command that installs them.
    """
    from . import libraries

    libraries.require()
    from . import application

    application.start()


def open_module(path: str) -> Any:
    """Load a scripted module's file and open its panel, as choosing it in Slicer does.

    Returns
    -------
    The module's own widget object (what `slicer.util.getModuleWidget` returns).
    """
    start()
    import slicer

    return slicer.app.moduleManager().load(path).widgetRepresentation().self()


def grab(view: Any) -> Any:
    """What a view or widget shows now, as RGB array: see `views.pictures.grab`."""
    from .views import grab

    return grab(view)


def save_png(view: Any, path: Any) -> Any:
    """`grab`, also written to a PNG file."""
    from .views import save_png

    return save_png(view, path)


def pixel_of(slice_widget: Any, ras: tuple[float, float, float]) -> tuple[int, int]:
    """Row and column of a position in the picture of a slice view: see `views.pictures.pixel_of`."""
    from .views import pixel_of

    return pixel_of(slice_widget, ras)
