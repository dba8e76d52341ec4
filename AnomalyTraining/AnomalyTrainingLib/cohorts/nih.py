"""NIH ChestX-ray14 as a cohort: one radiograph is one case.

Layout, as the NIH Clinical Center publishes it (Wang et al., CVPR 2017, arXiv:1705.02315;
https://nihcc.app.box.com/v/ChestXray-NIHCC), and as torchxrayvision's `NIH_Dataset` and PyHealth's
`ChestXray14Dataset` read it::

    Data_Entry_2017_v2020.csv (or Data_Entry_2017.csv)     Image Index,Finding Labels,Follow-up #,Patient ID,...
    BBox_List_2017.csv                                     Image Index,Finding Label,Bbox [x,y,w,h],,,
    train_val_list.txt  test_list.txt                      one image name a line
    images_001/images/00000001_000.png ... images_012/     or all in images/

The headers hold commas inside ``OriginalImage[Width,Height]`` and ``Bbox [x,y,w,h]`` without quotes: as CSV these are
two and four columns, the latter three of them without a name.  Boxes are in the pixels of the 1024 x 1024 images.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.write import atomically

from .manifest import DEFAULT_CHANNEL, Case, ImageSource
from .published import Accept, Wanted, Warn, files_below, first_file, folder_of, nearest, published_rows, some

NO_FINDING = "No Finding"
FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
"""The fourteen labels, text-mined from reports (the authors estimate more than 90 % of them right)."""

TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
BOXES = "BBox_List_2017.csv"
TEST_LIST, TRAIN_LIST = "test_list.txt", "train_val_list.txt"

BOX_GRID = 1024
"""Width and height of the published images, in whose pixels the boxes are given."""

OLDEST = 120
"""Years; the first release has ages up to 414, which count as not said."""

_COLUMNS = (
    Wanted.of("Image Index"),
    Wanted.of("Finding Labels"),
    Wanted.of("Follow-up #"),
    Wanted.of("Patient ID"),
    Wanted.of("Patient Age"),
    Wanted.of("Patient Sex", "Patient Gender"),
    Wanted.of("View Position"),
)
_BOX_COLUMNS = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]")
_IMAGE = re.compile(r"(\d{8}_\d{3})\.(?:png|jpe?g)", re.IGNORECASE)
_INDEX = re.compile(r"(\d{8})_\d{3}\.png", re.ASCII)
_AGE = re.compile(r"(\d{1,3})([YMWD]?)", re.ASCII)
_YEARS = {"": 1.0, "Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
_OTHER_NAMES = {"Infiltrate": "Infiltration"}
"""Of findings in the list of boxes."""


@dataclass(frozen=True)
class Box:
    """A radiologist's box, in pixels of the 1024 x 1024 image: the corner with the least x and y, width, height."""

    finding: str
    x: float
    y: float
    width: float
    height: float


class _Row(NamedTuple):
    """What the table says of an image."""

    name: str
    patient: str
    follow_up: int
    findings: Sequence[str]
    covariates: Mapping[str, str]

    def case(self, path: str, label: int, split: str) -> Case:
        """The case of the image in this file."""
        images = {DEFAULT_CHANNEL: ImageSource(Path(path))}
        return Case(
            self.name, self.patient, images, label, None, split, order=self.follow_up, covariates=self.covariates
        )


