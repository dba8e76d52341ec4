"""HTML pages from the templates of this package: offline, without scripts, every value escaped."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from .plotting import interval_text, plain
from .shift.words import is_notable


def render(template: str, **values: Any) -> str:
    """A page of the folder `templates`."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("AnomalyTrainingLib", "evaluation/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "fixed": fixed,
        "signed": lambda value: fixed(value, sign="+"),
        "plain": plain,
        "percent": lambda value: "–" if value is None else f"{value:.0%}",
        "interval": interval_text,
        "base64": lambda data: base64.b64encode(data).decode("ascii"),
        "reasons": reasons,
        "any_figure": any_figure,
        "notable": is_notable,
    }
    return environment


def fixed(value: float, digits: int = 2, sign: str = "") -> str:
    """With a fixed number of decimals and a true minus."""
    return f"{value:{sign}z.{digits}f}".replace("-", "−")


def any_figure(document: Mapping[str, Any], level: str, columns: list[tuple[str, str]]) -> bool:
    """Whether any method has a value in a table."""
    entries = [entry[level] for entry in document["methods"].values()]
    return any(entry[key]["value"] is not None for entry in entries for key, _ in columns)


def reasons(document: Mapping[str, Any], level: str, columns: list[tuple[str, str]]) -> list[str]:
    """Why figures of a table are missing, each reason once with the methods it holds for."""
    found: dict[str, list[str]] = {}
    for name, entry in document["methods"].items():
        for key, _ in columns:
            if reason := entry[level][key].get("reason"):
                found.setdefault(reason, []).append(name)
    return [f"{reason} ({', '.join(dict.fromkeys(names))})" for reason, names in found.items()]
