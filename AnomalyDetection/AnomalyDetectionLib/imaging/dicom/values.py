"""Values of DICOM elements as plain numbers and text, whatever the file says.

pydicom converts an element on first access, with validation, at 10 to 30 µs each: a second for the 384 slices of one
head.  These accessors read the raw bytes instead, and a value that cannot be read counts as absent.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

_BINARY = {
    "US": "u2",
    "SS": "i2",
    "UL": "u4",
    "SL": "i4",
    "FL": "f4",
    "FD": "f8",
    "US or SS": "u2",
    "SV": "i8",
    "UV": "u8",
}


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """The values of a numeric element; empty if it is absent, empty, malformed or not finite."""
    element = dataset.get_item(_tag(keyword))
    if element is None or element.value is None:
        return ()
    try:
        if isinstance(element, RawDataElement):
            values = _raw_numbers(element, keyword)
        elif isinstance(element.value, (str, bytes)):
            return ()
        else:
            values = tuple(float(value) for value in np.atleast_1d(np.array(element.value, dtype=np.float64)))
    except (TypeError, ValueError):
        return ()
    return values if all(map(math.isfinite, values)) else ()


def number(dataset: Dataset, keyword: str, default: float | None = None) -> float | None:
    """The first value of a numeric element, or `default`."""
    values = numbers(dataset, keyword)
    return values[0] if values else default


def integer(dataset: Dataset, keyword: str, default: int = 0) -> int:
    """The first value of a numeric element as a whole number, or `default`."""
    values = numbers(dataset, keyword)
    return int(values[0]) if values else default


def words(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """The values of a code, UID or number in ASCII, as text without padding."""
    element = dataset.get_item(_tag(keyword))
    if element is None or element.value is None:
        return ()
    value = element.value
    if isinstance(value, bytes):
        text = value.decode("ascii", "replace")
    elif isinstance(value, str) or not hasattr(value, "__iter__"):
        text = str(value)
    else:
        text = "\\".join(str(item) for item in value)
    return tuple(word.strip(" \0") for word in text.split("\\")) if text.strip(" \0") else ()


def word(dataset: Dataset, keyword: str) -> str:
    """The first value of a code, UID or number, or an empty string."""
    values = words(dataset, keyword)
    return values[0] if values else ""


def description(dataset: Dataset, keyword: str) -> str:
    """A descriptive text, decoded with the character set of the file and free of control characters."""
    try:
        text = str(dataset.get(keyword) or "")
    except Exception:  # a damaged element or character set: pydicom raises whatever its converter meets
        text = word(dataset, keyword)
    return "".join(letter for letter in text if letter.isprintable()).strip()


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; empty if it is absent or not a sequence."""
    try:
        value = dataset.get(keyword)
        return [item for item in value or () if isinstance(item, Dataset)]
    except Exception:  # as above: a damaged sequence is one without items
        return []


@cache
def _tag(keyword: str) -> BaseTag:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return BaseTag(tag)


@cache
def _dictionary_vr(keyword: str) -> str:
    return dictionary_VR(_tag(keyword))


def _raw_numbers(element: RawDataElement, keyword: str) -> tuple[float, ...]:
    vr = element.VR if element.VR not in (None, "UN") else _dictionary_vr(keyword)
    value = element.value or b""
    if vr in ("DS", "IS"):
        text = value.decode("ascii", "replace").strip(" \0")
        return tuple(float(part) for part in text.split("\\")) if text else ()
    if vr in _BINARY:
        kind = np.dtype(_BINARY[vr]).newbyteorder("<" if element.is_little_endian else ">")
        return tuple(float(number) for number in np.frombuffer(value, dtype=kind))
    return ()
