"""Images to files, whole or not at all, in folders whose names every file system takes."""

from __future__ import annotations

import gzip
import os
import re
import tempfile
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib.errors import InputError, OutputError

from .geometry import Grid, to_sitk
from .volume import Volume

_GZIP_LEVEL = 1
"""Float32 maps hardly shrink further: on a 240 x 240 x 155 rarity map level 6 takes 4 times as long for 3 % less."""
_SCANNER_ANATOMICAL = 1
_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")

MAX_NAME = 80
"""Longest case name in characters: with the file names below it, paths stay far from Windows' limit of 260."""

MAX_NAME_BYTES = 160
"""File systems take 255 bytes a name, of which temporary names add some twenty and a number to tell names apart a few;
a letter of Chinese takes three."""

RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
"""Names Windows keeps for devices."""


def write_volume(volume: Volume, path: str | os.PathLike[str]) -> Path:
    """Write a volume as float32, by the ending of `path`: .nii.gz, .nii, .nrrd or .mha.

    Raises
    ------
    InputError
        If the ending is another one.
    OutputError
        If the file cannot be written; nothing half-written is left.
    """
    return _write(volume.array, volume.grid, Path(path))


def write_labels(labels: NDArray, grid: Grid, path: str | os.PathLike[str]) -> Path:
    """Write a map of labels (K, J, I) as the smallest unsigned integers that hold it.

    Raises
    ------
    InputError
        If the shape is not that of the grid, a label is negative, or the ending is not one of `write_volume`'s.
    OutputError
        If the file cannot be written; nothing half-written is left.
    """
    if labels.shape != grid.shape:
        raise InputError(f"{path}: the labels have shape {labels.shape}, the image {grid.shape}.")
    if labels.dtype.kind not in "biu" or (labels.size and labels.min() < 0):
        raise InputError(f"{path}: labels are whole numbers from 0.")
    kind = np.min_scalar_type(int(labels.max())) if labels.size else np.dtype(np.uint8)
    return _write(labels.astype(kind, copy=False), grid, Path(path))


def safe_name(text: str) -> str:
    """A folder name that every file system takes: word characters, '.', '-', '_'; at most `MAX_NAME` long."""
    name = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", text)).strip("._ ")[:MAX_NAME]
    name = name.encode()[:MAX_NAME_BYTES].decode(errors="ignore").rstrip("._ ")
    if not name:
        return "case"
    return f"_{name}" if name.split(".")[0].lower() in RESERVED else name


def atomically(path: Path, write: Callable[[Path], None]) -> Path:
    """Let `write` make a temporary file in the folder of `path`, then give it its name.

    Raises
    ------
    OutputError
        If the folder cannot be made or written, or the disk is full; the temporary file is removed.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".writing-", suffix=_ending(path) or path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path}: the file cannot be written ({error.strerror or error}); "
            "check the folder, its permissions and the free space."
        ) from error
    except RuntimeError as error:  # SimpleITK's
        raise OutputError(f"{path}: the file cannot be written ({str(error).strip().splitlines()[-1]}).") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return path


def _write(array: NDArray, grid: Grid, path: Path) -> Path:
    ending = _ending(path)
    if not ending:
        raise InputError(f"{path}: the name must end in {', '.join(_ENDINGS[:-1])} or {_ENDINGS[-1]}.")
    if ending.startswith(".nii"):
        return atomically(path, lambda temporary: _nifti(array, grid, temporary))
    return atomically(path, lambda temporary: _itk(array, grid, temporary))


def _ending(path: Path) -> str:
    return next((ending for ending in _ENDINGS if path.name.lower().endswith(ending)), "")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _nifti(array: NDArray, grid: Grid, path: Path) -> None:
    """NIfTI-1 with sform and qform; voxels stream out in the order in which they lie in memory."""
    import nibabel

    image = nibabel.Nifti1Image(array.T, grid.ijk_to_ras)
    image.set_sform(grid.ijk_to_ras, _SCANNER_ANATOMICAL)
    image.set_qform(grid.ijk_to_ras, _SCANNER_ANATOMICAL)
    image.header.set_xyzt_units("mm")
    with path.open("wb") as stream:
        if path.name.endswith(".gz"):
            with gzip.GzipFile("", "wb", _GZIP_LEVEL, stream, mtime=0) as packed:
                image.to_stream(packed)
        else:
            image.to_stream(stream)


def _itk(array: NDArray, grid: Grid, path: Path) -> None:
    import SimpleITK as sitk  # not before an image is written: opening Slicer's panel reaches this file

    sitk.WriteImage(to_sitk(array, grid), str(path), useCompression=True, compressionLevel=_GZIP_LEVEL)
