"""Slice and 3D views, rendered off screen by Slicer's own displayable managers, and the layout manager above them."""

from __future__ import annotations

from .layout import LayoutManager
from .pictures import grab, pixel_of, save_png

__all__ = ["LayoutManager", "grab", "pixel_of", "save_png"]
