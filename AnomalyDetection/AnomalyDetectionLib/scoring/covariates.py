"""Clinical columns beside the image (age, sex, view position, ...): from their text to the numbers a detector is given.

The values come from a manifest, a DICOM header or a table given to `score`; `Volume.covariates` holds them on the way.
A column that is missing stays visible as missing (NaN), and a category that was not there in training has a number of
its own: neither is taken for something the model knows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib.errors import InputError

LARGEST = 1e12
"""Numbers beyond it are taken for missing: sums of their squares would not be finite."""


@dataclass(frozen=True)
class ClinicalColumn:
    """How one column becomes numbers.

    Attributes
    ----------
    categories
        Of a column of words, one number each and a last one for any other word; () for a column of numbers.
    centre, scale
        Of a column of numbers: mean and standard deviation of the training cases.
    """

    name: str
    categories: tuple[str, ...] = ()
    centre: float = 0.0
    scale: float = 1.0

    @property
    def width(self) -> int:
        """How many numbers it becomes."""
        return len(self.categories) + 1 if self.categories else 1

    def encode(self, value: str | None) -> tuple[list[float], str | None]:
        """The numbers of a value (NaN where it is missing), and a sentence where it is none that training knew."""
        text = "" if value is None else value.strip()
        if not text:
            return [math.nan] * self.width, None
        if self.categories:
            found = [float(text.casefold() == category.casefold()) for category in self.categories]
            note = None if any(found) else f"{self.name} is {text[:40]!r}, which the model has not seen in training."
            return [*found, float(not any(found))], note
        number = as_number(text)
        if number is None:
            return [math.nan], f"{self.name} is {text[:40]!r}, which is no number; it counts as missing."
        return [(number - self.centre) / self.scale], None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**asdict(self), "categories": list(self.categories)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ClinicalColumn:
        """The inverse of `to_json`.

        Raises
        ------
        InputError
            If it is none.
        """
        if unknown := set(data) - {f.name for f in fields(cls)}:
            raise InputError(f"clinical column: unknown key {sorted(unknown)[0]!r}.")
        categories = tuple(str(category) for category in data.get("categories", ()))
        column = cls(str(data["name"]), categories, float(data.get("centre", 0.0)), float(data.get("scale", 1.0)))
        if not (column.name and math.isfinite(column.centre) and math.isfinite(column.scale) and column.scale > 0):
            raise InputError(f"clinical column {column.name!r}: centre and scale must be numbers, the scale above 0.")
        return column


def encode(
    columns: Sequence[ClinicalColumn], covariates: Mapping[str, str]
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """The numbers of a case, float32 (F,), NaN where missing, and sentences of what whoever reads the result must know.

    Raises
    ------
    ValueError
        Without a column.
    """
    if not columns:
        raise ValueError("there is no clinical column to encode")
    numbers, notes = [], []
    for column in columns:
        made, note = column.encode(covariates.get(column.name))
        numbers += made
        notes += [note] if note else []
    missing = [column.name for column in columns if not covariates.get(column.name, "").strip()]
    if missing:
        what = "all clinical columns are" if len(missing) == len(columns) else "clinical columns are"
        notes.append(f"Of this case {what} missing ({', '.join(missing)}); the model was told so.")
    return np.array(numbers, dtype=np.float32), tuple(notes)


def as_number(value: float | str | None) -> float | None:
    """A finite number of usable size, or None; ages may be DICOM's ("063Y")."""
    if value is None:
        return None
    text = str(value).strip()
    age = re.fullmatch(r"(\d{1,3})([DWMY])", text)
    if age:
        return int(age.group(1)) / {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}[age.group(2)]
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and abs(number) < LARGEST else None
