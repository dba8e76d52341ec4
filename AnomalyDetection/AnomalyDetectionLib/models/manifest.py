"""What a bundle says of itself, and whether its files are those it was made with; needs no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from AnomalyDetectionLib.errors import InputError

FORMAT = "anomaly-bundle/1"
MANIFEST = "anomaly.json"
WEIGHTS = "models/model.pt"
TEMPLATE = "models/template.npz"
ATTACHED = "baselines/"
"""Folder of a bundle whose files scoring neither reads nor needs: fitted baselines, for `evaluate`."""

MAX_MANIFEST_BYTES = 50_000_000
"""A calibration of some thousand normals takes a few hundred kilobytes; what is far larger is not a manifest."""


def manifest_hash(manifest: Mapping[str, Any]) -> str:
    """Hash of all in the manifest but the hash itself; since the files' hashes are in it, it identifies the model."""
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_manifest(folder: Path | str) -> dict[str, Any]:
    """`anomaly.json` of a bundle, checked against its own hash and format.

    Raises
    ------
    InputError
        If the folder is no bundle, or the file was changed.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such model folder.")
    if not path.is_file():
        raise InputError(
            f"{folder}: not a model bundle (there is no {MANIFEST} in it); `export` makes one of a training run."
        )
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise InputError(f"{path}: too large for a model's description; install the model again.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: damaged ({error}); install the model again.") from error
    return parse_manifest(content, path)


def parse_manifest(content: bytes, path: Path) -> dict[str, Any]:
    """The content of an `anomaly.json`, checked against its own hash and format; `path` is for messages.

    Raises
    ------
    InputError
        If it is none, or was changed.
    """
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged ({error}); install the model again.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise InputError(f"{path}: the bundle's format is {found!r}, this software reads {FORMAT!r}.")
    if manifest.get("sha256") != manifest_hash(manifest):
        raise InputError(f"{path}: the file was changed after the model was made (SHA-256 differs); install it again.")
    return manifest


def listed_files(manifest: Mapping[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    """Name (relative, with slashes) to `sha256` and `bytes` of a bundle's files; `path` is for messages.

    Raises
    ------
    InputError
        If the list is missing, or names a file outside the bundle.
    """
    files = manifest.get("files")
    if not isinstance(files, dict) or WEIGHTS not in files:
        raise InputError(f"{path}: the list of files is missing; install the model again.")
    for name, facts in files.items():
        pure = PurePosixPath(str(name))
        if pure.is_absolute() or ".." in pure.parts or "\\" in name or ":" in name:
            raise InputError(f"{path}: names a file outside the bundle ({name}); do not use this model.")
        if not isinstance(facts, dict):
            raise InputError(f"{path}: says nothing of {name}'s size and hash; install the model again.")
    return files


def verify_bundle(folder: Path | str, *, attached: bool = True) -> dict[str, Any]:
    """Check every file of a bundle against its SHA-256 and return the manifest.

    Parameters
    ----------
    attached
        False leaves out the files that scoring does not need.

    Raises
    ------
    InputError
        Naming the first file that is missing, changed or outside the bundle.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    for name, facts in listed_files(manifest, folder / MANIFEST).items():
        if attached or not name.startswith(ATTACHED):
            _verify_file(folder / PurePosixPath(name), facts)
    return manifest


def read_attachments(folder: Path | str) -> dict[str, bytes]:
    """The files of a bundle that scoring does not need, by name; {} where it has none.

    Raises
    ------
    InputError
        If a file of the bundle is missing or was changed.
    """
    folder = Path(folder)
    names = [name for name in verify_bundle(folder)["files"] if name.startswith(ATTACHED)]
    return {name: (folder / name).read_bytes() for name in names}


def _verify_file(path: Path, facts: Mapping[str, Any]) -> None:
    if not path.is_file():
        raise InputError(f"{path}: missing from the model; install the model again.")
    if path.stat().st_size != facts.get("bytes") or _file_hash(path) != facts.get("sha256"):
        raise InputError(f"{path}: the file was changed or damaged (SHA-256 differs); install the model again.")


def _file_hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
