"""Widgets and manners of Qt in Slicer that the recorded questions do not ask for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def section(scene: Any) -> Iterator[tuple[Any, Any, Any]]:
    """A section that can be folded, with two labels; the first one is hidden."""
    import ctk
    import qt

    made = ctk.ctkCollapsibleButton("Section")
    layout = qt.QVBoxLayout(made)
    hidden, seen = qt.QLabel("hidden"), qt.QLabel("seen")
    layout.addWidget(hidden)
    layout.addWidget(seen)
    hidden.hide()
    made.show()
    yield made, hidden, seen
    made.hide()


def test_unfolding_a_section_does_not_bring_back_what_was_hidden(section: tuple[Any, Any, Any]) -> None:
    made, hidden, seen = section
    made.collapsed = True
    assert not seen.visible
    made.collapsed = False
    assert seen.visible and not hidden.visible


def test_a_click_on_the_head_of_a_section_folds_it_and_one_below_does_not(section: tuple[Any, Any, Any]) -> None:
    import qt
    from PySide6 import QtTest

    made, _, seen = section
    QtTest.QTest.mouseClick(made, qt.Qt.LeftButton, qt.Qt.NoModifier, seen.geometry.center())
    assert not made.collapsed
    QtTest.QTest.mouseClick(made, qt.Qt.LeftButton, qt.Qt.NoModifier, qt.QPoint(10, 5))
    assert made.collapsed


def test_a_path_that_was_used_is_there_again_the_next_time(scene: Any) -> None:
    import ctk

    first = ctk.ctkPathLineEdit()
    first.settingKey = "Example/model"
    for path in ("/models/a", "/models/b", "/models/a"):
        first.currentPath = path
        first.addCurrentPathToHistory()
    second = ctk.ctkPathLineEdit()
    second.settingKey = "Example/model"
    assert second.currentPath == "/models/a" and second.comboBox().count == 2


@pytest.fixture
def untracked(scene: Any) -> tuple[Any, Any, list[str]]:
    """A slider without tracking, its handle, and what it tells (ctkSliderWidget.cpp)."""
    import ctk

    slider = ctk.ctkSliderWidget()
    slider.tracking = False
    told: list[str] = []
    slider.connect("valueIsChanging(double)", lambda value: told.append(f"changing to {value:.0f}"))
    slider.connect("valueChanged(double)", lambda value: told.append(f"changed to {value:.0f}"))
    handle = next(child for child in slider.children() if child.className() == "QSlider")
    return slider, handle, told


def test_a_slider_without_tracking_tells_its_value_when_it_is_let_go(untracked: tuple[Any, Any, list[str]]) -> None:
    slider, handle, told = untracked
    handle.setSliderDown(True)
    handle.setValue(5000)
    assert told == ["changing to 50"] and slider.value == 0
    handle.setSliderDown(False)
    assert told == ["changing to 50", "changed to 50"] and slider.value == 50


def test_a_slider_that_comes_back_to_where_it_was_taken_has_not_changed(untracked: tuple[Any, Any, list[str]]) -> None:
    _, handle, told = untracked
    handle.setSliderDown(True)
    handle.setValue(5000)
    handle.setValue(0)
    handle.setSliderDown(False)
    assert told == ["changing to 50", "changing to 0"]


def test_a_slider_without_tracking_that_is_set_by_code_tells_both(untracked: tuple[Any, Any, list[str]]) -> None:
    slider, _, told = untracked
    slider.value = 50
    assert told == ["changing to 50", "changed to 50"]


def test_a_widget_that_the_harness_lacks_says_so(scene: Any) -> None:
    import ctk

    with pytest.raises(NotImplementedError, match="has no ctkDirectoryButton"):
        ctk.ctkDirectoryButton()


def test_a_connection_to_an_unknown_signal_is_refused_without_an_exception(scene: Any) -> None:
    import qt

    button = qt.QPushButton()
    assert button.connect("clicked()", lambda: None)
    assert not button.connect("klicked()", lambda: None)


def test_dynamic_properties_are_attributes_and_own_classes_take_any(scene: Any) -> None:
    import qt

    class Panel(qt.QWidget):
        pass

    panel, label = Panel(), qt.QLabel()
    panel.answer = 42
    label.setProperty("SlicerParameterName", "threshold")
    assert (panel.answer, label.SlicerParameterName) == (42, "threshold")


def test_a_shortcut_is_heard(scene: Any) -> None:
    import qt
    import slicer
    from PySide6 import QtTest

    window = qt.QWidget()
    heard: list[str] = []
    shortcut = qt.QShortcut(qt.QKeySequence("N"), window)
    shortcut.connect("activated()", lambda: heard.append("next"))
    window.show()
    window.activateWindow()
    slicer.app.processEvents()
    QtTest.QTest.keyClick(window, qt.Qt.Key_N)
    window.hide()
    assert heard == ["next"]
