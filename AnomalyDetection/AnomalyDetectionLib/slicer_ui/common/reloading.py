"""Slicer's "Reload" button reads a module's own file again; a library behind it must be forgotten first."""

from __future__ import annotations

import sys


def forget_library(name: str) -> list[str]:
    """Drop a package and everything in it from the loaded modules, so that its next import reads the files again.

    Objects made by the old code keep working; only later imports are affected.

    Returns
    -------
    The names of the modules that were dropped, sorted.
    """
    dropped = sorted(loaded for loaded in sys.modules if loaded == name or loaded.startswith(name + "."))
    for loaded in dropped:
        del sys.modules[loaded]
    return dropped
