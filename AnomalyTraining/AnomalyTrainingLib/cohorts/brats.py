"""BraTS 2018 to 2024 as a cohort: volumes with whole-tumour masks, or slices with and without tumour.

Layouts of the releases (Menze et al., TMI 2015; Baid et al., arXiv:2107.02314; de Verdier et al., arXiv:2405.18368;
https://www.synapse.org/brats), of which only the names of the files count, wherever they lie::

    HGG/Brats18_CBICA_AAB_1/Brats18_CBICA_AAB_1_flair.nii.gz        2018 and 2019, also LGG/; the site is in the name
    BraTS20_Training_001/BraTS20_Training_001_flair.nii.gz          2020; case 355 has W39_1998.09.19_Segm.nii as seg
    BraTS2021_00000/BraTS2021_00000_flair.nii.gz                    2021
    BraTS-GLI-00000-000/BraTS-GLI-00000-000-t2f.nii.gz              2023 and 2024; the last number is the time point

Labels are 1, 2 and 4 until 2021 and 1, 2 and 3 since; whatever is marked is the whole tumour, but for label 4 of the
gliomas and metastases of 2024, the resection cavity.

The gliomas of a year are largely those of the years before under new names: a cohort is made of one release, or
patients would stand in two splits.  The other tasks (MEN, MET, PED, SSA) have others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.read import read_volume
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.imaging.write import write_labels

from .manifest import DEFAULT_CHANNEL, Case, ImageSource
from .published import Accept, Warn, files_below, folder_of, natural

MODALITIES = ("flair", "t1", "t1c", "t2")
_PARTS = {
    "flair": "flair",
    "t2f": "flair",
    "t1": "t1",
    "t1n": "t1",
    "t1ce": "t1c",
    "t1c": "t1c",
    "t2": "t2",
    "t2w": "t2",
    "seg": "seg",
}
_CASE = (
    r"(?:Brats1[789]_(?P<site>[A-Z0-9]+)_[A-Z0-9]+_(?P<visit>\d+)|BraTS20_Training_\d{3}|BraTS20_Validation_\d{3}"
    r"|BraTS2021_\d{5}|BraTS-(?P<task>[A-Za-z]+)-\d{5}(?:-(?P<time>\d{3}))?)"
)
_NAME = re.compile(_CASE, re.IGNORECASE)
_FILE = re.compile(rf"(?P<case>{_CASE})[_-](?P<part>{'|'.join(_PARTS)})\.nii(?:\.gz)?", re.IGNORECASE)
_FILES = re.compile(rf"{_FILE.pattern}|.+_Segm\.nii(?:\.gz)?", re.IGNORECASE)
_GLIOMA_RELEASE = re.compile(r"BraTS(?:1[789]|20(?:21)?|-GLI)(?=[_-])", re.IGNORECASE)
_CAVITY = {"GLI": 4, "MET": 4}
"""Label of the resection cavity, by task: abnormal, but no tumour."""
_MOST_LABEL = 4


@dataclass(frozen=True)
class SliceRules:
    """Which axial slices become cases.

    Attributes
    ----------
    least_tumour
        Pixels of tumour from which on a slice is abnormal; with fewer, but not none, it is left out.
    margin
        A slice that near to one with any tumour or cavity, in slices, is not taken for normal.
    least_brain
        Pixels of brain, as a share of the largest slice of the volume; slices with less are left out.
    every
        Every n-th slice of the volume.
    """

    least_tumour: int = 50
    margin: int = 2
    least_brain: float = 0.25
    every: int = 1

    def __post_init__(self) -> None:
        if min(self.least_tumour, self.every) < 1 or self.margin < 0 or not 0 <= self.least_brain <= 1:
            raise InputError(
                "Slices take at least 1 pixel of tumour, a margin from 0, a share of brain from 0 to 1 and every slice "
                "from the first."
            )


@dataclass
class _Scan:
    """The files of one case of a release."""

    name: str
    place: Path
    parts: dict[str, Path] = field(default_factory=dict)

    @property
    def about(self) -> Mapping[str, str | None]:
        match = _NAME.fullmatch(self.name)
        return {} if match is None else match.groupdict()

    @property
    def order(self) -> int | None:
        time = self.about.get("time") or self.about.get("visit")
        return None if time is None else int(time)

    @property
    def patient(self) -> str:
        return self.name if self.order is None else re.sub(r"[_-]\d+$", "", self.name)

    def covariates(self) -> dict[str, str]:
        """Modality, grade and site, as far as they are known."""
        grades = {part.upper() for part in self.place.parts} & {"HGG", "LGG"}
        facts = {
            "modality": "MR",
            "site": (self.about.get("site") or "").upper(),
            "grade": grades.pop() if len(grades) == 1 else "",
            "task": (self.about.get("task") or "").upper(),
        }
        return {name: value for name, value in facts.items() if value}


def cases_of_brats(
    source: str | Path,
    masks: Path,
    *,
    modalities: Sequence[str] = ("flair",),
    slices: SliceRules | None = None,
    cavity: bool = False,
    accept: Accept = lambda cases: None,
    warn: Warn = lambda message: None,
    progress: Callable[[float], None] = lambda share: None,
) -> list[Case]:
    """Cases of the scans below a folder that have a segmentation; a binary mask is written for each.

    Parameters
    ----------
    masks
        Folder for the masks.
    modalities
        Of `MODALITIES`; one is the channel "image", several are channels of these names.
    slices
        None: every scan is an abnormal case.  Else every axial slice that the rules take is one, normal or abnormal,
        and slices of one patient are never in two splits.
    cavity
        The resection cavity counts as abnormal too.  Without it slices with a cavity and no tumour are left out.
    accept
        Called with an abnormal case for every scan before the first mask is written.

    Raises
    ------
    InputError
        If there is no scan with a segmentation and these modalities, the gliomas are of more than one release, a file
        lies in two places, or a segmentation cannot be read, holds other labels than 0 to 4 or is of another shape
        than the image.
    """
    source = folder_of(source)
    scans = _scans(source)
    whole = [scan for scan in scans if {*modalities, "seg"} <= scan.parts.keys()]
    if not whole:
        raise InputError(
            f"{source}: there is no BraTS scan with a segmentation and {', '.join(modalities)}, as in "
            "BraTS2021_00000_flair.nii.gz and BraTS2021_00000_seg.nii.gz or BraTS-GLI-00000-000-t2f.nii.gz."
        )
    _check_release(source, whole)
    if unmarked := sum("seg" not in scan.parts for scan in scans):
        warn(f"{unmarked} scans have no segmentation, as in the validation sets; they are left out.")
    if lacking := len(scans) - len(whole) - unmarked:
        warn(f"{lacking} scans lack one of {', '.join(modalities)}; they are left out.")
    accept([_case_of(scan, None, modalities) for scan in whole])
    cases: list[Case] = []
    free = 0
    for done, scan in enumerate(whole, 1):
        made = list(_cases_of(scan, masks, modalities, slices, cavity))
        free += not made
        cases += made
        progress(done / len(whole))
    if free:
        warn(f"{free} scans have nothing marked, or no slice that the rules take; they are left out.")
    if not cases:
        raise InputError(f"{source}: none of the {len(whole)} scans has tumour marked.")
    return cases


def _check_release(source: Path, scans: Sequence[_Scan]) -> None:
    """Refuse gliomas of several years, which are the same patients."""
    first: dict[str, str] = {}
    for scan in scans:
        if match := _GLIOMA_RELEASE.match(scan.name):
            first.setdefault(match[0].casefold(), scan.name)
    if len(first) > 1:
        raise InputError(
            f"{source}: there are gliomas of {len(first)} releases ({', '.join(first.values())}), which largely hold "
            "the same patients under other names; give the folder of one release."
        )


def _scans(source: Path) -> list[_Scan]:
    """The scans below a folder, by name."""
    found: dict[str, _Scan] = {}
    for text, match in files_below(source, _FILES):
        path = Path(text)
        name, part = match["case"], _PARTS.get((match["part"] or "seg").lower(), "seg")
        if name is None:  # a segmentation under its tool's name: only its folder says whose it is
            if not _NAME.fullmatch(path.parent.name):
                continue
            name = path.parent.name
        scan = found.setdefault(name.casefold(), _Scan(name, path.parent.relative_to(source)))
        if (other := scan.parts.setdefault(part, path)) != path:
            raise InputError(f"{name}: there are both {other} and {path}; remove one of them.")
    return sorted(found.values(), key=lambda scan: natural(scan.name))


def _case_of(scan: _Scan, mask: Path | None, modalities: Sequence[str]) -> Case:
    names = {DEFAULT_CHANNEL: modalities[0]} if len(modalities) == 1 else {name: name for name in modalities}
    images = {channel: ImageSource(scan.parts[name]) for channel, name in names.items()}
    return Case(scan.name, scan.patient, images, 1, mask, order=scan.order, covariates=scan.covariates())


def _cases_of(
    scan: _Scan, masks: Path, modalities: Sequence[str], slices: SliceRules | None, cavity: bool
) -> Iterator[Case]:
    """The case of a scan or the cases of its slices; none if nothing is marked."""
    marked = read_volume(scan.parts["seg"])
    tumour, removed = _tumour(scan, marked, cavity)
    if not tumour.any():
        return
    mask = masks / f"{scan.name}.nii.gz"
    case = _case_of(scan, mask, modalities)
    if slices is None:
        write_labels(tumour, marked.grid, mask)
        yield case
        return
    image = read_volume(case.image)
    if image.shape != marked.shape:
        raise InputError(f"{marked.source[0]}: the segmentation has shape {marked.shape}, the image {image.shape}.")
    labels = _slice_labels(image, tumour, removed, slices)
    if any(labels.values()):
        write_labels(tumour, marked.grid, mask)
    for k, label in labels.items():
        yield replace(case, case=f"{case.case}-{k:03d}", slice=k, label=label, mask=mask if label else None)


def _tumour(scan: _Scan, marked: Volume, cavity: bool) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """What is marked as tumour, and what as a cavity that does not count, (K, J, I) each."""
    values = np.unique(marked.array)
    if not np.isin(values, np.arange(_MOST_LABEL + 1)).all():
        raise InputError(
            f"{scan.parts['seg']}: this is no BraTS segmentation; its values run from {values[0]:g} to {values[-1]:g}, "
            "not from 0 to 4."
        )
    removed = np.zeros(marked.shape, dtype=bool)
    if not cavity and (label := _CAVITY.get(scan.covariates().get("task", ""))) is not None:
        removed = marked.array == label
    return (marked.array > 0) & ~removed, removed


def _slice_labels(
    image: Volume, tumour: NDArray[np.bool_], removed: NDArray[np.bool_], rules: SliceRules
) -> dict[int, int]:
    """The label of every slice that is a case, by its index; the brain is what is not 0, as BraTS strips skulls."""
    brain = np.count_nonzero(image.array, axis=(1, 2))
    pixels = np.count_nonzero(tumour, axis=(1, 2))
    odd = np.flatnonzero((pixels > 0) | removed.any(axis=(1, 2)))
    labels = {}
    for k in range(0, len(brain), rules.every):
        if brain[k] == 0 or brain[k] < rules.least_brain * brain.max():
            continue
        if pixels[k] >= rules.least_tumour:
            labels[k] = 1
        elif np.abs(odd - k).min() > rules.margin:
            labels[k] = 0
    return labels
