"""3D Slicer's scripted modules opened without the application.

The scene and everything in it is Slicer's own (`slicer-core`), Qt is real (PySide6, off screen).  What neither has is
stood in for, and only that: PythonQt's manners (`pythonqt`), the application object and its module manager
(`application`), and the two Python files every module imports (`scripted`), for which Slicer's own are used instead
where the variable SLICER_PYTHON_DIR names a folder that holds them.

    python -m harness AnomalyDetection/AnomalyDetection.py

opens modules and runs their own test classes.
"""

from __future__ import annotations

from typing import Any

from .libraries import explain_missing_library

__all__ = ["open_module", "start"]


def start() -> None:
    """Make `slicer`, `qt` and `ctk` importable as inside Slicer; does nothing the second time.

    Raises
    ------
    ImportError
        If a library of the system is missing; the message names the package that has it.
    """
    with explain_missing_library():
        from . import application
    application.start()


def open_module(path: str) -> Any:
    """Load a scripted module's file and open its panel, as choosing it in Slicer does.

    Returns
    -------
    The module's own widget object (what `slicer.util.getModuleWidget` returns).
    """
    start()
    from . import application

    return application.load(path).widgetRepresentation().self()
