"""The manifest's columns and what may stand in them, as `schemas/cohort.schema.json` states it.

The reader follows the schema itself rather than through the package jsonschema, which 3D Slicer does not bundle; a test
holds the two to the same verdicts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

_FILE = "cohort.schema.json"


@dataclass(frozen=True)
class Column:
    """One column: the values it takes, and those values in words.

    Attributes
    ----------
    allowed
        All values there are, or None for any that the pattern takes.
    least
        Fewest characters.
    must_be
        For messages: "'label' is '2'; it must be 0 (normal) or 1 (abnormal)".
    """

    name: str
    description: str
    pattern: re.Pattern[str] | None
    allowed: tuple[str, ...] | None
    least: int
    must_be: str

    @classmethod
    def from_schema(cls, name: str, rules: Mapping[str, Any]) -> Column:
        """The column that a property of the schema describes."""
        pattern = re.compile(rules["pattern"]) if "pattern" in rules else None
        allowed = tuple(rules["enum"]) if "enum" in rules else None
        return cls(
            name, rules.get("description", ""), pattern, allowed, rules.get("minLength", 0), rules.get("mustBe", "")
        )

    def fault(self, value: str) -> str | None:
        """What is wrong with a cell, or None."""
        if not value and (self.least or (self.pattern and not self.pattern.search(""))):
            return f"{self.name!r} is empty"
        if self.allowed is not None and value not in self.allowed:
            return f"{self.name!r} is {value[:60]!r}; it must be {self.must_be}"
        if self.pattern is not None and not self.pattern.search(value):
            return f"{self.name!r} is {value[:60]!r}; it must be {self.must_be}"
        return None


@dataclass(frozen=True)
class Columns:
    """All columns that have a meaning; any other is a covariate.

    Attributes
    ----------
    named
        By name, in the order of the schema.
    channel
        What holds for ``image_<channel>``.
    required
        Names of the columns no manifest goes without.
    """

    named: Mapping[str, Column]
    channel: Column
    required: tuple[str, ...]

    def faults(self, row: Mapping[str, str]) -> list[str]:
        """What is wrong with a row, one phrase each; columns it does not have are left to the header's check."""
        found = []
        for name, value in row.items():
            column = self.named.get(name)
            if column is None and name.startswith("image_"):
                column = Column(name, "", None, None, self.channel.least, "")
            if column is not None and (fault := column.fault(value)):
                found.append(fault)
        return found


@cache
def columns() -> Columns:
    """The columns of the schema that ships with the package."""
    schema = json.loads((files("AnomalyTrainingLib") / "schemas" / _FILE).read_text(encoding="utf-8"))
    row = schema["items"]
    (channel,) = row["patternProperties"].values()
    named = {name: Column.from_schema(name, rules) for name, rules in row["properties"].items()}
    return Columns(named, Column.from_schema("image_<channel>", channel), tuple(row["required"]))
