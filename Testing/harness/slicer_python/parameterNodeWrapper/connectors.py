"""How a widget shows and sets a parameter."""

from __future__ import annotations

import enum
import pathlib
from collections.abc import Callable
from typing import Any

import ctk
import qt
import slicer

from .annotations import Choice, Decimals, Maximum, Minimum, SingleStep, WithinRange, first, split
from .kinds import node_classes


class Connector:
    """Ties one widget to one parameter; `signal` names the widget's signal of a change."""

    signal = ""
    widgets: tuple[type, ...] = ()

    def __init__(self, widget: Any, annotated: Any) -> None:
        self.widget = widget
        self.type, self.annotations = split(annotated)
        self._callback: Callable[[], None] | None = None
        self.prepare()

    @classmethod
    def suits(cls, widget: Any, kind: Any) -> bool:
        return type(widget) in cls.widgets

    def prepare(self) -> None:
        """Bring the widget into the state that the parameter's type asks for."""

    def read(self) -> Any:
        raise NotImplementedError

    def write(self, value: Any) -> None:
        raise NotImplementedError

    def onChanged(self, callback: Callable[[], None] | None) -> None:
        """Call `callback` at every change from now on; None ends it."""
        self._callback = callback
        signal = getattr(self.widget, self.signal)
        if callback is None:
            signal.disconnect(self.changed)
        else:
            signal.connect(self.changed)

    def changed(self) -> None:
        if self._callback is not None:
            self._callback()


class CheckBoxConnector(Connector):
    signal, widgets = "stateChanged", (qt.QCheckBox, ctk.ctkCheckBox)

    @classmethod
    def suits(cls, widget: Any, kind: Any) -> bool:
        return kind is bool and super().suits(widget, kind)

    def read(self) -> bool:
        return bool(self.widget.checked)

    def write(self, value: bool) -> None:
        self.widget.checked = value


class IntegerConnector(Connector):
    signal, widgets = "valueChanged", (qt.QSlider, qt.QSpinBox)

    @classmethod
    def suits(cls, widget: Any, kind: Any) -> bool:
        return kind is int and super().suits(widget, kind)

    def prepare(self) -> None:
        low, high = limits(self.annotations)
        if isinstance(self.widget, qt.QSlider) and (low is None or high is None):
            raise RuntimeError("Cannot have a connection to QSlider where the int type is unbounded.")
        self.widget.setRange(-(2**31) if low is None else low, 2**31 - 1 if high is None else high)
        set_step(self.widget, self.annotations)

    def read(self) -> int:
        return int(self.widget.value)

    def write(self, value: int) -> None:
        self.widget.value = value


class NumberConnector(Connector):
    signal = "valueChanged"
    sliders = (ctk.ctkSliderWidget, slicer.qMRMLSliderWidget)
    widgets = (qt.QDoubleSpinBox, *sliders)

    @classmethod
    def suits(cls, widget: Any, kind: Any) -> bool:
        return kind in (int, float) and super().suits(widget, kind)

    def prepare(self) -> None:
        decimals = first(self.annotations, Decimals)
        if self.type is int:
            self.widget.decimals = 0
        elif decimals is not None:
            self.widget.decimals = decimals.value
        set_step(self.widget, self.annotations)
        low, high = limits(self.annotations)
        if type(self.widget) in self.sliders and (low is None or high is None):
            raise RuntimeError("Cannot have a connection to ctkSliderWidget where the float types is unbounded.")
        self.widget.minimum = float("-inf") if low is None else low
        self.widget.maximum = float("inf") if high is None else high

    def read(self) -> float:
        return int(self.widget.value) if self.type is int else float(self.widget.value)

    def write(self, value: float) -> None:
        self.widget.value = int(value) if self.type is int else value


class ChoiceConnector(Connector):
    """A combo box of the values of `Choice`, or of the members of an enumeration."""

    signal, widgets = "currentIndexChanged", (qt.QComboBox, ctk.ctkComboBox)

    @classmethod
    def suits(cls, widget: Any, kind: Any) -> bool:
        is_enum = isinstance(kind, type) and issubclass(kind, enum.Enum)
        return (is_enum or kind in (int, float, str, bool)) and super().suits(widget, kind)

    def prepare(self) -> None:
        choice = first(self.annotations, Choice)
        if issubclass(self.type, enum.Enum):
            self.values = list(self.type)
            label = getattr(self.type, "label", lambda member: member.name)
        elif choice is not None:
            self.values, label = list(choice.choices), str
        else:
            raise RuntimeError("ComboBoxToStringableConnector requires the Choice annotation to be used.")
        self.widget.clear()
        for value in self.values:
            self.widget.addItem(label(value))

    def read(self) -> Any:
        return self.values[self.widget.currentIndex]

    def write(self, value: Any) -> None:
        if value not in self.values:
            raise ValueError(f"Unable to find value {value} in choices {self.values}")
        self.widget.currentIndex = self.values.index(value)


class LineEditConnector(Connector):
    signal, widgets = "textChanged", (qt.QLineEdit,)

    @classmethod
    def suits(cls, widget: Any, kind: Any) -> bool:
        return kind is str and super().suits(widget, kind)

    def read(self) -> str:
        return str(self.widget.text)

    def write(self, value: str) -> None:
        if value != self.widget.text:  # setting it moves the cursor
            self.widget.text = value


class PathConnector(Connector):
    signal, widgets = "currentPathChanged", (ctk.ctkPathLineEdit,)

    @classmethod
    def suits(cls, widget: Any, kind: Any) -> bool:
        return isinstance(kind, type) and issubclass(kind, pathlib.PurePath) and super().suits(widget, kind)

    def read(self) -> Any:
        return self.type(self.widget.currentPath)

    def write(self, value: Any) -> None:
        self.widget.currentPath = str(value)


class NodeConnector(Connector):
    signal, widgets = "currentNodeChanged", (slicer.qMRMLNodeComboBox,)

    @classmethod
    def suits(cls, widget: Any, kind: Any) -> bool:
        return bool(node_classes(kind)) and super().suits(widget, kind)

    def prepare(self) -> None:
        self.widget.nodeTypes = tuple(cls().GetClassName() for cls in node_classes(self.type))

    def read(self) -> Any:
        return self.widget.currentNode()

    def write(self, value: Any) -> None:
        self.widget.setCurrentNode(value)


CONNECTORS: tuple[type[Connector], ...] = (
    CheckBoxConnector,
    IntegerConnector,
    NumberConnector,
    ChoiceConnector,
    LineEditConnector,
    PathConnector,
    NodeConnector,
)


def connector(widget: Any, annotated: Any) -> Connector:
    """What ties a widget to a parameter of this type.

    Raises
    ------
    RuntimeError
        If the widget cannot show such a parameter.
    """
    kind = split(annotated)[0]
    for cls in CONNECTORS:
        if cls.suits(widget, kind):
            return cls(widget, annotated)
    raise RuntimeError(f"Unable to create GUI connector from datatype '{annotated}' to widget type '{type(widget)}'.")


def limits(annotations: list[Any]) -> tuple[Any, Any]:
    """The smallest and the largest allowed value; None where there is no limit."""
    within = first(annotations, WithinRange)
    if within is not None:
        return within.minimum, within.maximum
    minimum, maximum = first(annotations, Minimum), first(annotations, Maximum)
    return minimum and minimum.minimum, maximum and maximum.maximum


def set_step(widget: Any, annotations: list[Any]) -> None:
    step = first(annotations, SingleStep)
    if step is not None:
        widget.singleStep = step.value
