"""`read_volume`: the one way in for images, whatever their format."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from AnomalyDetectionLib.errors import InputError

from .dicom.assemble import assemble
from .dicom.series import SeriesInfo, choose, parts_of, read_headers
from .files import read_file
from .sniff import DICOM, existing, files_below, kind_of, not_readable
from .volume import Volume

__all__ = ["SeriesInfo", "list_series", "read_volume"]

Source = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


def read_volume(
    path: Source, *, series: str | None = None, modality: str | None = None, frame: int | None = None
) -> Volume:
    """Read one image.

    Parameters
    ----------
    path
        A folder with DICOM files (searched with its subfolders), a DICOM, NIfTI, NRRD, MetaImage, PNG or JPEG file, or
        several DICOM files.  DICOM is told by its content, whatever the file's name.
    series
        Which image, where the files hold several: its number in the list of `list_series`, a Series Instance UID or the
        beginning of one.
    modality
        The DICOM code (MR, CT, CR, ...) of an image whose file does not say, or says wrongly.
    frame
        One frame, from 1, of an ultrasound cine, an angiogram or a planar nuclear study.  Without it all frames of a
        cine are read side by side along K, with the spacing counted as unknown, since frames are moments and not
        slices.

    Returns
    -------
    Volume
        In HU, SUV or the unit of the file; NaN and infinite voxels stay (`Volume.check_values` finds them).  Remarks
        for the user are in `notes`.

    Raises
    ------
    InputError
        If there is nothing to read, the choice is not clear, a file is damaged, or the slices do not make a volume.
    """
    paths = [existing(Path(item)) for item in ([path] if isinstance(path, (str, os.PathLike)) else path)]
    if not paths:
        raise InputError("no file is given; name a file or a folder.")
    if len(paths) == 1 and not paths[0].is_dir():
        kind = kind_of(paths[0])
        if kind is None:
            raise not_readable(paths[0])
        if kind != DICOM:
            if series is not None or frame is not None:
                raise InputError(f"{paths[0]}: a {kind} file has no series or frames to choose from.")
            return read_file(paths[0], kind, modality or "")
    volume = _dicom(paths, series, frame)
    return replace(volume, modality=modality) if modality else volume


def list_series(path: Source) -> list[SeriesInfo]:
    """What can be chosen among the DICOM files of a folder, a file or several files.

    Raises
    ------
    InputError
        If there are no DICOM images, or a header is damaged.
    """
    paths = [existing(Path(item)) for item in ([path] if isinstance(path, (str, os.PathLike)) else path)]
    return [part.info for part in parts_of(read_headers(_all_files(paths))[0])]


def _dicom(paths: list[Path], series: str | None, frame: int | None) -> Volume:
    where = str(paths[0])
    files = _all_files(paths)
    headers, skipped = read_headers(files)
    if not headers:
        raise _nothing(paths, files)
    part, notes = choose(parts_of(headers), series, where)
    if skipped:
        notes.append(f"{skipped} of {len(files)} files are no DICOM images and were skipped.")
    return assemble(part, frame, notes)


def _all_files(paths: list[Path]) -> list[Path]:
    files = [file for path in paths for file in (files_below(path) if path.is_dir() else [path])]
    return list(dict.fromkeys(files))


def _nothing(paths: list[Path], files: list[Path]) -> InputError:
    where = paths[0]
    if not files:
        return InputError(f"{where}: the folder is empty; give the folder that holds the image files.")
    if not where.is_dir():
        return InputError(
            f"{where}: the DICOM file holds no image to be scored (an index, report, segmentation or dose); "
            "give the images."
        )
    others = [file for file in files if kind_of(file) not in (None, DICOM)]
    if others:
        return InputError(
            f"{where}: the folder holds no DICOM images, but {len(others)} other image files; give one of them, for "
            f"instance {others[0].name}."
        )
    return InputError(f"{where}: none of the {len(files)} files in the folder is a DICOM image; give another folder.")
