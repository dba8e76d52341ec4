"""The part of the panel where a model is chosen, installed and removed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from AnomalyDetectionLib.errors import InputError

from .texts import figure_lines, model_label, model_marks, model_tip, tip_text

if TYPE_CHECKING:
    from AnomalyDetectionLib.models.catalogue import Catalogue, Entry

POPUP_WIDTH = 380
"""Of the opened list: the panel is too narrow for what there is to say of a model."""


def without_pictures(card: str) -> str:
    """Markdown of someone else's whose pictures are words, and whose HTML is text.

    Qt fetches a picture from wherever its address points: a file of this machine, or one of another that is told who
    is asking.
    """
    return card.replace("![", "[").replace("<", "&lt;")


class ModelView:
    """A list of the catalogue's models; those that cannot be used are greyed out and say why.

    Parameters
    ----------
    chosen
        Called with the hash of the model that the user chose.
    failed
        Given the sentence for what did not work.
    """

    def __init__(
        self, ui: Any, catalogue: Catalogue, chosen: Callable[[str], None], failed: Callable[[str], None]
    ) -> None:
        self._ui = ui
        self._catalogue = catalogue
        self._chosen = chosen
        self._failed = failed
        self._entries: list[Entry] = []
        self._filling = False
        ui.modelCombo.connect("currentIndexChanged(int)", lambda index: self._choose(index))
        ui.installModelButton.connect("clicked()", lambda: self._install())
        ui.removeModelButton.connect("clicked()", lambda: self._remove())
        ui.modelCardButton.connect("clicked()", lambda: self._show_card())

    def refresh(self) -> None:
        """Read the catalogue again."""
        try:
            self._entries = self._catalogue.entries()
        except InputError as error:
            self._entries = []
            self._failed(str(error))
        self._filling = True
        combo = self._ui.modelCombo
        combo.clear()
        for index, entry in enumerate(self._entries):
            combo.addItem(model_label(entry), entry.sha256)
            combo.setItemData(index, model_tip(entry), qt.Qt.ToolTipRole)
            combo.model().item(index).setEnabled(entry.usable)
        combo.view().setMinimumWidth(POPUP_WIDTH)
        if not self._entries:
            combo.addItem(_("No models"), "")
        self._filling = False

    def show(self, sha256: str) -> None:
        """Select the model with that hash; "" for the first that can be used."""
        self._filling = True
        index = next((i for i, entry in enumerate(self._entries) if entry.sha256 == sha256), -1)
        if index < 0 and not sha256:
            index = next((i for i, entry in enumerate(self._entries) if entry.usable), 0)
        self._ui.modelCombo.setCurrentIndex(index)
        self._filling = False
        entry = self.current()
        self._ui.modelCombo.toolTip = model_tip(entry) if entry is not None else _("Choose a model.")
        self._ui.modelNoteLabel.text = model_marks(entry) if entry is not None else ""
        self._ui.removeModelButton.enabled = entry is not None and entry.removable
        self._ui.modelCardButton.enabled = entry is not None and entry.folder.is_dir()

    def current(self) -> Entry | None:
        """The selected model, usable or not."""
        index = self._ui.modelCombo.currentIndex
        return self._entries[index] if 0 <= index < len(self._entries) else None

    def install(self, source: str) -> None:
        """Take in a model from a file, and select it."""
        try:
            entry = self._catalogue.install(Path(source))
        except InputError as error:
            self._failed(str(error))
            return
        self.refresh()
        self._chosen(entry.sha256)

    def card(self, entry: Entry) -> str:
        """The model card, or what the catalogue says where it is gone."""
        try:
            return (entry.folder / "docs" / "README.md").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return "\n".join([entry.title, entry.description, *figure_lines(entry.figures), entry.problem or ""])

    def _choose(self, index: int) -> None:
        entry = self.current()
        if not self._filling and entry is not None:
            self._chosen(entry.sha256)

    def _install(self) -> None:
        name = qt.QFileDialog.getOpenFileName(
            self._ui.installModelButton, _("Install a model"), "", _("Models (*.zip anomaly.json)")
        )
        if name:
            self.install(str(name))

    def _remove(self) -> None:
        entry = self.current()
        if entry is None:
            return
        question = _("Delete the model {title} {version} from the disk?").format(
            title=entry.title, version=entry.version
        )
        if not slicer.app.testingEnabled() and not slicer.util.confirmOkCancelDisplay(tip_text(question)):
            return
        try:
            self._catalogue.remove(entry)
        except InputError as error:
            self._failed(str(error))
            return
        self.refresh()
        self._chosen("")

    def _show_card(self) -> None:
        entry = self.current()
        if entry is None:
            return
        dialog = qt.QDialog(slicer.util.mainWindow())
        dialog.setWindowTitle(entry.title)
        dialog.resize(560, 620)
        text = qt.QTextBrowser(dialog)
        text.setOpenLinks(False)
        text.setMarkdown(without_pictures(self.card(entry)))
        layout = qt.QVBoxLayout(dialog)
        layout.addWidget(text)
        dialog.setAttribute(qt.Qt.WA_DeleteOnClose)
        dialog.show()
