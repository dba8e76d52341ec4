"""What is to be scored: files, folders and manifests on the command line become named cases."""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.write import safe_name

if TYPE_CHECKING:
    from AnomalyDetectionLib.imaging.volume import Volume

IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm", ".png", ".jpg", ".jpeg", ".img", ".hdr")
STACKED_MODALITIES = ("CT", "MR", "PT", "NM")
"""DICOM files of one series of these are the slices of one volume; of others, each file is an image of its own."""

MAX_MANIFEST_BYTES = 256 << 20
"""About a million cases."""

NAMED_COLUMNS = ("case", "patient", "study", "order", "image", "slice", "label", "mask", "split")
"""Columns of a manifest with a meaning of their own; any other says something of the patient."""

_SERIES_CELL = re.compile(r"(?P<folder>.+)#(?P<series>[0-9.]{1,64}(?::[0-9]{1,4})?)")
_SECOND_IMAGE = re.compile(r"image_\w+")


@dataclass(frozen=True)
class Request:
    """One image to score, before it has a name.

    Attributes
    ----------
    paths
        One file or folder, or the files of one DICOM series.
    label
        The name a manifest gives the case, or "" to name it after its path.
    series
        Which series of a folder with several: its UID, or its number; None where there is one.
    slice
        Index along k (from 0) of the one slice that is meant; None for the whole volume.
    covariates
        What a manifest or a table says of the patient beside the image; it takes the place of what the file says.
    """

    paths: tuple[Path, ...]
    label: str = ""
    series: str | None = None
    slice: int | None = None
    covariates: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> str:
        """Tells requests apart from run to run: the absolute path of the (first) file, with series and slice."""
        parts = [self.paths[0].absolute().as_posix(), self.series and f"series {self.series}"]
        parts += [None if self.slice is None else f"slice {self.slice}"]
        return "#".join(part for part in parts if part)

    @property
    def place(self) -> Path:
        """What the case is named after: its file or folder; for the files of a series, the folder they lie in."""
        return self.paths[0] if len(self.paths) == 1 else self.paths[0].absolute().parent

    def fingerprint(self) -> str:
        """Changes when the input does: a hash of covariates and of the files' names, sizes and times, not contents."""
        digest = hashlib.sha256(repr(self.covariates).encode() if self.covariates else b"")
        for top in self.paths:
            files = sorted(path for path in top.rglob("*") if path.is_file()) if top.is_dir() else [top]
            for path in files:
                try:
                    status = path.stat()
                except OSError:
                    continue
                digest.update(f"{path.as_posix()}|{status.st_size}|{status.st_mtime_ns}\n".encode())
        return digest.hexdigest()[:16]


def requests_of(inputs: Sequence[str], series: str | None = None) -> list[Request]:
    """The images that the command line's INPUT arguments name, in their order.

    Files and folders are not opened here, but for manifests (.csv) and, where several DICOM files are given one by
    one, their headers: the slices of one CT, MR, PT or NM series are one image.  `series` chooses one of folders that
    hold several.

    Raises
    ------
    InputError
        If nothing is there, or a manifest cannot be read.
    """
    requests: list[Request] = []
    files: list[Path] = []
    for text in inputs:
        path = Path(text)
        if not text.strip():
            raise InputError("An input on the command line is empty; give a file, a folder or a manifest (.csv).")
        if path.suffix.lower() == ".csv":
            requests.extend(row.request for row in manifest_rows(path))
        elif os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where a name is too long (Python 3.11)
            requests.append(Request((path,), series=series))
        else:
            files.append(path)
    requests.extend(_group_slices(files))
    seen: set[str] = set()
    return [r for r in requests if not (r.key in seen or seen.add(r.key))]  # type: ignore[func-returns-value]


def _group_slices(files: list[Path]) -> list[Request]:
    if len(files) < 2:
        return [Request((path,)) for path in files]
    groups: dict[str, list[Path]] = {}
    for path in files:
        groups.setdefault(_series_of(path) or path.as_posix(), []).append(path)
    return [Request(tuple(paths)) for paths in groups.values()]


