"""A data set in the Brain Imaging Data Structure as a cohort: one anatomical scan is one case.

Layout by the specification (Gorgolewski et al., Sci Data 2016; https://bids-specification.readthedocs.io, chapters
"Magnetic Resonance Imaging", "Data summary files" and "Imaging data type derivatives")::

    participants.tsv                                    participant_id, age, sex, and columns of the study's own
    T1w.json                                            facts of all T1w scans, unless a nearer file says otherwise
    sub-01/[ses-02/]anat/sub-01[_ses-02][_acq-highres][_run-1]_T1w.nii.gz, .nii and .json
    sub-01/sub-01_sessions.tsv                          session_id, acq_time
    derivatives/PIPELINE/sub-01/[ses-02/]anat/sub-01[_ses-02][_run-1]_label-lesion_mask.nii.gz
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from AnomalyDetectionLib.errors import InputError

from .bids_tables import Participants, Sidecars, session_orders
from .manifest import DEFAULT_CHANNEL, Case, ImageSource
from .published import Warn, files_below, folder_of, some

LESION = r"lesion|tumou?r"
"""What the entities `label` or `desc` of a mask say, unless told otherwise."""

_NIFTI = re.compile(r"(sub-[A-Za-z0-9+]+_(?:.+_)?[A-Za-z0-9]+)\.nii(?:\.gz)?")
_ENTITY = re.compile(r"([a-z]+)-([A-Za-z0-9+]+)")
_LOOSE = ("label", "desc", "space", "res", "den")
"""Entities of a mask that its image does not have."""
_NOT_MAGNITUDE = ("phase", "real", "imag")


@dataclass(frozen=True)
class Name:
    """A BIDS file name: its entities in their order, and its suffixes (T1w, mask, or FLAIR and roi)."""

    entities: Mapping[str, str]
    suffixes: tuple[str, ...]

    @classmethod
    def of(cls, stem: str) -> Name | None:
        """The parts of a name without ending, or None if it is none by BIDS."""
        parts = stem.split("_")
        pairs = [(match[1], match[2]) for part in parts if (match := _ENTITY.fullmatch(part))]
        suffixes = tuple(part for part in parts if "-" not in part)
        entities = dict(pairs)
        if not suffixes or len(pairs) + len(suffixes) != len(parts) or len(entities) != len(pairs):
            return None
        return cls(entities, suffixes) if parts[0].startswith("sub-") else None

    @property
    def key(self) -> tuple[tuple[str, str], ...]:
        """What channels of one scan and its mask have in common."""
        return tuple(sorted((name, value) for name, value in self.entities.items() if name not in _LOOSE))


@dataclass(frozen=True)
class _File:
    name: Name
    path: Path


def cases_of_bids(
    source: str | Path,
    *,
    suffixes: Sequence[str] = ("T1w",),
    entities: Mapping[str, str] | None = None,
    label_column: str | None = None,
    normal: Sequence[str] = (),
    lesion: str = LESION,
    warn: Warn = lambda message: None,
    progress: Callable[[float], None] = lambda share: None,
) -> list[Case]:
    """Cases of the anatomical scans of all subjects.

    Parameters
    ----------
    suffixes
        T1w, FLAIR, ...; several are channels of one case, which share all entities.
    entities
        Only scans with these, such as {"acq": "highres"}.
    label_column
        Column of participants.tsv; a subject whose value is one of `normal` is normal, another abnormal, and one
        without value is left out.  None: a scan with a lesion mask is abnormal, another normal.
    lesion
        Regular expression that the entity `label` or `desc` of a lesion mask contains; a suffix `roi` is one too.

    Raises
    ------
    InputError
        If there is no such scan, a column or value does not exist, a name contradicts its folder, or a scan has two
        masks.
    """
    root = folder_of(source)
    pattern = _compiled(lesion)
    scans, masks, absent = _files(root, suffixes, dict(entities or {}), pattern)
    progress(0.5)
    if not scans:
        which = " with these entities" if entities else ""
        links = f", but {absent} links to data that is not here (datalad get fetches it)" if absent else ""
        raise InputError(f"{root}: there is no scan sub-*/[ses-*/]anat/*_{suffixes[0]}.nii[.gz]{which}{links}.")
    if absent:
        warn(f"{absent} scans or masks are links to data that is not here (datalad get fetches it); they are left out.")
    people = Participants.of(root, label_column, normal)
    sidecars, orders = Sidecars(root), session_orders(root, {name for key in scans for name in _sessions(key)})
    cases, partial, unknown = [], 0, []
    for key, channels in scans.items():
        if channels.keys() != set(suffixes):
            partial += 1
            continue
        subject, session = (dict(key).get(entity, "") for entity in ("sub", "ses"))
        mask = masks.get(key)
        label = people.label(subject) if label_column else int(mask is not None)
        if label is None:
            unknown.append(f"sub-{subject}")
            continue
        first = channels[suffixes[0]]
        names = [DEFAULT_CHANNEL] if len(suffixes) == 1 else list(suffixes)
        cases.append(
            Case(
                "_".join(f"{name}-{value}" for name, value in first.name.entities.items()),
                f"sub-{subject}",
                {name: ImageSource(channels[suffix].path) for name, suffix in zip(names, suffixes, strict=True)},
                label,
                mask if label else None,
                study=f"ses-{session}" if session else "",
                order=orders.get((subject, session)),
                covariates={**people.facts(subject), **sidecars.facts(first.path, first.name.entities, suffixes[0])},
            )
        )
    _say_left_out(people, partial, sorted(set(unknown)), suffixes, warn)
    if not cases:
        raise InputError(f"{root}: no subject has all of {', '.join(suffixes)} and a value in {label_column!r}.")
    return cases


def _files(
    root: Path, suffixes: Sequence[str], entities: Mapping[str, str], lesion: re.Pattern[str]
) -> tuple[dict[tuple[tuple[str, str], ...], dict[str, _File]], dict[tuple[tuple[str, str], ...], Path], int]:
    """Scans by key and suffix, lesion masks by key, and the number of links that lead nowhere."""
    scans: dict[tuple[tuple[str, str], ...], dict[str, _File]] = defaultdict(dict)
    masks: dict[tuple[tuple[str, str], ...], Path] = {}
    absent = 0
    for text, match in files_below(root, _NIFTI):
        path, name = Path(text), Name.of(match.group(1))
        if name is None or path.parent.name != "anat":
            continue
        _check_place(path, path.relative_to(root), name)
        derived = "derivatives" in path.relative_to(root).parts
        is_mask = _is_lesion(name, lesion)
        wanted = not derived and len(name.suffixes) == 1 and name.suffixes[0] in suffixes and not is_mask
        wanted = wanted and entities.items() <= name.entities.items()
        wanted = wanted and name.entities.get("part") not in _NOT_MAGNITUDE
        if not wanted and not is_mask:
            continue
        if not path.is_file():
            absent += 1
        elif wanted:
            _put(scans[name.key], name.suffixes[0], _File(name, path))
        elif (other := masks.setdefault(name.key, path)) != path:
            raise InputError(f"{other} and {path} are both lesion masks of one scan; tell them apart with --lesion.")
    return dict(scans), masks, absent


def _put(channels: dict[str, _File], suffix: str, file: _File) -> None:
    if (other := channels.setdefault(suffix, file)) is not file:
        raise InputError(f"There are both {other.path} and {file.path}; choose one with --entity, or remove one.")


def _is_lesion(name: Name, lesion: re.Pattern[str]) -> bool:
    if name.suffixes[-1] == "roi":
        return True
    said = [name.entities.get(entity, "") for entity in ("label", "desc")]
    return name.suffixes[-1] == "mask" and any(lesion.search(value) for value in said if value)


def _check_place(path: Path, relative: Path, name: Name) -> None:
    """A name that says another subject or session than its folder would put a patient into two splits."""
    for entity in ("sub", "ses"):
        above = [part for part in relative.parent.parts if part.startswith(f"{entity}-")]
        said = name.entities.get(entity)
        if (above[-1] if above else None) != (f"{entity}-{said}" if said else None):
            raise InputError(f"{path}: the name and the folder do not agree on the {entity}-; rename one of them.")


def _sessions(key: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    said = dict(key)
    return [(said["sub"], said["ses"])] if "ses" in said else []


def _compiled(lesion: str) -> re.Pattern[str]:
    try:
        return re.compile(lesion, re.IGNORECASE)
    except re.error as error:
        raise InputError(f"--lesion {lesion!r} is not a regular expression: {error}.") from error


def _say_left_out(
    people: Participants, partial: int, unknown: Sequence[str], suffixes: Sequence[str], warn: Warn
) -> None:
    if partial:
        warn(f"{partial} scans lack one of {', '.join(suffixes)}; they are left out.")
    if unknown:
        warn(f"{len(unknown)} subjects have no value in {people.column!r}; they are left out ({some(unknown)}).")
