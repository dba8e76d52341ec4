"""The five files of a case: what they say, that they fit their schemas, and that none is ever half there."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
from interop.cases import GEOMETRIES, LESION_RAS, THRESHOLD, scored
from jsonschema import Draft202012Validator
from PIL import Image

from AnomalyDetectionLib.errors import OutputError
from AnomalyDetectionLib.imaging.read import read_volume
from AnomalyDetectionLib.interop import reports
from AnomalyDetectionLib.interop.reports import (
    FILES,
    FINDINGS_COLUMNS,
    findings_csv,
    findings_rows,
    is_complete,
    report,
    write_case,
)


def schema(name: str) -> Draft202012Validator:
    text = (files("AnomalyDetectionLib") / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8")
    Draft202012Validator.check_schema(json.loads(text))
    return Draft202012Validator(json.loads(text))


def read_rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_lesion_in_the_left_is_left_in_every_file(in_geometry, geometry, tmp_path):
    volume = in_geometry(geometry)
    case = scored(volume, [(LESION_RAS, 9.0, 5.0), (LESION_RAS * [-1, 1, 1], 6.0, 4.0)])
    folder = write_case(volume, case.result, tmp_path / "case")
    left, right = read_rows((folder / "findings.csv").read_text(encoding="utf-8"))
    assert (left["side"], right["side"]) == ("left", "right")
    assert float(left["centroid_r"]) < -30 and float(right["centroid_r"]) > 30
    index = [int(left[f"centroid_{axis}"]) for axis in "ijk"]
    assert volume.grid.to_ras(np.array(index)) == pytest.approx(LESION_RAS, abs=2.5)
    for name in ("score", "labels"):
        written = read_volume(folder / f"{name}.nii.gz")
        places = written.grid.to_ras(np.argwhere(written.array == written.array.max())[:, ::-1]).mean(axis=0)
        expected = LESION_RAS if name == "score" else LESION_RAS * [-1, 1, 1]
        assert places == pytest.approx(expected, abs=2.5)
        assert written.grid.same_place(volume.grid, 1e-3)
    data = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert data["findings"][0]["side"] == "left" and data["findings"][0]["centroid_ras"][0] < -30


def test_all_five_files_are_written_and_nothing_else(brain, left_lesion, tmp_path):
    folder = write_case(brain, left_lesion.result, tmp_path / "deep" / "case")
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert [path.name for path in folder.parent.iterdir()] == ["case"]
    score = read_volume(folder / "score.nii.gz")
    assert np.abs(score.array - left_lesion.result.rarity.array).max() == 0
    assert not score.array[~left_lesion.result.foreground].any()
    assert (read_volume(folder / "labels.nii.gz").array == left_lesion.result.labels).all()
    with Image.open(folder / "overlay.png") as picture:
        assert picture.size == (1500, 600)


def test_report_and_findings_fit_their_schemas(brain, left_lesion, normal, tmp_path):
    for case in (left_lesion, normal):
        folder = write_case(brain, case.result, tmp_path / case.result.case)
        data = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        schema("report").validate(data)
        rows = read_rows((folder / "findings.csv").read_text(encoding="utf-8"))
        schema("findings").validate(rows)
        assert len(rows) == len(data["findings"]) == len(case.result.findings)


def test_the_report_says_all_of_the_result(brain, left_lesion):
    data = report(brain, left_lesion.result)
    result = left_lesion.result
    assert data["p_value"] == result.p_value and data["calibration_n"] == 40 and data["threshold"] == THRESHOLD
    assert data["decision"]["abnormal"] is True and data["decision"]["method"] == "normals"
    assert data["decision"]["score"] <= data["volume_score"] and data["decision"]["sensitivity"] is None
    assert data["false_findings_per_normal"] is None and data["timings_s"] == {"score": 0.25}
    assert data["model"] == {
        "id": "brain-t1",
        "version": "1.0.0",
        "sha256": result.model.sha256,
        "detector": "zscore",
    }
    assert data["quality"]["verdict"] == "check" and data["notes"] == ["A note."]
    assert data["input"]["sha256"] == brain.sha256() and data["input"]["shape_kji"] == list(brain.shape)
    assert data["foreground_voxels"] == int(result.foreground.sum())


def test_the_schemas_are_strict(brain, left_lesion):
    data = report(brain, left_lesion.result)
    for key in list(data):
        assert not schema("report").is_valid({k: v for k, v in data.items() if k != key}), key
    assert not schema("report").is_valid(data | {"surprise": 1})
    assert not schema("report").is_valid(data | {"p_value": 0})
    row = read_rows(findings_csv(left_lesion.result))[0]
    assert list(row) == list(schema("findings").schema["items"]["properties"])
    assert not schema("findings").is_valid([row | {"side": "up"}])
    assert not schema("findings").is_valid([row | {"size": "a lot"}])


def test_the_header_stands_there_without_findings(normal):
    assert findings_csv(normal.result) == ",".join(FINDINGS_COLUMNS) + "\n"


@pytest.mark.parametrize("name", ["=1+1", "+cmd", "-2", "@SUM(A1)", "\t=1"])
def test_a_spreadsheet_does_not_run_a_case_name(left_lesion, name):
    row = read_rows(findings_csv(replace(left_lesion.result, case=name)))[0]
    assert row["case"] == "'" + name
    assert findings_rows(replace(left_lesion.result, case="sub-01"))[0]["case"] == "sub-01"


def test_a_case_is_complete_only_for_its_own_model_threshold_and_input(brain, left_lesion, tmp_path):
    folder = write_case(brain, left_lesion.result, tmp_path / "case")
    model, image = left_lesion.result.model.sha256, brain.sha256()
    assert is_complete(folder) and is_complete(folder, model, THRESHOLD, image)
    assert not is_complete(folder, "f" * 64, THRESHOLD, image)
    assert not is_complete(folder, model, THRESHOLD + 0.1, image)
    assert not is_complete(folder, model, THRESHOLD, "f" * 64)


@pytest.mark.parametrize("missing", FILES)
def test_a_case_that_lacks_a_file_is_not_complete(brain, normal, tmp_path, missing):
    folder = write_case(brain, normal.result, tmp_path / "case")
    (folder / missing).unlink()
    assert not is_complete(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema": "slicer-anomaly/report/1"}', "\0\xff"])
def test_a_damaged_report_is_not_complete(brain, normal, tmp_path, text):
    folder = write_case(brain, normal.result, tmp_path / "case")
    (folder / "report.json").write_bytes(text.encode("latin-1"))
    assert not is_complete(folder, "a" * 64, 3.0)


def test_a_crash_half_way_leaves_no_part_of_a_case(brain, normal, tmp_path, monkeypatch):
    def fail(volume, result, path):
        raise MemoryError

    monkeypatch.setattr(reports, "write_overlay", fail)
    with pytest.raises(MemoryError):
        write_case(brain, normal.result, tmp_path / "case")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moved", range(len(FILES)))
def test_a_kill_while_files_are_moved_leaves_a_case_that_is_not_complete(brain, normal, tmp_path, monkeypatch, moved):
    """Also where an earlier, complete result is being replaced."""

    class Killed(BaseException):
        pass

    folder = write_case(brain, normal.result, tmp_path / "case")
    real, count = reports.Path.replace, []

    def replace_until(self, target):
        # Only the moves into the case's folder count; the files under temporary names are made before.
        if reports.Path(target).parent == folder:
            if len(count) == moved:
                raise Killed
            count.append(target)
        return real(self, target)

    monkeypatch.setattr(reports.Path, "replace", replace_until)
    with pytest.raises(Killed):
        write_case(brain, normal.result, folder)
    assert not is_complete(folder)
    monkeypatch.undo()
    assert is_complete(write_case(brain, normal.result, folder))


def test_a_folder_that_cannot_be_made_is_one_clear_sentence(brain, normal, tmp_path):
    (tmp_path / "taken").write_text("something else")
    for target in (tmp_path / "taken", tmp_path / "taken" / "case"):
        with pytest.raises(OutputError, match="the results cannot be written"):
            write_case(brain, normal.result, target)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_picture_of_unknown_spacing_is_reported_in_pixels_without_sides(brain, tmp_path):
    flat = replace(brain, array=brain.array[45:46], modality="DX", spacing_known=False, orientation_known=False)
    case = scored(flat, [(LESION_RAS * [1, 1, 0] + [0, 0, flat.ijk_to_ras[2, 3]], 8.0, 4.5)])
    folder = write_case(flat, case.result, tmp_path / "flat")
    (row,) = read_rows((folder / "findings.csv").read_text(encoding="utf-8"))
    assert (row["side"], row["size_unit"]) == ("unknown", "px") and float(row["size"]) > 20
    schema("report").validate(json.loads((folder / "report.json").read_text(encoding="utf-8")))
