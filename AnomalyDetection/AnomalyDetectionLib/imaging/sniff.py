"""What kind of file lies at a path, told by its content."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from pathlib import Path

from AnomalyDetectionLib.errors import InputError

DICOM, NIFTI, NRRD, META, PNG, JPEG = "DICOM", "NIfTI", "NRRD", "MetaImage", "PNG", "JPEG"
READABLE = "DICOM, NIfTI (.nii, .nii.gz), NRRD, MetaImage (.mha, .mhd), PNG and JPEG"

HEAD = 544
"""Bytes that tell the kind: up to the end of a NIfTI-2 header."""


def kind_of(path: Path) -> str | None:
    """The kind of an image file, or None if it is none of ours.

    Raises
    ------
    InputError
        If the file cannot be opened.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD)
    except OSError as error:
        raise InputError(f"{path}: the file cannot be read ({error.strerror or error}).") from error
    return kind_from(head)


def files_below(folder: Path) -> list[Path]:
    """Every regular file in a folder and its subfolders, in the order of their names.

    Raises
    ------
    InputError
        If a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: the folder cannot be read ({error.strerror}).") from error

    found: list[Path] = []
    for where, folders, names in os.walk(folder, onerror=refuse):
        folders.sort()
        found.extend(path for name in sorted(names) if (path := Path(where, name)).is_file())
    return found


def existing(path: Path) -> Path:
    """The path itself, if something lies there."""
    try:
        there = path.exists()
    except OSError as error:
        raise InputError(f"{path}: this path cannot be read ({error.strerror or error}).") from error
    if not there:
        raise InputError(f"{path}: there is no such file or folder; check the path.")
    return path


def not_readable(path: Path) -> InputError:
    """The error for a file of another kind."""
    name = path.name.lower()
    if path.stat().st_size == 0:
        return InputError(f"{path}: the file is empty; copy or export it again.")
    if name.endswith((".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".png", ".jpg", ".jpeg", ".dcm")):
        return InputError(
            f"{path}: the content is not what the name promises (no {''.join(path.suffixes[-2:])} header is found); "
            "export the image again."
        )
    return InputError(f"{path}: this is not an image that can be read; {READABLE} can.")


def kind_from(head: bytes) -> str | None:
    """The kind of the file that begins with these `HEAD` bytes."""
    if head[128:132] == b"DICM" or _is_bare_dicom(head):
        return DICOM
    if head.startswith(b"\x1f\x8b"):
        return NIFTI if _is_nifti(_inflated(head)) else None
    if _is_nifti(head):
        return NIFTI
    if head.startswith(b"NRRD000"):
        return NRRD
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if head.startswith(b"\xff\xd8\xff"):
        return JPEG
    if head.lstrip()[:10] == b"ObjectType" or head.lstrip()[:5] == b"NDims":
        return META
    return None


def _is_nifti(head: bytes) -> bool:
    magic = head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")
    return magic and head[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c", b"\x1c\x02\0\0", b"\0\0\x02\x1c")


def _inflated(head: bytes) -> bytes:
    """The first bytes inside a gzip file, as far as its first bytes go."""
    try:
        return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(head, HEAD)
    except (zlib.error, gzip.BadGzipFile):
        return b""


def _is_bare_dicom(head: bytes) -> bool:
    """A data set without preamble (old archives): begins with group 0002 or 0008, then a VR or a small length."""
    if len(head) < 16:
        return False
    group, element = struct.unpack("<HH", head[:4])
    if group not in (0x0002, 0x0008) or element > 0x0070:
        return False
    (length,) = struct.unpack("<L", head[4:8])
    return head[4:6] in (b"UL", b"UI", b"CS", b"OB", b"DA", b"TM", b"SH", b"LO") or (length <= 256 and length % 2 == 0)