def cases_of_nih(
    source: str | Path,
    *,
    findings: Sequence[str] = (),
    others_normal: bool = False,
    views: Collection[str] = (),
    images: str | Path | None = None,
    masks: Path | None = None,
    accept: Accept = lambda cases: None,
    warn: Warn = lambda message: None,
    progress: Callable[[float], None] = lambda share: None,
) -> list[Case]:
    """Cases of the images that the table lists and the folder holds, those of `test_list.txt` in the split test.

    Normal is "No Finding".  The covariates are `findings` ("Mass|Nodule"), `age`, `sex`, `view` and `boxes`
    ("x y w h;x y w h" in the 1024 x 1024 image), `order` is the follow-up number.

    Parameters
    ----------
    findings
        Abnormal is who has one of these; images with other findings only are left out.  Empty: any finding is abnormal.
    others_normal
        Images with other findings only count as normal instead, as in CheXNet's pneumonia against the rest.
    views
        Only these of PA and AP.
    images
        Where the images lie, if not below `source`.
    masks
        Folder for masks of the boxes of abnormal cases, on the grid of each image; None writes none.
    accept
        Called with the cases before the first mask is written.

    Raises
    ------
    InputError
        If a table is missing or not as published, a finding does not exist, no listed image is there, an image lies in
        two places or is listed twice.
    """
    source = folder_of(source)
    wanted = tuple(_finding(name) for name in findings)
    table = first_file(source, TABLES)
    if table is None:
        raise InputError(f"{source}: there is no {TABLES[0]} (nor {TABLES[1]}); give the folder that holds it.")
    test, train = (_listed(source / name) for name in (TEST_LIST, TRAIN_LIST))
    if test and train and (both := sorted(test & train)):
        raise InputError(f"{source}: {some(both)} stand both in {TEST_LIST} and in {TRAIN_LIST}.")
    files = _image_files(folder_of(images) if images is not None else source)
    progress(0.3)
    found, missing = [], []
    for row in _rows(table):
        path = files.get(row.name)
        if path is None:
            missing.append(row.name)
            continue
        label = _label(row.findings, wanted, others_normal)
        if label is not None and (not views or row.covariates.get("view") in views):
            found.append(row.case(path, label, "test" if row.name in test else ""))
    progress(0.7)
    _say_missing(table, missing, len(files), warn)
    if not found:
        raise InputError(f"{source}: no image of the table is left; {len(missing):,} of them are not in the folder.")
    if ages := sum("age" not in case.covariates for case in found):
        warn(f"{ages:,} ages are beyond {OLDEST} years or not said; they are left empty.")
    if train and (strangers := [case.case for case in found if case.case not in train and case.case not in test]):
        raise InputError(f"{source}: {some(strangers)} stand neither in {TEST_LIST} nor in {TRAIN_LIST}.")
    if masks is not None:
        accept(found)
    return _with_boxes(found, source / BOXES, wanted, masks)


def _rows(table: Path) -> Iterator[_Row]:
    seen: set[str] = set()
    known = {NO_FINDING, *FINDINGS}
    for number, (index, labels, follow_up, patient, age, sex, view) in published_rows(table, _COLUMNS):
        name = _INDEX.fullmatch(index)
        if name is None:
            raise InputError(f"{table}: row {number}: 'Image Index' is {index[:60]!r}, not a name as 00000001_000.png.")
        stem, owner = index[:-4], name.group(1)
        if stem in seen:
            raise InputError(f"{table}: row {number}: the image {index} is listed twice.")
        seen.add(stem)
        if not patient.isdecimal() or int(patient) != int(owner):
            raise InputError(
                f"{table}: row {number}: the image {index} is of patient {owner}, 'Patient ID' says {patient[:20]!r}."
            )
        if not follow_up.isdecimal():
            raise InputError(f"{table}: row {number}: 'Follow-up #' is {follow_up[:20]!r}, not a whole number.")
        said = tuple(labels.split("|"))
        if not known.issuperset(said):
            wrong = next(label for label in said if label not in known)
            raise InputError(
                f"{table}: row {number}: there is no finding {wrong[:40]!r}; {nearest(wrong, sorted(known))}."
            )
        facts = {"findings": labels, "age": _age(table, number, age), "sex": sex, "view": view}
        covariates = {name: value for name, value in facts.items() if value}
        yield _Row(stem, owner, int(follow_up), said, covariates)


def _age(table: Path, number: int, text: str) -> str:
    """Years: '58', or '058Y' and '012M' of the first release; '' beyond `OLDEST`."""
    match = _AGE.fullmatch(text)
    if match is None:
        if not text:
            return ""
        raise InputError(f"{table}: row {number}: 'Patient Age' is {text[:20]!r}, not an age as 58 or 058Y.")
    years = int(match.group(1)) * _YEARS[match.group(2)]
    return f"{years:.4g}" if years <= OLDEST else ""


def _label(said: Sequence[str], wanted: Sequence[str], others_normal: bool) -> int | None:
    """0, 1, or None for an image that is neither."""
    if NO_FINDING in said:
        return 0
    if not wanted or not set(said).isdisjoint(wanted):
        return 1
    return 0 if others_normal else None


