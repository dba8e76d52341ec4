"""`DICOMLib.DICOMUtils` as far as modules and their tests use it: import a folder, load series as scalar volumes."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk

#: Attributes of a series' item in the subject hierarchy, without the prefix "DICOM.", and their tags.
SERIES_ATTRIBUTES = {
    "Modality": "0008,0060",
    "SeriesNumber": "0020,0011",
    "FrameOfReferenceUID": "0020,0052",
    "SeriesDescription": "0008,103e",
    "SeriesDate": "0008,0021",
    "SeriesTime": "0008,0031",
    "ContentDate": "0008,0023",
    "ContentTime": "0008,0033",
    "Manufacturer": "0008,0070",
    "Model": "0008,1090",
}


class TemporaryDICOMDatabase:
    """Makes an empty database the application's within a `with` statement."""

    def __init__(self, directory: str | None = None) -> None:
        self.temporaryDatabaseDir = directory

    def __enter__(self) -> Any:
        self._original = slicer.dicomDatabase.databaseFilename
        self._made = self.temporaryDatabaseDir or tempfile.mkdtemp(dir=slicer.app.temporaryPath)
        slicer.dicomDatabase.openDatabase(str(Path(self._made) / "ctkDICOM.sql"))
        return slicer.dicomDatabase

    def __exit__(self, *exception: object) -> None:
        slicer.dicomDatabase.openDatabase(self._original)
        shutil.rmtree(self._made)


def importDicom(dicomDataDir: str, dicomDatabase: Any = None, copyFiles: bool = False) -> bool:
    """Take all files below a folder into the database."""
    database = dicomDatabase or slicer.dicomDatabase
    for path in sorted(Path(dicomDataDir).rglob("*")):
        if path.is_file():
            database.insert(str(path))
    return True


def loadPatientByUID(patientUID: str, messages: list[str] | None = None) -> list[str]:
    """Load every series of a patient, by the identifier that the database gave it."""
    database = slicer.dicomDatabase
    if str(patientUID) not in database.patients():
        raise OSError(f"No patient found with DICOM database UID {patientUID}")
    series = [uid for study in database.studiesForPatient(patientUID) for uid in database.seriesForStudy(study)]
    return loadSeriesByUID(series, messages)


def loadSeriesByUID(seriesUIDs: list[str], messages: list[str] | None = None) -> list[str]:
    """Load series as scalar volumes.

    Returns
    -------
    IDs of the new volume nodes; none for series that are not in the database.
    """
    if not isinstance(seriesUIDs, list) or not seriesUIDs:
        raise ValueError("SeriesUIDs must contain a list")
    nodes = [load_series(slicer.dicomDatabase.filesForSeries(series)) for series in seriesUIDs]
    return [node.GetID() for node in nodes if node is not None]


def load_series(files: tuple[str, ...]) -> Any:
    """One series as a volume node, in the subject hierarchy under its patient and study."""
    if not files:
        return None
    value = slicer.dicomDatabase.fileValue
    ordered = sorted(files, key=position)
    name = f"{value(ordered[0], '0020,0011')}: {value(ordered[0], '0008,103e')}"
    paths = vtk.vtkStringArray()
    for file in ordered:
        paths.InsertNextValue(file)
    node = slicer.modules.volumes.logic().AddArchetypeVolume(ordered[0], name, 0, paths)
    if node is None:
        return None
    put_into_hierarchy(node, ordered)
    ordered = made_right_handed(node, ordered)
    node.SetAttribute("DICOM.instanceUIDs", " ".join(value(file, "0008,0018") for file in ordered))
    node.SetAttribute("DICOM.instanceNumbers", " ".join(value(file, "0020,0013") or "?" for file in ordered))
    logic = slicer.app.applicationLogic()
    logic.GetSelectionNode().SetActiveVolumeID(node.GetID())
    logic.PropagateVolumeSelection(1)
    return node


def position(file: str) -> float:
    """Where a slice lies along the normal of the slices, in mm; 0 for an image without a position."""
    texts = [slicer.dicomDatabase.fileValue(file, tag) for tag in ("0020,0032", "0020,0037")]
    if not all(texts):
        return 0.0
    origin, axes = (np.array(text.split("\\"), float) for text in texts)
    return float(np.dot(np.cross(axes[:3], axes[3:]), origin))


def made_right_handed(volume: Any, files: list[str]) -> list[str]:
    """Reverse the slices of a left-handed volume; the files in the order of the slices afterwards."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    if slicer.vtkMRMLVolumeNode.IsIJKCoordinateSystemRightHanded(matrix):
        return files
    slicer.vtkMRMLVolumeNode.ReverseSliceOrder(volume.GetImageData(), matrix)
    volume.SetIJKToRASMatrix(matrix)
    return files[::-1]


def put_into_hierarchy(node: Any, files: list[str]) -> None:
    """Give a series' volume its place under patient and study (DICOMPlugin.addSeriesInSubjectHierarchy)."""

    def value(tag: str) -> str:
        return str(slicer.dicomDatabase.fileValue(files[0], tag))

    names = slicer.vtkMRMLSubjectHierarchyConstants
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
    series, study = value("0020,000e"), value("0020,000d")
    patient = value("0010,0020") or f"Patient-{study}"
    hierarchy.SetItemUID(item, names.GetDICOMUIDName(), series)
    instances = " ".join(slicer.dicomDatabase.fileValue(file, "0008,0018") for file in files)
    hierarchy.SetItemUID(item, names.GetDICOMInstanceUIDName(), instances)
    for attribute, tag in SERIES_ATTRIBUTES.items():
        hierarchy.SetItemAttribute(item, names.GetDICOMAttributePrefix() + attribute, value(tag))
    hierarchy.SetItemAttribute(item, names.GetDICOMReferencedInstanceUIDsAttributeName(), "")
    slicer.vtkSlicerSubjectHierarchyModuleLogic.InsertDicomSeriesInHierarchy(hierarchy, patient, study, series)
    patient_item = hierarchy.GetItemByUID(names.GetDICOMUIDName(), patient)
    hierarchy.SetItemName(patient_item, f"{value('0010,0010') or 'No name'} ({patient})")
    study_item = hierarchy.GetItemByUID(names.GetDICOMUIDName(), study)
    date = value("0008,0020")
    hierarchy.SetItemName(study_item, (value("0008,1030") or "No study description") + (f" ({date})" if date else ""))
