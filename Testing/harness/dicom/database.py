"""ctkDICOMDatabase: patients, studies, series and files in SQLite, with the tables and columns of its schema 0.8.1.

Values of the files themselves are read with pydicom and kept, as ctk does it in a table of tags.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

#: Those columns of ctk's tables that are filled here; a column's DICOM keyword stands beside it, if it has one.
COLUMNS = {
    "Patients": {
        "PatientsName": "PatientName",
        "PatientID": "PatientID",
        "PatientsBirthDate": "PatientBirthDate",
        "PatientsSex": "PatientSex",
    },
    "Studies": {
        "StudyInstanceUID": "StudyInstanceUID",
        "StudyID": "StudyID",
        "StudyDate": "StudyDate",
        "StudyTime": "StudyTime",
        "StudyDescription": "StudyDescription",
        "AccessionNumber": "AccessionNumber",
    },
    "Series": {
        "SeriesInstanceUID": "SeriesInstanceUID",
        "StudyInstanceUID": "StudyInstanceUID",
        "SeriesNumber": "SeriesNumber",
        "SeriesDate": "SeriesDate",
        "SeriesTime": "SeriesTime",
        "SeriesDescription": "SeriesDescription",
        "Modality": "Modality",
        "BodyPartExamined": "BodyPartExamined",
        "FrameOfReferenceUID": "FrameOfReferenceUID",
    },
    "Images": {"SOPInstanceUID": "SOPInstanceUID", "SeriesInstanceUID": "SeriesInstanceUID"},
}

SCHEMA = """
CREATE TABLE Patients (UID INTEGER PRIMARY KEY AUTOINCREMENT, PatientsName, PatientID, PatientsBirthDate, PatientsSex);
CREATE TABLE Studies (StudyInstanceUID PRIMARY KEY, PatientsUID INT NOT NULL, StudyID, StudyDate, StudyTime,
    StudyDescription, AccessionNumber);
CREATE TABLE Series (SeriesInstanceUID PRIMARY KEY, StudyInstanceUID NOT NULL, SeriesNumber INT, SeriesDate,
    SeriesTime, SeriesDescription, Modality, BodyPartExamined, FrameOfReferenceUID);
