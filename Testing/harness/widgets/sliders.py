"""Sliders with a spin box: ctkSliderWidget, and qMRMLSliderWidget, which adds the scene's units."""

from __future__ import annotations

from typing import Any

from PySide6 import QtCore, QtWidgets

#: Positions of the integer slider that stands behind the real numbers.
STEPS = 10_000

Property: Any = QtCore.Property


class ctkSliderWidget(QtWidgets.QWidget):
    """A slider beside a spin box; the value keeps its precision, the spin box shows it with `decimals`."""

    valueChanged = QtCore.Signal(float)
    valueIsChanging = QtCore.Signal(float)
    decimalsChanged = QtCore.Signal(int)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._value, self._range, self._page = 0.0, (0.0, 99.0), 10.0
        self._tracking, self._changing, self._before = True, False, 0.0
        self._slider: Any = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal, self)
        self._slider.setRange(0, STEPS)
        self._spin: Any = QtWidgets.QDoubleSpinBox(self)
        self._spin.setRange(*self._range)
        self._spin.setDecimals(2)
        self._spin.setSingleStep(1.0)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider, 1)
        layout.addWidget(self._spin)
        self._slider.valueChanged.connect(self._moved)
        self._slider.sliderPressed.connect(self._pressed)
        self._slider.sliderReleased.connect(self._released)
        self._spin.valueChanged.connect(self._typed)

    def setValue(self, value: float) -> None:
        """Set the value, within the range; says `valueChanged` if it is another, while the slider is held too."""
        changing, self._changing = self._changing, False
        self._set(value)
        self._changing = changing

    def _set(self, value: float) -> None:
        low, high = self._range
        value = min(max(float(value), low), high)
        if not self._differs(value, self._value):
            return
        self._value = value
        self._show()
        if not self._tracking:  # whoever changes it: ctkSliderWidget::setSpinBoxValue
            self.valueIsChanging.emit(value)
        if not self._changing:
            self.valueChanged.emit(value)

    def _differs(self, value: float, other: float) -> bool:
        return abs(value - other) > self._spin.singleStep * 1e-9

    def _show(self) -> None:
        """Bring slider and spin box to the value, without their answering."""
        low, high = self._range
        for widget, value in ((self._slider, self._position(low, high)), (self._spin, self._value)):
            blocked = widget.blockSignals(True)
            widget.setValue(value)
            widget.blockSignals(blocked)

    def _position(self, low: float, high: float) -> int:
        return round(STEPS * (self._value - low) / (high - low)) if high > low else 0

    def _moved(self, position: int) -> None:
        low, high = self._range
        step = self._spin.singleStep
        self._set(low + round((high - low) * position / STEPS / step) * step)

    def _typed(self, value: float) -> None:
        self._set(value)

    def _pressed(self) -> None:
        if not self._tracking:
            self._before, self._changing = self._told(), True

    def _released(self) -> None:
        if not self._tracking:
            self._changing = False
            if self._differs(self._value, self._before):
                self.valueChanged.emit(self._value)

    def _told(self) -> float:
        """While the slider is held, and does not track, the value from before."""
        return self._before if self._changing else self._value

    def setRange(self, minimum: float, maximum: float) -> None:
        self._range = (float(minimum), max(float(minimum), float(maximum)))
        blocked = self._spin.blockSignals(True)
        self._spin.setRange(*self._range)
        self._spin.blockSignals(blocked)
        self._set(self._value)
        self._show()

    def setMinimum(self, minimum: float) -> None:
        self.setRange(minimum, max(self._range[1], float(minimum)))

    def setMaximum(self, maximum: float) -> None:
        self.setRange(min(self._range[0], float(maximum)), maximum)

    def setDecimals(self, decimals: int) -> None:
        blocked = self._spin.blockSignals(True)
        self._spin.setDecimals(int(decimals))
        self._spin.blockSignals(blocked)
        self._show()
        self.decimalsChanged.emit(int(decimals))

    def setSingleStep(self, step: float) -> None:
        self._spin.setSingleStep(float(step))

    def setPageStep(self, step: float) -> None:
        self._page = float(step)

    def setPrefix(self, prefix: str) -> None:
        self._spin.setPrefix(prefix)

    def setSuffix(self, suffix: str) -> None:
        self._spin.setSuffix(suffix)

    def setTracking(self, tracking: bool) -> None:
        self._tracking = bool(tracking)

    def setSpinBoxVisible(self, visible: bool) -> None:
        self._spin.setVisible(bool(visible))

    value = Property(float, _told, setValue)
    minimum = Property(float, lambda self: self._range[0], setMinimum)
    maximum = Property(float, lambda self: self._range[1], setMaximum)
    decimals = Property(int, lambda self: self._spin.decimals, setDecimals)
    singleStep = Property(float, lambda self: self._spin.singleStep, setSingleStep)
    pageStep = Property(float, lambda self: self._page, setPageStep)
    prefix = Property(str, lambda self: self._spin.prefix, setPrefix)
    suffix = Property(str, lambda self: self._spin.suffix, setSuffix)
    tracking = Property(bool, lambda self: self._tracking, setTracking)
    spinBoxVisible = Property(bool, lambda self: not self._spin.isHidden(), setSpinBoxVisible)


class qMRMLSliderWidget(ctkSliderWidget):
    """A slider that knows the scene; without a `quantity` it shows no unit."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None

    def mrmlScene(self) -> Any:
        return self._scene

    @QtCore.Slot(object)
    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene
