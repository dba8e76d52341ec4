"""What can stand in `Annotated[type, …]`: defaults, limits, and hints for widgets."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Collection
from typing import Annotated, Any


class Default:
    """The value that a parameter has at first; a `generator` makes a new one each time."""

    def __init__(self, value: Any = None, *, generator: Callable[[], Any] | None = None) -> None:
        self._value = value
        self._generator = generator

    @property
    def value(self) -> Any:
        return self._generator() if self._generator else self._value


@dataclasses.dataclass
class Decimals:
    """The number of decimals that a widget shows."""

    value: int


@dataclasses.dataclass
class SingleStep:
    """By how much a widget changes a value in a step."""

    value: float


class Validator:
    """Refuses values by raising an exception."""

    def validate(self, value: Any) -> None:
        raise NotImplementedError


class NotNone(Validator):
    def validate(self, value: Any) -> None:
        if value is None:
            raise ValueError("Value must not be None")


@dataclasses.dataclass
class IsInstance(Validator):
    classtype: Any

    def validate(self, value: Any) -> None:
        if value is not None and not isinstance(value, self.classtype):
            raise TypeError(f"Value must be of type '{self.classtype}', is type '{type(value)}' value '{value}'")


@dataclasses.dataclass
class WithinRange(Validator):
    """Limits, which are allowed values themselves."""

    minimum: float
    maximum: float

    def validate(self, value: Any) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within range [{self.minimum}, {self.maximum}], is {value}")


@dataclasses.dataclass
class Minimum(Validator):
    """The smallest allowed value."""

    minimum: float

    def validate(self, value: Any) -> None:
        if value < self.minimum:
            raise ValueError(f"Value must be greater than {self.minimum}, is {value}")


@dataclasses.dataclass
class Maximum(Validator):
    """The largest allowed value."""

    maximum: float

    def validate(self, value: Any) -> None:
        if value > self.maximum:
            raise ValueError(f"Value must be less than {self.maximum}, is {value}")


@dataclasses.dataclass
class Choice(Validator):
    """The only allowed values."""

    choices: Collection[Any]

    def validate(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"Value is {value}, but must be in one of the following: {self.choices}")


@dataclasses.dataclass
class Exclude(Validator):
    """Values that are not allowed."""

    excludedValues: Collection[Any]

    def validate(self, value: Any) -> None:
        if value in self.excludedValues:
            raise ValueError(f"Value is {value}, but must not be one of {self.excludedValues}")


def split(annotated: Any) -> tuple[Any, list[Any]]:
    """The type itself, and its annotations."""
    kind, *annotations = typing.get_args(Annotated[annotated, None])
    return kind, annotations[:-1]


def first(annotations: list[Any], kind: type) -> Any:
    """The first annotation of a kind, or None."""
    return next((annotation for annotation in annotations if isinstance(annotation, kind)), None)
