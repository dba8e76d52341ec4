"""The checks of a cohort that open its images and masks: real files, one fault at a time, and many at once."""

from __future__ import annotations

import json
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic_dicom import save_all, slices

from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.imaging.write import write_labels, write_volume
from AnomalyTrainingLib.cohorts import contents
from AnomalyTrainingLib.cohorts.checks import Level, check_cohort, inspect_cohort
from AnomalyTrainingLib.cohorts.manifest import (
    Case,
    Cohort,
    ImageSource,
    load_case_mask,
    load_case_volume,
    read_manifest,
    write_manifest,
)

SHAPE = (5, 6, 7)


def volume(seed: int, spacing: tuple[float, float, float] = (1.0, 1.0, 2.0), shape=SHAPE) -> Volume:
    return Volume(np.random.default_rng(seed).random(shape, dtype=np.float32), np.diag([*spacing, 1.0]))


def painted(*voxels: tuple[int, int, int], shape=SHAPE) -> np.ndarray:
    labels = np.zeros(shape, dtype=np.int32)
    for voxel in voxels:
        labels[voxel] = 1
    return labels


@pytest.fixture
def sound(tmp_path: Path) -> Cohort:
    """Four patients with a volume each, the last one abnormal and with a mask."""
    cases = []
    for n in range(4):
        write_volume(volume(n), tmp_path / f"v{n}.nii.gz")
        source = {"image": ImageSource(tmp_path / f"v{n}.nii.gz")}
        cases.append(Case(f"c{n}", f"p{n}", source, 0, split=("train", "calibrate", "test", "test")[n]))
    write_labels(painted((2, 3, 4)), volume(3).grid, tmp_path / "m3.nii.gz")
    cases[3] = replace(cases[3], label=1, mask=tmp_path / "m3.nii.gz")
    return read_manifest(write_manifest(cases, tmp_path / "cohort.csv"))


def changed(cohort: Cohort, number: int, **changes: object) -> Cohort:
    """The same cohort with another row, written and read."""
    cases = list(cohort)
    cases[number] = replace(cases[number], **changes)
    return read_manifest(write_manifest(cases, cohort.path))


def said(cohort: Cohort, level: Level, **options) -> str:
    return "\n".join(inspect_cohort(cohort, **options).texts(level))


def image(cohort: Cohort, number: int, name: str, made: Volume) -> Cohort:
    """The cohort with another image for one case."""
    path = write_volume(made, cohort.path.with_name(name))
    return changed(cohort, number, images={"image": ImageSource(path)})


def test_a_sound_cohort_passes_without_a_word(sound):
    report = check_cohort(sound, needs=(0, 1))
    assert report.remarks == ()
    assert report.contents["c3"].mask.on_image == 1


def test_the_same_pixels_in_two_splits_are_a_problem_even_where_they_are_stored_flipped(sound):
    test_case = volume(2)
    flipped = np.diag([-1.0, 1.0, 2.0, 1.0])
    copy = Volume(test_case.array[:, :, ::-1], flipped)
    leaking = image(sound, 0, "copy.nii.gz", copy)
    assert "cases c0, c2 hold the same pixels but differ in split and patient" in said(leaking, "problem")
    with pytest.raises(InputError, match=r"cohort\.csv: the cohort has a problem: cases c0, c2"):
        check_cohort(leaking)


def test_the_same_pixels_of_one_patient_in_one_split_are_only_odd(sound):
    cohort = changed(sound, 1, patient="p0", split="train")
    cohort = image(cohort, 1, "copy.nii.gz", volume(0))
    assert "cases c0, c1 hold the same pixels" in said(cohort, "warning")
    assert said(cohort, "problem") == ""
    cohort = changed(cohort, 1, label=1)
    assert "differ in label" in said(cohort, "problem")


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (painted(), "case c3: the mask is empty, though the case is abnormal"),
        (painted((0, 0, 0)) * 3 - painted((1, 1, 1)), "this is no mask, its values run from -1 to 3"),
        (np.arange(np.prod(SHAPE)).reshape(SHAPE), "this is no mask, its values run from 0 to 209"),
        (painted((0, 0, 0)) * 0.5, "this is no mask, its values run from 0 to 0.5"),
    ],
)
def test_a_mask_that_marks_nothing_or_is_no_mask_is_a_problem(sound, labels, words):
    write_volume(Volume(labels.astype(np.float32), volume(3).ijk_to_ras), sound.cases[3].mask)
    assert words in said(sound, "problem")


