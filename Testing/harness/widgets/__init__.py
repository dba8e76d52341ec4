"""Widgets of ctk and of Slicer's own that this project's .ui files and panels use, written anew on PySide6."""

from __future__ import annotations

from typing import Any

from PySide6 import QtWidgets

from .containers import ctkCollapsibleButton, ctkCollapsibleGroupBox
from .inputs import ctkComboBox, ctkPathLineEdit
from .node_selector import qMRMLNodeComboBox
from .scene_widgets import qMRMLWidget
from .sliders import ctkSliderWidget, qMRMLSliderWidget

WIDGETS: tuple[type[QtWidgets.QWidget], ...] = (
    ctkCollapsibleButton,
    ctkCollapsibleGroupBox,
    ctkComboBox,
    ctkPathLineEdit,
    ctkSliderWidget,
    qMRMLNodeComboBox,
    qMRMLSliderWidget,
    qMRMLWidget,
)

#: Classes that Slicer's Python files compare types with, and no panel of this project uses.
ABSENT = (
    "ctkCheckBox",
    "ctkCheckablePushButton",
    "ctkColorPickerButton",
    "ctkDirectoryButton",
    "ctkDoubleRangeSlider",
    "ctkDoubleSlider",
    "ctkDoubleSpinBox",
    "ctkRangeWidget",
    "qMRMLRangeWidget",
    "qMRMLSpinBox",
    "qSlicerWidget",
)


class AbsentWidget:
    """A widget that the harness lacks: there is its type, for comparisons, and no object of it."""

    def __init__(self, *arguments: Any) -> None:
        raise NotImplementedError(f"The harness has no {type(self).__name__}; write it in Testing/harness/widgets")


def all_classes() -> dict[str, type]:
    """The classes by name, those included that cannot be instantiated."""
    absent = {name: type(name, (AbsentWidget,), {}) for name in ABSENT}
    return absent | {cls.__name__: cls for cls in WIDGETS}
