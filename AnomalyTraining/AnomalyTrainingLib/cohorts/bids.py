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
from dataclasses import dataclass, field
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
_DRAWN_ON = ("anat", "dwi")
"""Folders with images that lesions are drawn on."""
_UNFETCHED = "is a link to data that is not here (datalad get fetches it)"

_Key = tuple[tuple[str, str], ...]


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
    def key(self) -> _Key:
        """What channels of one scan and its mask have in common."""
        return tuple(sorted((name, value) for name, value in self.entities.items() if name not in _LOOSE))


@dataclass(frozen=True)
class _File:
    name: Name
    path: Path


@dataclass
class _Files:
    """What a data set holds, by the key of its names.

    Attributes
    ----------
    scans
        The wanted ones, by suffix.
    masks, unfetched
        Lesion masks, and those that are links to data that is not here.
    raw
        Images as they were taken, wanted or not.
    others
        Subjects with lesion masks in folders other than anat.
    absent
        Number of wanted scans that are links to data that is not here.
    """

    scans: dict[_Key, dict[str, _File]] = field(default_factory=lambda: defaultdict(dict))
    masks: dict[_Key, Path] = field(default_factory=dict)
    unfetched: dict[_Key, Path] = field(default_factory=dict)
    raw: set[_Key] = field(default_factory=set)
    others: set[str] = field(default_factory=set)
    absent: int = 0


