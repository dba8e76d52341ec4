"""The DICOM database and the loading of series answer as a real Slicer 5.12.3 did."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic_dicom

DATA = Path(__file__).parent / "data"


@pytest.fixture
def series(scene: Any, tmp_path: Path) -> Path:
    """Five slices whose files are named against their order and whose pixels are the number of their slice."""
    for number in range(5):
        dataset = synthetic_dicom.image(
            np.full((6, 8), number, np.uint16),
            SOPInstanceUID=f"1.2.3.4.{number}",
            InstanceNumber=number + 1,
            SeriesNumber=7,
            SeriesDescription="head",
            PatientID="P1",
            ImagePositionPatient=[0, 0, 3.0 * number],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=[1, 2],
        )
        dataset.save_as(tmp_path / f"{9 - number}.dcm", enforce_file_format=True)
    (tmp_path / "notes.txt").write_text("no DICOM file", encoding="utf-8")
    return tmp_path


def test_every_slice_of_a_loaded_series_is_named_by_its_instance(series: Path) -> None:
    import slicer
    from DICOMLib import DICOMUtils

    with DICOMUtils.TemporaryDICOMDatabase() as database:
        DICOMUtils.importDicom(str(series), database)
        (identity,) = DICOMUtils.loadPatientByUID(database.patients()[0])
        node = slicer.mrmlScene.GetNodeByID(identity)
        files = [database.fileForInstance(uid) for uid in node.GetAttribute("DICOM.instanceUIDs").split()]
        slices = slicer.util.arrayFromVolume(node)
        assert slices.shape == (5, 6, 8) and node.GetName() == "7: head"
        assert [int(values.max()) for values in slices] == [9 - int(Path(file).stem) for file in files]
        assert database.fieldForPatient("PatientsName", database.patients()[0]) == "Secret^Name"
    assert slicer.dicomDatabase.patients() == ()


def test_the_answers_are_those_of_a_real_slicer(
    scene: Any, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import slicer

    with tarfile.open(shared_data / "dicom_head.tar.xz") as archive:
        archive.extractall(tmp_path / "head", filter="data")
    monkeypatch.setenv("DICOM_DIR", str(tmp_path / "head"))
    monkeypatch.setenv("PROBE_OUT", str(tmp_path / "answers.json"))
    monkeypatch.setattr(slicer.util, "exit", lambda status: None)
    probe = DATA / "dicom_probe.py"
    exec(compile(probe.read_text(encoding="utf-8"), str(probe), "exec"), {})
    answers = json.loads((tmp_path / "answers.json").read_text(encoding="utf-8"))
    assert answers == json.loads((DATA / "dicom_recorded.json").read_text(encoding="utf-8"))
