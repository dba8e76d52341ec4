"""Taking in a bundle from a file: only what its own list names, checked before it is put in place.  Needs no torch.

Whatever else a folder or an archive holds is left behind, and no file may become larger than the list says, so an
archive can neither write elsewhere nor fill the disk.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import stat
import time
import uuid
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

from AnomalyDetectionLib.errors import InputError, OutputError

from .manifest import MANIFEST, MAX_MANIFEST_BYTES, listed_files, parse_manifest, read_manifest, verify_bundle

try:  # a Python may be built without it, and then zipfile refuses such members by itself
    from lzma import LZMAError
except ImportError:
    LZMAError = zipfile.BadZipFile  # type: ignore[misc, assignment]

DAMAGED = (zipfile.BadZipFile, zlib.error, LZMAError, NotImplementedError, EOFError, UnicodeDecodeError)
"""What reading an archive raises where its bytes are not right."""
MAX_BUNDLE_BYTES = 8 * 2**30
MAX_ENTRIES = 10_000
"""Of an archive."""
_PARTIAL = ".installing-"
REMOVING = ".removing-"
"""What a model's folder is called while it is deleted."""
_STALE_S = 3600
_CHUNK = 2**20
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def install_bundle(source: Path, user: Path, installed: Mapping[str, Path]) -> Path:
    """Copy a bundle into the user's folder and return where it lies.

    Parameters
    ----------
    source
        A bundle's folder, a file in it (`anomaly.json`), or a zip archive of one.
    installed
        SHA-256 to folder of the models that are there: such a model is not copied again.

    Raises
    ------
    InputError
        If `source` is no bundle or not to be trusted.
    OutputError
        If the user's folder cannot be written.
    """
    if source.is_dir() or source.name == MANIFEST:
        return _from_folder(source if source.is_dir() else source.parent, user, installed)
    if not source.exists():
        raise InputError(f"{source}: there is no such file.")
    if not zipfile.is_zipfile(source):
        raise InputError(f"{source}: not a model; choose the zip archive of a bundle, or {MANIFEST} in its folder.")
    try:
        with zipfile.ZipFile(source) as archive:
            return _from_archive(source, archive, user, installed)
    except DAMAGED as error:
        raise InputError(f"{source}: the archive is damaged ({error}); fetch it again.") from error


def _from_folder(folder: Path, user: Path, installed: Mapping[str, Path]) -> Path:
    manifest = read_manifest(folder)

    def opened(name: str) -> IO[bytes]:
        path = folder / PurePosixPath(name)
        if not path.is_file():
            raise InputError(f"{path}: missing from the model; copy the whole folder and try again.")
        if not path.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{path}: a link to outside the model; do not use it.")
        return path.open("rb")

    return _install(folder, manifest, opened, user, installed)


def _from_archive(source: Path, archive: zipfile.ZipFile, user: Path, installed: Mapping[str, Path]) -> Path:
    members = _members(source, archive)
    root = _root(source, members)
    # What the archive says of sizes need not be true: read no more than that.
    with _open_member(source, archive, members[f"{root}{MANIFEST}"]) as stream:
        content = stream.read(MAX_MANIFEST_BYTES + 1)
    if len(content) > MAX_MANIFEST_BYTES:
        raise InputError(f"{source}: its {MANIFEST} is too large for a model's description; do not use this model.")
    manifest = parse_manifest(content, source / MANIFEST)

    def opened(name: str) -> IO[bytes]:
        if f"{root}{name}" not in members:
            raise InputError(f"{source}: {name} is missing from the archive; fetch it again.")
        return _open_member(source, archive, members[f"{root}{name}"])

    return _install(source, manifest, opened, user, installed, content)


