"""The series of a folder: what can be read as one image, listed and chosen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from AnomalyDetectionLib.errors import InputError

from .codec import quiet_pydicom
from .frame import Frame, frames_of
from .header import Header, read_header
from .nuclear import tomographic_frames
from .parts import split_slices
from .values import description

SLICES, ULTRASOUND, PICTURE = "slices", "ultrasound", "picture"
_LISTED = 20


@dataclass(frozen=True)
class SeriesInfo:
    """One choice among the images of a folder.

    Attributes
    ----------
    number
        Its number in the list, from 1.
    identifier
        The Series Instance UID; with `:2` and so on where one series holds several images.
    uid, description, modality
        As in the files.
    images
        Number of slices or frames.
    rows, columns
        Size of each.
    localizer
        Whether it is a scout image, on which other images were planned.
    label
        What tells it from the other images of the same series ("echo time 30", "localizer"), or empty.
    files
        Where it lies.
    """

    number: int
    identifier: str
    uid: str
    description: str
    modality: str
    images: int
    rows: int
    columns: int
    localizer: bool
    label: str
    files: Sequence[Path]

    def __str__(self) -> str:
        extra = f", {self.label}" if self.label else ""
        return (
            f"{self.number}) {self.identifier} '{self.description or 'no description'}' "
            f"{self.modality or 'unknown modality'}, {self.images} images of {self.columns} x {self.rows}{extra}"
        )


@dataclass(frozen=True)
class Part:
    """The frames that make one `Volume`, and how they are to be read."""

    info: SeriesInfo
    kind: str
    frames: Sequence[Frame]


def read_headers(paths: Iterable[Path]) -> tuple[list[Header], int]:
    """Headers of the DICOM images among `paths`, and how many other files there were.

    Raises
    ------
    InputError
        If a file cannot be opened or its header is damaged.
    """
    headers, skipped = [], 0
    with quiet_pydicom():  # its remarks on odd values; those that matter are checked here
        for path in paths:
            header = read_header(path)
            if header is not None and header.is_image:
                headers.append(header)
            else:
                skipped += 1
    return headers, skipped


def parts_of(headers: Sequence[Header]) -> list[Part]:
    """Everything in the files that can be read as one image, series by series."""
    series: dict[str, list[Header]] = defaultdict(list)
    for header in headers:
        series[header.series_uid].append(header)
    parts: list[Part] = []
    for uid, members in sorted(series.items(), key=lambda item: str(item[1][0].path)):
        groups = _groups(members)
        for index, (kind, label, frames) in enumerate(groups, start=1):
            identifier = uid if len(groups) == 1 else f"{uid}:{index}"
            label = label if len(groups) > 1 else ""
            parts.append(Part(_info(len(parts) + 1, identifier, uid, label, frames), kind, frames))
    return parts


def choose(parts: Sequence[Part], series: str | None, where: str) -> tuple[Part, list[str]]:
    """The image that is meant, and a note if another one of the same series was left out.

    Parameters
    ----------
    series
        A number in the list, a Series Instance UID or the beginning of one, or None where there is no choice.

    Raises
    ------
    InputError
        If it is not clear which image is meant; the message lists them.
    """
    candidates = list(parts) if series is None else _matching(parts, series.strip())
    if not candidates:
        raise InputError(f"{where}: no series matches '{series}'; there are {_listing(parts)}.")
    if len(candidates) == 1:
        return candidates[0], []
    one_series = len({part.info.uid for part in candidates}) == 1
    scans = [part for part in candidates if not part.info.localizer]
    if one_series and len(scans) == 1:
        count = sum(part.info.images for part in candidates if part.info.localizer)
        return scans[0], [f"{count} localizer images of the same series were left out."]
    what = "a series holds" if one_series else "the files hold"
    raise InputError(
        f"{where}: {what} {len(candidates)} images; choose one with --series and its number or UID: "
        f"{_listing(candidates)}."
    )


def _matching(parts: Sequence[Part], series: str) -> list[Part]:
    if series.isdigit() and len(series) < 6:
        return [part for part in parts if part.info.number == int(series)]
    for match in (
        [part for part in parts if part.info.identifier == series],
        [part for part in parts if part.info.uid == series],
    ):
        if match:
            return match
    return [part for part in parts if series and part.info.uid.startswith(series)]


def _listing(parts: Sequence[Part]) -> str:
    more = f"; and {len(parts) - _LISTED} more" if len(parts) > _LISTED else ""
    return "; ".join(str(part.info) for part in parts[:_LISTED]) + more


def _groups(headers: Sequence[Header]) -> list[tuple[str, str, list[Frame]]]:
    """The images within one series: (kind, what tells it from the others, frames)."""
    planes: list[Frame] = []
    single: list[tuple[str, str, list[Frame]]] = []
    for header in headers:
        frames = tomographic_frames(header) or frames_of(header)
        if header.modality in ("US", "IVUS"):
            single.append((ULTRASOUND, header.name, frames))
        elif _is_slice(header, frames):
            planes.extend(frames)
        else:
            single.append((PICTURE, header.name, frames))
    return [(SLICES, label, frames) for label, frames in split_slices(planes)] + single


def _is_slice(header: Header, frames: Sequence[Frame]) -> bool:
    """Whether the frames lie somewhere in the patient, or are such that they should say where."""
    placed = all(frame.position and frame.orientation for frame in frames)
    return placed or (header.modality in ("CT", "MR", "PT") and header.frame_count == 1)


def _info(number: int, identifier: str, uid: str, label: str, frames: Sequence[Frame]) -> SeriesInfo:
    header = frames[0].header
    files = tuple(dict.fromkeys(frame.header.path for frame in frames))
    about = description(header.dataset, "SeriesDescription") or description(header.dataset, "ProtocolName")
    return SeriesInfo(
        number=number,
        identifier=identifier,
        uid=uid,
        description=about,
        modality=header.modality,
        images=len(frames),
        rows=header.rows,
        columns=header.columns,
        localizer="LOCALIZER" in frames[0].image_type,
        label=label,
        files=files,
    )
