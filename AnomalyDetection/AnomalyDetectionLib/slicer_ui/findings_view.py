"""The table of findings, the way through them, and their review."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import qt
from slicer.i18n import tr as _

from .colours import colour_of
from .findings import side_text, size_text
from .reviews import Review
from .texts import finding_cells

if TYPE_CHECKING:
    from AnomalyDetectionLib.scoring.result import Finding

MARKS = {"": "", "accept": "✓", "unsure": "?", "reject": "✗"}
MOST_ROWS = 200
"""Of the table in the panel; at a threshold far too low there are thousands of findings."""
ROWS_IN_VIEW = 6
ROW_HEIGHT = 22


class FindingsView:
    """A row a finding; clicking one, or N and P, goes there.

    Parameters
    ----------
    go
        Given the label of the finding that the views are to go to.
    reviewed
        Given a finding and its new review.
    """

    def __init__(self, ui: Any, go: Callable[[int], None], reviewed: Callable[[Finding, Review], None]) -> None:
        self._ui = ui
        self._go = go
        self._reviewed = reviewed
        self._findings: Sequence[Finding] = ()
        self._reviews: list[Review] = []
        self._current = 0
        self._filling = False
        self._buttons = {"accept": ui.acceptButton, "unsure": ui.unsureButton, "reject": ui.rejectButton}
        self._prepare_table()
        ui.findingsTable.connect("cellClicked(int,int)", lambda row, column: self._select(row))
        ui.findingsTable.connect("itemSelectionChanged()", lambda: self._follow_selection())
        ui.previousButton.connect("clicked()", lambda: self.step(-1))
        ui.nextButton.connect("clicked()", lambda: self.step(1))
        for decision, button in self._buttons.items():
            button.connect("clicked()", lambda decision=decision: self._decide(decision))
        # Kept letter by letter: a click on a tool button, or on any button on a Mac, does not end the editing.
        ui.commentEdit.connect("textEdited(QString)", lambda text: self._comment(text))

    def show(self, findings: Sequence[Finding], reviews: Sequence[Review], current: int) -> None:
        """Fill the table; `current` is the label of the finding to mark, 0 for none."""
        self._findings, self._reviews = findings, list(reviews)
        self._filling = True
        table = self._ui.findingsTable
        table.setRowCount(min(len(findings), MOST_ROWS))
        for row, finding in enumerate(findings[:MOST_ROWS]):
            for column, text in enumerate(finding_cells(finding, size_text(finding), side_text(finding.side))):
                table.setItem(row, column, self._cell(text, finding, column))
            table.setItem(row, 5, self._cell(MARKS[self._reviews[row].decision], finding, 5))
        table.setVisible(bool(findings))
        table.setFixedHeight(ROW_HEIGHT * (1 + max(1, min(len(findings), ROWS_IN_VIEW))) + 4)
        self._filling = False
        self.mark(current)

    def mark(self, label: int) -> None:
        """Mark a finding as the current one, without going there."""
        self._current = label if any(finding.label == label for finding in self._findings) else 0
        self._filling = True
        row = self._row()
        if row is None:
            self._ui.findingsTable.clearSelection()
        else:
            self._ui.findingsTable.selectRow(row)
        count = len(self._findings)
        words = _("{current} of {count}").format(current=self._current or "–", count=count) if count else ""
        self._ui.currentLabel.text = words
        for button in (self._ui.previousButton, self._ui.nextButton):
            button.setVisible(count > 0)
        self._show_review(row)
        self._filling = False

    def step(self, by: int) -> None:
        """Go to the next or the former finding, round and round."""
        labels = [finding.label for finding in self._findings]
        if not labels:
            return
        if self._current in labels:
            place = (labels.index(self._current) + by) % len(labels)
        else:
            place = 0 if by > 0 else len(labels) - 1
        self._go(labels[place])

    def _prepare_table(self) -> None:
        table = self._ui.findingsTable
        table.setColumnCount(6)
        table.setHorizontalHeaderLabels([_("#"), _("Side"), _("Size"), _("Peak"), _("Place"), ""])
        tips = (
            _("Number and colour of the outline; 1 has the rarest voxel."),
            _("Side of the patient."),
            _("Volume; area in a single image."),
            _("Rarity of the rarest voxel: x means that 1 in 10^x voxels of normal images is as unusual."),
            _("Centre in mm: right or left, anterior or posterior, superior or inferior."),
            _("Your review."),
        )
        for column, tip in enumerate(tips):
            table.horizontalHeaderItem(column).setToolTip(tip)
        table.verticalHeader().setVisible(False)
        table.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        header = table.horizontalHeader()
        header.setFixedHeight(ROW_HEIGHT)
        header.setMinimumSectionSize(16)
        header.setHighlightSections(False)
        for column in range(6):
            header.setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(4, qt.QHeaderView.Stretch)

    def _cell(self, text: str, finding: Finding, column: int) -> Any:
        item = qt.QTableWidgetItem(text)
        if column == 0:
            red, green, blue = colour_of(finding.label)
            pixmap = qt.QPixmap(10, 10)
            pixmap.fill(qt.QColor.fromRgbF(red, green, blue))
            item.setIcon(qt.QIcon(pixmap))
        return item

    def _row(self) -> int | None:
        rows = [row for row, finding in enumerate(self._findings[:MOST_ROWS]) if finding.label == self._current]
        return rows[0] if rows else None

    def _select(self, row: int) -> None:
        if not self._filling and 0 <= row < len(self._findings):
            self._go(self._findings[row].label)

    def _follow_selection(self) -> None:
        """The selection was moved by the arrow keys; a click is told by `_select` as well."""
        row = self._ui.findingsTable.currentRow()
        if not self._filling and 0 <= row < len(self._findings) and self._findings[row].label != self._current:
            self._go(self._findings[row].label)

    def _show_review(self, row: int | None) -> None:
        self._ui.reviewBox.setVisible(row is not None)
        review = self._reviews[row] if row is not None else Review()
        for decision, button in self._buttons.items():
            button.checked = review.decision == decision
        self._ui.commentEdit.text = review.comment

    def _decide(self, decision: str) -> None:
        """A decision was clicked; clicked again it is taken back."""
        row = self._row()
        if row is not None:
            former = self._reviews[row]
            review = Review("" if former.decision == decision else decision, former.comment)
            self._keep(row, review)
            self._filling = True
            self._ui.findingsTable.item(row, 5).setText(MARKS[review.decision])
            self._show_review(row)
            self._filling = False

    def _comment(self, text: str) -> None:
        """The comment was edited; its field stays as it is, or the cursor would jump."""
        row = self._row()
        if row is not None:
            self._keep(row, Review(self._reviews[row].decision, text.strip()))

    def _keep(self, row: int, review: Review) -> None:
        self._reviews[row] = review
        self._reviewed(self._findings[row], review)
