"""Records of judged cases on disk, one file a case, so that a stopped evaluation goes on and others can pool them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.write import atomically

from .records import CaseRecord, LesionRecord, VoxelRecord

SCHEMA = "slicer-anomaly/records/1"
FOLDER = "records"
_ARRAYS = ("false_findings_at", "voxels")


def write_records(path: Path, records: Mapping[str, CaseRecord], extra: Mapping[str, Any]) -> None:
    """Write what every method made of one case into an .npz, whole or not at all.

    Parameters
    ----------
    records
        By method.
    extra
        Plain JSON values to be kept with them.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    table: dict[str, Any] = {"schema": SCHEMA, "extra": dict(extra), "records": {}}
    arrays: dict[str, Any] = {}
    for name, record in records.items():
        plain = {f.name: getattr(record, f.name) for f in fields(record) if f.name not in _ARRAYS}
        plain["covariates"] = dict(record.covariates)
        plain["lesions"] = [vars(lesion) for lesion in record.lesions]
        if record.false_findings_at is not None:
            arrays[f"{name}/false_findings_at"] = record.false_findings_at
        if (voxels := record.voxels) is not None:
            arrays |= {f"{name}/lesion": voxels.lesion, f"{name}/healthy": voxels.healthy}
            plain["overlap"] = [voxels.dice, voxels.iou]
        table["records"][name] = plain
    text = json.dumps(table, allow_nan=False).encode()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, table=np.frombuffer(text, dtype=np.uint8), **arrays)
    atomically(path, lambda temporary: _write(temporary, buffer.getvalue()))


def read_records(path: Path) -> tuple[dict[str, CaseRecord], dict[str, Any]]:
    """The inverse of `write_records`: records by method, and what was kept with them.

    Raises
    ------
    InputError
        If the file is not what this software writes.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            table = json.loads(data["table"].tobytes())
            if table["schema"] != SCHEMA:
                raise ValueError(f"the format is {table['schema']!r}")
            found = {name: _record(plain, name, data) for name, plain in table["records"].items()}
            return found, table["extra"]
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise InputError(f"{path}: these are no records of this version ({error}); delete the file.") from error


def _record(plain: dict[str, Any], name: str, data: Any) -> CaseRecord:
    overlap = plain.pop("overlap", None)
    voxels = None
    if overlap is not None:
        voxels = VoxelRecord(data[f"{name}/lesion"], data[f"{name}/healthy"], *overlap)
    false = data.get(f"{name}/false_findings_at")
    plain["lesions"] = tuple(LesionRecord(**lesion) for lesion in plain["lesions"])
    plain["slices"] = tuple((int(ill), float(score)) for ill, score in plain["slices"])
    return CaseRecord(**plain, voxels=voxels, false_findings_at=false)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
