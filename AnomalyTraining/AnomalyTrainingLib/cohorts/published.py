"""Tables and folders of published data sets, read as they were published and doubted where they differ.

The adapters read a table row by row and take its columns by name; a header that is not the published one, a row that
was cut short or a path that leaves the data set is refused in one sentence.
"""

from __future__ import annotations

import csv
import difflib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from AnomalyDetectionLib.errors import InputError

from .manifest import Case

Accept = Callable[[Sequence[Case]], object]
"""Called with cases before anything is written for them; raises where they cannot be used."""

Warn = Callable[[str], None]
"""Called with one sentence for what the user should know."""

_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons"}
_MOST_BYTES = 256 << 20


@dataclass(frozen=True)
class Wanted:
    """A column that an adapter takes.

    Attributes
    ----------
    names
        The names it was published under, the newest first.
    optional
        Without it the cells are empty.
    """

    names: tuple[str, ...]
    optional: bool = False

    @classmethod
    def of(cls, *names: str, optional: bool = False) -> Wanted:
        """A column with these names."""
        return cls(names, optional)


def published_rows(
    path: Path, wanted: Sequence[Wanted], *, delimiter: str = ",", header: Sequence[str] | None = None
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(line number, the wanted cells) of a published table, one row at a time; blank lines are left out.

    Parameters
    ----------
    header
        The names of the columns where the file itself has no line of them.

    Raises
    ------
    InputError
        If the file cannot be read, has another delimiter or header, a row of another length, or no row.
    """
    lines = _lines(path)
    try:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        named = [cell.strip() for cell in (header if header is not None else next(reader, []))]
        places = _places(path, named, wanted, delimiter)
        length = _length(named)
        none = True
        for cells in reader:
            if len(cells) < length or any(cells[length:]):
                if not any(cell.strip() for cell in cells):
                    continue
                raise _uneven(path, reader.line_num, len(cells), length, delimiter)
            none = False
            yield reader.line_num, tuple(["" if place is None else cells[place].strip() for place in places])
    except csv.Error as error:
        raise InputError(
            f"{path}: this is no table with {_DELIMITERS[delimiter]} ({error}); fetch it again."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: the table is not UTF-8 text; fetch it again.") from error
    if none:
        raise InputError(f"{path}: the table has no rows; fetch it again.")


def _lines(path: Path) -> Iterator[str]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: the table is larger than {_MOST_BYTES >> 20} MB; this is not the published one.")
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield from stream
    except OSError as error:
        raise InputError(f"{path}: the table cannot be read ({error.strerror or error}).") from error


def _length(named: Sequence[str]) -> int:
    """Columns up to the last one with a name: published headers end in stray delimiters."""
    return max((place for place, name in enumerate(named, 1) if name), default=0)


def _places(path: Path, named: Sequence[str], wanted: Sequence[Wanted], delimiter: str) -> list[int | None]:
    """Where the wanted columns stand."""
    if not any(named):
        raise InputError(f"{path}: the table is empty; fetch it again.")
    places: list[int | None] = []
    for column in wanted:
        place = next((named.index(name) for name in column.names if name in named), None)
        if place is None and not column.optional:
            raise InputError(f"{path}: {_missing(column.names[0], named, delimiter)}.")
        places.append(place)
    return places


def _missing(name: str, named: Sequence[str], delimiter: str) -> str:
    others = [other for other in _DELIMITERS if other != delimiter and any(other in cell for cell in named)]
    if len(named) == 1 and others:
        return f"the columns are separated by {_DELIMITERS[others[0]]}; save the table with {_DELIMITERS[delimiter]}"
    return f"there is no column {name!r}; {nearest(name, [other for other in named if other])}"


def nearest(name: str, known: Iterable[str]) -> str:
    """'the nearest is X', or the first of all there are."""
    known = list(known)
    lowered = {other.casefold(): other for other in known}
    near = difflib.get_close_matches(name.casefold(), lowered, 1)
    if near:
        return f"the nearest is {lowered[near[0]]!r}"
    return f"there are {', '.join(known[:20])}{' and more' if len(known) > 20 else ''}"


def _uneven(path: Path, row: int, found: int, length: int, delimiter: str) -> InputError:
    why = "the table was cut short; fetch it again" if found < length else f"is it a table with {delimiter!r}?"
    return InputError(f"{path}: row {row} has {found} cells, the header names {length} columns; {why}.")


def folder_of(source: str | Path) -> Path:
    """The data set's folder, absolute.

    Raises
    ------
    InputError
        If there is none.
    """
    source = Path(source).absolute()
    if not source.is_dir():
        raise InputError(f"{source}: there is no such folder.")
    return source


def first_file(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of these files that a folder has."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def files_below(folder: Path, pattern: re.Pattern[str]) -> Iterator[tuple[str, re.Match[str]]]:
    """Files below a folder whose whole name fits, in order; hidden ones and folders behind links are left out.

    The paths are text: a `Path` takes longer to make than a row to read.
    """
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and (match := pattern.fullmatch(name)):
                yield f"{place}{os.sep}{name}", match


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts names with numbers as people do: ses-2 before ses-10."""
    parts = re.findall(r"\d+|\D+", text)
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part.casefold()) for part in parts)


def some(names: Sequence[str], most: int = 3) -> str:
    """'a, b, c and 7 more'."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