def _members(source: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive by name; refuses one that is made to deceive."""
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise InputError(f"{source}: {len(entries)} files are too many for a model; do not use this archive.")
    members: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        name = PurePosixPath(entry.filename)
        if name.is_absolute() or ".." in name.parts or "\\" in entry.filename or ":" in entry.filename:
            raise InputError(f"{source}: names a file outside itself ({entry.filename}); do not use this archive.")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise InputError(f"{source}: holds a link ({entry.filename}); do not use this archive.")
        if entry.filename in members:
            raise InputError(f"{source}: holds {entry.filename} twice; do not use this archive.")
        if not entry.is_dir():
            members[entry.filename] = entry
    return members


def _root(source: Path, members: Mapping[str, zipfile.ZipInfo]) -> str:
    """Where in an archive the bundle lies: at the top ("") or in one folder ("name/")."""
    roots = [name.removesuffix(MANIFEST) for name in members if PurePosixPath(name).name == MANIFEST]
    roots = [root for root in roots if root.count("/") <= 1 and not root.startswith("__MACOSX")]
    if not roots:
        raise InputError(f"{source}: not a model bundle (there is no {MANIFEST} in the archive).")
    if len(roots) > 1:
        raise InputError(f"{source}: the archive holds {len(roots)} models; install them one by one.")
    return roots[0]


def _open_member(source: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> IO[bytes]:
    if entry.flag_bits & 1:
        raise InputError(f"{source}: the archive is encrypted; unpack it and install the folder.")
    return archive.open(entry)


def _install(
    source: Path,
    manifest: Mapping[str, Any],
    opened: Callable[[str], IO[bytes]],
    user: Path,
    installed: Mapping[str, Path],
    manifest_content: bytes | None = None,
) -> Path:
    if manifest["sha256"] in installed:
        return installed[manifest["sha256"]]
    name = _folder_name(source, manifest)
    files = listed_files(manifest, source / MANIFEST)
    needed = _total(source, files)
    partial = user / f"{_PARTIAL}{uuid.uuid4().hex}"
    try:
        user.mkdir(parents=True, exist_ok=True)
        _clear_stale(user)
        if shutil.disk_usage(user).free < needed:
            raise OutputError(f"{user}: {needed / 2**20:.0f} MB are needed for this model; free some space.")
        for file, facts in files.items():
            _copy(source, file, opened, partial, facts["bytes"])
        content = (source / MANIFEST).read_bytes() if manifest_content is None else manifest_content
        (partial / MANIFEST).write_bytes(content)
        verify_bundle(partial)
        target = user / name
        if target.exists():  # of this name and hash, and yet not usable: it is damaged
            target.rename(user / f"{_PARTIAL}{uuid.uuid4().hex}")
        partial.rename(target)
        return target
    except OSError as error:
        raise OutputError(
            f"{user}: the model cannot be installed ({error.strerror or error}); check permissions and free space."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _total(source: Path, files: Mapping[str, Mapping[str, Any]]) -> int:
    """Bytes of all files, as the list has them."""
    sizes = [facts.get("bytes") for facts in files.values()]
    known = [size for size in sizes if isinstance(size, int) and size >= 0]
    if len(known) < len(sizes) or sum(known) > MAX_BUNDLE_BYTES:
        raise InputError(f"{source}: the sizes of its files are senseless; do not use this model.")
    return sum(known)


def _folder_name(source: Path, manifest: Mapping[str, Any]) -> str:
    """Names of a model, its version and its hash, so that models of the same name lie beside each other."""
    parts = (str(manifest.get("id", "")), str(manifest.get("version", "")))
    if not all(_SAFE.fullmatch(part) for part in parts):
        raise InputError(f"{source}: its name ({parts[0]!r} {parts[1]!r}) is not one of a model; do not use it.")
    return f"{parts[0]}-{parts[1]}-{str(manifest['sha256'])[:12]}"


def _copy(source: Path, name: str, opened: Callable[[str], IO[bytes]], folder: Path, size: int) -> None:
    """Copy one file of at most `size` bytes."""
    target = folder / PurePosixPath(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    left = size
    with opened(name) as stream, target.open("wb") as out:
        while chunk := stream.read(min(_CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                raise InputError(f"{source}: {name} is larger than the model's list says; do not use this model.")
            out.write(chunk)


def _clear_stale(user: Path) -> None:
    """Remove what an installation or a removal that was killed left behind."""
    for folder in (*user.glob(f"{_PARTIAL}*"), *user.glob(f"{REMOVING}*")):
        with contextlib.suppress(FileNotFoundError):  # another Slicer may be removing it too
            if time.time() - folder.stat().st_mtime > _STALE_S:
                shutil.rmtree(folder, ignore_errors=True)
