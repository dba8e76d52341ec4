"""The DICOM database and `DICOMLib.DICOMUtils`, which in Slicer are a Qt class of ctk and Python files around it."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import slicer

from . import utils
from .database import ctkDICOMDatabase

__all__ = ["ctkDICOMDatabase", "provide"]


def provide(folder: Path) -> None:
    """Open an empty database in a folder as `slicer.dicomDatabase`, and make `DICOMLib` importable."""
    slicer.dicomDatabase = ctkDICOMDatabase()
    slicer.dicomDatabase.openDatabase(str(folder / "ctkDICOM.sql"))
    package: Any = types.ModuleType("DICOMLib")
    package.DICOMUtils = utils
    sys.modules["DICOMLib"] = package
    sys.modules["DICOMLib.DICOMUtils"] = utils
