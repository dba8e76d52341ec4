"""What is wrong with a configuration, in words that name the nearest right key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError


def refuse_truth_values(value: Any, annotation: Any) -> Any:
    """The value itself; pydantic would take true and false for 1 and 0, where YAML's `yes` was not meant as a number.

    Raises
    ------
    ValueError
        If the value, or one in the list that it is, is true or false where `annotation` has no place for it.
    """
    values = value if isinstance(value, list) else [value]
    if any(isinstance(v, bool) for v in values) and not _takes(annotation, bool):
        raise ValueError("the value cannot be true or false")
    return value


def _takes(annotation: Any, kind: type) -> bool:
    """Whether a type allows values of that kind."""
    if annotation is Any or annotation is kind:
        return True
    return any(_takes(part, kind) for part in getattr(annotation, "__args__", ()))


def describe_problems(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[str]:
    """A phrase for each problem that pydantic found.

    Parameters
    ----------
    model
        What was validated.
    prefix
        Stands before every key, such as "options.".
    """
    known = {prefix + key for key in _keys(model)}
    phrases = []
    for problem in error.errors():
        place = [str(step) for step in problem["loc"]]
        key = prefix + ".".join(place)
        if problem["type"] == "extra_forbidden":
            phrases.append(f"unknown key {key!r} ({_hint(key, known)})")
        elif problem["type"] == "missing":
            phrases.append(f"the key {key!r} is missing")
        elif problem["type"] == "value_error":
            phrases.append(f"{key!r}: {problem['ctx']['error']}")
        else:
            said = (
                re.sub(r"^Input", "the value", problem["msg"])
                .partition(" or instance of ")[0]
                .partition(", unable to")[0]
            )
            phrases.append(f"{key!r}: {said}, not {problem['input']!r}")
    return phrases


def _keys(model: type[BaseModel], before: str = "") -> Iterator[str]:
    """All keys of a model and its sections, dotted."""
    for name, field in model.model_fields.items():
        yield before + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, f"{before}{name}.")


def _hint(key: str, known: set[str]) -> str:
    """The nearest known key: first among its neighbours, then anywhere."""
    section, _, name = key.rpartition(".")
    neighbours = sorted(k for k in known if k.rpartition(".")[0] == section)
    near = difflib.get_close_matches(name, [k.rpartition(".")[2] for k in neighbours], 1)
    if near:
        nearest = f"{section}.{near[0]}" if section else near[0]
        return f"did you mean {nearest!r}?"
    elsewhere = difflib.get_close_matches(name, {k.rpartition(".")[2] for k in known}, 1, 0.8)
    if elsewhere:
        return f"did you mean {min((k for k in known if k.rpartition('.')[2] == elsewhere[0]), key=len)!r}?"
    return f"known: {', '.join(k.rpartition('.')[2] for k in neighbours)}"
