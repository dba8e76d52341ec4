"""What a BIDS data set says of its scans beside the images: participants, sessions and sidecars."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from AnomalyDetectionLib.errors import InputError

from .manifest import DEFAULT_CHANNEL, FIXED
from .published import Wanted, natural, nearest, published_rows

MISSING = ("", "n/a", "N/A", "nan")
"""Cells without a value; the specification has n/a."""

_SEXES = {"m": "M", "male": "M", "f": "F", "female": "F", "o": "O", "other": "O"}
_AGE = re.compile(r"(\d{1,3}(?:\.\d+)?)\+?", re.ASCII)
_MOST_SIDECAR = 1 << 20
_MR = re.compile(r"(T1w|T2w|T2star|T2starw|PDw|PD|FLAIR|PDT2|inplaneT[12]|UNIT1|angio|T1rho|[A-Z0-9]+map)$")


@dataclass(frozen=True)
class Participants:
    """participants.tsv: facts and label of each subject.

    Attributes
    ----------
    column
        The column of labels, or None.
    rows
        By subject (without ``sub-``): age, sex, site, and the value of the column of labels.
    """

    column: str | None
    normal: frozenset[str]
    rows: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, root: Path, column: str | None, normal: Sequence[str]) -> Participants:
        """Read the table of a data set; without a column of labels it may be absent.

        Raises
        ------
        InputError
            If the table, the column or one of the values for normal does not exist, or a subject stands in it twice.
        """
        table = root / "participants.tsv"
        if column is not None and not normal:
            raise InputError(f"--label-column {column} needs --normal with the values that are normal.")
        if not table.is_file():
            if column is None:
                return cls(None, frozenset(), {})
            raise InputError(f"{table}: there is no such table, and --label-column takes its column {column!r}.")
        names = ["age", "sex", "site", *([column] if column and column not in ("age", "sex", "site") else [])]
        wanted = [Wanted.of("participant_id"), *(Wanted.of(name, optional=name != column) for name in names)]
        rows: dict[str, dict[str, str]] = {}
        for number, (person, *cells) in published_rows(table, wanted, delimiter="\t"):
            subject = person.removeprefix("sub-")
            if subject in rows:
                raise InputError(f"{table}: row {number}: the participant {person} is listed twice.")
            said = zip(names, cells, strict=True)
            rows[subject] = {name: value for name, value in said if value not in MISSING}
        if column is not None:
            values = sorted({row[column] for row in rows.values() if column in row})
            if strange := [value for value in normal if value not in values]:
                raise InputError(f"{table}: nobody has {strange[0]!r} in {column!r}; {nearest(strange[0], values)}.")
        return cls(column, frozenset(normal), rows)

    def label(self, subject: str) -> int | None:
        """0, 1, or None where the subject has no value."""
        value = self.rows.get(subject, {}).get(self.column or "")
        return None if value is None else int(value not in self.normal)

    def facts(self, subject: str) -> dict[str, str]:
        """Age in years, sex as F, M or O, site, and the value of the column of labels."""
        row = dict(self.rows.get(subject, {}))
        if "age" in row:
            age = _AGE.fullmatch(row.pop("age"))
            row |= {"age": age.group(1)} if age else {}
        if "sex" in row:
            sex = _SEXES.get(row.pop("sex").casefold())
            row |= {"sex": sex} if sex else {}
        return {name if name in ("age", "sex", "site") else _plain(name): value for name, value in row.items()}


def _plain(column: str) -> str:
    """A name for a column of the manifest that is none of its own."""
    own = column in FIXED or column == DEFAULT_CHANNEL or column.startswith("image_")
    return f"participant_{column}" if own else column


def session_orders(root: Path, sessions: Collection[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Place of each (subject, session) in time, from 1: by acq_time of sub-*_sessions.tsv, else by name.

    Raises
    ------
    InputError
        If a table of sessions is not as specified.
    """
    of_subject: dict[str, list[str]] = defaultdict(list)
    for subject, session in sessions:
        of_subject[subject].append(session)
    orders: dict[tuple[str, str], int] = {}
    for subject, named in of_subject.items():
        times = _times(root / f"sub-{subject}" / f"sub-{subject}_sessions.tsv")
        dated = all(session in times for session in named)
        ordered = sorted(named, key=lambda name, t=times, d=dated: (t[name] if d else "", natural(name)))  # type: ignore[misc]
        orders |= {(subject, session): place for place, session in enumerate(ordered, 1)}
    return orders


def _times(table: Path) -> dict[str, str]:
    if not table.is_file():
        return {}
    rows = published_rows(table, [Wanted.of("session_id"), Wanted.of("acq_time", optional=True)], delimiter="\t")
    return {session.removeprefix("ses-"): time for _, (session, time) in rows if time not in MISSING}


class Sidecars:
    """JSON files beside scans and above them; by the inheritance principle the nearest one wins."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[Path, dict[str, Any]] = {}
        self._folders: dict[Path, list[Path]] = {}

    def facts(self, image: Path, entities: Mapping[str, str], suffix: str) -> dict[str, str]:
        """Modality, manufacturer and field strength (T) of a scan, as far as they are said.

        Raises
        ------
        InputError
            If a sidecar is no JSON.
        """
        said: dict[str, Any] = {}
        for folder in reversed([image.parent, *image.parent.parents]):
            if folder.is_relative_to(self._root):
                for file in self._files(folder):
                    if _applies(file.stem, entities, suffix):
                        said |= self._read(file)
        facts = {
            "modality": said.get("Modality") or ("MR" if _MR.match(suffix) else ""),
            "manufacturer": said.get("Manufacturer"),
            "field_strength": said.get("MagneticFieldStrength"),
        }
        return {name: str(value) for name, value in facts.items() if isinstance(value, (str, int, float)) and value}

    def _files(self, folder: Path) -> list[Path]:
        if folder not in self._folders:
            self._folders[folder] = sorted(folder.glob("*.json"), key=lambda file: (len(file.stem), file.name))
        return self._folders[folder]

    def _read(self, file: Path) -> dict[str, Any]:
        if file not in self._known:
            try:
                content = json.loads(file.read_text(encoding="utf-8")) if file.stat().st_size < _MOST_SIDECAR else None
            except (OSError, ValueError, RecursionError) as error:
                raise InputError(f"{file}: the sidecar is not JSON ({error}).") from error
            self._known[file] = content if isinstance(content, dict) else {}
        return self._known[file]


def _applies(stem: str, entities: Mapping[str, str], suffix: str) -> bool:
    """Whether a sidecar of this name is of a scan with these entities: it has no others, and the same suffix."""
    *pairs, last = stem.split("_")
    said = [pair.partition("-")[::2] for pair in pairs]
    return last == suffix and all(entities.get(name) == value for name, value in said)
