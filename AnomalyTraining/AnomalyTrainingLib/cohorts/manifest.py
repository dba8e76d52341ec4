"""The cohort manifest: one CSV for every data set; everything after the adapters reads only it.

Columns: ``case,patient[,study][,order],image[,image_<channel>...][,slice],label[,mask][,split]`` and any others
(``site``, ``age``, ``sex``, ``view``, ...), which are kept as covariates.  Paths are absolute or relative to the
manifest's folder; ``FOLDER#SERIES`` names one series of a folder that holds several, by its Series Instance UID
(with ``:2`` and so on where one series holds several images, as `imaging.read.list_series` has it).
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.geometry import resample
from AnomalyDetectionLib.imaging.read import read_volume
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.imaging.write import atomically

SPLITS = ("train", "calibrate", "validate", "test", "external")
"""Roles a case may have; `external` is never used for fitting or choosing anything."""

DEFAULT_CHANNEL = "image"
"""Name of the channel in the plain ``image`` column."""

_FIXED = ("case", "patient", "study", "order", "slice", "label", "mask", "split")
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")
_MOST_BYTES = 256 << 20
_MOST_SHOWN = 20


@dataclass(frozen=True)
class ImageSource:
    """Where the voxels of one channel are: a file or folder, and the series in it where there are several."""

    path: Path
    series: str | None = None


@dataclass(frozen=True)
class Case:
    """One row of a manifest.

    Attributes
    ----------
    case
        Unique; used as a folder name, so letters, digits, ``.``, ``_`` and ``-`` only.
    patient
        Cases of one patient never stand in two splits.
    images
        Channel name to its absolute place; a case with the plain ``image`` column has the channel "image".
    label
        0 normal, 1 abnormal.
    mask
        Image of the abnormal voxels (non-zero), in the patient space of the image.
    split
        One of `SPLITS`, or "" where none is assigned.
    slice
        Index along k (from 0) of the one slice that is meant, or None for the whole volume.
    study, order
        Study the case belongs to and its place within it (both optional).
    covariates
        All further columns as text; empty cells are left out.
    """

    case: str
    patient: str
    images: Mapping[str, ImageSource]
    label: int
    mask: Path | None = None
    split: str = ""
    slice: int | None = None
    study: str = ""
    order: int | None = None
    covariates: Mapping[str, str] = field(default_factory=dict)

    @property
    def image(self) -> Path:
        """The file or folder of the only (or first) channel."""
        return next(iter(self.images.values())).path


@dataclass(frozen=True)
class Cohort:
    """The cases of one manifest, in its order."""

    cases: tuple[Case, ...]
    path: Path

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the image channels, the same for all cases."""
        return tuple(self.cases[0].images) if self.cases else ()

    def of(self, *, split: str | Sequence[str] | None = None, label: int | None = None) -> Cohort:
        """The cases with this split (or one of these) and this label; None takes all."""
        wanted = None if split is None else {split} if isinstance(split, str) else set(split)
        kept = (
            case
            for case in self.cases
            if (wanted is None or case.split in wanted) and (label is None or case.label == label)
        )
        return replace(self, cases=tuple(kept))


Check = Callable[[Sequence[Case]], Iterator[str]]
"""A check over all cases of a manifest; yields one phrase per problem."""


def read_manifest(path: str | Path) -> Cohort:
    """Read and check a manifest.

    Raises
    ------
    InputError
        Once, naming every problem found: missing columns or files, duplicate cases, a label other than 0 and 1, an
        unknown split, a patient in two splits.
    """
    path = Path(path).absolute()
    header, rows = _read_rows(path)
    channels = {column: _channel(column) for column in header if _channel(column)}
    problems = [f"the column {name!r} is missing" for name in ("case", "patient", "label") if name not in header]
    if not channels:
        problems.append("there is no column 'image' (or 'image_<channel>')")
    if problems:
        raise _error(path, problems)
    cases = []
    for number, row in rows:
        case, faults = _parse_row(row, channels, path.parent)
        problems += [f"row {number}: {fault}" for fault in faults]
        if case is not None:
            cases.append(case)
    for check in CHECKS:
        problems += check(cases)
    if not problems and not cases:
        problems.append("it lists no case")
    if problems:
        raise _error(path, problems)
    return Cohort(tuple(cases), path)


