"""The part of the panel that scores: buttons, progress, messages, installation and log."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import qt
from slicer.i18n import tr as _

from .texts import DOUBT, coloured, error_text, time_left_text, warning_text

if TYPE_CHECKING:
    from AnomalyDetectionLib.worker.client import Progress

STAGES = {
    "loading the model": _("Loading the model"),
    "reading the image": _("Reading the image"),
    "handing the result over": _("Handing the result over"),
}
"""What people read for some stages; the scorer's own words for the others."""


class RunView:
    """Shows whether a score can be asked for, how far it is, and what went wrong."""

    def __init__(self, ui: Any) -> None:
        self._ui = ui
        ui.copyLogButton.connect("clicked()", lambda: qt.QApplication.clipboard().setText(ui.logText.plainText))
        self.show_idle("")
        self.hide_setup()
        self.say("")

    def show_idle(self, hindrance: str) -> None:
        """No score is under way; `hindrance` says why none can be asked for ("" where one can)."""
        self._ui.scoreButton.setVisible(True)
        self._ui.scoreButton.enabled = not hindrance
        self._ui.cancelButton.setVisible(False)
        self._ui.progressBar.setVisible(False)
        self._ui.stageLabel.setVisible(bool(hindrance))
        self._ui.stageLabel.text = hindrance

    def show_running(self) -> None:
        """A score has begun."""
        self._ui.scoreButton.setVisible(False)
        self._ui.cancelButton.setVisible(True)
        self._ui.cancelButton.enabled = True
        self._ui.progressBar.value = 0
        self._ui.progressBar.setVisible(True)
        self._ui.stageLabel.setVisible(True)
        self._ui.stageLabel.text = _("Starting")
        self.say("")

    def show_progress(self, progress: Progress) -> None:
        """How far the score is."""
        stage = STAGES.get(progress.stage, progress.stage[:1].upper() + progress.stage[1:])
        left = time_left_text(progress.seconds_left)
        self._ui.progressBar.value = round(1000 * progress.fraction)
        self._ui.stageLabel.text = f"{stage} – {left}" if left else stage

    def show_cancelling(self) -> None:
        """The user asked to stop."""
        self._ui.cancelButton.enabled = False
        self._ui.stageLabel.text = _("Stopping")

    # ---- messages

    def say(self, text: str) -> None:
        """A plain message; "" takes the last one away."""
        self._show_message(escape(text))

    def warn(self, text: str) -> None:
        """Something the user should think of."""
        self._show_message(warning_text(text))

    def fail(self, text: str) -> None:
        """Something did not work."""
        self._show_message(error_text(text))
        self.log(text)

    def log(self, line: str) -> None:
        """Add a line to the log."""
        self._ui.logText.appendPlainText(line)

    def _show_message(self, html: str) -> None:
        self._ui.messageLabel.text = html
        self._ui.messageLabel.setVisible(bool(html))

    # ---- installation

    def show_setup(self, steps: Sequence[str]) -> None:
        """What must be installed first; the first step is next."""
        lines = [f"{index}. {escape(text)}" for index, text in enumerate(steps, start=1)]
        lines[0] = f"<b>{lines[0]}</b>"
        heading = coloured(_("Scoring needs something that Slicer does not bring along:"), DOUBT)
        self._ui.setupLabel.text = "<br>".join([heading, *lines])
        self._ui.setupHintLabel.text = escape(
            _(
                "Behind a proxy, set HTTPS_PROXY before Slicer starts (and PIP_CERT where the proxy has a certificate "
                "of its own). Without a network, run “slicer-anomaly doctor --wheelhouse FOLDER” on a computer that "
                "has one, and follow the README in that folder."
            )
        )
        self._ui.setupProgressBar.setVisible(False)
        self._ui.setupButton.enabled = True
        self._ui.setupBox.setVisible(True)

    def show_setup_running(self) -> None:
        """A step of the installation is under way."""
        self._ui.setupProgressBar.setVisible(True)
        self._ui.setupButton.enabled = False

    def hide_setup(self) -> None:
        """Nothing is to be installed."""
        self._ui.setupBox.setVisible(False)
