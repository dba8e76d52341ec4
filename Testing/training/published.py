"""Miniature data sets in the layouts in which the real ones are published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

NIH_2017 = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
NIH_2020 = NIH_2017.rstrip(",").replace("Patient Gender", "Patient Sex")
NIH_BOXES = "Image Index,Finding Label,Bbox [x,y,w,h],,,"

MURA_STUDIES = [  # part, region, patient, study, label, images
    *(("train", "WRIST", number, 1, number % 2, 1) for number in range(1, 11)),
    ("train", "ELBOW", 11, 1, 0, 2),
    ("train", "ELBOW", 11, 2, 1, 1),
    ("valid", "WRIST", 90, 1, 0, 1),
    ("valid", "HAND", 91, 1, 1, 2),
]


def write_text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_picture(path: Path, seed: int = 0, size: int = 32, mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 255, (size, size), dtype=np.uint8)
    Image.fromarray(values).convert(mode).save(path)
    return path


def write_nifti(path: Path, array: np.ndarray, millimetres: float = 1.0) -> Path:
    """A volume given as (K, J, I), in the patient's axes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-millimetres, -millimetres, millimetres, 1.0])
    image = nibabel.Nifti1Image(np.ascontiguousarray(array.T), affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return path


def write_nih(
    folder: Path,
    rows: Sequence[str],
    *,
    header: str = NIH_2020,
    test: Sequence[str] = (),
    boxes: Sequence[str] = (),
    images: Mapping[str, str] | None = None,
) -> Path:
    """ChestX-ray14 of these rows; the images of all of them in images_001/images, or each in the folder given."""
    table = "Data_Entry_2017_v2020.csv" if header == NIH_2020 else "Data_Entry_2017.csv"
    write_text(folder / table, header, *rows)
    names = [row.split(",")[0] for row in rows]
    if test:
        write_text(folder / "test_list.txt", *test)
        write_text(folder / "train_val_list.txt", *(name for name in names if name not in test))
    if boxes:
        write_text(folder / "BBox_List_2017.csv", NIH_BOXES, *boxes)
    for seed, name in enumerate(names):
        place = "images_001/images" if images is None else images.get(name, "")
        if place:
            write_picture(folder / place / name, seed, size=64)
    return folder


def nih_row(image: str, findings: str, age: str = "57", *, sex: str = "M", view: str = "PA", end: str = "") -> str:
    patient, follow_up = int(image[:8]), int(image[9:12])
    return f"{image},{findings},{follow_up},{patient},{age},{sex},{view},2682,2749,0.143,0.143{end}"


def write_mura(folder: Path, studies: Sequence[tuple[str, str, int, int, int, int]] = MURA_STUDIES) -> Path:
    """MURA v1.1 of these studies; returns its own folder."""
    root = folder / "MURA-v1.1"
    images, labels = {"train": [], "valid": []}, {"train": [], "valid": []}
    for part, region, patient, study, label, count in studies:
        word = "positive" if label else "negative"
        place = f"MURA-v1.1/{part}/XR_{region}/patient{patient:05d}/study{study}_{word}/"
        labels[part].append(f"{place},{label}")
        for number in range(1, count + 1):
            images[part].append(f"{place}image{number}.png")
            write_picture(folder / place / f"image{number}.png", patient * 10 + study * 3 + number)
    for part in images:
        write_text(root / f"{part}_image_paths.csv", *images[part])
        write_text(root / f"{part}_labeled_studies.csv", *labels[part])
    return root
