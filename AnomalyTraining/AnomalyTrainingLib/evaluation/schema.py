"""The JSON schemas of what evaluations write, as they ship with the package."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

import jsonschema


@cache
def validator(name: str) -> jsonschema.Draft202012Validator:
    """Of `schemas/<name>.schema.json`."""
    text = (files("AnomalyTrainingLib") / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8")
    return jsonschema.Draft202012Validator(json.loads(text))


def fault(document: Any, name: str) -> str:
    """The first disagreement of plain JSON values with a schema, or "".

    Parameters
    ----------
    name
        "metrics" or "crossval".
    """
    error = jsonschema.exceptions.best_match(validator(name).iter_errors(document))
    return f"{error.json_path}: {error.message[:200]}" if error is not None else ""
