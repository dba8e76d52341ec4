"""A folder of images as a cohort: one file is one case."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from AnomalyDetectionLib.errors import InputError

from .manifest import DEFAULT_CHANNEL, Case, ImageSource
from .published import Warn, some

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".png", ".jpg", ".jpeg", ".dcm")
"""Endings of files that are taken for images."""

CLASSES = {"normal": 0, "abnormal": 1}
"""Folders that give the label, unless those of the normals are named."""

PARTS = {"train": "", "training": "", "val": "", "valid": "", "validation": "", "test": "test", "testing": "test"}
"""Folders of a data set that comes divided, and the split they stand for: only the test is kept apart as it is."""


class _Found(NamedTuple):
    """An image file, the folders of its part (or the source) and of its class (or the part), and what they say."""

    path: Path
    place: Path
    root: Path
    label: int
    split: str = ""
    group: str = ""


def cases_of_folder(
    source: str | Path,
    *,
    patient_pattern: str | None = None,
    masks: str | Path | None = None,
    normal: Collection[str] = (),
    warn: Warn = lambda message: None,
) -> list[Case]:
    """Cases of the images under ``SOURCE/normal`` and ``SOURCE/abnormal``, or all of `source` as normals.

    The folders of the classes may lie in folders of parts (``train``, ``val``, ``test``); the split of those under
    ``test`` is test.

    Parameters
    ----------
    normal
        Names of the folders of normals; all other folders beside them are abnormal, and `class` says which.
    patient_pattern
        Regular expression searched in each image's path relative to `source`; its first group (or the whole match) is
        the patient.  Without it every case is a patient of its own.
    masks
        Folder with masks of abnormal images, each under the path that its image has below `source`, or else below the
        part, or else below the class (the ending may differ).  It may lie in `source`; what is in it is no image.

    Raises
    ------
    InputError
        If there is no image, the pattern is not valid or does not match an image, there is no such folder of normals,
        two images would get one name, no mask fits an image, or it is not clear which mask is whose.
    """
    source = Path(source).absolute()
    if not source.is_dir():
        raise InputError(f"{source}: there is no such folder.")
    pattern = _compiled(patient_pattern)
    found = list(_labelled_images(source, normal))
    if masks is not None:
        masks = _folder_of_masks(Path(masks).absolute(), source)
        found = [one for one in found if not one.path.is_relative_to(masks)]
    if not found:
        raise InputError(
            f"{source}: no image was found ({', '.join(SUFFIXES)}); put them into the folder, or into its folders "
            "'normal' and 'abnormal'; for DICOM series use 'cohort dicom'."
        )
    names = _names([(one.path.relative_to(one.root), "-".join(one.root.relative_to(source).parts)) for one in found])
    mask_of = _masks(masks, source, found, warn) if masks is not None else {}
    cases = []
    for one, name in zip(found, names, strict=True):
        relative = one.path.relative_to(source)
        cases.append(
            Case(
                case=name,
                patient=name if pattern is None else _patient(pattern, relative),
                images={DEFAULT_CHANNEL: ImageSource(one.path)},
                label=one.label,
                mask=mask_of.get(one.path),
                split=one.split,
                covariates={"class": one.group} if one.group else {},
            )
        )
    return cases


def _labelled_images(source: Path, normal: Collection[str]) -> Iterator[_Found]:
    """Every image with what its folders say, in order."""
    parts = [(folder, PARTS[folder.name.lower()]) for folder in _folders(source) if folder.name.lower() in PARTS]
    divided = bool(parts) and all(_classes(folder, normal) for folder, _ in parts)
    places = parts if divided else [(source, "")]
    if absent := set(normal) - {root.name for place, _ in places for root, _ in _classes(place, normal)}:
        there = sorted({folder.name for place, _ in places for folder in _folders(place)})
        raise InputError(
            f"{source}: there is no folder {min(absent)!r} of normals; there are {', '.join(there) or 'no folders'}."
        )
    for place, split in places:
        for root, label in _classes(place, normal) or [(place, 0)]:
            for path in _images_under(root):
                yield _Found(path, place, root, label, split, root.name if normal else "")


def _classes(place: Path, normal: Collection[str]) -> list[tuple[Path, int]]:
    """Folders of classes and their labels."""
    if normal:
        return [(folder, int(folder.name not in normal)) for folder in _folders(place)]
    return [(folder, CLASSES[folder.name.lower()]) for folder in _folders(place) if folder.name.lower() in CLASSES]


def _folders(source: Path) -> list[Path]:
    return sorted(entry for entry in source.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _images_under(root: Path) -> list[Path]:
    paths = (path for path in sorted(root.rglob("*")) if path.is_file() and path.name.lower().endswith(SUFFIXES))
    return [path for path in paths if not any(part.startswith(".") for part in path.relative_to(root).parts)]


def _stem(relative: Path) -> str:
    """The path without the image's ending, with '/' between folders."""
    text = relative.as_posix()
    ending = next(suffix for suffix in SUFFIXES if text.lower().endswith(suffix))
    return text[: -len(ending)]


