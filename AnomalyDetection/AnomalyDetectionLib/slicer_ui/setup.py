"""Leads the user through the installation of what scoring needs, a click a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import qt

from AnomalyDetectionLib.errors import InputError

if TYPE_CHECKING:
    from .install import Installation
    from .run_view import RunView


class Setup:
    """Shows the steps of an installation, does them, and says when all are done.

    Parameters
    ----------
    ready
        Called after the last step.
    """

    def __init__(self, view: RunView, installation: Installation, ready: Callable[[], None]) -> None:
        self.installation = installation
        self._view = view
        self._ready = ready

    def is_needed(self) -> bool:
        """Whether something is missing; the panel then shows what."""
        steps = self.installation.steps()
        if steps:
            self._view.show_setup([self.installation.describe(step) for step in steps])
        else:
            self._view.hide_setup()
        return bool(steps)

    def go_on(self) -> None:
        """Do the next step."""
        self._view.show_setup_running()
        self._view.say("")
        qt.QTimer.singleShot(50, lambda: self._do())  # the window shows first that something happens

    def _do(self) -> None:
        try:
            self.installation.advance()
        except InputError as error:
            self._view.fail(str(error))
        if not self.is_needed():
            self._ready()