def write_manifest(cases: Iterable[Case], path: str | Path) -> Path:
    """Write a manifest under a temporary name, then rename it; columns that no case uses are left out.

    Paths under the manifest's folder are written relative to it, so that the folder can be moved.

    Raises
    ------
    InputError
        If a case or patient identifier is unusable, or a case is listed twice.
    OutputError
        If the file cannot be written.
    """
    path = Path(path).absolute()
    cases = list(cases)
    problems = [problem for check in (_unique_cases, _usable_names) for problem in check(cases)]
    if problems:
        raise _error(path, problems)
    rows = [_row_of(case, path.parent) for case in cases]
    used = {name for row in rows for name, value in row.items() if value}
    channels = [_column(channel) for channel in dict.fromkeys(c for case in cases for c in case.images)]
    covariates = list(dict.fromkeys(name for case in cases for name in case.covariates))
    order = ["case", "patient", "study", "order", *channels, "slice", "label", "mask", "split", *covariates]
    header = [name for name in order if name in used or name in ("case", "patient", "label")]

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, header, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    return atomically(path, write)


def load_case_volume(case: Case, channel: str | None = None) -> Volume:
    """The image of a case, named after the case.

    Parameters
    ----------
    channel
        One of `case.images`; may be left out where there is only one.

    Raises
    ------
    InputError
        If the file cannot be read, the channel does not exist or the slice lies outside the volume.
    """
    if channel is None and len(case.images) > 1:
        raise InputError(f"{case.case}: the case has the channels {', '.join(case.images)}; say which.")
    source = case.images.get(channel) if channel is not None else next(iter(case.images.values()))
    if source is None:
        raise InputError(f"{case.case}: there is no channel {channel!r}; there are {', '.join(case.images)}.")
    volume = replace(read_volume(source.path, series=source.series), name=case.case)
    return volume if case.slice is None else volume.slice(case.slice)


def load_case_mask(case: Case, volume: Volume) -> NDArray[np.bool_] | None:
    """The abnormal voxels of a case on the grid of its image, bool (K, J, I); None where the manifest names no mask.

    A mask on another grid of the same patient space is brought over by nearest neighbour.

    Raises
    ------
    InputError
        If the mask cannot be read, or none of its voxels falls into the image.
    """
    if case.mask is None:
        return None
    mask = read_volume(case.mask)
    painted = mask.array > 0
    if not mask.grid.same_place(volume.grid):
        brought = resample(painted, mask.grid, volume.grid)
        if painted.any() and not brought.any() and case.slice is None:
            raise InputError(
                f"{case.mask}: the mask does not overlap the image of case {case.case}; "
                "check that both are in the same space."
            )
        painted = brought
    return painted


def _read_rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Header and (line number, row) of a CSV; blank lines are left out."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: the manifest is larger than {_MOST_BYTES >> 20} MB; is it a CSV file?")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: the manifest is not UTF-8 text; save it as CSV (UTF-8).") from error
    except OSError as error:
        raise InputError(f"{path}: the manifest cannot be read ({error.strerror or error}).") from error
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


def _parse_row(row: Mapping[str, str], channels: Mapping[str, str], folder: Path) -> tuple[Case | None, list[str]]:
    """The case of a row, or None and what is wrong with it."""
    faults = [f"{name!r} is empty" for name in ("case", "patient", *channels) if not row[name]]
    if row["label"] not in ("0", "1"):
        faults.append(f"the label is {row['label']!r}; it must be 0 (normal) or 1 (abnormal)")
    if row.get("split", "") not in ("", *SPLITS):
        faults.append(f"the split {row['split']!r} is none of {', '.join(SPLITS)}")
    for name in ("slice", "order"):
        if row.get(name) and not re.fullmatch(r"\d{1,9}", row[name], re.ASCII):
            faults.append(f"{name!r} is {row[name]!r}; it must be a whole number from 0")
    if faults:
        return None, faults
    covariates = {k: v for k, v in row.items() if v and k and k not in _FIXED and k not in channels}
    case = Case(
        case=row["case"],
        patient=row["patient"],
        images={channel: _source(row[column], folder) for column, channel in channels.items()},
        label=int(row["label"]),
        mask=_resolve(row["mask"], folder) if row.get("mask") else None,
        split=row.get("split", ""),
        slice=int(row["slice"]) if row.get("slice") else None,
        study=row.get("study", ""),
        order=int(row["order"]) if row.get("order") else None,
        covariates=covariates,
    )
    return case, []


