"""The Medical Out-of-Distribution challenge (MOOD) as a cohort: healthy scans to train on and a few toy cases to try.

Layout, as the organisers' repository has it (https://github.com/MIC-DKFZ/mood, readme.md and scripts/evalresults.py)
and as `amid`'s reader of the archives does (https://www.synapse.org/mood)::

    brain/brain_train/00000.nii.gz ...      800 MR volumes of 256³ (HCP)
    brain/toy/toy_0.nii.gz ...              4 scans with something added
    brain/toy_label/sample/toy_0.nii.gz.txt    0 or 1
    brain/toy_label/pixel/toy_0.nii.gz         what was added
    abdom/abdom_train/ ...                  550 CT volumes of 512³; called colon in 2020

The test cases of the challenge are secret.  The voxels are scaled to 0...1 in both, so no CT rule in HU fits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.read import read_volume

from .manifest import DEFAULT_CHANNEL, Case, ImageSource
from .published import Warn, folder_of

ANATOMIES = {"brain": "MR", "abdom": "CT", "colon": "CT"}
"""Folder to modality, which the files do not say."""

_SCAN = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,99}?)\.nii(?:\.gz)?", re.ASCII)


def cases_of_mood(
    source: str | Path,
    *,
    warn: Warn = lambda message: None,
    progress: Callable[[float], None] = lambda share: None,
) -> list[Case]:
    """Cases of one anatomy: the training scans, all normal, and the toy cases in the split test.

    Parameters
    ----------
    source
        The folder of one anatomy, which holds `brain_train` (or `abdom_train`), and `toy` with `toy_label` if wanted.

    Raises
    ------
    InputError
        If there are no training scans or those of two anatomies, or a toy case has no label.
    """
    root = folder_of(source)
    anatomy = _anatomy(root)
    facts = {"modality": ANATOMIES[anatomy]}
    cases = [
        Case(f"{anatomy}-{name}", f"{anatomy}-{name}", {DEFAULT_CHANNEL: ImageSource(path)}, 0, covariates=facts)
        for name, path in _scans(root / f"{anatomy}_train").items()
    ]
    if not cases:
        raise InputError(f"{root / f'{anatomy}_train'}: there is no NIfTI file in this folder.")
    progress(0.5)
    toys = _scans(root / "toy") if (root / "toy").is_dir() else {}
    if not toys:
        warn(f"{root / 'toy'}: there are no toy cases, so nothing abnormal is in the cohort.")
    for name, path in toys.items():
        toy = f"{anatomy}-{name}"
        case = Case(toy, toy, {DEFAULT_CHANNEL: ImageSource(path)}, 0, None, "test", covariates=facts)
        cases.append(_labelled(case, root / "toy_label", warn))
    return cases


def _anatomy(root: Path) -> str:
    there = [name for name in ANATOMIES if (root / f"{name}_train").is_dir()]
    if len(there) == 1:
        return there[0]
    inside = [name for name in ANATOMIES if (root / name / f"{name}_train").is_dir()]
    if inside:
        raise InputError(f"{root}: give the folder of one anatomy, such as {root / inside[0]}.")
    wanted = ", ".join(f"{name}_train" for name in ANATOMIES)
    raise InputError(f"{root}: there is {'more than one' if there else 'none'} of the folders {wanted}.")


def _scans(folder: Path) -> dict[str, Path]:
    """NIfTI files directly in a folder, by name without ending."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        match = _SCAN.fullmatch(path.name)
        if match and path.is_file() and (other := found.setdefault(match.group(1), path)) != path:
            raise InputError(f"There are both {other} and {path}; remove one of them.")
    return found


def _labelled(case: Case, labels: Path, warn: Warn) -> Case:
    """A toy case with its label, and its mask where something is marked."""
    file = labels / "sample" / f"{case.image.name}.txt"
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: the label of {case.image.name} cannot be read; fetch toy_label again.") from error
    if text not in ("0", "1"):
        raise InputError(f"{file}: the label is {text[:20]!r}; it must be 0 or 1.")
    mask = labels / "pixel" / case.image.name
    if text == "0" or not mask.is_file():
        return replace(case, label=int(text))
    if not read_volume(mask).array.any():
        warn(f"{case.case}: abnormal as a whole, with no voxel marked; it has no mask.")
        return replace(case, label=1)
    return replace(case, label=1, mask=mask)
