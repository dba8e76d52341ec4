"""review.json and review.html: the analysis of a reading."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from AnomalyDetectionLib.imaging.write import atomically

from ..pages import render
from ..schema import fault
from .answers import VERDICTS

JSON_NAME, HTML_NAME = "review.json", "review.html"


def write_review(review: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write both files whole or not at all, review.json the last.

    Raises
    ------
    ValueError
        If the analysis does not agree with its schema.
    OutputError
        If a file cannot be written.
    """
    text = json.dumps(review, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    if found := fault(json.loads(text), "review"):
        raise ValueError(f"{JSON_NAME} would not agree with its schema: {found}")
    page = render("review.html.j2", review=review, verdicts=VERDICTS, level=f"{100 * review['bootstrap']['level']:g} %")
    return [
        atomically(folder / name, lambda path, content=content: _write(path, content))  # type: ignore[misc]
        for name, content in ((HTML_NAME, page), (JSON_NAME, text))
    ]


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
