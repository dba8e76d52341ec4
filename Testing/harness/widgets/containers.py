"""Sections of a panel that can be folded."""

from __future__ import annotations

from PySide6 import QtCore, QtGui, QtWidgets

Property = QtCore.Property


class ctkCollapsibleButton(QtWidgets.QAbstractButton):
    """A wide button with contents below it; checked is open, unchecked collapsed."""

    contentsCollapsed = QtCore.Signal(bool)

    def __init__(self, text: str | QtWidgets.QWidget = "", parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(text if isinstance(text, QtWidgets.QWidget) else parent)
        self._collapsed = False
        self.setText(text if isinstance(text, str) else "")
        self.setCheckable(True)
        self.setChecked(True)
        self.setContentsMargins(0, self._head_height(), 0, 0)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Minimum, QtWidgets.QSizePolicy.Policy.Preferred)
        self.toggled.connect(lambda checked: self._collapse(not checked))

    def setCollapsed(self, collapsed: bool) -> None:
        self.setChecked(not collapsed)

    def _collapse(self, collapsed: bool) -> None:
        if collapsed == self._collapsed:
            return
        self._collapsed = collapsed
        self.setMaximumHeight(self._head_height() if collapsed else 16_777_215)
        self._show_contents()
        self.updateGeometry()
        self.contentsCollapsed.emit(collapsed)

    def _show_contents(self) -> None:
        """Show or hide what is inside, but for what somebody else has hidden."""
        explicit = QtCore.Qt.WidgetAttribute.WA_WState_ExplicitShowHide
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget) and not (child.testAttribute(explicit) and child.isHidden()):
                child.setVisible(not self._collapsed)
                child.setAttribute(explicit, False)

    def showEvent(self, event: QtGui.QShowEvent) -> None:
        super().showEvent(event)
        if self._collapsed:
            self._show_contents()

    def _head_height(self) -> int:
        return self.fontMetrics().height() + 8

    def sizeHint(self) -> QtCore.QSize:
        layout = self.layout()
        width = self.fontMetrics().horizontalAdvance(self.property("text")) + 30
        if layout is None or self._collapsed:
            return QtCore.QSize(width, self._head_height())
        return layout.totalSizeHint().expandedTo(QtCore.QSize(width, 0))  # with the room for the head

    def minimumSizeHint(self) -> QtCore.QSize:
        layout = self.layout()
        if layout is None or self._collapsed:
            return QtCore.QSize(0, self._head_height())
        return layout.totalMinimumSize()

    def hitButton(self, position: QtCore.QPoint) -> bool:
        return position.y() < self._head_height()

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect = QtCore.QRect(0, 0, option.rect.width(), self._head_height())
        option.text = ("▸ " if self._collapsed else "▾ ") + self.property("text")
        painter = QtWidgets.QStylePainter(self)
        painter.drawControl(QtWidgets.QStyle.ControlElement.CE_PushButtonBevel, option)
        left = QtCore.Qt.AlignmentFlag.AlignLeft | QtCore.Qt.AlignmentFlag.AlignVCenter
        painter.drawText(option.rect.adjusted(8, 0, -8, 0), left, option.text)
        painter.end()

    collapsed = Property(bool, lambda self: self._collapsed, setCollapsed)


class ctkCollapsibleGroupBox(QtWidgets.QGroupBox):
    """A checkable group box; unchecked its contents are hidden."""

    def __init__(self, title: str | QtWidgets.QWidget = "", parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(title if isinstance(title, QtWidgets.QWidget) else parent)
        self.setTitle(title if isinstance(title, str) else "")
        self.setCheckable(True)
        self.setChecked(True)
        self.toggled.connect(self._expand)

    def _expand(self, expanded: bool) -> None:
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget):
                child.setVisible(expanded)
        self.setMaximumHeight(16_777_215 if expanded else self.fontMetrics().height() + 8)

    def setCollapsed(self, collapsed: bool) -> None:
        self.setChecked(not collapsed)

    collapsed = Property(bool, lambda self: not self.isChecked(), setCollapsed)
