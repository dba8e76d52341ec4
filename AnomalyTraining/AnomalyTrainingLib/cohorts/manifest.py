"""The cohort manifest: one CSV for every data set; everything after the adapters reads only it.

Columns: ``case,patient[,study][,order],image[,image_<channel>...][,slice],label[,mask][,split]`` and any others
(``site``, ``age``, ``sex``, ``view``, ...), which are kept as covariates.  Paths are absolute or relative to the
manifest's folder; ``FOLDER#SERIES`` names one series of a folder that holds several, by its Series Instance UID
(with ``:2`` and so on where one series holds several images, as `imaging.read.list_series` has it).
"""

from __future__ import annotations

import csv
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

from .schema import columns
from .table import read_rows
from .whole import whole_volume

SPLITS = tuple(split for split in columns().named["split"].allowed or () if split)
"""Roles a case may have; `external` is never used for fitting or choosing anything."""

DEFAULT_CHANNEL = "image"
"""Name of the channel in the plain ``image`` column."""

FIXED = ("case", "patient", "study", "order", "slice", "label", "mask", "split")
"""Columns that have a meaning in every manifest, beside those of images."""

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
    cohort, problems = parse_manifest(path)
    if problems:
        raise problems_error(cohort.path, "manifest", problems)
    return cohort


def parse_manifest(path: str | Path) -> tuple[Cohort, list[str]]:
    """The cases of the rows that are as the schema wants them, and one phrase per problem of the others and of all.

    Raises
    ------
    InputError
        If the file is no table, or a column that every manifest has is missing.
    """
    path = Path(path).absolute()
    header, rows = read_rows(path)
    channels = {column: _channel(column) for column in header if _channel(column)}
    problems = [f"the column {name!r} is missing" for name in columns().required if name not in header]
    if not channels:
        problems.append("there is no column 'image' (or 'image_<channel>')")
    if problems:
        raise problems_error(path, "manifest", problems)
    cases, listed = [], []
    for number, row in rows:
        faults = columns().faults(row)
        problems += [f"row {number}: {fault}" for fault in faults]
        if all(row[name] for name in ("case", "patient", *channels)):
            listed.append(_case_of(row, channels, path.parent))
        if not faults:
            cases.append(listed[-1])
    for check in CHECKS:
        problems += check(listed)
    if not rows:
        problems.append("it lists no case")
    return Cohort(tuple(cases), path), problems


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
        raise problems_error(path, "manifest", problems)
    folder = str(path.parent / "_")[:-1]  # ends in a separator
    rows = [_row_of(case, folder) for case in cases]
    used = {name for row in rows for name, value in row.items() if value}
    channels = [_column(channel) for channel in dict.fromkeys(c for case in cases for c in case.images)]
    covariates = list(dict.fromkeys(name for case in cases for name in case.covariates))
    order = ["case", "patient", "study", "order", *channels, "slice", "label", "mask", "split", *covariates]
    header = [name for name in order if name in used or name in ("case", "patient", "label")]

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(header)
            writer.writerows([row.get(name, "") for name in header] for row in rows)

    return atomically(path, write)


def load_case_volume(case: Case, channel: str | None = None) -> Volume:
    """The image of a case, named after the case; its covariates take the place of what the file says.

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
    volume = read_volume(source.path, series=source.series)
    volume = replace(volume, name=case.case, covariates={**volume.covariates, **case.covariates})
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
    mask = read_volume(case.mask) if case.slice is None else whole_volume(case.mask)
    painted = mask_on(mask, volume, case.slice)
    if case.slice is None and mask.array.any() and not painted.any():
        raise InputError(
            f"{case.mask}: the mask does not overlap the image of case {case.case}; "
            "check that both are in the same space."
        )
    return painted


def mask_on(mask: Volume, volume: Volume, k: int | None = None) -> NDArray[np.bool_]:
    """The painted voxels of a mask on the grid of an image, bool (K, J, I).

    By place, or voxel by voxel where one of the two, such as a PNG, does not say where it lies.

    Parameters
    ----------
    k
        Where `volume` is a slice: its index in the volume it was taken from.

    Raises
    ------
    InputError
        If one of the two does not say where it lies and they differ in shape.
    """
    painted = mask.array > 0
    if mask.orientation_known and volume.orientation_known:
        return painted if mask.grid.same_place(volume.grid) else resample(painted, mask.grid, volume.grid)
    if k is not None and k < mask.shape[0] != 1:
        painted = painted[k : k + 1]
    if painted.shape != volume.shape:
        raise InputError(
            f"{(*mask.source, mask.name)[0]}: the mask has shape {mask.shape}, the image of {volume.name} "
            f"{volume.shape}, and one of them does not say where it lies; give a mask of the image's shape."
        )
    return painted


def _case_of(row: Mapping[str, str], channels: Mapping[str, str], folder: Path) -> Case:
    """The case of a row; a cell that is no number counts as none, and a label that is not 1 as 0."""
    covariates = {k: v for k, v in row.items() if v and k and k not in FIXED and k not in channels}
    return Case(
        case=row["case"],
        patient=row["patient"],
        images={channel: _source(row[column], folder) for column, channel in channels.items()},
        label=int(row["label"] == "1"),
        mask=_resolve(row["mask"], folder) if row.get("mask") else None,
        split=row.get("split", ""),
        slice=_number(row.get("slice", "")),
        study=row.get("study", ""),
        order=_number(row.get("order", "")),
        covariates=covariates,
    )


def _number(cell: str) -> int | None:
    return int(cell) if re.fullmatch(r"\d{1,9}", cell, re.ASCII) else None


def _row_of(case: Case, folder: str) -> dict[str, str]:
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


def _written(path: Path, folder: str) -> str:
    """Relative where the path lies under the folder; as text, for large cohorts have 100,000 of them."""
    absolute = os.path.normpath(path if path.is_absolute() else path.absolute())
    return absolute[len(folder) :].replace(os.sep, "/") if absolute.startswith(folder) else absolute


def problems_error(path: Path, what: str, problems: Sequence[str]) -> InputError:
    """One sentence with all problems (the first of very many) of a file's manifest or cohort."""
    shown = "; ".join(problems[:_MOST_SHOWN])
    more = f"; and {len(problems) - _MOST_SHOWN} more" if len(problems) > _MOST_SHOWN else ""
    count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
    return InputError(f"{path}: the {what} has {count}: {shown}{more}.")


def _unique_cases(cases: Sequence[Case]) -> Iterator[str]:
    # Case names become folders, and some file systems do not tell A from a.
    for name, count in Counter(case.case.casefold() for case in cases).items():
        if count > 1:
            first = next(case.case for case in cases if case.case.casefold() == name)
            yield f"the case {first!r} occurs {count} times (upper and lower case count as the same)"


def _usable_names(cases: Sequence[Case]) -> Iterator[str]:
    for case in cases:
        for name, value in (("case", case.case), ("patient", case.patient)):
            if fault := columns().named[name].fault(value):
                yield fault


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


CHECKS: tuple[Check, ...] = (_unique_cases, _files_exist, _one_split_per_patient)
"""Checks every manifest passes before it is used, besides those of its schema."""
