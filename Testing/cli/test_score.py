"""`score`: real images in, the same maps out as from Python; bad input, and one bad case among others."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from cli.score_runs import nothing_half_written, one_sentence, score

from AnomalyDetectionLib.interop.reports import FILES, is_complete

# -- what comes out


def test_each_case_gets_its_five_files_and_the_run_its_summary(scored: Path) -> None:
    assert {path.name for path in scored.iterdir()} == {"normal", "lesion", "run.json", "scores.csv"}
    for case in ("normal", "lesion"):
        assert {path.name for path in (scored / case).iterdir()} == set(FILES)
    with (scored / "scores.csv").open() as stream:
        rows = {row["case"]: row for row in csv.DictReader(stream)}
    assert float(rows["lesion"]["volume_score"]) > float(rows["normal"]["volume_score"])
    assert rows["lesion"]["status"] == "done"
    assert int(rows["lesion"]["findings"]) >= 1


def test_the_lesion_is_found_on_the_patients_left(scored: Path) -> None:
    with (scored / "lesion" / "findings.csv").open() as stream:
        first = next(csv.DictReader(stream))
    assert first["side"] == "left"
    assert float(first["centroid_r"]) == pytest.approx(-0.5 * 11 * 6, abs=8)


def test_the_map_has_the_geometry_of_the_input_and_is_nothing_outside_the_head(scored: Path, images: Path) -> None:
    rarity, image = (nibabel.load(p) for p in (scored / "lesion/score.nii.gz", images / "lesion.nii.gz"))
    np.testing.assert_allclose(rarity.affine, image.affine, atol=1e-4)
    assert rarity.get_data_dtype() == np.float32
    data = np.asarray(rarity.dataobj)
    assert data.shape == image.shape
    assert data[0].max() == data[-1].max() == 0
    assert data.max() > 2


def test_the_command_line_and_python_give_the_same_map(scored: Path, images: Path, bundle: Path) -> None:
    from AnomalyDetectionLib import Scorer, load_bundle, read_volume

    result = Scorer(load_bundle(bundle)).score(read_volume(images / "lesion.nii.gz"))
    written = read_volume(scored / "lesion" / "score.nii.gz")
    assert np.ptp(written.array) > 1
    np.testing.assert_allclose(written.array, result.rarity.array, atol=1e-6)
    report = json.loads((scored / "lesion" / "report.json").read_text())
    assert report["volume_score"] == pytest.approx(result.volume_score, abs=1e-6)
    assert len(report["findings"]) == len(result.findings)


def test_json_lines_tell_the_whole_run(
    bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.nii.gz"
    bad.write_text("no image")
    out = tmp_path / "out"
    assert score(bundle, images / "normal.nii.gz", bad, "--out", out, progress="json") == 2
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    fractions = [event["fraction"] for event in events if event["event"] == "progress"]
    assert fractions == sorted(fractions)
    assert {event["stage"] for event in events if event["event"] == "progress"} >= {"reading", "scoring", "writing"}
    cases = {event["case"]: event for event in events if event["event"] == "case"}
    assert cases["normal"]["status"] == "done"
    assert Path(cases["normal"]["folder"]) == out / "normal"
    assert cases["bad"]["status"] == "failed"
    assert events[-1] == {"event": "result", "out": str(out), "done": 1, "skipped": 0, "failed": ["bad"]}


def test_a_threshold_of_ones_own_is_used_and_recorded(bundle: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert score(bundle, images / "lesion.nii.gz", "--out", out, "--threshold", 1.25) == 0
    assert json.loads((out / "lesion" / "report.json").read_text())["threshold"] == 1.25
    assert json.loads((out / "run.json").read_text())["threshold"] == 1.25


def test_images_of_one_name_do_not_overwrite_each_other(bundle: Path, images: Path, tmp_path: Path) -> None:
    for person, image in (("ann", "normal"), ("bob", "lesion")):
        (tmp_path / person).mkdir()
        shutil.copy(images / f"{image}.nii.gz", tmp_path / person / "T1.nii.gz")
    out = tmp_path / "out"
    assert score(bundle, tmp_path / "ann/T1.nii.gz", tmp_path / "bob/T1.nii.gz", "--out", out) == 0
    assert is_complete(out / "ann_T1")
    assert is_complete(out / "bob_T1")


def test_a_manifest_names_the_cases(bundle: Path, images: Path, tmp_path: Path) -> None:
    shutil.copy(images / "normal.nii.gz", tmp_path / "x.nii.gz")
    (tmp_path / "cohort.csv").write_text("case,patient,image,label\nP 1/a,p1,x.nii.gz,0\n")
    out = tmp_path / "out"
    assert score(bundle, tmp_path / "cohort.csv", "--out", out) == 0
    assert is_complete(out / "P_1_a")


def test_a_long_name_in_letters_of_several_bytes_is_scored(bundle: Path, images: Path, tmp_path: Path) -> None:
    image = tmp_path / f"{'脑' * 80}.nii.gz"
    shutil.copy(images / "normal.nii.gz", image)
    assert score(bundle, image, "--out", tmp_path / "out") == 0
    (case,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert (case / "report.json").exists() and set(case.name) == {"脑"}


def test_why_an_image_is_not_good_is_said(
    bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = nibabel.load(images / "normal.nii.gz")
    nibabel.save(image.slicer[image.shape[0] // 4 :], tmp_path / "cut.nii.gz")
    assert score(bundle, tmp_path / "cut.nii.gz", "--out", tmp_path / "out") == 0
    reasons = json.loads((tmp_path / "out" / "cut" / "report.json").read_text())["quality"]["reasons"]
    said = capsys.readouterr().err
    assert reasons and all(f"warning: cut: image quality: {reason}" in said for reason in reasons)


# -- bad input: one sentence, exit code 2, nothing written


def empty_folder(folder: Path, images: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def truncated_dicom(folder: Path, images: Path) -> Path:
    from pydicom.data import get_testdata_file

    whole = Path(get_testdata_file("MR_small.dcm")).read_bytes()
    (folder / "cut.dcm").write_bytes(whole[: len(whole) // 2])
    return folder / "cut.dcm"


def text_called_nifti(folder: Path, images: Path) -> Path:
    (folder / "text.nii.gz").write_text("this is no image\n")
    return folder / "text.nii.gz"


def changed(array_of, folder: Path, images: Path) -> Path:
    image = nibabel.load(images / "normal.nii.gz")
    path = folder / "changed.nii.gz"
    nibabel.save(nibabel.Nifti1Image(array_of(np.asarray(image.dataobj).copy()), image.affine), path)
    return path


def four_dimensional(folder: Path, images: Path) -> Path:
    return changed(lambda a: np.stack([a, a], axis=-1), folder, images)


def not_a_number(folder: Path, images: Path) -> Path:
    def spoil(array: np.ndarray) -> np.ndarray:
        array[5, 5, 5], array[6, 6, 6] = np.nan, np.inf
        return array

    return changed(spoil, folder, images)


def constant(folder: Path, images: Path) -> Path:
    return changed(np.ones_like, folder, images)


def one_slice(folder: Path, images: Path) -> Path:
    return changed(lambda a: a[:, :, 10:11], folder, images)


def other_modality(folder: Path, images: Path) -> Path:
    from pydicom.data import get_testdata_file

    return Path(get_testdata_file("CT_small.dcm"))


def missing(folder: Path, images: Path) -> Path:
    return folder / "none.nii.gz"


BAD_INPUTS = {
    empty_folder: "empty",
    truncated_dicom: "cut.dcm",
    text_called_nifti: "text.nii.gz",
    four_dimensional: "2 volumes",
    not_a_number: "2 voxels are NaN or infinite",
    constant: "every voxel has the value 1",
    one_slice: "slice",
    other_modality: "the image is CT, the model was made for MR",
    missing: "there is no such file or folder",
}


@pytest.mark.parametrize("make", BAD_INPUTS, ids=lambda make: make.__name__)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    make, bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make(tmp_path, images)
    out = tmp_path / "results" / "out"
    assert score(bundle, path, "--out", out) == 2
    said = capsys.readouterr().err
    assert BAD_INPUTS[make] in said
    assert one_sentence(said), said
    assert not out.parent.exists()


def test_the_modality_given_counts_against_the_model(
    bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(bundle, images / "normal.nii.gz", "--out", tmp_path / "out", "--modality", "ct") == 2
    assert "the image is CT, the model was made for MR" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["models/model.pt", "models/template.npz", "anomaly.json", "docs/README.md"])
def test_a_bundle_with_a_changed_byte_is_refused(
    name: str, bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    assert score(copy, images / "normal.nii.gz", "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert Path(name).name in said
    assert one_sentence(said)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_bundle_and_a_device_that_is_not_there_are_refused(
    bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(tmp_path, images / "normal.nii.gz", "--out", tmp_path / "out") == 2
    assert "not a model bundle" in capsys.readouterr().err
    assert score(bundle, images / "normal.nii.gz", "--out", tmp_path / "out", "--device", "abacus") == 2
    assert "There is no device 'abacus'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_one_bad_case_does_not_stop_the_others(
    bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, gone, out = text_called_nifti(tmp_path, images), tmp_path / "gone.nii.gz", tmp_path / "out"
    assert score(bundle, bad, gone, images / "normal.nii.gz", images / "lesion.nii.gz", "--out", out) == 2
    said = capsys.readouterr().err.splitlines()
    assert "2 of 4 cases could not be scored:" in said
    assert any(line.startswith("  text: ") for line in said)
    assert any(line == "  gone: gone.nii.gz: there is no such file or folder; check the path." for line in said)
    assert is_complete(out / "normal")
    assert sum("no case can reach p = 0.05" in line for line in said) == 1
    assert nothing_half_written(out)
    with (out / "scores.csv").open() as stream:
        assert [(row["case"], row["status"]) for row in csv.DictReader(stream)] == [
            ("normal", "done"),
            ("lesion", "done"),
            ("text", "failed"),
            ("gone", "failed"),
        ]


def test_a_fault_of_ours_in_one_case_gives_one_and_the_others_their_results(
    bundle: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from AnomalyDetectionLib.scoring.scorer import Scorer

    whole = Scorer.score
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(Scorer, "score", lambda self, v, **k: 1 / 0 if k["case"] == "lesion" else whole(self, v, **k))
    out = tmp_path / "out"
    assert score(bundle, images / "lesion.nii.gz", images / "normal.nii.gz", "--out", out) == 1
    assert "lesion: This is a fault in slicer-anomaly (ZeroDivisionError" in capsys.readouterr().err
    assert is_complete(out / "normal")