def test_a_mask_elsewhere_is_a_problem_and_one_on_another_grid_is_noted(sound):
    mask = sound.cases[3].mask
    away = np.diag([1.0, 1.0, 2.0, 1.0])
    away[0, 3] = 300
    write_labels(painted((2, 3, 4)), Volume(painted(), away).grid, mask)
    assert "case c3: the mask does not overlap the image" in said(sound, "problem")
    fine = volume(3, (0.5, 0.5, 1.0), (10, 12, 14))
    write_labels(painted((4, 6, 8), shape=(10, 12, 14)), fine.grid, mask)
    assert "case c3: the mask lies on another grid than the image and is brought over" in said(sound, "note")
    assert said(sound, "problem") == ""


def test_several_labels_are_noted_and_a_mask_of_a_normal_case_is_a_problem(sound):
    write_labels(painted((1, 1, 1)) + painted((2, 2, 2)) * 4, volume(3).grid, sound.cases[3].mask)
    assert "case c3: the labels 1, 4 of the mask all count alike" in said(sound, "note")
    assert "though the case is normal" in said(changed(sound, 3, label=0), "problem")


def test_a_mask_without_geometry_is_taken_voxel_by_voxel_or_refused(tmp_path):
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 255, (20, 30), dtype=np.uint8)).save(tmp_path / "a.png")
    inside = np.zeros((20, 30), dtype=np.uint8)
    inside[5, 6] = 255
    Image.fromarray(inside).save(tmp_path / "m.png")
    write_volume(Volume(random.random((1, 20, 30), dtype=np.float32), np.diag([0.2, 0.2, 1, 1])), tmp_path / "b.nii.gz")
    cases = [
        Case(f"c{n}", f"p{n}", {"image": ImageSource(tmp_path / name)}, 1, tmp_path / "m.png")
        for n, name in enumerate(("a.png", "b.nii.gz"))
    ]
    cohort = read_manifest(write_manifest(cases, tmp_path / "c.csv"))
    assert said(cohort, "problem") == ""
    for case in cohort:  # the picture says nothing of millimetres: the second image must not be sampled through it
        assert np.argwhere(load_case_mask(case, load_case_volume(case))).tolist() == [[0, 5, 6]]
    Image.fromarray(inside[:-1]).save(tmp_path / "m.png")
    assert "give a mask of the image's shape" in said(cohort, "problem")


def test_mixed_modalities_are_a_problem_and_two_kinds_of_radiographs_are_not(tmp_path):
    sources = {}
    for name, modality in (("a", "MR"), ("b", "CT"), ("c", "MR")):
        save_all(slices([0, 2, 4], modality=modality, seed=ord(name)), tmp_path / name)
        sources[name] = {"image": ImageSource(tmp_path / name)}
    cases = [Case(name, name, source, 0) for name, source in sources.items()]
    cohort = read_manifest(write_manifest(cases, tmp_path / "c.csv"))
    assert "the images are of 2 modalities (CT: case b; MR: cases a, c)" in said(cohort, "problem")
    pictures = []
    for n, modality in enumerate(("CR", "DX")):
        path = tmp_path / f"{n}.png"
        Image.fromarray(np.random.default_rng(n).integers(0, 255, (9, 9), dtype=np.uint8)).save(path)
        pictures.append(Case(f"c{n}", f"p{n}", {"image": ImageSource(path)}, 0, covariates={"modality": modality}))
    assert said(read_manifest(write_manifest(pictures, tmp_path / "d.csv")), "problem") == ""
    pictures[1] = replace(pictures[1], covariates={"modality": "US"})
    assert "2 modalities" in said(read_manifest(write_manifest(pictures, tmp_path / "d.csv")), "problem")


def test_voxel_sizes_far_apart_are_pointed_out_with_their_figures(sound):
    assert said(image(sound, 1, "near.nii.gz", volume(9, (1.2, 1.2, 2.0))), "warning") == ""
    thick = image(sound, 1, "thick.nii.gz", volume(9, (1.0, 1.0, 5.0)))
    assert "from 1 × 1 × 2 mm (case c0) to 1 × 1 × 5 mm (case c1), median 2 mm" in said(thick, "warning")


def test_volumes_mixed_with_single_images_are_a_problem(sound):
    flat = image(sound, 1, "flat.nii.gz", volume(9, shape=(1, 6, 7)))
    assert "volumes (cases c0, c2, c3) are mixed with single images (case c1)" in said(flat, "problem")


