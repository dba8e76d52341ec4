"""Stand-ins for the two Python files of Slicer that every scripted module imports and `slicer-core` does not carry.

They offer what this project's modules use of them, by the same names, and nothing else.
"""

from __future__ import annotations

import types
import unittest
from pathlib import Path
from typing import Any


class ScriptedLoadableModule:
    """Gives a module its defaults and its icon."""

    def __init__(self, parent: Any) -> None:
        import qt

        self.parent = parent
        self.moduleName = type(self).__name__
        parent.title = parent.helpText = parent.acknowledgementText = ""
        parent.categories, parent.dependencies, parent.contributors = [], [], []
        icon = Path(parent.path).parent / "Resources" / "Icons" / f"{self.moduleName}.png"
        if icon.is_file():
            parent.icon = qt.QIcon(str(icon))


class ScriptedLoadableModuleWidget:
    """A module's panel in the parent widget it is given."""

    def __init__(self, parent: Any) -> None:
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.parent = parent
        self.layout = parent.layout()

    def resourcePath(self, filename: str) -> str:
        import slicer

        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / filename)

    def setup(self) -> None:
        """Slicer adds its buttons for developers here."""

    def cleanup(self) -> None:
        """For modules that have something to undo."""

    def onReload(self) -> None:
        import slicer

        slicer.util.reloadScriptedModule(self.moduleName)


class ScriptedLoadableModuleTest(unittest.TestCase):
    """The base of a module's own tests."""


def stand_ins() -> list[types.ModuleType]:
    """The modules `slicer.i18n` and `slicer.ScriptedLoadableModule`."""
    i18n = types.ModuleType("slicer.i18n")
    vars(i18n).update(tr=lambda text: text, translate=lambda context, text: text)
    base = types.ModuleType("slicer.ScriptedLoadableModule")
    for cls in (ScriptedLoadableModule, ScriptedLoadableModuleWidget, ScriptedLoadableModuleTest):
        setattr(base, cls.__name__, cls)
    vars(base)["__all__"] = [name for name in vars(base) if name.startswith("Scripted")]
    return [i18n, base]