def _series_of(path: Path) -> str | None:
    """The SeriesInstanceUID of a single slice of a stacked series, or None for anything else."""
    try:
        with path.open("rb") as stream:
            if stream.read(132)[128:] != b"DICM":
                return None
    except OSError:
        return None
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        header = pydicom.dcmread(
            path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID", "Modality", "NumberOfFrames"]
        )
    except (InvalidDicomError, OSError, ValueError, EOFError):
        return None
    if header.get("Modality") not in STACKED_MODALITIES or "NumberOfFrames" in header:
        return None
    return str(header.get("SeriesInstanceUID", "")) or None


@dataclass(frozen=True)
class Row:
    """The columns of a cohort manifest that scoring and calibrating need."""

    line: int
    request: Request
    label: str = ""
    split: str = ""
    patient: str = ""

    @property
    def case(self) -> str:
        """The case's name in the manifest."""
        return self.request.label


def manifest_rows(path: Path) -> list[Row]:
    """Read a manifest; image paths are relative to it, and columns without another meaning are covariates.

    Raises
    ------
    InputError
        If the file is no CSV table with these columns, a row is incomplete or a case comes twice.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            if os.fstat(stream.fileno()).st_size > MAX_MANIFEST_BYTES:
                raise InputError(f"{path.name}: this is too large for a manifest; give a table of cases and images.")
            table = list(csv.reader(stream, strict=True))
    except FileNotFoundError:
        raise InputError(f"{path.name}: there is no such manifest; check the path.") from None
    except IsADirectoryError:
        raise InputError(f"{path.name}: this is a folder, not a manifest; give its .csv file.") from None
    except OSError as error:
        raise InputError(f"{path.name}: the manifest cannot be read ({error.strerror or error}).") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(
            f"{path.name}: this is not a table in CSV form and UTF-8 ({error}); save it again so."
        ) from None
    table = [[cell.strip() for cell in line] for line in table]
    if not table or not any(table[0]):
        raise InputError(
            f"{path.name}: the manifest is empty; its first line must name columns, case and image at least."
        )
    header = table[0]
    _check_header(path.name, header)
    rows: list[Row] = []
    known: dict[str, int] = {}
    for number, line in enumerate(table[1:], start=2):
        if any(line):
            row = _row(path, number, dict(zip(header, line, strict=False)))
            if row.case in known:
                raise InputError(
                    f"{path.name}, line {number}: the case {row.case!r} stands in line {known[row.case]} already; "
                    "give every case a name of its own."
                )
            known[row.case] = number
            rows.append(row)
    if not rows:
        raise InputError(f"{path.name}: the manifest lists no case; add a line for each image.")
    return rows


def _check_header(name: str, header: list[str]) -> None:
    if others := [column for column in header if _SECOND_IMAGE.fullmatch(column)]:
        raise InputError(
            f"{name}: this manifest has several channels a case ({', '.join(others)}), and scoring takes one; leave "
            "the one the model was made for, under the name 'image'."
        )
    if "case" in header and "image" in header:
        return
    if len(header) == 1 and ";" in header[0]:
        raise InputError(f"{name}: the columns are separated by semicolons; save the table with commas.")
    missing = " and ".join(repr(column) for column in ("case", "image") if column not in header)
    raise InputError(f"{name}: the manifest has no column {missing}; its first line must name it.")


def _row(path: Path, number: int, cells: Mapping[str, str]) -> Row:
    case, image = cells.get("case", ""), cells.get("image", "")
    if not case or not image:
        missing = "case" if not case else "image"
        raise InputError(f"{path.name}, line {number}: the column {missing!r} is empty; fill it in.")
    index = cells.get("slice", "")
    if index and not re.fullmatch(r"[0-9]{1,9}", index):
        raise InputError(f"{path.name}, line {number}: 'slice' is {index[:40]!r}; it must be a whole number from 0.")
    place, series = _place(image, path.parent)
    covariates = tuple((name, cell) for name, cell in cells.items() if cell and name and _is_covariate(name))
    request = Request((place,), case, series, int(index) if index else None, covariates)
    return Row(number, request, cells.get("label", ""), cells.get("split", ""), cells.get("patient", ""))


def _is_covariate(column: str) -> bool:
    return column not in NAMED_COLUMNS and not column.startswith("image_")


def _place(cell: str, folder: Path) -> tuple[Path, str | None]:
    """A path, or FOLDER#SERIES (a UID, with `:2` and so on where it holds several images); what exists wins."""
    whole = folder / cell
    found = _SERIES_CELL.fullmatch(cell)
    if found is None or os.path.lexists(whole):
        return whole, None
    return folder / found["folder"], found["series"]


