"""The decorator that turns a class of annotated names into a wrapper of a parameter node."""

from __future__ import annotations

import typing
import weakref
from collections.abc import Callable
from typing import Any

import qt
import slicer
import vtk

from .annotations import Default, Validator, first, split
from .connectors import Connector, connector
from .kinds import Kind, kind_of

SlicerParameterNamePropertyName = "SlicerParameterName"


class Description:
    """A parameter as the class declares it."""

    def __init__(self, name: str, annotated: Any, declared: Any) -> None:
        self.basename = name
        self.unalteredType = annotated
        kind, annotations = split(annotated)
        self.kind: Kind = kind_of(kind)
        self.validators = self.kind.checks() + [note for note in annotations if isinstance(note, Validator)]
        self.default: Default = declared or first(annotations, Default) or Default(self.kind.default())

    def write(self, node: Any, value: Any) -> None:
        for validator in self.validators:
            validator.validate(value)
        self.kind.write(node, self.basename, value)

    def read(self, node: Any) -> Any:
        if not node.HasParameter(self.basename):
            self.write(node, self.default.value)
        return self.kind.read(node, self.basename)


class Parameter:
    """The value of a parameter in one node, kept until the node changes."""

    def __init__(self, description: Description, node: Any) -> None:
        self.description = description
        self.node = node
        self.value = description.read(node)
        self._writing = False
        myself = weakref.ref(self)  # the node must not keep the wrapper alive
        self._tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: follow(myself()))

    def __del__(self) -> None:
        self.node.RemoveObserver(self._tag)

    def write(self, value: Any) -> None:
        self._writing = True
        try:
            with slicer.util.NodeModify(self.node):  # observers see the new value only
                self.description.write(self.node, value)
                self.value = self.description.read(self.node)
        finally:
            self._writing = False

    def follow_node(self) -> None:
        if not self._writing:
            self.value = self.description.read(self.node)


def follow(parameter: Parameter | None) -> None:
    if parameter is not None:
        parameter.follow_node()


class Wrapper:
    """What the decorator adds to a class; names as in Slicer."""

    allParameters: typing.ClassVar[dict[str, Description]] = {}
    _is_parameter_node_wrapper = True

    def __init__(self, parameterNode: Any) -> None:
        self.parameterNode = parameterNode
        self._connectors: dict[int, dict[str, Connector]] = {}
        self._observers: dict[int, int] = {}
        self._next_tag = 0
        self._updating_gui = False
        self._parameters = {name: Parameter(this, parameterNode) for name, this in self.allParameters.items()}

    def _parameter(self, name: str) -> Parameter:
        if name not in self._parameters:
            raise ValueError(f"Cannot find a param with the given name: {name}, found {list(self._parameters)}")
        return self._parameters[name]

    def getValue(self, name: str) -> Any:
        return self._parameter(name).value

    def setValue(self, name: str, value: Any) -> None:
        self._parameter(name).write(value)

    def default(self, name: str) -> Default:
        return self._parameter(name).description.default

    def isCached(self, name: str) -> bool:
        return self._parameter(name) is not None

    @classmethod
    def dataType(cls, name: str) -> Any:
        return cls.allParameters[name].unalteredType

    def connectGui(self, gui: Any) -> int:
        """Tie the widgets of `gui` that name a parameter to it, both ways; the returned tag undoes it."""
        is_widget = getattr(gui, "isWidgetType", lambda: False)()
        widgets = gui.findChildren(qt.QWidget) if is_widget else vars(gui).values()
        named = {widget.property(SlicerParameterNamePropertyName): widget for widget in widgets}
        return self.connectParametersToGui({name: widget for name, widget in named.items() if name})

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        """Tie widgets to parameters by name."""
        for name in mapping:
            self._parameter(name)
        made = {name: connector(widget, self.dataType(name)) for name, widget in mapping.items()}
        tag, self._next_tag = self._next_tag, self._next_tag + 1
        self._connectors[tag] = made
        for name, this in made.items():
            this.write(self.getValue(name))
            this.onChanged(self._setter(name, this))
        self._observers[tag] = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._update_gui())
        return tag

    def _setter(self, name: str, this: Connector) -> Callable[[], None]:
        def set_parameter() -> None:
            with slicer.util.NodeModify(self):
                if not self._updating_gui:
                    self.setValue(name, this.read())

        return set_parameter

    def _update_gui(self) -> None:
        if self._updating_gui:
            return
        self._updating_gui = True
        try:
            with slicer.util.NodeModify(self):
                for connectors in self._connectors.values():
                    for name, this in connectors.items():
                        this.write(self.getValue(name))
        finally:
            self._updating_gui = False

    def disconnectGui(self, tag: int) -> None:
        """Undo `connectGui`."""
        for this in self._connectors.pop(tag, {}).values():
            this.onChanged(None)
        if tag in self._observers:
            self.RemoveObserver(self._observers.pop(tag))

    def StartModify(self) -> Any:
        return self.parameterNode.StartModify()

    def EndModify(self, wasModified: Any) -> Any:
        return self.parameterNode.EndModify(wasModified)

    def AddObserver(self, event: Any, callback: Callable[..., None], priority: float = 0.0) -> int:
        return int(self.parameterNode.AddObserver(event, callback, priority))

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)

    def Modified(self) -> None:
        self.parameterNode.Modified()


def isParameterNodeWrapper(classOrObj: Any) -> bool:
    """Whether something is a wrapper, or a class of them."""
    return bool(getattr(classOrObj, "_is_parameter_node_wrapper", False))


def parameterNodeWrapper(classtype: type | None = None) -> Any:
    """Decorate a class: its annotated names become parameters of the node that its objects are made with."""
    return wrapped(classtype) if classtype is not None else wrapped


def wrapped(cls: type) -> type:
    for name in vars(Wrapper):
        if not name.startswith("__"):
            if hasattr(cls, name) or name in cls.__annotations__:
                raise ValueError(f"Cannot use reserved name '{name}' in a parameterNodeWrapper")
            setattr(cls, name, vars(Wrapper)[name])
    described = {}
    for name, annotated in typing.get_type_hints(cls, include_extras=True).items():
        if name not in vars(Wrapper):
            declared = Default(getattr(cls, name)) if hasattr(cls, name) else None
            described[name] = Description(name, annotated, declared)
            setattr(cls, name, accessor(name))
    setattr(cls, "allParameters", described)  # noqa: B010 (mypy: not declared)
    setattr(cls, "__init__", Wrapper.__init__)  # noqa: B010
    return cls


def accessor(name: str) -> property:
    return property(lambda self: self.getValue(name), lambda self, value: self.setValue(name, value))
