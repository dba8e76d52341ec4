"""The node selector: a combo box of the scene's nodes, after qMRMLNodeComboBox with its scene model and filter.

Its combo box and the rows in it are real, because what a selector selects by itself follows from them: with a row for
"None" it starts there; with rows for actions ("Delete current …") it stays empty when a first node comes; with neither,
the first node becomes the current one, as in any combo box that gets its first row.
"""

from __future__ import annotations

from typing import Any

import vtk
from PySide6 import QtCore, QtGui, QtWidgets

NODE_ID = QtCore.Qt.ItemDataRole.UserRole + 1
ACTION = QtCore.Qt.ItemDataRole.UserRole + 2

Property: Any = QtCore.Property
Signal: Any = QtCore.Signal


class SortFilterProxyModel(QtCore.QObject):
    """What a selector leaves out (qMRMLSortFilterProxyModel), as far as code sets it there and not on the selector."""

    def __init__(self, selector: qMRMLNodeComboBox) -> None:
        super().__init__(selector)
        self._selector = selector
        self._hidden: list[str] = []

    def setHiddenNodeIDs(self, identities: Any) -> None:
        """Never offer the nodes with these IDs."""
        if self._hidden != list(identities):
            self._hidden = list(identities)
            self._selector._filter_again()

    hiddenNodeIDs = Property("QStringList", lambda self: list(self._hidden), setHiddenNodeIDs)