def _finding(name: str) -> str:
    plain = name.strip().replace(" ", "_").casefold()
    for finding in FINDINGS:
        if finding.casefold() == plain:
            return finding
    raise InputError(f"There is no finding {name!r} in ChestX-ray14; {nearest(name, FINDINGS)}.")


def _listed(path: Path) -> frozenset[str]:
    """The image names, without ending, of one of the official lists; empty where there is no such file."""
    if not path.is_file():
        return frozenset()
    rows = published_rows(path, [Wanted.of("name")], header=["name"])
    names = [(number, name) for number, (name,) in rows]
    if wrong := [(number, name) for number, name in names if not _INDEX.fullmatch(name)]:
        raise InputError(f"{path}: row {wrong[0][0]} is {wrong[0][1][:60]!r}, not an image name as 00000001_000.png.")
    return frozenset(name[:-4] for _, name in names)


def _image_files(folder: Path) -> dict[str, str]:
    """Image files by name without ending: looked up, never built from a name in a table."""
    files: dict[str, str] = {}
    for path, match in files_below(folder, _IMAGE):
        if (other := files.setdefault(match.group(1), path)) is not path:
            raise InputError(f"There are both {other} and {path}; name the folder of one of them with --images.")
    return files


def _say_missing(table: Path, missing: Sequence[str], files: int, warn: Warn) -> None:
    if missing:
        warn(
            f"{len(missing):,} images that {table.name} lists are not in the folder, which holds {files:,}; they are "
            f"left out ({some(missing)})."
        )


def _with_boxes(cases: list[Case], path: Path, wanted: Collection[str], masks: Path | None) -> list[Case]:
    """The abnormal cases with their boxes: all of them, or those of the wanted findings."""
    if not path.is_file():
        if masks is not None:
            raise InputError(f"{path}: there is no such file, and masks of boxes need it.")
        return cases
    boxes = {
        name: kept
        for name, of_image in _boxes(path).items()
        if (kept := [box for box in of_image if not wanted or box.finding in wanted])
    }
    return [_with_own(case, boxes[case.case], masks) if case.label and case.case in boxes else case for case in cases]


def _with_own(case: Case, boxes: Sequence[Box], masks: Path | None) -> Case:
    text = ";".join(f"{box.x:.6g} {box.y:.6g} {box.width:.6g} {box.height:.6g}" for box in boxes)
    case = replace(case, covariates={**case.covariates, "boxes": text})
    return case if masks is None else replace(case, mask=_write_mask(case, boxes, masks))


def _boxes(path: Path) -> Mapping[str, list[Box]]:
    """The boxes of each image."""
    found: dict[str, list[Box]] = defaultdict(list)
    for number, (index, finding, *numbers) in published_rows(path, [Wanted.of(name) for name in _BOX_COLUMNS]):
        finding = _OTHER_NAMES.get(finding, finding)
        try:
            x, y, width, height = (float(value) for value in numbers)
            whole = all(math.isfinite(value) for value in (x, y, width, height)) and width > 0 and height > 0
        except ValueError:
            whole = False
        if not whole or not _INDEX.fullmatch(index) or finding not in FINDINGS:
            raise InputError(f"{path}: row {number} is not a box: an image, a finding, and x, y, width and height.")
        found[index[:-4]].append(Box(finding, x, y, width, height))
    return found


def _write_mask(case: Case, boxes: Sequence[Box], folder: Path) -> Path:
    """A PNG of the boxes with the size of the case's image: the pixels whose middle lies in a box."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(case.image) as image:
            width, height = image.size
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"{case.image}: the image cannot be read ({error}).") from error
    painted = np.zeros((height, width), dtype=np.uint8)
    for box in boxes:
        columns = _span(box.x, box.width, width)
        painted[_span(box.y, box.height, height), columns] = 255
    return atomically(folder / f"{case.case}.png", lambda path: Image.fromarray(painted).save(path))


def _span(start: float, length: float, pixels: int) -> slice:
    scale = pixels / BOX_GRID
    first, last = (math.ceil(edge * scale - 0.5) for edge in (start, start + length))
    return slice(max(0, first), max(0, last))