def name_cases(requests: Sequence[Request], known: Mapping[str, str]) -> list[str]:
    """A unique folder name for each request.

    A file is named after itself without its ending; files of the same name are told apart by their folders
    (`sub-01_T1`, `sub-02_T1`), and by a number where these are the same too.  Names compare without regard to case,
    as on Windows and macOS.

    Parameters
    ----------
    requests
        What to name.
    known
        Names given before, by `Request.key`; they are kept, so that a resumed run finds its folders.
    """
    taken = {name.lower() for name in known.values()}
    names: dict[str, str] = {r.key: known[r.key] for r in requests if r.key in known}
    fresh = [r for r in requests if r.key not in names]
    wanted = _tell_apart(fresh)
    for request, name in zip(fresh, wanted, strict=True):
        unique, count = name, 2
        while unique.lower() in taken:
            unique, count = f"{name}-{count}", count + 1
        taken.add(unique.lower())
        names[request.key] = unique
    return [names[r.key] for r in requests]


def _tell_apart(requests: Sequence[Request]) -> list[str]:
    names = [safe_name(r.label or "_".join(_parts(r.place)[-1:])) for r in requests]
    groups: dict[str, list[int]] = {}
    for n, name in enumerate(names):
        groups.setdefault(name.lower(), []).append(n)
    for members in groups.values():
        if len(members) < 2 or any(requests[n].label for n in members):
            continue
        deepest = max(len(_parts(requests[n].place)) for n in members)
        for depth in range(2, deepest + 1):
            longer = [safe_name("_".join(_parts(requests[n].place)[-depth:])) for n in members]
            if len({name.lower() for name in longer}) == len(members):
                for n, name in zip(members, longer, strict=True):
                    names[n] = name
                break
    return names


def _parts(path: Path) -> Sequence[str]:
    absolute = path.absolute()
    return [*absolute.parts[1:-1], strip_ending(absolute.name)]


def strip_ending(name: str) -> str:
    """A file name without the ending of an image format."""
    ending = next((e for e in IMAGE_ENDINGS if name.lower().endswith(e) and len(name) > len(e)), "")
    return name[: len(name) - len(ending)]


def read_request(request: Request, modality: str | None = None) -> Volume:
    """Read the image of a request.

    Parameters
    ----------
    modality
        What to take the image for; None for what the file says.

    Raises
    ------
    InputError
        If it is missing or cannot be read, or the slice is not in it.
    """
    from AnomalyDetectionLib.imaging.read import read_volume

    if sentence := missing_sentence(request):
        raise InputError(sentence)
    source = request.paths[0] if len(request.paths) == 1 else list(request.paths)
    try:
        volume = read_volume(source, series=request.series)
        if request.slice is not None:
            volume = volume.slice(request.slice)
    except PermissionError as error:  # of this input, not of the output folder: other cases can go on
        place = Path(error.filename or request.paths[0]).name
        raise InputError(f"{place}: there is no permission to read it; change its permissions.") from error
    volume = replace(volume, covariates={**volume.covariates, **dict(request.covariates)})
    if modality is None or modality == volume.modality:
        return volume
    said = f", though the file says {volume.modality}" if volume.modality else ""
    return replace(volume, modality=modality, notes=(*volume.notes, f"Read as {modality} as asked{said}."))


def missing_sentence(request: Request) -> str | None:
    """Why a request cannot even be opened, or None."""
    for path in request.paths:
        try:
            path.stat()
        except PermissionError:
            return f"{path.name}: there is no permission to read it; change its permissions."
        except (OSError, ValueError):  # ValueError: a null character
            return f"{path.name}: there is no such file or folder; check the path."
    return None
