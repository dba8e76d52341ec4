"""`score --covariates FILE`: what models with clinical columns are told of each case."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from AnomalyDetectionLib.errors import InputError

from .inputs import Request, name_cases

MOST_BYTES = 64 << 20


def with_covariates(requests: Sequence[Request], path: Path) -> list[Request]:
    """The requests with what a table says of their cases; it takes the place of what manifest and header say.

    A case is named as its results are: by the manifest, or after its file or folder.

    Raises
    ------
    InputError
        If the table cannot be read, names a case twice or none of those to be scored.
    """
    table = _read(path)
    names = name_cases(requests, {})
    if not any(name in table for name in names):
        known = ", ".join(list(table)[:3])
        raise InputError(
            f"{path.name}: it names none of the cases to be scored ({known} and so on stand there, {names[0]} does "
            "not); the column 'case' takes the names of the result folders."
        )
    return [
        replace(request, covariates=tuple({**dict(request.covariates), **table.get(name, {})}.items()))
        for name, request in zip(names, requests, strict=True)
    ]


def _read(path: Path) -> dict[str, dict[str, str]]:
    """Case to its filled cells."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path.name}: this is too large for a table of covariates.")
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = [[cell.strip() for cell in row] for row in csv.reader(stream, strict=True)]
    except OSError as error:
        raise InputError(f"{path.name}: the covariates cannot be read ({error.strerror or error}).") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path.name}: this is no table in CSV form and UTF-8 ({error}); save it again so.") from error
    header = rows[0] if rows else []
    if "case" not in header or len(header) < 2:
        raise InputError(
            f"{path.name}: the first line must name a column 'case' and the columns of covariates, such as age and sex."
        )
    table: dict[str, dict[str, str]] = {}
    for number, row in enumerate(rows[1:], start=2):
        cells = {name: cell for name, cell in zip(header, row, strict=False) if name and cell}
        if not cells:
            continue
        case = cells.pop("case", "")
        if not case or case in table:
            fault = f"the case {case!r} came before" if case else "no case is named"
            raise InputError(f"{path.name}, line {number}: {fault}; give every case one line.")
        table[case] = cells
    return table
