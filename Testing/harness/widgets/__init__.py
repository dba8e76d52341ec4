"""Widgets of ctk and of Slicer's own that this project's .ui files and panels use, written anew on PySide6."""

from __future__ import annotations

from .scene_widgets import qMRMLWidget

__all__ = ["qMRMLWidget"]
