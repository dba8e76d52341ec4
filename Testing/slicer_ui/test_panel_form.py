"""The panel's form: room for every word, a sentence for every control, and the way of the Tab key."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from harness.window import PANEL_WIDTH

from .conftest import RESOURCES, cut_off, host, settle

SENTENCE = "A sentence that is long enough to need a second line in a column that is as narrow as this one."


def test_the_panel_fits_its_narrow_column_in_every_state(shown: Any) -> None:
    assert host().minimumSizeHint().width() <= PANEL_WIDTH
    shown.parameters.threshold = 1.5
    shown.run.fail(SENTENCE)
    assert shown.ui.defaultButton.isVisible() and shown.ui.reviewBox.isVisible()
    assert host().minimumSizeHint().width() <= PANEL_WIDTH


@pytest.mark.parametrize("label", ["messageLabel", "verdictLabel", "costLabel", "modelNoteLabel"])
def test_words_get_the_room_that_they_need_when_they_change(shown: Any, label: str) -> None:
    widget = getattr(shown.ui, label)
    heights = []
    for times in (1, 9, 1):
        widget.text = SENTENCE * times
        widget.show()
        settle()
        assert cut_off() == []
        heights.append(widget.height)
    assert heights[0] == heights[2] < heights[1] / 3


def test_a_section_that_is_opened_again_has_room_for_what_changed_in_it_meanwhile(shown: Any) -> None:
    shown.ui.resultButton.collapsed = True
    shown.ui.verdictLabel.text = SENTENCE * 9
    settle()
    shown.ui.resultButton.collapsed = False
    settle()
    assert shown.ui.verdictLabel.isVisible() and cut_off() == []


def ui_names(kinds: tuple[str, ...]) -> list[str]:
    """Names of widgets of some classes, from the top of the panel to the bottom."""
    tree = ElementTree.parse(RESOURCES / "UI" / "AnomalyDetection.ui")
    return [widget.get("name", "") for widget in tree.iter("widget") if widget.get("class") in kinds]


CONTROLS = (
    *("qMRMLNodeComboBox", "QComboBox", "QPushButton", "QToolButton", "ctkSliderWidget", "QCheckBox"),
    *("QTableWidget", "QLineEdit", "QPlainTextEdit"),
)


def test_every_control_says_in_a_sentence_what_it_is_for(panel: Any) -> None:
    for name in ui_names(CONTROLS):
        tip = getattr(panel.ui, name).toolTip
        assert tip and tip[0].isupper(), name
        assert name == "modelCombo" or tip.rstrip(")").endswith("."), name
    assert "N and P" in panel.ui.findingsTable.toolTip
    assert "N and P" in slicer_help()


def slicer_help() -> str:
    import slicer

    return str(slicer.util.getModule("AnomalyDetection").helpText)


def test_tab_goes_through_the_controls_from_top_to_bottom_and_out_of_table_and_log(shown: Any) -> None:
    names = ui_names(CONTROLS)
    widgets = {name: getattr(shown.ui, name) for name in names}
    walked, widget = [], widgets[names[0]]
    for _ in range(500):
        owner = next((name for name, one in widgets.items() if one is widget or one.isAncestorOf(widget)), None)
        if owner is not None and owner not in walked:
            walked.append(owner)
        widget = widget.nextInFocusChain()
    assert walked == names
    assert not shown.ui.findingsTable.tabKeyNavigation and shown.ui.logText.tabChangesFocus


def test_the_models_name_fits_the_closed_list_and_the_tooltip_has_it_whole(panel: Any) -> None:
    from PySide6 import QtGui

    from AnomalyDetectionLib.slicer_ui.texts import MODEL_LETTERS, shortened

    combo = panel.ui.modelCombo
    room = combo.width - 40  # frame and arrow
    assert QtGui.QFontMetrics(combo.font).horizontalAdvance(combo.currentText) <= room
    assert combo.toolTip.startswith("Brain FLAIR (starter)") and "experimental" in combo.toolTip
    long = shortened("Chest radiographs, frontal, classifier of many findings 3.1", MODEL_LETTERS)
    assert len(long) == MODEL_LETTERS and long.startswith("Chest radiog") and long.endswith("ndings 3.1")
    assert QtGui.QFontMetrics(combo.font).horizontalAdvance(long) <= room
