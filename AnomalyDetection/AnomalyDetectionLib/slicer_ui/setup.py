"""Leads the user through the installation of what scoring needs, a click a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import qt

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.scoring.explaining import NEEDS_CAPTUM

if TYPE_CHECKING:
    from AnomalyDetectionLib.scoring.explaining import Explanation

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

    def is_needed(self, explain: Explanation | None = None) -> bool:
        """Whether something is missing; the panel then shows what.

        Parameters
        ----------
        explain
            How the next score is to be explained: some methods need a package of their own.
        """
        self.installation.want_explanations(explain is not None and explain.method in NEEDS_CAPTUM)
        return self._is_left()

    def _is_left(self) -> bool:
        """Whether a step is left; the panel then shows which."""
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
        if not self._is_left():
            self._ready()
