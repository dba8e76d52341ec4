"""Which models there are: those shipped with the module and those the user installed.  Needs no torch.

The shipped folder holds bundles and `catalogue.json` (`catalogue.schema.json` beside it); the user's folder holds
bundles only, put there by `Catalogue.install`.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from AnomalyDetectionLib.errors import InputError, OutputError

from .installing import REMOVING, install_bundle
from .manifest import MANIFEST, listed_files, read_manifest, verify_bundle

if TYPE_CHECKING:
    from AnomalyDetectionLib.scoring.thresholds import Threshold

CATALOGUE = "catalogue.json"
SCHEMA = "slicer-anomaly/catalogue/1"


@dataclass(frozen=True)
class Entry:
    """One model of the catalogue.

    Attributes
    ----------
    folder
        The bundle.
    title, description, contrast
        For people; the title is the id where the bundle has none.
    modalities
        DICOM codes of the images it takes; none for any.
    figures
        What was measured on held-out cases, by name, with the numbers of cases.
    size
        Bytes of all its files.
    removable
        Whether the user installed it.
    problem
        Why it cannot be used, in one sentence; None where it can.
    """

    folder: Path
    id: str
    version: str
    sha256: str
    detector: str
    title: str
    description: str = ""
    contrast: str = ""
    modalities: tuple[str, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    experimental: bool = False
    size: int = 0
    removable: bool = False
    problem: str | None = None

    @property
    def usable(self) -> bool:
        """Whether its files are all there and as they were made."""
        return self.problem is None

    def threshold(self) -> Threshold:
        """The model's default threshold, what any other costs on its calibration normals, and the least finding.

        Raises
        ------
        InputError
            If the bundle is damaged.
        """
        from AnomalyDetectionLib.scoring.thresholds import Threshold

        manifest = read_manifest(self.folder)
        try:
            return Threshold.from_json(manifest["calibration"]["threshold"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{self.folder / MANIFEST}: incomplete ({error!r}); install the model again.") from error

    def to_json(self) -> dict[str, Any]:
        """A row of `catalogue.json`."""
        return {
            "folder": self.folder.name,
            "id": self.id,
            "version": self.version,
            "sha256": self.sha256,
            "detector": self.detector,
            "title": self.title,
            "description": self.description,
            "contrast": self.contrast,
            "modalities": list(self.modalities),
            "figures": dict(self.figures),
            "experimental": self.experimental,
            "size": self.size,
        }


def described(folder: Path) -> Entry:
    """A bundle as its own `anomaly.json` describes it; its files are not checked.

    Raises
    ------
    InputError
        If the folder is no bundle, or the description is damaged.
    """
    manifest = read_manifest(folder)
    path = folder / MANIFEST
    files = listed_files(manifest, path)
    info = manifest.get("info")
    info = info if isinstance(info, dict) else {}
    try:
        return Entry(
            folder=folder,
            id=str(manifest["id"]),
            version=str(manifest["version"]),
            sha256=str(manifest["sha256"]),
            detector=str(manifest["detector"]),
            title=str(info.get("title") or manifest["id"]),
            description=str(info.get("description", "")),
            contrast=str(info.get("contrast", "")),
            modalities=tuple(str(code) for code in manifest["spec"]["modalities"]),
            figures=dict(info.get("metrics") or {}),
            experimental=bool(info.get("experimental", False)),
            size=path.stat().st_size + sum(int(facts["bytes"]) for facts in files.values()),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: incomplete ({error!r}); install the model again.") from error


def catalogue_json(entries: Iterable[Entry]) -> dict[str, Any]:
    """`catalogue.json` as plain values (`Resources/Models/catalogue.schema.json`)."""
    return {"schema": SCHEMA, "models": [entry.to_json() for entry in entries]}


def read_catalogue(folder: Path) -> list[Entry]:
    """The entries of a folder's `catalogue.json`, as they stand there; the bundles themselves are not looked at.

    Raises
    ------
    InputError
        If the file is missing or damaged.
    """
    path = folder / CATALOGUE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            raise ValueError(f"its schema is {data['schema']!r}, this software reads {SCHEMA!r}")
        return [_row(folder, row) for row in data["models"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: the list of models cannot be read ({error}); install the extension again."
        ) from error


def _row(folder: Path, row: Mapping[str, Any]) -> Entry:
    name = str(row["folder"])
    if Path(name).name != name or name.startswith("."):
        raise ValueError(f"{name!r} is not a folder beside it")
    values = {key: value for key, value in row.items() if key != "folder"}
    values["modalities"] = tuple(values["modalities"])
    return Entry(folder=folder / name, **values)


class Catalogue:
    """The models of a shipped and a user's folder.

    Parameters
    ----------
    shipped
        Folder with `catalogue.json`.
    user
        Where *Install from file* puts bundles; need not exist.
    """

    def __init__(self, shipped: Path | str, user: Path | str) -> None:
        self.shipped, self.user = Path(shipped), Path(user)
        self._checked: dict[Path, tuple[object, str | None]] = {}

    def entries(self) -> list[Entry]:
        """All models, shipped ones first; those whose files are gone or changed have a `problem`.

        Every file is hashed once, and again only if its size or date has changed: 2 ms a megabyte the first time.

        Raises
        ------
        InputError
            If the shipped catalogue is missing or damaged.
        """
        return [*map(self._checked_entry, read_catalogue(self.shipped)), *self._installed()]

    def find(self, sha256: str) -> Entry | None:
        """The model with that hash, usable or not."""
        return next((entry for entry in self.entries() if entry.sha256 == sha256), None)

    def install(self, source: Path | str) -> Entry:
        """Take in a bundle, given as a folder, a file of one, or a zip archive.

        A model that is installed already is returned as it is; other versions of a model are kept beside each other.

        Raises
        ------
        InputError
            If it is no bundle, was changed, or is an archive that is not to be trusted; nothing is then installed.
        OutputError
            If the user's folder cannot be written.
        """
        folder = install_bundle(Path(source), self.user, {e.sha256: e.folder for e in self.entries() if e.usable})
        return next(entry for entry in self.entries() if entry.folder == folder)

    def remove(self, entry: Entry) -> None:
        """Delete a model that the user installed.

        Raises
        ------
        InputError
            If it ships with the module.
        OutputError
            If it cannot be deleted.
        """
        if entry.folder.parent.resolve() != self.user.resolve():
            raise InputError(f"{entry.title}: this model is part of the extension and cannot be removed by itself.")
        gone = self.user / f"{REMOVING}{uuid.uuid4().hex}"
        try:
            entry.folder.rename(gone)  # at once, so that no half of a model is ever listed
            shutil.rmtree(gone)
        except FileNotFoundError:
            return
        except OSError as error:
            raise OutputError(
                f"{entry.folder}: the model cannot be deleted ({error.strerror or error}); check its permissions."
            ) from error

    def _installed(self) -> list[Entry]:
        if not self.user.is_dir():
            return []
        found = []
        for folder in sorted(self.user.iterdir()):
            if not folder.is_dir() or folder.name.startswith("."):
                continue
            try:
                entry = described(folder)
            except InputError as error:
                entry = Entry(folder, folder.name, "", "", "", folder.name, problem=str(error))
            found.append(replace(self._checked_entry(entry), removable=True))
        return found

    def _checked_entry(self, entry: Entry) -> Entry:
        """The entry, with what is wrong with its files."""
        if entry.problem is not None:
            return entry
        signature = _signature(entry.folder)
        if self._checked.get(entry.folder, (None,))[0] != signature:
            self._checked[entry.folder] = (signature, _problem(entry))
        return replace(entry, problem=self._checked[entry.folder][1])


def _signature(folder: Path) -> object:
    """What changes when a file of the folder is written or removed."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files)


def _problem(entry: Entry) -> str | None:
    try:
        manifest = verify_bundle(entry.folder)
    except (InputError, OSError) as error:
        return str(error)
    if manifest["sha256"] != entry.sha256:
        return f"{entry.folder}: this is not the model of the catalogue (SHA-256 differs); install the extension again."
    return None
