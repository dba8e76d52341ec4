"""Widgets for a path and for a choice."""

from __future__ import annotations

from typing import Any

from PySide6 import QtCore, QtWidgets

Property: Any = QtCore.Property

#: How many paths that were used before are kept.
HISTORY = 5


class ctkPathLineEdit(QtWidgets.QWidget):
    """An editable path with the paths used before, and a button that opens a dialog."""

    currentPathChanged = QtCore.Signal(str)
    validInputChanged = QtCore.Signal(bool)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._path, self._label, self._key, self._name_filters = "", "", "", list[str]()
        self._combo: Any = QtWidgets.QComboBox(self)
        self._combo.setEditable(True)
        self._editor = QtWidgets.QLineEdit()
        self._combo.setLineEdit(self._editor)
        self._combo.setSizePolicy(QtWidgets.QSizePolicy.Policy.Expanding, QtWidgets.QSizePolicy.Policy.Fixed)
        self._combo.setMinimumContentsLength(8)
        policy = QtWidgets.QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        self._combo.setSizeAdjustPolicy(policy)
        self._button = QtWidgets.QToolButton(self)
        self._button.setText("...")
        self._button.clicked.connect(self.browse)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self._combo, 1)
        layout.addWidget(self._button)
        self._editor.textChanged.connect(self._changed)

    def setCurrentPath(self, path: str) -> None:
        self._editor.setText(path)
        self._changed(path)  # where the editor had this text already, from the history

    def _changed(self, path: str) -> None:
        if path != self._path:
            self._path = path
            self.currentPathChanged.emit(path)

    def browse(self) -> None:
        """Let the user choose a file."""
        path = QtWidgets.QFileDialog.getOpenFileName(self, self._label, self._path, ";;".join(self._name_filters))
        if path:
            self.setCurrentPath(str(path))

    def addCurrentPathToHistory(self) -> None:
        """Put the path at the head of those that were used before, which the settings keep."""
        if self._path:
            path = self._path
            history = [path, *(used for used in self._history() if used != path)][:HISTORY]
            QtCore.QSettings().setValue(self._setting(), history)
            self._show_history(history)
            self.setCurrentPath(path)

    def retrieveHistory(self) -> None:
        """Offer the paths used before; the last one becomes the current one where there is none."""
        history, path = self._history(), self._path
        if history:
            self._show_history(history)
            self.setCurrentPath(path or history[0])

    def _setting(self) -> str:
        return f"ctkPathLineEdit/{self._key or self.property('objectName')}"

    def _history(self) -> list[str]:
        kept: Any = QtCore.QSettings().value(self._setting()) or []
        return [kept] if isinstance(kept, str) else list(kept)  # a list of one comes back as text

    def _show_history(self, history: list[str]) -> None:
        blocked = self._editor.blockSignals(True)
        self._combo.clear()
        self._combo.addItems(history)
        self._editor.blockSignals(blocked)

    def comboBox(self) -> QtWidgets.QComboBox:
        return self._combo

    def setLabel(self, label: str) -> None:
        self._label = label

    def setSettingKey(self, key: str) -> None:
        self._key = key
        self.retrieveHistory()

    def setNameFilters(self, filters: list[str]) -> None:
        self._name_filters = list(filters)

    def setShowBrowseButton(self, shown: bool) -> None:
        self._button.setVisible(shown)

    currentPath = Property(str, lambda self: self._path, setCurrentPath)
    label = Property(str, lambda self: self._label, setLabel)
    settingKey = Property(str, lambda self: self._key, setSettingKey)
    nameFilters = Property("QStringList", lambda self: self._name_filters, setNameFilters)
    showBrowseButton = Property(bool, lambda self: not self._button.isHidden(), setShowBrowseButton)


class ctkComboBox(QtWidgets.QComboBox):
    """A combo box that says something while nothing is selected."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._default_text = ""

    def setDefaultText(self, text: str) -> None:
        self._default_text = text
        self.setPlaceholderText(text)

    defaultText = Property(str, lambda self: self._default_text, setDefaultText)
