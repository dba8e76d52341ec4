"""What a form hides from its readers: which case stands behind a code, its label, and what the model says of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.write import atomically

from ..schema import fault

SCHEMA = "slicer-anomaly/review-key/1"
"""Of key.json; see `schemas/review_key.schema.json`."""

KEY_NAME, FORM_NAME = "key.json", "form.html"
_MOST_BYTES = 1 << 28


@dataclass(frozen=True)
class KeyFinding:
    """A finding that readers are asked about.

    Attributes
    ----------
    number
        Its label in the model's result, and in the form.
    true
        Whether it touches the truth; None where the truth is not known voxel by voxel.
    """

    number: int
    size: float
    unit: str
    true: bool | None


@dataclass(frozen=True)
class KeyCase:
    """A case of a form; of the model's answer all is None where the form was made without a model."""

    code: str
    case: str
    patient: str
    label: int
    score: float | None = None
    called: bool | None = None
    findings: tuple[KeyFinding, ...] = ()


@dataclass(frozen=True)
class Key:
    """The key of a form.

    Attributes
    ----------
    form
        Identifies the form: answers name it.
    model
        `id`, `version`, `sha256` and `detector`; None without a model.
    threshold
        Rarity at which the findings were made; None without a map.
    with_map
        Whether readers are shown what the model shows.
    """

    form: str
    seed: int
    with_map: bool
    manifest: str
    model: Mapping[str, str] | None
    threshold: float | None
    cases: tuple[KeyCase, ...]

    def __getitem__(self, code: str) -> KeyCase:
        return self.by_code()[code]

    def by_code(self) -> dict[str, KeyCase]:
        """The cases by their codes."""
        return {case.code: case for case in self.cases}

    def write(self, path: Path) -> Path:
        """Write key.json whole or not at all.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        data = {"schema": SCHEMA, **asdict(self), "cases": [asdict(case) for case in self.cases]}
        text = json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
        if found := fault(json.loads(text), "review_key"):
            raise ValueError(f"{path.name} would not agree with its schema: {found}")
        return atomically(path, lambda temporary: _write(temporary, text))


def form_id(facts: Mapping[str, Any]) -> str:
    """64 bits of the SHA-256 of what a form is made of."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def read_key(path: Path) -> Key:
    """Read key.json, or that of a folder that `review form` wrote.

    Raises
    ------
    InputError
        If it is not there or not what this version writes.
    """
    path = path / KEY_NAME if path.is_dir() else path
    data = read_json(path, "give a folder that `slicer-anomaly review form` wrote")
    if found := fault(data, "review_key"):
        raise InputError(f"{path}: this is no key of a form ({found}); give a folder that `review form` wrote.")
    cases = tuple(
        KeyCase(**{**case, "findings": tuple(KeyFinding(**finding) for finding in case["findings"])})
        for case in data.pop("cases")
    )
    del data["schema"]
    key = Key(**data, cases=cases)
    if len(key.by_code()) < len(cases):
        raise InputError(f"{path}: two cases of the key have the same code; make the form again.")
    return key


def read_json(path: Path, mend: str) -> Any:
    """The content of a JSON file that anybody may have written.

    Raises
    ------
    InputError
        If it cannot be read, is far too large or no JSON.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: the file is too large; {mend}.")
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file; {mend}.") from error
    except OSError as error:
        raise InputError(f"{path}: the file cannot be read ({error.strerror or error}).") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: this is not JSON; {mend}.") from error


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
