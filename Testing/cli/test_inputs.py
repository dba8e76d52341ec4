"""Inputs on the command line become cases with safe, unique, lasting names."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from AnomalyDetectionLib.cli.inputs import (
    Request,
    manifest_rows,
    name_cases,
    requests_of,
    strip_ending,
)
from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.write import MAX_NAME, safe_name


def names(*paths: str, known: dict[str, str] | None = None) -> list[str]:
    return name_cases([Request((Path(path),)) for path in paths], known or {})


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("sub-01_T1w", "sub-01_T1w"),
        ("../../etc/passwd", "etc_passwd"),
        ("a b:c*d?", "a_b_c_d"),
        (".hidden", "hidden"),
        ("..", "case"),
        ("", "case"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("Kopf Müller", "Kopf_Müller"),
        ("ends with dot.", "ends_with_dot"),
        ("x" * 300, "x" * MAX_NAME),
        ("脑" * 300, "脑" * 53),  # 3 bytes a letter: file systems count bytes
        ("a\x00b\nc", "a_b_c"),
    ],
)
def test_a_name_is_safe_on_every_file_system(text: str, name: str) -> None:
    assert safe_name(text) == name


@pytest.mark.parametrize("ending", [".nii.gz", ".NII.GZ", ".nrrd", ".mha", ".dcm", ".png", ".jpeg"])
def test_the_ending_of_an_image_is_no_part_of_its_name(ending: str) -> None:
    assert strip_ending(f"head.v2{ending}") == "head.v2"


def test_files_of_one_name_are_told_apart_by_their_folders() -> None:
    assert names("/d/sub-01/anat/T1.nii.gz", "/d/sub-02/anat/T1.nii.gz", "/d/other.nii") == [
        "sub-01_anat_T1",
        "sub-02_anat_T1",
        "other",
    ]


def test_names_are_unique_where_case_does_not_count() -> None:
    found = names("/d/Head.nii", "/d/head.nrrd", "/d/HEAD.mha")
    assert len({name.lower() for name in found}) == 3


def test_a_name_given_before_is_kept_and_not_given_again() -> None:
    known = {"/d/a/T1.nii": "T1"}
    assert names("/d/b/T1.nii", "/d/a/T1.nii", known=known) == ["T1-2", "T1"]


def test_the_order_of_the_inputs_does_not_change_their_names() -> None:
    paths = ["/d/s1/T1.nii", "/d/s2/T1.nii", "/d/x/T1.nii"]
    assert dict(zip(paths, names(*paths), strict=True)) == dict(zip(paths[::-1], names(*paths[::-1]), strict=True))


def test_an_input_given_twice_is_one_case(tmp_path: Path) -> None:
    image = tmp_path / "a.nii"
    image.touch()
    assert len(requests_of([str(image), str(image), str(tmp_path / "." / "a.nii")])) == 1


def test_the_slices_of_a_dicom_series_given_one_by_one_are_one_case(tmp_path: Path) -> None:
    from pydicom.data import get_testdata_file

    source = Path(get_testdata_file("CT_small.dcm"))
    slices = [shutil.copy(source, tmp_path / f"slice{n}.dcm") for n in range(3)]
    other = shutil.copy(get_testdata_file("MR_small.dcm"), tmp_path / "mr.dcm")
    requests = requests_of([*map(str, slices), str(other)])
    assert [len(request.paths) for request in requests] == [3, 1]
    assert name_cases(requests, {}) == [safe_name(tmp_path.name), "mr"]


def test_the_fingerprint_changes_when_a_file_does(tmp_path: Path) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    (folder / "a.dcm").write_bytes(b"1")
    request = Request((folder,))
    before = request.fingerprint()
    assert request.fingerprint() == before
    (folder / "b.dcm").write_bytes(b"2")
    assert request.fingerprint() != before


def manifest(folder: Path, text: str) -> Path:
    path = folder / "cohort.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_manifest_gives_names_places_series_and_slices(tmp_path: Path) -> None:
    path = manifest(
        tmp_path, "\ufeffcase,patient,image,slice,label\none,p1,images/a.nii,,0\n\ntwo,p2,dicom#1.2.840.5,7,1\n"
    )
    one, two = manifest_rows(path)
    assert one.request == Request((tmp_path / "images/a.nii",), "one")
    assert two.request == Request((tmp_path / "dicom",), "two", "1.2.840.5", 7)
    assert [one.label, two.label, two.line] == ["0", "1", 4]


def test_a_manifest_may_name_one_of_several_images_of_a_series(tmp_path: Path) -> None:
    (row,) = manifest_rows(manifest(tmp_path, "case,image\none,dicom#1.2.840.5:2\n"))
    assert row.request == Request((tmp_path / "dicom",), "one", "1.2.840.5:2")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the manifest is empty"),
        ("case,image\n", "lists no case"),
        ("image,label\na.nii,0\n", "no column 'case'"),
        ("case;image\na;b\n", "separated by semicolons"),
        ("case,image_t1,image_flair\na,b,c\n", "several channels"),
        ("case,image,image_flair\na,b,c\n", r"several channels a case \(image_flair\)"),
        ("case,image\na,\n", "line 2: the column 'image' is empty"),
        ("case,image\na,x.nii\na,y.nii\n", "line 3: the case 'a' stands in line 2 already"),
        ("case,image,slice\na,x.nii,-1\n", "'slice' is '-1'"),
        ('case,image\na,"x.nii\n', "not a table in CSV form"),
    ],
)
def test_a_manifest_that_cannot_be_used_says_why_and_where(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words) as caught:
        manifest_rows(manifest(tmp_path, text))
    assert str(caught.value).startswith("cohort.csv")


def test_a_binary_file_called_csv_is_no_manifest(tmp_path: Path) -> None:
    path = tmp_path / "cohort.csv"
    path.write_bytes(bytes(range(256)) * 4)
    with pytest.raises(InputError, match="not a table in CSV form"):
        manifest_rows(path)


def test_a_missing_manifest_and_a_folder_called_csv_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such manifest"):
        manifest_rows(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="this is a folder"):
        manifest_rows(tmp_path / "folder.csv")


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_input_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="empty"):
        requests_of([text])


@pytest.mark.parametrize("text", ["x" * 5000, "a\x00b"])
def test_a_path_that_cannot_be_one_is_merely_missing(text: str) -> None:
    from AnomalyDetectionLib.cli.inputs import missing_sentence

    (request,) = requests_of([text])
    assert "there is no such file or folder" in (missing_sentence(request) or "")