CREATE TABLE Images (SOPInstanceUID PRIMARY KEY, Filename, SeriesInstanceUID NOT NULL);
CREATE INDEX ImagesFilenameIndex ON Images (Filename);
"""


class ctkDICOMDatabase:
    """The database that `slicer.dicomDatabase` is; UIDs and values are text, lists are tuples."""

    def __init__(self) -> None:
        self._connection: sqlite3.Connection | None = None
        self._headers: dict[str, Any] = {}
        self.databaseFilename = ""

    @property
    def isOpen(self) -> bool:
        return self._connection is not None

    @property
    def databaseDirectory(self) -> str:
        return str(Path(self.databaseFilename).parent)

    def openDatabase(self, path: str) -> None:
        """Open a database file, made if it is absent."""
        self.closeDatabase()
        new = not Path(path).exists()
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path)
        self.databaseFilename = path
        if new:
            self._connection.executescript(SCHEMA)

    def closeDatabase(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection, self._headers = None, {}

    def insert(self, path: str) -> bool:
        """Take a file into the database; one that is no DICOM file is passed over.

        Returns
        -------
        Whether it was taken.
        """
        from pydicom.errors import InvalidDicomError

        try:
            header = self._header(path)
        except (InvalidDicomError, OSError):
            return False
        if "SOPInstanceUID" not in header:
            return False
        patient = self._patient(header)
        self._put("Studies", header, PatientsUID=patient)
        self._put("Series", header)
        self._put("Images", header, Filename=path)
        return True

    def _patient(self, header: Any) -> int:
        known = self._column(
            "SELECT UID FROM Patients WHERE PatientsName = ? AND PatientID = ?",
            value_of(header, "PatientName"),
            value_of(header, "PatientID"),
        )
        return int(known[0]) if known else self._put("Patients", header)

    def _put(self, table: str, header: Any, **more: Any) -> int:
        row = {column: value_of(header, keyword) for column, keyword in COLUMNS[table].items()} | more
        places = ", ".join("?" * len(row))
        command = f"INSERT OR IGNORE INTO {table} ({', '.join(row)}) VALUES ({places})"
        return int(self._open().execute(command, tuple(row.values())).lastrowid or 0)

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise OSError("The DICOM database is not open")
        return self._connection

    def _column(self, query: str, *values: Any) -> tuple[str, ...]:
        return tuple(str(row[0]) for row in self._open().execute(query, values))

    def _first(self, query: str, *values: Any) -> str:
        found = self._column(query, *values)
        return found[0] if found and found[0] != "None" else ""

    def patients(self) -> tuple[str, ...]:
        return self._column("SELECT UID FROM Patients ORDER BY UID")

    def studiesForPatient(self, patient: str) -> tuple[str, ...]:
        return self._column("SELECT StudyInstanceUID FROM Studies WHERE PatientsUID = ?", patient)

    def seriesForStudy(self, study: str) -> tuple[str, ...]:
        return self._column("SELECT SeriesInstanceUID FROM Series WHERE StudyInstanceUID = ?", study)

    def filesForSeries(self, series: str) -> tuple[str, ...]:
        return self._column("SELECT Filename FROM Images WHERE SeriesInstanceUID = ?", series)

    def instancesForSeries(self, series: str) -> tuple[str, ...]:
        return self._column("SELECT SOPInstanceUID FROM Images WHERE SeriesInstanceUID = ?", series)

    def fileForInstance(self, instance: str) -> str:
        return self._first("SELECT Filename FROM Images WHERE SOPInstanceUID = ?", instance)

    def instanceForFile(self, path: str) -> str:
        return self._first("SELECT SOPInstanceUID FROM Images WHERE Filename = ?", path)

    def seriesForFile(self, path: str) -> str:
        return self._first("SELECT SeriesInstanceUID FROM Images WHERE Filename = ?", path)

    def nameForPatient(self, patient: str) -> str:
        return self.fieldForPatient("PatientsName", patient)

    def fieldForPatient(self, field: str, patient: str) -> str:
        return self._field("Patients", "UID", field, patient)

    def fieldForStudy(self, field: str, study: str) -> str:
        return self._field("Studies", "StudyInstanceUID", field, study)

    def fieldForSeries(self, field: str, series: str) -> str:
        return self._field("Series", "SeriesInstanceUID", field, series)

    def _field(self, table: str, key: str, field: str, identity: str) -> str:
        if field not in COLUMNS[table]:
            return ""
        return self._first(f"SELECT {field} FROM {table} WHERE {key} = ?", identity)

    def descriptionForStudy(self, study: str) -> str:
        return self.fieldForStudy("StudyDescription", study)

    def descriptionForSeries(self, series: str) -> str:
        return self.fieldForSeries("SeriesDescription", series)

    def fileValue(self, path: str, tag: str) -> str:
        """An element of a file by its tag, as "0008,0060"; "" where it is absent."""
        group, _, element = tag.partition(",")
        return value_of(self._header(path), (int(group, 16), int(element, 16)))

    def instanceValue(self, instance: str, tag: str) -> str:
        path = self.fileForInstance(instance)
        return self.fileValue(path, tag) if path else ""

    def _header(self, path: str) -> Any:
        import pydicom

        if path not in self._headers:
            self._headers[path] = pydicom.dcmread(path, stop_before_pixels=True)
        return self._headers[path]


def value_of(header: Any, key: Any) -> str:
    """An element as text: what the file says, several values separated by backslashes."""
    if key not in header:
        return ""
    value = header[key].value
    values = list(value) if header[key].VM > 1 else [value]
    return "\\".join(as_written(each) for each in values)


def as_written(value: Any) -> str:
    """A single value as the file has it: numbers with all their digits."""
    original = getattr(value, "original_string", None)
    if isinstance(original, str):
        return original
    return "" if value is None else str(value)
