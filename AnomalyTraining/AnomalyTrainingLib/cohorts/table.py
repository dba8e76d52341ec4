"""The CSV under a manifest: UTF-8, commas, a header."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

from AnomalyDetectionLib.errors import InputError

_MOST_BYTES = 256 << 20


def read_rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Header and (line number, row) of a CSV; blank lines are left out, and blanks around cells.

    Raises
    ------
    InputError
        If the file cannot be read, is not UTF-8 text, or is no table with commas and one name for each column.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: the manifest is larger than {_MOST_BYTES >> 20} MB; is it a CSV file?")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: the manifest is not UTF-8 text; save it as CSV (UTF-8).") from error
    except OSError as error:
        raise InputError(
            f"{path}: the manifest cannot be read ({error.strerror or error}); give a CSV as `cohort` writes it."
        ) from error
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = [name.strip() for name in next(reader, [])]
        rows = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise InputError(f"{path}: the manifest is not a comma-separated table ({error}).") from error
    if not header or header == [""]:
        raise InputError(f"{path}: the manifest is empty; its first line must name the columns.")
    if len(header) == 1 and ";" in header[0]:
        raise InputError(f"{path}: the columns are separated by ';'; save the table with commas.")
    if repeated := [name for name, count in Counter(header).items() if count > 1]:
        raise InputError(f"{path}: the column {repeated[0]!r} occurs twice.")
    if uneven := [number for number, cells in rows if len(cells) != len(header)]:
        raise InputError(f"{path}: row {uneven[0]} does not have as many cells as there are columns ({len(header)}).")
    return header, [(n, dict(zip(header, (cell.strip() for cell in cells), strict=True))) for n, cells in rows]
