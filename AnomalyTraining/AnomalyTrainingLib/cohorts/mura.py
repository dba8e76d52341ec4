"""MURA v1.1 as a cohort: one radiograph is one case, with the label of its study.

Layout (Rajpurkar et al., arXiv:1712.06957; https://stanfordmlgroup.github.io/competitions/mura/); the tables have no
header, and their paths begin above the data set's own folder::

    MURA-v1.1/train_image_paths.csv       MURA-v1.1/train/XR_SHOULDER/patient00001/study1_positive/image1.png
    MURA-v1.1/train_labeled_studies.csv   MURA-v1.1/train/XR_SHOULDER/patient00001/study1_positive/,1
    MURA-v1.1/valid_image_paths.csv  MURA-v1.1/valid_labeled_studies.csv
    MURA-v1.1/train/XR_SHOULDER/patient00001/study1_positive/image1.png

The test set of the competition was never published: `valid`, of other patients, takes its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from AnomalyDetectionLib.errors import InputError

from .manifest import DEFAULT_CHANNEL, Case, ImageSource
from .published import Wanted, Warn, folder_of, nearest, published_rows, some

REGIONS = ("elbow", "finger", "forearm", "hand", "humerus", "shoulder", "wrist")
FOLDER = "MURA-v1.1"
PARTS = {"train": "", "valid": "test"}
"""Part of the data set to the split it stands for."""

_STUDY = rf"{re.escape(FOLDER)}/(?:train|valid)/XR_([A-Z]+)/patient(\d{{5}})/study(\d+)_(positive|negative)"
_STUDY_PATH = re.compile(rf"({_STUDY})/?", re.ASCII)
_IMAGE_PATH = re.compile(rf"({_STUDY})/image(\d+)\.png", re.ASCII)


def cases_of_mura(
    source: str | Path,
    *,
    regions: Collection[str] = (),
    warn: Warn = lambda message: None,
    progress: Callable[[float], None] = lambda share: None,
) -> list[Case]:
    """Cases of the images that the tables list and the folder holds, those of `valid` in the split test.

    The column `region` is the part of the body, `study` all images of one study, `order` the image within it.

    Parameters
    ----------
    source
        The folder MURA-v1.1, or the one that holds it.
    regions
        Only these of `REGIONS`.

    Raises
    ------
    InputError
        If a table is missing or not as published, a study has no label or two, no listed image is there, or an image is
        listed twice.
    """
    root = folder_of(source)
    if (root / FOLDER).is_dir():
        root = root / FOLDER
    if strange := [region for region in regions if region not in REGIONS]:
        raise InputError(f"There is no region {strange[0]!r} in MURA; {nearest(strange[0], REGIONS)}.")
    cases: list[Case] = []
    missing: list[str] = []
    for done, part in enumerate(PARTS, 1):
        cases += _cases_of(root, part, regions, missing)
        progress(done / len(PARTS))
    if missing:
        warn(
            f"{len(missing):,} images that the tables list are not in the folder; they are left out ({some(missing)})."
        )
    if not cases:
        raise InputError(f"{root}: no image of the tables is left; {len(missing):,} of them are not in the folder.")
    return cases


def _cases_of(root: Path, part: str, regions: Collection[str], missing: list[str]) -> Iterator[Case]:
    labels = _labels(root / f"{part}_labeled_studies.csv", part)
    table = root / f"{part}_image_paths.csv"
    seen: set[str] = set()
    there: dict[str, frozenset[str]] = {}
    for number, (path,) in published_rows(table, [Wanted.of("path")], header=["path"]):
        match = _IMAGE_PATH.fullmatch(path)
        if match is None or not path.startswith(f"{FOLDER}/{part}/"):
            raise InputError(
                f"{table}: row {number} is {path[:90]!r}, not a path as "
                f"{FOLDER}/{part}/XR_WRIST/patient00001/study1_positive/image1.png."
            )
        if path in seen:
            raise InputError(f"{table}: row {number}: the image {path} is listed twice.")
        seen.add(path)
        study, region, patient, of_patient, _, image = match.groups()
        if study not in labels:
            raise InputError(f"{table}: row {number}: the study {study} has no label in {part}_labeled_studies.csv.")
        if regions and region.lower() not in regions:
            continue
        folder, name = path.removeprefix(f"{FOLDER}/").rsplit("/", 1)
        if folder not in there:
            there[folder] = _names(root / folder)
        if name not in there[folder]:
            missing.append(path)
            continue
        together = f"patient{patient}-{region.lower()}-study{of_patient}"
        yield Case(
            f"{together}-image{image}",
            f"patient{patient}",
            {DEFAULT_CHANNEL: ImageSource(root / folder / name)},
            labels[study],
            split=PARTS[part],
            study=together,
            order=int(image),
            covariates={"region": region.lower()},
        )


def _names(folder: Path) -> frozenset[str]:
    try:
        return frozenset(path.name for path in folder.iterdir())
    except OSError:
        return frozenset()


def _labels(table: Path, part: str) -> dict[str, int]:
    """0 or 1 for every study, which its folder's name must say too."""
    labels: dict[str, int] = {}
    for number, (path, label) in published_rows(
        table, [Wanted.of("path"), Wanted.of("label")], header=["path", "label"]
    ):
        match = _STUDY_PATH.fullmatch(path)
        if match is None or not path.startswith(f"{FOLDER}/{part}/") or label not in ("0", "1"):
            raise InputError(
                f"{table}: row {number} is no study of {part} and its label, as "
                f"'{FOLDER}/{part}/XR_WRIST/patient00001/study1_positive/,1'."
            )
        if (label == "1") != (match.group(5) == "positive") or labels.setdefault(match.group(1), int(label)) != int(
            label
        ):
            raise InputError(
                f"{table}: row {number}: the study {match.group(1)} is labelled {label} and otherwise too."
            )
    return labels