def _names(files: list[tuple[Path, str]]) -> list[str]:
    """A case name for each (relative path, class folder); the class is put before where names would clash."""
    plain = [_safe(_stem(relative)) for relative, _ in files]
    if len({name.casefold() for name in plain}) == len(plain):
        return plain
    names = [f"{group}-{name}" if group else name for name, (_, group) in zip(plain, files, strict=True)]
    clashing = [name for name, count in Counter(name.casefold() for name in names).items() if count > 1]
    if clashing:
        both = " and ".join(
            str(path) for (path, _), name in zip(files, names, strict=True) if name.casefold() == clashing[0]
        )
        raise InputError(f"{both} would both be called {clashing[0]!r}; rename one of them.")
    return names


def _safe(stem: str) -> str:
    """ASCII, as manifests want it; names in other letters are told apart by a hash of what is lost."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", stem) if not unicodedata.combining(c))
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", plain, flags=re.ASCII).lstrip("._-")[:110].rstrip("-") or "case"
    if any(letter.isalnum() and not letter.isascii() for letter in plain):
        name += "-" + hashlib.sha256(unicodedata.normalize("NFC", stem).encode()).hexdigest()[:8]
    return name


def _folder_of_masks(folder: Path, source: Path) -> Path:
    """The folder, named as the images in it would be if it lies below the source."""
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder of masks.")
    real, root = folder.resolve(), source.resolve()
    if root.is_relative_to(real):
        raise InputError(f"{folder}: the folder of masks holds the images too; put the masks into one of their own.")
    return source / real.relative_to(root) if real.is_relative_to(root) else folder


def _masks(folder: Path, source: Path, found: Sequence[_Found], warn: Warn) -> dict[Path, Path]:
    """The mask of each abnormal image that has one; the longest path below the source that fits counts."""
    there: dict[str, Path] = {}
    for path in _images_under(folder):
        if (other := there.setdefault(_stem(path.relative_to(folder)), path)) != path:
            raise InputError(f"{other} and {path} would be masks of the same image; remove one of them.")
    fits: dict[tuple[int, str], list[Path]] = defaultdict(list)
    ill = [one for one in found if one.label]
    for one in ill:
        for level, stem in enumerate(_stems(one, source)):
            fits[level, stem].append(one.path)
    mask_of: dict[Path, Path] = {}
    owner: dict[Path, Path] = {}
    for one in ill:
        level, stem = next(((n, stem) for n, stem in enumerate(_stems(one, source)) if stem in there), (0, ""))
        if not stem:
            continue
        mask = mask_of[one.path] = there[stem]
        sharing = sorted({one.path, owner.setdefault(mask, one.path), *fits[level, stem]})
        if len(sharing) > 1:
            raise InputError(
                f"{mask} fits both {sharing[0]} and {sharing[1]}; name the masks by their path below {source}, as in "
                f"{folder / one.path.relative_to(source)}."
            )
    if not mask_of:
        why = f"that of {ill[0].path} is {_stems(ill[0], source)[0]} with its ending" if ill else "no image is abnormal"
        raise InputError(f"{folder}: none of {len(there)} masks fits an abnormal image; {why}.")
    known = {stem for one in found for stem in _stems(one, source)}
    if strange := [path.relative_to(folder).as_posix() for stem, path in there.items() if stem not in known]:
        warn(f"{len(strange)} of {len(there)} masks fit no image; they are not used ({some(strange)}).")
    return mask_of


def _stems(one: _Found, source: Path) -> list[str]:
    """What the mask of an image may be called."""
    return [_stem(one.path.relative_to(above)) for above in (source, one.place, one.root)]


def _compiled(patient_pattern: str | None) -> re.Pattern[str] | None:
    if patient_pattern is None:
        return None
    try:
        return re.compile(patient_pattern)
    except re.error as error:
        raise InputError(f"The patient pattern {patient_pattern!r} is not a regular expression: {error}.") from error


def _patient(pattern: re.Pattern[str], relative: Path) -> str:
    match = pattern.search(relative.as_posix())
    patient = (match.group(1) if pattern.groups else match.group(0)) if match else None
    if not patient:
        raise InputError(
            f"{relative}: the patient pattern {pattern.pattern!r} does not match; every image needs a patient."
        )
    return patient
