"""Checks messages against `schemas/worker.schema.json` with the standard library alone.

Slicer bundles no JSON schema package, and what comes from another process is checked before it is used.  The keywords
of JSON Schema 2020-12 that the file uses are understood, any other is refused when the file is read; a test holds the
verdicts to those of the package `jsonschema`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parents[1] / "schemas" / "worker.schema.json"

_TYPES: dict[str, type] = {"object": dict, "array": list, "string": str, "null": type(None), "boolean": bool}
_ANNOTATIONS = {"description", "title", "$schema", "$id", "$defs"}


class SchemaError(ValueError):
    """A value does not fit; says where and why."""


@cache
def schema() -> dict[str, Any]:
    """The schema of all messages.

    Raises
    ------
    ValueError
        If it uses a keyword that is not understood here.
    """
    whole = json.loads(FILE.read_text(encoding="utf-8"))
    _refuse_unknown_keywords(whole)
    return whole


def check(value: Any, name: str) -> None:
    """Check a value against the definition `name` (such as "answer.progress").

    Raises
    ------
    SchemaError
        If there is no such definition, or the value does not fit it.
    """
    definition = schema()["$defs"].get(name)
    if definition is None:
        raise SchemaError(f"there is no message {name!r}")
    _check(value, definition, name)


def _refuse_unknown_keywords(node: Mapping[str, Any]) -> None:
    for key in node:
        if key not in _KEYWORDS and key not in _ANNOTATIONS:
            raise ValueError(f"{FILE.name}: the keyword {key!r} is not understood")
    inner = [*node.get("$defs", {}).values(), *node.get("properties", {}).values(), *node.get("anyOf", [])]
    inner += [node[key] for key in ("items", "additionalProperties") if isinstance(node.get(key), dict)]
    for child in inner:
        _refuse_unknown_keywords(child)


def _check(value: Any, node: Mapping[str, Any], place: str) -> None:
    for key, wanted in node.items():
        if key in _KEYWORDS:
            _KEYWORDS[key](value, wanted, node, place)


def _is_type(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer":
        return isinstance(value, int)
    if name == "number":
        return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    return isinstance(value, _TYPES[name])


def _ref(value: Any, wanted: str, node: Mapping[str, Any], place: str) -> None:
    _check(value, schema()["$defs"][wanted.removeprefix("#/$defs/")], place)


def _any_of(value: Any, wanted: list[Mapping[str, Any]], node: Mapping[str, Any], place: str) -> None:
    reasons = []
    for option in wanted:
        try:
            _check(value, option, place)
            return
        except SchemaError as error:
            reasons.append(str(error))
    # The reason found deepest is that of the option that was meant.
    raise SchemaError(max(reasons, key=lambda reason: reason.count(".")))


def _type(value: Any, wanted: str | list[str], node: Mapping[str, Any], place: str) -> None:
    names = [wanted] if isinstance(wanted, str) else wanted
    if not any(_is_type(value, name) for name in names):
        raise SchemaError(f"{place} is not {' or '.join(names)}")


def _const(value: Any, wanted: Any, node: Mapping[str, Any], place: str) -> None:
    if value != wanted or isinstance(value, bool) != isinstance(wanted, bool):
        raise SchemaError(f"{place} is not {wanted!r}")


def _enum(value: Any, wanted: list[Any], node: Mapping[str, Any], place: str) -> None:
    if not isinstance(value, str) or value not in wanted:
        raise SchemaError(f"{place} is none of {', '.join(map(str, wanted))}")


def _required(value: Any, wanted: list[str], node: Mapping[str, Any], place: str) -> None:
    missing = [key for key in wanted if key not in value] if isinstance(value, dict) else []
    if missing:
        raise SchemaError(f"{place} lacks {missing[0]!r}")


def _properties(value: Any, wanted: Mapping[str, Any], node: Mapping[str, Any], place: str) -> None:
    if isinstance(value, dict):
        for key, definition in wanted.items():
            if key in value:
                _check(value[key], definition, f"{place}.{key}")


def _additional(value: Any, wanted: Any, node: Mapping[str, Any], place: str) -> None:
    if not isinstance(value, dict):
        return
    for key in value.keys() - node.get("properties", {}).keys():
        if wanted is False:
            raise SchemaError(f"{place} has an unknown key {str(key)[:50]!r}")
        _check(value[key], wanted, f"{place}.{key}")


def _items(value: Any, wanted: Mapping[str, Any], node: Mapping[str, Any], place: str) -> None:
    for index, item in enumerate(value if isinstance(value, list) else ()):
        _check(item, wanted, f"{place}[{index}]")


def _matches(pattern: str, value: str) -> bool:
    """As in JavaScript, where `$` is the very end and not also the place before a last line break."""
    return re.search(re.sub(r"\$$", r"\\Z", pattern), value) is not None


def _bound(kind: type | tuple[type, ...], holds: Callable[[Any, Any], bool], words: str) -> Callable[..., None]:
    def check_bound(value: Any, wanted: Any, node: Mapping[str, Any], place: str) -> None:
        if isinstance(value, kind) and not isinstance(value, bool) and not holds(value, wanted):
            raise SchemaError(f"{place} {words} {wanted}")

    return check_bound


_NUMBER = (int, float)
_KEYWORDS: dict[str, Callable[..., None]] = {
    "$ref": _ref,
    "anyOf": _any_of,
    "type": _type,
    "const": _const,
    "enum": _enum,
    "required": _required,
    "properties": _properties,
    "additionalProperties": _additional,
    "items": _items,
    "minItems": _bound(list, lambda value, wanted: len(value) >= wanted, "has fewer entries than"),
    "maxItems": _bound(list, lambda value, wanted: len(value) <= wanted, "has more entries than"),
    "minLength": _bound(str, lambda value, wanted: len(value) >= wanted, "is shorter than"),
    "maxLength": _bound(str, lambda value, wanted: len(value) <= wanted, "is longer than"),
    "pattern": _bound(str, lambda value, wanted: _matches(wanted, value), "does not match"),
    "minimum": _bound(_NUMBER, lambda value, wanted: value >= wanted, "is below"),
    "maximum": _bound(_NUMBER, lambda value, wanted: value <= wanted, "is above"),
    "exclusiveMinimum": _bound(_NUMBER, lambda value, wanted: value > wanted, "is not above"),
}