def test_channels_on_different_grids_are_a_problem_and_copies_of_each_other_odd(sound):
    cases = []
    for n, other in enumerate((volume(20), volume(21), volume(22, (1, 1, 2.5)), volume(3))):
        write_volume(other, sound.path.with_name(f"t2_{n}.nii.gz"))
        images = {"t1": sound.cases[n].images["image"], "t2": ImageSource(sound.path.with_name(f"t2_{n}.nii.gz"))}
        cases.append(replace(sound.cases[n], images=images))
    cohort = read_manifest(write_manifest(cases, sound.path))
    assert said(cohort, "problem") == "case c2: the channels lie on different grids; resample them to one"
    assert "case c3 holds the same pixels in two of its channels" in said(cohort, "warning")


def test_slices_are_judged_one_by_one(sound):
    source, mask = sound.cases[3].images, sound.cases[3].mask
    cases = [Case(f"k{k}", "p", source, int(k in (1, 2)), mask, slice=k) for k in (0, 1, 2, 9)]
    cohort = read_manifest(write_manifest(cases, sound.path))
    assert "slice 9 lies outside the volume, which has 5 slices" in said(cohort, "problem")
    assert said(cohort, "warning") == "case k1: nothing of the mask lies on the slice, though it is abnormal"
    assert "same pixels" not in said(cohort, "problem")


@pytest.mark.parametrize("broken", ["image", "mask"])
def test_all_slices_of_a_file_that_cannot_be_read_are_left_out_together_and_it_is_named_once(sound, broken):
    source, mask = sound.cases[3].images, sound.cases[3].mask
    lesion = [Case(f"k{k}", "p", source, 1, mask, split="test", slice=k) for k in (1, 2, 3)]
    others = [replace(case, slice=1) for case in sound.cases[:3]]
    cohort = read_manifest(write_manifest([*others, *lesion], sound.path))
    (mask if broken == "mask" else source["image"].path).write_bytes(b"cut short")
    assert len(inspect_cohort(cohort).texts("problem")) == 1
    with pytest.raises(InputError, match="a problem"):
        check_cohort(cohort, skip_unreadable=2)
    report = check_cohort(cohort, skip_unreadable=3)
    assert [case.case for case in report.cohort] == ["c0", "c1", "c2"]
    assert "cases k1, k2, k3 cannot be read; 3 of 6 cases are left out" in report.texts("warning")


def test_images_that_cannot_be_read_or_hold_nothing_are_problems(sound):
    sound.cases[0].image.write_bytes(b"no image at all")
    broken = image(sound, 1, "nan.nii.gz", volume(1).with_array(np.full(SHAPE, np.nan)))
    broken = image(broken, 2, "flat.nii.gz", volume(1).with_array(np.ones(SHAPE)))
    problems = said(broken, "problem")
    assert "v0.nii.gz" in problems and "case c1: 210 voxels are NaN" in problems and "case c2: every voxel" in problems


def test_roles_and_classes_are_checked(sound):
    assert "case c3: abnormal in the split train" in said(changed(sound, 3, split="train"), "warning")
    normals = sound.of(label=0)
    assert "there is no abnormal case" in said(normals, "warning")
    assert said(normals, "warning", needs=(0,)) == ""
    assert "there is no abnormal case (label 1), and this takes one" in said(normals, "problem", needs=(0, 1))