def _row_of(case: Case, folder: Path) -> dict[str, str]:
    row = {
        "case": case.case,
        "patient": case.patient,
        "study": case.study,
        "order": "" if case.order is None else str(case.order),
        "slice": "" if case.slice is None else str(case.slice),
        "label": str(case.label),
        "mask": "" if case.mask is None else _written(case.mask, folder),
        "split": case.split,
    }
    for channel, source in case.images.items():
        row[_column(channel)] = _written(source.path, folder) + (f"#{source.series}" if source.series else "")
    return dict(case.covariates) | row


def _channel(column: str) -> str:
    """The channel an image column holds, or "" for another column."""
    if column == DEFAULT_CHANNEL:
        return DEFAULT_CHANNEL
    return column.removeprefix("image_") if column.startswith("image_") else ""


def _column(channel: str) -> str:
    return DEFAULT_CHANNEL if channel == DEFAULT_CHANNEL else f"image_{channel}"


def _resolve(cell: str, folder: Path) -> Path:
    # normpath, not resolve: links in the user's data set stay as they are.
    return Path(os.path.normpath(folder / cell))


def _source(cell: str, folder: Path) -> ImageSource:
    """A path, or FOLDER#SERIES_UID; a path that exists as it stands wins, since file names may hold a '#'."""
    whole = _resolve(cell, folder)
    place, separator, series = cell.rpartition("#")
    if separator and place and re.fullmatch(r"[0-9.]{1,64}(:\d{1,4})?", series) and not _exists(whole):
        return ImageSource(_resolve(place, folder), series)
    return ImageSource(whole)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a cell too long for a file name, or with a null byte
        return False


def _written(path: Path, folder: Path) -> str:
    absolute = Path(os.path.normpath(path.absolute()))
    return absolute.relative_to(folder).as_posix() if absolute.is_relative_to(folder) else str(absolute)


def _error(path: Path, problems: Sequence[str]) -> InputError:
    shown = "; ".join(problems[:_MOST_SHOWN])
    more = f"; and {len(problems) - _MOST_SHOWN} more" if len(problems) > _MOST_SHOWN else ""
    count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
    return InputError(f"{path}: the manifest has {count}: {shown}{more}.")


def _unique_cases(cases: Sequence[Case]) -> Iterator[str]:
    # Case names become folders, and some file systems do not tell A from a.
    for name, count in Counter(case.case.casefold() for case in cases).items():
        if count > 1:
            first = next(case.case for case in cases if case.case.casefold() == name)
            yield f"the case {first!r} occurs {count} times (upper and lower case count as the same)"


def _usable_names(cases: Sequence[Case]) -> Iterator[str]:
    for case in cases:
        if not _SAFE_ID.fullmatch(case.case):
            yield f"the case name {case.case[:60]!r} must be letters, digits, '.', '_' or '-', at most 120 of them"


def _files_exist(cases: Sequence[Case]) -> Iterator[str]:
    for case in cases:
        for source in case.images.values():
            if not _exists(source.path):
                yield f"case {case.case}: the image {source.path} does not exist"
        if case.mask is not None and not _exists(case.mask):
            yield f"case {case.case}: the mask {case.mask} does not exist"


def _one_split_per_patient(cases: Sequence[Case]) -> Iterator[str]:
    splits: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        splits[case.patient].add(case.split)
    for patient, found in splits.items():
        if len(found) > 1:
            names = " and ".join(sorted(split or "no split" for split in found))
            yield f"the patient {patient!r} stands in {names}; all cases of a patient belong to one split"


CHECKS: tuple[Check, ...] = (_unique_cases, _usable_names, _files_exist, _one_split_per_patient)
"""Checks every manifest passes before it is used."""