class _Lesions:
    """Label and mask of each scan that is taken; what the user should know of them is collected."""

    def __init__(self, files: _Files, taken: set[_Key]) -> None:
        self._masks, self._unfetched = files.masks, files.unfetched.keys() - files.masks.keys()
        known = self._masks.keys() | self._unfetched
        self._sessions = {_session(key) for key in known & taken}
        self._elsewhere = {_session(key)[0] for key in known - taken} | files.others
        self._subjects = {subject for subject, _ in self._sessions} | self._elsewhere
        self._said: dict[str, list[str]] = defaultdict(list)

    def label(self, key: _Key, scan: str) -> int | None:
        """1 with a mask, 0 without one, None where the scan may show a lesion all the same."""
        if key in self._masks:
            return 1
        if key in self._unfetched:
            self._said[f"have a lesion mask that {_UNFETCHED}; they are left out"].append(scan)
        elif _session(key) in self._sessions or _session(key)[0] in self._elsewhere:
            self._said["have no lesion mask, while another image of the subject has one; they are left out"].append(
                scan
            )
        else:
            return 0
        return None

    def mask(self, key: _Key, scan: str, label: int) -> Path | None:
        """The mask of an abnormal scan."""
        if not label and _session(key)[0] in self._subjects:
            self._said["count as normal and get no mask, though there is a lesion mask of the subject"].append(scan)
        if label and key in self._unfetched:
            self._said[f"have a lesion mask that {_UNFETCHED}; they are taken without it"].append(scan)
        return self._masks.get(key) if label else None

    def report(self, warn: Warn) -> None:
        """One sentence for each kind of doubt."""
        for what, scans in self._said.items():
            warn(f"{len(scans)} scans {what} ({some(scans)}).")


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
        without value is left out.  None: a scan with a lesion mask is abnormal, another normal, unless another scan of
        the subject in the same session, or one that is not taken, has a mask: then it is left out.
    lesion
        Regular expression that the entity `label` or `desc` of a lesion mask contains; a suffix `roi` is one too.

    Raises
    ------
    InputError
        If there is no such scan, a column or value does not exist, a name contradicts its folder, a scan has two
        masks, or a mask belongs to no image of its subject.
    """
    root = folder_of(source)
    pattern = _compiled(lesion)
    files = _files(root, suffixes, dict(entities or {}), pattern)
    scans, absent = files.scans, files.absent
    progress(0.5)
    if not scans:
        which = " with these entities" if entities else ""
        links = f", but {absent} links to data that is not here (datalad get fetches it)" if absent else ""
        raise InputError(f"{root}: there is no scan sub-*/[ses-*/]anat/*_{suffixes[0]}.nii[.gz]{which}{links}.")
    if absent:
        warn(f"{absent} scans are links to data that is not here (datalad get fetches it); they are left out.")
    taken = {key for key, channels in scans.items() if channels.keys() == set(suffixes)}
    _check_masks(root, files, taken)
    lesions = _Lesions(files, taken)
    people = Participants.of(root, label_column, normal)
    sidecars, orders = Sidecars(root), session_orders(root, {_session(key) for key in scans if "ses" in dict(key)})
    cases, unknown = [], []
    for key, channels in scans.items():
        if key not in taken:
            continue
        subject, session = _session(key)
        first = channels[suffixes[0]]
        scan = "_".join(f"{name}-{value}" for name, value in first.name.entities.items())
        label = people.label(subject) if label_column else lesions.label(key, scan)
        if label is None:
            unknown += [f"sub-{subject}"] if label_column else []
            continue
        names = [DEFAULT_CHANNEL] if len(suffixes) == 1 else list(suffixes)
        cases.append(
            Case(
                scan,
                f"sub-{subject}",
                {name: ImageSource(channels[suffix].path) for name, suffix in zip(names, suffixes, strict=True)},
                label,
                lesions.mask(key, scan, label),
                study=f"ses-{session}" if session else "",
                order=orders.get((subject, session)),
                covariates={**people.facts(subject), **sidecars.facts(first.path, first.name.entities, suffixes[0])},
            )
        )
    _say_left_out(people, len(scans) - len(taken), sorted(set(unknown)), suffixes, warn)
    lesions.report(warn)
    if not cases:
        known = f"a value in {label_column!r}" if label_column else "a label that its masks make clear"
        raise InputError(f"{root}: no subject has all of {', '.join(suffixes)} and {known}.")
    return cases


def _files(root: Path, suffixes: Sequence[str], entities: Mapping[str, str], lesion: re.Pattern[str]) -> _Files:
    """All scans that are wanted and all lesion masks."""
    files = _Files()
    for text, match in files_below(root, _NIFTI):
        path, name = Path(text), Name.of(match.group(1))
        if name is None:
            continue
        derived = "derivatives" in path.relative_to(root).parts
        is_mask = _is_lesion(name, lesion)
        if path.parent.name in _DRAWN_ON and not derived and name.suffixes[-1] not in ("mask", "roi"):
            files.raw.add(name.key)
        if path.parent.name != "anat":
            if is_mask and name.suffixes[-1] == "mask":  # a roi of other images may be anything
                files.others.add(name.entities["sub"])
            continue
        _check_place(path, path.relative_to(root), name)
        wanted = not derived and len(name.suffixes) == 1 and name.suffixes[0] in suffixes and not is_mask
        wanted = wanted and entities.items() <= name.entities.items()
        wanted = wanted and name.entities.get("part") not in _NOT_MAGNITUDE
        if not wanted and not is_mask:
            continue
        there = path.is_file()
        if wanted and there:
            _put(files.scans[name.key], name.suffixes[0], _File(name, path))
        elif wanted:
            files.absent += 1
        elif not there:
            files.unfetched[name.key] = path
        elif (other := files.masks.setdefault(name.key, path)) != path:
            raise InputError(f"{other} and {path} are both lesion masks of one scan; tell them apart with --lesion.")
    return files


def _check_masks(root: Path, files: _Files, taken: set[_Key]) -> None:
    """Refuse a mask that belongs to no image: its patient would count as normal."""
    subjects = {_session(key)[0] for key in taken}
    masks = files.unfetched | files.masks
    astray = [path for key, path in masks.items() if key not in files.raw and _session(key)[0] in subjects]
    if astray:
        named = some([str(path.relative_to(root)) for path in astray])
        raise InputError(
            f"{root}: {named}: there is no image of the subject with the entities of this lesion mask (all but "
            f"{', '.join(_LOOSE)} must be the image's); rename the mask, or say with --lesion which masks count."
        )


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


def _session(key: _Key) -> tuple[str, str]:
    """Subject and session, which may be ""."""
    said = dict(key)
    return said["sub"], said.get("ses", "")


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
