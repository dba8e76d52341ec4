"""Keys that work in the whole window while the module is open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import qt


class Shortcuts:
    """Keys and what they do; a letter typed into a text field stays a letter."""

    def __init__(self, actions: Mapping[str, Callable[[], None]]) -> None:
        self._actions = actions
        self._made: list[Any] = []

    def enable(self, window: Any) -> None:
        """Let the keys work in a window."""
        self.disable()
        for key, action in self._actions.items():
            shortcut = qt.QShortcut(qt.QKeySequence(key), window)
            shortcut.connect("activated()", action)
            self._made.append(shortcut)

    def disable(self) -> None:
        """Give the keys back."""
        for shortcut in self._made:
            shortcut.setEnabled(False)
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._made = []
