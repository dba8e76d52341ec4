"""How the kinds of values are written into a parameter node, which keeps text and references to nodes."""

from __future__ import annotations

import enum
import pathlib
import typing
from typing import Any

import slicer

from .annotations import IsInstance, NotNone, Validator


class Kind:
    """Values that are kept as text."""

    def __init__(self, of: Any) -> None:
        self.type = of

    @staticmethod
    def suits(of: Any) -> bool:
        raise NotImplementedError

    def checks(self) -> list[Validator]:
        return [NotNone(), IsInstance(self.type)]

    def default(self) -> Any:
        return self.type()

    def write(self, node: Any, name: str, value: Any) -> None:
        node.SetParameter(name, str(value))

    def read(self, node: Any, name: str) -> Any:
        return self.type(node.GetParameter(name))


class NumberKind(Kind):
    @staticmethod
    def suits(of: Any) -> bool:
        return of in (int, float)

    def checks(self) -> list[Validator]:
        return [NotNone(), IsInstance((int, float) if self.type is float else int)]


class TextKind(Kind):
    @staticmethod
    def suits(of: Any) -> bool:
        return of is str


class PathKind(Kind):
    @staticmethod
    def suits(of: Any) -> bool:
        return isinstance(of, type) and issubclass(of, pathlib.PurePath)


class BoolKind(Kind):
    @staticmethod
    def suits(of: Any) -> bool:
        return of is bool

    def read(self, node: Any, name: str) -> bool:
        return bool(node.GetParameter(name) == "True")

    def write(self, node: Any, name: str, value: bool) -> None:
        node.SetParameter(name, "True" if value else "False")


class EnumKind(Kind):
    @staticmethod
    def suits(of: Any) -> bool:
        return isinstance(of, type) and issubclass(of, enum.Enum)

    def default(self) -> Any:
        return next(iter(self.type))

    def write(self, node: Any, name: str, value: enum.Enum) -> None:
        node.SetParameter(name, value.name)

    def read(self, node: Any, name: str) -> Any:
        key = node.GetParameter(name)
        try:
            return self.type[key]
        except KeyError as error:
            raise ValueError(f"Found {key!r} in parameter node but it is not a name in {self.type!r}") from error


class NodeKind(Kind):
    """Nodes of one class, or of several (a union)."""

    @staticmethod
    def suits(of: Any) -> bool:
        return bool(node_classes(of))

    def checks(self) -> list[Validator]:
        return [IsInstance(tuple(node_classes(self.type)))]

    def default(self) -> None:
        return None

    def write(self, node: Any, name: str, value: Any) -> None:
        node.SetParameter(name, "")  # tells a parameter that is None from one that is not there
        node.SetNodeReferenceID(name, value.GetID() if value is not None else None)

    def read(self, node: Any, name: str) -> Any:
        return node.GetNodeReference(name)


KINDS = (NumberKind, TextKind, PathKind, BoolKind, EnumKind, NodeKind)


def kind_of(of: Any) -> Kind:
    """The kind of the values of a type.

    Raises
    ------
    Exception
        If there is none.
    """
    for kind in KINDS:
        if kind.suits(of):
            return kind(of)
    raise Exception(f"Unable to create serializer for type: {of}")


def node_classes(of: Any) -> list[type]:
    """The node classes that a type allows; none, if it allows anything else than nodes and None."""
    members = [member for member in typing.get_args(of) or (of,) if member is not type(None)]
    nodes = [member for member in members if isinstance(member, type) and issubclass(member, slicer.vtkMRMLNode)]
    return nodes if len(nodes) == len(members) else []