def test_all_problems_stand_in_one_sentence(sound):
    cohort = image(sound, 0, "copy.nii.gz", volume(2))
    write_labels(painted(), volume(3).grid, cohort.cases[3].mask)
    cohort = image(cohort, 1, "flat.nii.gz", volume(9, shape=(1, 6, 7)))
    with pytest.raises(InputError) as raised:
        check_cohort(cohort)
    message = str(raised.value)
    assert "3 problems" in message and "\n" not in message
    for words in ("hold the same pixels", "the mask is empty", "mixed with single images"):
        assert words in message


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are opened from now on."""
    opened: list[str] = []
    real = contents.read_volume

    def watched(path, **options):
        opened.append(Path(path).name)
        return real(path, **options)

    monkeypatch.setattr(contents, "read_volume", watched)
    return opened


def test_what_has_not_changed_is_not_read_again_and_what_has_is(sound, monkeypatch):
    opened = reads(monkeypatch)
    first = inspect_cohort(sound)
    assert sorted(opened) == ["m3.nii.gz", "v0.nii.gz", "v1.nii.gz", "v2.nii.gz", "v3.nii.gz"]
    opened.clear()
    assert inspect_cohort(sound) == first and opened == []
    write_labels(painted((1, 1, 1), (1, 1, 2)), volume(3).grid, sound.cases[3].mask)
    assert inspect_cohort(sound).contents["c3"].mask.on_image == 2
    assert sorted(opened) == ["m3.nii.gz", "v3.nii.gz"]
    opened.clear()
    status = sound.cases[0].image.stat()
    write_volume(volume(0), sound.cases[0].image)
    os.utime(sound.cases[0].image, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    inspect_cohort(sound)
    assert opened == ["v0.nii.gz"]


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-20], lambda b: b.replace(b'"p', b'"q'), lambda b: b"", lambda b: b"\xff"]
)
def test_a_damaged_memory_is_ignored(sound, monkeypatch, damage):
    first = inspect_cohort(sound)
    memory = sound.path.with_name(".cohort.csv.checked.json")
    memory.write_bytes(damage(memory.read_bytes()))
    opened = reads(monkeypatch)
    assert inspect_cohort(sound) == first and len(opened) == 5
    opened.clear()
    assert inspect_cohort(sound) == first and opened == []


@pytest.mark.parametrize("stray", [b"old.raw", b"\xff.raw"])
def test_a_stray_link_beside_the_images_hides_no_leak(tmp_path, monkeypatch, stray):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.raw").write_bytes(np.arange(60, dtype="<i2").tobytes())
        header = ["ObjectType = Image", "NDims = 3", "DimSize = 3 4 5", "ElementType = MET_SHORT"]
        (folder / f"{name}.mhd").write_text("\n".join([*header, f"ElementDataFile = {name}.raw", ""]))
    (folder / os.fsdecode(stray)).symlink_to("/nowhere")
    cases = [
        Case(name, f"p-{name}", {"image": ImageSource(folder / f"{name}.mhd")}, 0, split=split)
        for name, split in (("a", "train"), ("b", "test"))
    ]
    cohort = read_manifest(write_manifest(cases, tmp_path / "cohort.csv"))
    assert "cases a, b hold the same pixels but differ in split and patient" in said(cohort, "problem")
    opened = reads(monkeypatch)
    assert said(cohort, "problem") and opened == []


def test_a_moved_folder_keeps_its_memory(sound, monkeypatch, tmp_path_factory):
    inspect_cohort(sound)
    moved = tmp_path_factory.mktemp("moved") / "set"
    shutil.move(sound.path.parent, moved)
    opened = reads(monkeypatch)
    inspect_cohort(read_manifest(moved / "cohort.csv"))
    assert opened == []


def test_no_more_images_are_in_memory_than_there_are_threads(sound, monkeypatch):
    busy, most, lock = 0, 0, threading.Lock()
    real = contents._examine_together

    def watched(cases):
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        try:
            return real(cases)
        finally:
            with lock:
                busy -= 1

    monkeypatch.setattr(contents, "_examine_together", watched)
    inspect_cohort(sound, workers=2, remember=False)
    assert 1 <= most <= 2
    assert not sound.path.with_name(".cohort.csv.checked.json").exists()


def test_the_verb_prints_who_stands_where_and_all_problems_with_those_of_the_table(sound, capsys):
    assert main(["cohort", "check", str(sound.path), "--progress", "none"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["train", "1", "1", "1", "0", "0", "not", "said", "1", "×", "1", "×", "2"] in lines
    assert ["all", "4", "4", "3", "1", "1", "not", "said", "1", "×", "1", "×", "2"] in lines
    assert main(["cohort", "check", str(sound.path), "--progress", "json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["split"] for row in result["splits"]] == ["train", "calibrate", "test", "all"]
    write_labels(painted(), volume(3).grid, sound.cases[3].mask)
    sound.path.write_text(
        sound.path.read_text().replace("c0,p0", "c0,p1").replace("c2,p2,v2.nii.gz,0", "c2,p2,v2.nii.gz,7")
    )
    assert main(["cohort", "check", str(sound.path), "--progress", "none"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for words in ("'label' is '7'", "the patient 'p1' stands in calibrate and train", "case c3: the mask is empty"):
        assert words in error


def test_training_refuses_a_leaking_cohort_before_it_makes_anything(sound, capsys):
    leaking = image(sound, 0, "copy.nii.gz", volume(2))
    out = sound.path.with_name("run")
    arguments = ["train", "zscore_brain", "--cohort", str(leaking.path), "--out", str(out), "--progress", "none"]
    assert main(arguments) == 2
    assert "cases c0, c2 hold the same pixels" in capsys.readouterr().err
    assert not out.exists()