class qMRMLNodeComboBox(QtWidgets.QWidget):
    """Selects a node of the types `nodeTypes` from the scene."""

    currentNodeChanged = Signal((object,), (bool,))
    currentNodeIDChanged = QtCore.Signal(str)
    nodeActivated = QtCore.Signal(object)
    nodeAdded = QtCore.Signal(object)
    nodeAboutToBeRemoved = QtCore.Signal(object)
    nodeAddedByUser = QtCore.Signal(object)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None
        self._observations: list[int] = []
        self._observed: dict[str, tuple[Any, int]] = {}
        self._types: list[str] = []
        self._attributes: dict[str, tuple[str, str | None]] = {}
        self._base_names: dict[str, str] = {}
        self._labels: dict[str, str] = {}
        self._requested = ""
        self._flags = {"none": False, "add": True, "remove": True, "edit": False, "rename": False}
        self._show = {"hidden": False, "children": True}
        self._hidden_children: list[str] = []
        self._select_new = True
        self._none_text = "None"
        self._combo: Any = QtWidgets.QComboBox(self)
        self._combo.setMinimumContentsLength(8)
        policy = QtWidgets.QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        self._combo.setSizeAdjustPolicy(policy)
        self._model: Any = self._combo.model()
        self._filter = SortFilterProxyModel(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._combo)
        self._combo.currentIndexChanged.connect(lambda *_: self._announce())
        self._combo.activated.connect(self._activated)
        self._model.rowsRemoved.connect(lambda *_: self._leave_what_is_gone())
        self.setEnabled(False)

    # --- the scene

    def mrmlScene(self) -> Any:
        return self._scene

    @QtCore.Slot(object)
    def setMRMLScene(self, scene: Any) -> None:
        """Show the nodes of a scene; of several wishes for a current node before there was one, the last counts."""
        if scene is self._scene:
            return
        wanted = self.currentNodeID if self.nodeCount() else self._requested
        for tag in self._observations:
            self._scene.RemoveObserver(tag)
        self._observations = []
        self._scene = scene
        blocked = self._combo.blockSignals(True)
        self._fill()
        self._combo.blockSignals(blocked)
        self._select(wanted)
        self._requested = ""
        if scene is not None:
            self._observe(scene)
        self.setEnabled(scene is not None)

    def _observe(self, scene: Any) -> None:
        @vtk.calldata_type(vtk.VTK_OBJECT)
        def added(caller: Any, event: str, node: Any) -> None:
            if not scene.IsImporting():
                self._insert_missing()

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def about_to_be_removed(caller: Any, event: str, node: Any) -> None:
            if not scene.IsClosing():
                self._remove(node)

        self._observations = [
            scene.AddObserver(scene.NodeAddedEvent, added, 10.0),
            scene.AddObserver(scene.NodeAboutToBeRemovedEvent, about_to_be_removed, -10.0),
            scene.AddObserver(scene.EndCloseEvent, lambda *_: self._fill()),
            scene.AddObserver(scene.EndImportEvent, lambda *_: self._fill()),
        ]

    # --- the rows: "None", nodes in the scene's order, actions

    def _fill(self) -> None:
        """Take all nodes away and put those of the scene in their place."""
        first, last = self._node_rows()
        for row in range(first, last):
            self._forget(self._id_at(row))
        if last > first:
            self._model.removeRows(first, last - first)
        self._update_none_row()
        self._insert_missing()
        self._update_action_rows()

    def _node_rows(self) -> tuple[int, int]:
        rows = [row for row in range(self._model.rowCount()) if self._id_at(row)]
        return (rows[0], rows[-1] + 1) if rows else (self._number_before(), self._number_before())

    def _number_before(self) -> int:
        return int(bool(self._model.rowCount() and self._action_at(0) == "NONE"))

    def _id_at(self, row: int) -> str:
        return self._model.index(row, 0).data(NODE_ID) or ""

    def _action_at(self, row: int) -> str:
        return self._model.index(row, 0).data(ACTION) or ""

    def _insert_missing(self) -> None:
        """Give every node that is to be shown its row."""
        present = {self._id_at(row) for row in range(*self._node_rows())}
        for place, node in enumerate(self._offered()):
            if node.GetID() not in present:
                self._insert(self._number_before() + place, node)
                self.nodeAdded.emit(node)

    def _insert(self, row: int, node: Any) -> None:
        item = QtGui.QStandardItem(node.GetName())
        item.setData(node.GetID(), NODE_ID)
        tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._update(node))
        self._observed[node.GetID()] = (node, tag)
        self._model.insertRow(row, item)

    def _forget(self, identity: str) -> None:
        node, tag = self._observed.pop(identity, (None, 0))
        if node is not None:
            node.RemoveObserver(tag)

    def _update(self, node: Any) -> None:
        """Follow a change of a node: its name, or whether it is shown at all."""
        row = self._row_of(node.GetID())
        if row is None:
            return
        if not self._accepts(node):
            self._remove(node)
        elif self._model.index(row, 0).data() != node.GetName():
            self._model.item(row).setText(node.GetName())
            if row == self._combo.currentIndex:
                self._announce()  # Slicer listens to the text, so a new name counts as a change

    def _remove(self, node: Any) -> None:
        row = self._row_of(node.GetID())
        if row is not None:
            self.nodeAboutToBeRemoved.emit(node)
            self._forget(node.GetID())
            self._model.removeRow(row)

    def _row_of(self, identity: str) -> int | None:
        rows = range(self._model.rowCount()) if identity else []
        return next((row for row in rows if self._id_at(row) == identity), None)

    def _offered(self) -> list[Any]:
        if self._scene is None:
            return []
        nodes = (self._scene.GetNthNode(index) for index in range(self._scene.GetNumberOfNodes()))
        return [node for node in nodes if self._accepts(node)]

    def _accepts(self, node: Any) -> bool:
        if node.GetID() in self._filter.property("hiddenNodeIDs"):
            return False
        if node.GetHideFromEditors() and not self._show["hidden"]:
            return False
        return not self._types or any(self._fits(node, name) for name in self._types)

    def _fits(self, node: Any, class_name: str) -> bool:
        if not (node.IsA(class_name) if self._show["children"] else node.GetClassName() == class_name):
            return False
        if self._show["children"] and any(node.IsA(hidden) for hidden in self._hidden_children):
            return False
        if class_name not in self._attributes:
            return True
        attribute, wanted = self._attributes[class_name]
        value = node.GetAttribute(attribute)
        return value is not None and wanted in (None, value)

    def _filter_again(self) -> None:
        """Apply a changed filter: rows that stay keep their places, so that a current node that stays, stays."""
        offered = {node.GetID() for node in self._offered()}
        for row in reversed(range(*self._node_rows())):
            if self._id_at(row) not in offered:
                self._forget(self._id_at(row))
                self._model.removeRow(row)
        self._insert_missing()
        self._update_action_rows()

    def _update_none_row(self) -> None:
        wanted = self._flags["none"] and self._scene is not None
        if wanted and not self._number_before():
            item = QtGui.QStandardItem(self._none_text)
            item.setData("NONE", ACTION)
            self._model.insertRow(0, item)
        elif not wanted and self._number_before():
            self._model.removeRow(0)
        elif wanted:
            self._model.item(0).setText(self._none_text)

    def _update_action_rows(self) -> None:
        wanted = self._actions() if self._scene is not None else []
        first = self._node_rows()[1]
        present = [(self._model.index(row, 0).data(), self._action_at(row)) for row in range(first, self._combo.count)]
        if wanted == present:
            return
        current = self._combo.currentIndex
        self._model.removeRows(first, self._model.rowCount() - first)
        for text, action in wanted:
            item = QtGui.QStandardItem(text)
            item.setData(action, ACTION)
            self._model.appendRow(item)
        self._combo.setCurrentIndex(current)

    def _actions(self) -> list[tuple[str, str]]:
        """Texts and names of the rows below the nodes."""
        label = self.nodeTypeLabel(self._types[0]) if len(self._types) == 1 else "node"
        actions = [(f"Rename current {label}", "RENAME")] if self._flags["rename"] else []
        actions += [(f"Edit current {label}", "EDIT")] if self._flags["edit"] else []
        if self._flags["add"]:
            actions += [(f"Create new {self.nodeTypeLabel(name)}", f"CREATE/{name}") for name in self._types]
        actions += [(f"Delete current {label}", "DELETE")] if self._flags["remove"] else []
        enabled = any(self._flags[name] for name in ("rename", "edit", "add", "remove"))
        return [("", "SEPARATOR"), *actions] if enabled else []

    # --- the current node

    def currentNode(self) -> Any:
        identity = self._id_at(self._combo.currentIndex)
        return self._scene.GetNodeByID(identity) if identity and self._scene is not None else None

    def setCurrentNode(self, node: Any) -> None:
        self.setCurrentNodeID(node.GetID() if node is not None else "")

    def setCurrentNodeID(self, identity: str) -> None:
        """Select a node; one that is not offered, and "", select none."""
        if self._scene is None:
            self._requested = identity or ""
        self._select(identity or "")

    def _select(self, identity: str) -> None:
        row = self._row_of(identity)
        self._combo.setCurrentIndex((0 if self._flags["none"] else -1) if row is None else row)

    def setCurrentNodeIndex(self, index: int) -> None:
        self._combo.setCurrentIndex((index if index < self.nodeCount() else -1) + self._number_before())

    def _announce(self) -> None:
        node, row = self.currentNode(), self._combo.currentIndex
        if node is None and row != (0 if self._flags["none"] else -1):
            # A row of an action became the current one; the last node takes its place, if there is one.
            last = self.nodeFromIndex(self.nodeCount() - 1)
            if last is not None:
                self.setCurrentNode(last)
            return
        self.currentNodeChanged[object].emit(node)
        self.currentNodeChanged[bool].emit(node is not None)
        self.currentNodeIDChanged.emit(node.GetID() if node is not None else "")

    def _leave_what_is_gone(self) -> None:
        if self.currentNode() is None:
            self.setCurrentNode(None)

    def _activated(self, row: int) -> None:
        """The user chose a row."""
        action, _, class_name = self._action_at(row).partition("/")
        if action == "CREATE":
            self.addNode(class_name)
        elif action == "DELETE":
            self.removeCurrentNode()
        elif action in ("", "NONE"):
            self.nodeActivated.emit(self.currentNode())

    def nodeCount(self) -> int:
        first, last = self._node_rows()
        return last - first

    def nodeFromIndex(self, index: int) -> Any:
        row = index + self._number_before()
        identity = self._id_at(row) if row >= 0 else ""
        return self._scene.GetNodeByID(identity) if identity else None

    def nodes(self) -> list[Any]:
        return [self.nodeFromIndex(index) for index in range(self.nodeCount())]

    def addNode(self, class_name: str = "") -> Any:
        """Make a node of the given type, or of the first one, as the user does with "Create new …"."""
        class_name = class_name or self._types[0]
        name = self._base_names.get(class_name) or self.nodeTypeLabel(class_name)
        node = self._scene.AddNewNodeByClass(class_name, self._scene.GenerateUniqueName(name))
        if self._select_new:
            self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node

    def removeCurrentNode(self) -> None:
        self._scene.RemoveNode(self.currentNode())

    # --- settings

    def comboBox(self) -> QtWidgets.QComboBox:
        return self._combo

    def sortFilterProxyModel(self) -> SortFilterProxyModel:
        return self._filter

    def addAttribute(self, class_name: str, attribute: str, value: str | None = None) -> None:
        """Offer nodes of a type only if they have this attribute (with this value)."""
        self._attributes[class_name] = (attribute, value)
        self._filter_again()

    def nodeTypeLabel(self, class_name: str) -> str:
        if class_name in self._labels or self._scene is None:
            return self._labels.get(class_name, "node")
        return self._scene.GetTypeDisplayNameByClassName(class_name) or "node"

    def setNodeTypeLabel(self, label: str, class_name: str) -> None:
        self._labels[class_name] = label
        self._update_action_rows()

    def setNodeTypes(self, class_names: Any) -> None:
        self._types = [name for name in class_names if name]
        self._filter_again()

    def setBaseName(self, name: str, class_name: str = "") -> None:
        self._base_names.update(dict.fromkeys([class_name] if class_name else self._types, name))

    def _set_flag(self, name: str, value: bool) -> None:
        if self._flags[name] != bool(value):
            self._flags[name] = bool(value)
            self._update_none_row()
            self._update_action_rows()

    def _set_shown(self, name: str, value: bool) -> None:
        self._show[name] = bool(value)
        self._filter_again()

    def setNoneEnabled(self, enabled: bool) -> None:
        self._set_flag("none", enabled)

    def setAddEnabled(self, enabled: bool) -> None:
        self._set_flag("add", enabled)

    def setRemoveEnabled(self, enabled: bool) -> None:
        self._set_flag("remove", enabled)

    def setEditEnabled(self, enabled: bool) -> None:
        self._set_flag("edit", enabled)

    def setRenameEnabled(self, enabled: bool) -> None:
        self._set_flag("rename", enabled)

    def setShowHidden(self, shown: bool) -> None:
        self._set_shown("hidden", shown)

    def setShowChildNodeTypes(self, shown: bool) -> None:
        self._set_shown("children", shown)

    def setHideChildNodeTypes(self, class_names: Any) -> None:
        """Leave nodes of these classes out where the classes derived from the offered ones are shown."""
        self._hidden_children = list(class_names)
        self._filter_again()

    def setSelectNodeUponCreation(self, selected: bool) -> None:
        self._select_new = bool(selected)

    def setNoneDisplay(self, text: str) -> None:
        self._none_text = str(text)
        self._update_none_row()

    currentNodeID = Property(str, lambda self: self._id_at(self._combo.currentIndex), setCurrentNodeID)
    nodeTypes = Property("QStringList", lambda self: list(self._types), setNodeTypes)
    baseName = Property(str, lambda self: self._base_names.get((self._types or [""])[0], ""), setBaseName)
    noneEnabled = Property(bool, lambda self: self._flags["none"], setNoneEnabled)
    addEnabled = Property(bool, lambda self: self._flags["add"], setAddEnabled)
    removeEnabled = Property(bool, lambda self: self._flags["remove"], setRemoveEnabled)
    editEnabled = Property(bool, lambda self: self._flags["edit"], setEditEnabled)
    renameEnabled = Property(bool, lambda self: self._flags["rename"], setRenameEnabled)
    showHidden = Property(bool, lambda self: self._show["hidden"], setShowHidden)
    showChildNodeTypes = Property(bool, lambda self: self._show["children"], setShowChildNodeTypes)
    hideChildNodeTypes = Property("QStringList", lambda self: list(self._hidden_children), setHideChildNodeTypes)
    selectNodeUponCreation = Property(bool, lambda self: self._select_new, setSelectNodeUponCreation)
    noneDisplay = Property(str, lambda self: self._none_text, setNoneDisplay)
