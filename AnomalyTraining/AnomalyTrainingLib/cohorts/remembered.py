"""What `contents.examine` found before, in a hidden file beside the manifest.

A record holds for a case while its manifest row names the same files and these have the same sizes and times.  The file
is an aid, not a result: one that is damaged, or of another version of the software, is ignored, and where none can be
written the images are read again next time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from AnomalyDetectionLib import __version__
from AnomalyDetectionLib.errors import OutputError
from AnomalyDetectionLib.imaging.write import atomically

from .facts import Contents, ImageFacts, MaskFacts
from .manifest import Case

FORMAT = f"slicer-anomaly/checked/1 {__version__}"
_DETACHED = (".nhdr", ".mhd", ".hdr", ".img")
"""Headers whose voxels lie in another file of the folder."""
_SAVE_EVERY_S = 20.0


class Stamps:
    """Stamps of the files of cases: their names, sizes and times of change.  Each folder is looked through once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._seen: dict[Path, str | None] = {}

    def of(self, case: Case) -> str | None:
        """A hash of everything that a case's contents depend on; None if a file does not exist."""
        files = [source.path for source in case.images.values()] + ([case.mask] if case.mask else [])
        stamps = [self._of_path(path) for path in files]
        if None in stamps:
            return None
        # Relative paths where they can be: the folder of a cohort may be moved.
        names = [str(path.relative_to(self._root) if path.is_relative_to(self._root) else path) for path in files]
        parts = [[*case.images], [source.series for source in case.images.values()], case.slice, names, stamps]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def _of_path(self, path: Path) -> str | None:
        place = path.parent if path.suffix.lower() in _DETACHED else path
        if place not in self._seen:
            self._seen[place] = _stamp(place)
        return self._seen[place]


def _stamp(place: Path) -> str | None:
    """Name, size and time of a file, or of all files below a folder; None if there is no such place."""
    try:
        if not place.is_dir():
            return _entry(place)
    except (OSError, ValueError):
        return None
    digest = hashlib.sha256()
    for folder, folders, names in os.walk(place):
        folders.sort()
        for name in sorted(names):
            digest.update(os.fsencode(f"{os.path.relpath(folder, place)}/{_entry_or_absent(Path(folder, name))}\n"))
    return digest.hexdigest()


def _entry(path: Path) -> str:
    status = path.stat()
    return f"{path.name} {status.st_size} {status.st_mtime_ns}"


def _entry_or_absent(path: Path) -> str:
    """A link that leads nowhere is no reason not to look at its neighbours."""
    try:
        return _entry(path)
    except OSError:
        return f"{path.name} absent"


class Remembered:
    """Records by case name.

    Parameters
    ----------
    path
        Where they are kept; None keeps nothing.
    """

    def __init__(self, path: Path | None = None, records: Mapping[str, Any] | None = None) -> None:
        self._path = path
        self._records = dict(records or {})
        self._changed, self._saved = False, time.monotonic()

    @classmethod
    def beside(cls, manifest: Path) -> Remembered:
        """The records of a manifest, none if there is no whole file of them."""
        path = manifest.with_name(f".{manifest.name}.checked.json")
        try:
            head, _, body = path.read_bytes().partition(b"\n")
            if head == _head(body):
                return cls(path, json.loads(body))
        except (OSError, ValueError):
            pass
        return cls(path)

    def contents(self, name: str, stamp: str) -> Contents | None:
        """What was found for a case, if its files are still the same."""
        record = self._records.get(name)
        return _from_json(record["contents"]) if record is not None and record["stamp"] == stamp else None

    def note(self, name: str, stamp: str | None, contents: Contents) -> None:
        """Remember what was found."""
        self._records[name] = {"stamp": stamp, "contents": dataclasses.asdict(contents)}
        self._changed = True

    def save_now_and_then(self) -> None:
        """Save, unless that was done a moment ago: who is interrupted does not lose much."""
        if time.monotonic() - self._saved > _SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Write what is new."""
        if self._path is None or not self._changed:
            return
        body = json.dumps(self._records, separators=(",", ":")).encode()
        content = _head(body) + b"\n" + body
        try:
            atomically(self._path, lambda path: _write(path, content))
        except OutputError:
            self._path = None  # a data set on a read-only disk: the next call reads the images again
        self._changed, self._saved = False, time.monotonic()


def _head(body: bytes) -> bytes:
    """Format and checksum: what was cut short or edited is not trusted."""
    return f"{FORMAT} {hashlib.sha256(body).hexdigest()}".encode()


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _from_json(fields: Mapping[str, Any]) -> Contents:
    images = {
        channel: ImageFacts(
            pixels=facts["pixels"],
            shape=tuple(facts["shape"]),
            ijk_to_ras=tuple(tuple(row) for row in facts["ijk_to_ras"]),
            modality=facts["modality"],
            spacing_known=facts["spacing_known"],
        )
        for channel, facts in fields["images"].items()
    }
    mask = fields["mask"]
    if mask is not None:
        labels = mask["labels"]
        mask = MaskFacts(**{**mask, "labels": None if labels is None else tuple(labels)})
    return Contents(images, mask)
