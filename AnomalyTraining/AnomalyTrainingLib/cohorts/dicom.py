"""A tree of DICOM files as a cohort: one image series is one case."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.read import SeriesInfo, list_series

from .folder import CLASSES
from .manifest import DEFAULT_CHANNEL, Case, ImageSource

_TAGS = ("PatientID", "StudyInstanceUID", "StudyDate", "StudyTime", "PatientAge", "PatientSex", "ViewPosition")
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}


@dataclass(frozen=True)
class _Found:
    """A series with what its first file says of patient and study."""

    series: SeriesInfo
    folder: Path
    alone: bool
    about: dict[str, str]


def cases_of_dicom(
    source: str | Path,
    *,
    modality: str | None = None,
    description: str | None = None,
    salt: str | None = None,
    label: int | None = None,
    progress: Callable[[float], None] = lambda fraction: None,
    warn: Callable[[str], None] = lambda message: None,
) -> list[Case]:
    """Cases of the image series below a folder; localizers that belong to a series are left out.

    Patients, studies and cases are named by keyed hashes (HMAC-SHA-256) of their identifiers.  Age, sex, modality and
    view become covariates.

    Parameters
    ----------
    modality
        Only series of this DICOM code.
    description
        Only series whose description contains this regular expression, in upper or lower case.
    label
        Of all cases; None takes it from the folders `normal` and `abnormal` directly below `source`, and 0 elsewhere.
    salt
        The hash's key; None for a random one, whose names mean nothing outside this manifest.
    progress
        Called with the share of the folders that is read.
    warn
        Called with one sentence for what the user should know.

    Raises
    ------
    InputError
        If there is no series, none is left by the choice, a header is damaged, or a series lies in two places.
    """
    source = Path(source).absolute()
    if not source.is_dir():
        raise InputError(f"{source}: there is no such folder.")
    try:
        wanted = re.compile(description or "", re.IGNORECASE)
    except re.error as error:
        raise InputError(f"The description {description!r} is not a regular expression: {error}.") from error
    key = (salt if salt is not None else secrets.token_hex(16)).encode()
    everything = _found_in(source, progress)
    chosen = [
        found
        for found in everything
        if (modality is None or found.series.modality == modality.upper()) and wanted.search(found.series.description)
    ]
    if not chosen:
        there = sorted({f"{f.series.modality or '?'} '{f.series.description}'" for f in everything})
        raise InputError(
            f"{source}: none of the {len(everything)} series is of this modality and description; "
            f"there are {', '.join(there[:12])}{' and more' if len(there) > 12 else ''}."
        )
    if nameless := sum(not found.about["PatientID"] for found in chosen):
        warn(f"{nameless} series state no patient ID; each of their studies counts as a patient of its own.")
    return _cases(chosen, key, lambda found: _label(found, source) if label is None else label)


def _found_in(source: Path, progress: Callable[[float], None]) -> list[_Found]:
    """All image series below a folder, read one top-level folder after the other."""
    entries = sorted(entry for entry in source.iterdir() if not entry.name.startswith("."))
    files = [str(entry) for entry in entries if entry.is_file()]
    parts: list[Sequence[str] | Path] = [*([files] if files else []), *(entry for entry in entries if entry.is_dir())]
    listed: list[SeriesInfo] = []
    for done, part in enumerate(parts, start=1):
        if not isinstance(part, Path) or any(names for _, _, names in os.walk(part)):
            listed += list_series(part)
        progress(done / len(parts))
    if not listed:
        raise InputError(f"{source}: there is no DICOM image in this folder; give the folder that holds the series.")
    seen: dict[str, SeriesInfo] = {}
    for series in listed:
        if (other := seen.setdefault(series.identifier, series)) is not series:
            raise InputError(
                f"The series {series.identifier} lies both in {other.files[0].parent} and {series.files[0].parent}; "
                "remove one of the copies."
            )
    return _placed(listed)


def _placed(listed: Sequence[SeriesInfo]) -> list[_Found]:
    """Where each series lies, and whether it is the only image there."""
    of_uid: dict[str, list[set[Path]]] = defaultdict(list)
    below: Counter[Path] = Counter()
    for series in listed:
        parents = {file.parent for file in series.files}
        of_uid[series.uid].append(parents)
        below.update({place for parent in parents for place in (parent, *parent.parents)})
    folders = {uid: Path(os.path.commonpath(set().union(*parents))) for uid, parents in of_uid.items()}
    return [
        _Found(series, folders[series.uid], below[folders[series.uid]] == 1, _about(series.files[0]))
        for series in listed
        if not series.localizer or len(of_uid[series.uid]) == 1
    ]


def _about(path: Path) -> dict[str, str]:
    """What a file says of patient and study, as text; empty where it says nothing."""
    dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(_TAGS))
    return {tag: str(dataset.get(tag) or "").strip() for tag in _TAGS}


def _cases(chosen: Sequence[_Found], key: bytes, label_of: Callable[[_Found], int]) -> list[Case]:
    studies: dict[str, set[tuple[str, str, str]]] = defaultdict(set)
    for found in chosen:
        studies[_patient_of(found.about)].add(_study_of(found.about))
    cases = []
    for found in chosen:
        patient = _hashed(key, "pt", _patient_of(found.about))
        order = sorted(studies[_patient_of(found.about)]).index(_study_of(found.about)) + 1
        single = found.alone and len(found.series.files) == 1
        place = found.series.files[0] if single else found.folder
        cases.append(
            Case(
                case=f"{patient}-{_hashed(key, 'se', found.series.identifier)}",
                patient=patient,
                images={DEFAULT_CHANNEL: ImageSource(place, None if found.alone else found.series.identifier)},
                label=label_of(found),
                study=_hashed(key, "st", found.about["StudyInstanceUID"]),
                order=order,
                covariates=_covariates(found),
            )
        )
    return sorted(cases, key=lambda case: (case.patient, case.order or 0, case.case))


def _label(found: _Found, source: Path) -> int:
    """By the first folder below the source."""
    return CLASSES.get(found.series.files[0].relative_to(source).parts[0].lower(), 0)


def _patient_of(about: dict[str, str]) -> str:
    return about["PatientID"] or f"study {about['StudyInstanceUID']}"


def _study_of(about: dict[str, str]) -> tuple[str, str, str]:
    """Sorts by time."""
    return about["StudyDate"], about["StudyTime"], about["StudyInstanceUID"]


def _covariates(found: _Found) -> dict[str, str]:
    about = found.about
    sex = about["PatientSex"].upper()
    values = {
        "modality": found.series.modality,
        "age": _years(about["PatientAge"]),
        "sex": sex if sex in ("F", "M", "O") else "",
        "view": about["ViewPosition"],
    }
    return {name: value for name, value in values.items() if value}


def _years(age: str) -> str:
    """DICOM age strings (PS3.5, VR AS: nnnD, nnnW, nnnM, nnnY) as years."""
    match = re.fullmatch(r"(\d{3})([DWMY])", age)
    return f"{int(match.group(1)) * _YEARS[match.group(2)]:.4g}" if match else ""


def _hashed(key: bytes, prefix: str, text: str) -> str:
    return prefix + hmac.new(key, f"{prefix}:{text}".encode(), hashlib.sha256).hexdigest()[:10]
