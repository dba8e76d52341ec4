"""Whole volumes of cases that are slices: cases of one volume follow each other, and it is read once for all."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from AnomalyDetectionLib.imaging.read import read_volume
from AnomalyDetectionLib.imaging.volume import Volume

_KEPT = 2
"""An image and its mask."""


def whole_volume(path: Path, series: str | None = None) -> Volume:
    """The volume in a file or folder, kept until others are asked for; its voxels cannot be changed.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    if path.is_dir():  # its files may change without the folder showing it
        return read_volume(path, series=series)
    stamp = path.stat() if path.exists() else None
    return _read(path, series, (stamp.st_size, stamp.st_mtime_ns) if stamp else None)


@lru_cache(maxsize=_KEPT)
def _read(path: Path, series: str | None, stamp: tuple[int, int] | None) -> Volume:
    volume = read_volume(path, series=series)
    volume.array.flags.writeable = False
    return volume
