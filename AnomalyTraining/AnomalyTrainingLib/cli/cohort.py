"""Describe a data set as a cohort manifest: one CSV with a row for every case, which everything else reads.

Edit the CSV as you like afterwards: its columns are
  case,patient[,study][,order],image[,image_<channel>...][,slice],label[,mask][,split][,site][,age][,sex][,view]...
label is 0 (normal) or 1 (abnormal); split is train, calibrate, validate, test or external; all cases of a patient
belong to one split.  FOLDER#SERIES as image names one series of a folder by its Series Instance UID.

`cohort check` reads every image and mask and reports all that is wrong or odd at once: files that cannot be read, the
same pixels under two names, masks that do not fit, mixed modalities and voxel sizes.  Other verbs check the same before
they begin.  What is found is kept in the hidden file `.NAME.checked.json` beside the manifest, so that images that have
not changed are not read again.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from AnomalyDetectionLib.cli.progress import Progress, add_progress_option
from AnomalyDetectionLib.errors import InputError

from ..synthesis import ANATOMY_NAMES, CONTRAST_NAMES, LESION_NAMES
from . import datasets
from .splitting import add_out, add_split, check_split, split

if TYPE_CHECKING:  # what needs torch or pydicom is imported when it is needed: the help answers at once
    from ..cohorts.manifest import Case
    from ..synthesis.lesions import LesionRequest

_HELP = argparse.RawDescriptionHelpFormatter
_LABEL_HELP = "label of all cases (default: 1 for series under SRC/abnormal, 0 for all others)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-command for each kind of source, and one for the checks."""
    kinds = ",".join(["folder", "dicom", *datasets.KINDS, "phantom", "check"])
    sources = parser.add_subparsers(dest="source_kind", required=True, metavar=f"{{{kinds}}}")
    _add_folder(sources)
    _add_dicom(sources)
    datasets.add_datasets(sources)
    _add_phantom(sources)
    _add_check(sources)


def run(args: argparse.Namespace) -> int:
    """Write or check the manifest; 0 when done."""
    if args.source_kind == "check":
        return _check(args)
    from ..cohorts.manifest import write_manifest

    out = Path(args.out)
    if out.suffix.lower() != ".csv":
        raise InputError(f"{out}: the manifest is a CSV file; give --out a name that ends in .csv.")
    if out.exists() and args.source_kind != "phantom":  # it may have been edited by hand
        raise InputError(f"{out}: there is such a file already; give --out another name or delete it.")
    with Progress(args.progress) as progress:
        if args.source_kind == "phantom":
            cases: Sequence[Case] = _make_phantoms(args, out, progress)
        else:
            check_split(args)
            cases = split(_read(args, out, progress), args)
            write_manifest(cases, out)
        _report(cases, out, progress)
    return 0


def _check(args: argparse.Namespace) -> int:
    from ..cohorts.checks import inspect_cohort
    from ..cohorts.manifest import parse_manifest, problems_error
    from ..cohorts.summary import rows, table

    cohort, problems = parse_manifest(args.manifest)
    with Progress(args.progress) as progress:
        report = inspect_cohort(cohort, progress=progress)
        problems += report.texts("problem")
        warnings, notes = report.texts("warning"), report.texts("note")
        progress.say(table(report))
        for note in notes:
            progress.say(f"note: {note}")
        for warning in warnings:
            progress.warn(warning)
        if problems:
            raise problems_error(cohort.path, "cohort", problems)
        progress.say(f"{args.manifest}: no problem was found.")
        progress.result({"manifest": str(args.manifest), "splits": rows(report), "warnings": warnings, "notes": notes})
    return 0


def _read(args: argparse.Namespace, out: Path, progress: Progress) -> list[Case]:
    if args.source_kind == "folder":
        return _read_folder(args, progress)
    if args.source_kind == "dicom":
        return _read_dicom(args, progress)
    return datasets.read(args, out, progress)


def _read_folder(args: argparse.Namespace, progress: Progress) -> list[Case]:
    from ..cohorts.folder import cases_of_folder

    return cases_of_folder(
        args.source, patient_pattern=args.patient_pattern, masks=args.masks, normal=args.normal, warn=progress.warn
    )


def _read_dicom(args: argparse.Namespace, progress: Progress) -> list[Case]:
    from ..cohorts.dicom import cases_of_dicom

    return cases_of_dicom(
        args.source,
        modality=args.modality,
        description=args.description,
        salt=args.salt,
        label=args.label,
        progress=lambda fraction: progress("reading headers", fraction),
        warn=progress.warn,
    )


def _make_phantoms(args: argparse.Namespace, out: Path, progress: Progress) -> Sequence[Case]:
    from ..synthesis.cohort import PhantomSettings, make_phantom_cohort

    settings = PhantomSettings(
        args.contrast,
        _spacing(args.spacing),
        args.seed,
        args.source,
        stripped=args.stripped or args.source in ANATOMY_NAMES,
        plaque_shapes=args.plaque_shapes,
    )
    return make_phantom_cohort(
        out,
        subjects=args.subjects,
        settings=settings,
        lesions=[request for text in args.lesions for request in _lesions(text)],
        split=_phantom_split(args, len(settings.heads)),
        workers=args.workers,
        progress=lambda done, total: progress("making phantoms", done / total),
    )


def _phantom_split(args: argparse.Namespace, heads: int) -> Callable[[Sequence[Case]], Sequence[Case]] | None:
    """How the cases get their splits: as named, by anatomy where there are several, or else by subject."""
    from ..cohorts.groups import assign_groups, assign_named_groups
    from ..cohorts.splits import assign_splits

    if args.split_anatomies:
        if not heads:
            raise InputError(f"--split-anatomies needs label maps of several heads; {args.source} is one anatomy.")
        named: dict[str, list[str]] = {}
        for text in args.split_anatomies:
            split, separator, names = text.partition("=")
            if not separator or not names:
                raise InputError(f"--split-anatomies is SPLIT=NAME,NAME, as in test=head_10,head_11, not {text!r}.")
            named.setdefault(split, []).extend(names.split(","))
        return functools.partial(assign_named_groups, column="anatomy", named=named, supervised=args.supervised)
    if args.supervised:
        raise InputError("--supervised says what --split-anatomies does with the lesions of train; give that too.")
    if not args.split:
        return None
    if heads > 1:
        return functools.partial(assign_groups, column="anatomy", seed=args.seed)
    return functools.partial(assign_splits, seed=args.seed)


def _report(cases: Sequence[Case], out: Path, progress: Progress) -> None:
    from ..cohorts.manifest import SPLITS

    abnormal = sum(case.label for case in cases)
    patients = len({case.patient for case in cases})
    splits = Counter(case.split for case in cases if case.split)
    progress.say(
        f"{out}: {len(cases)} cases of {patients} patients, {len(cases) - abnormal} normal, {abnormal} abnormal."
    )
    if splits:
        progress.say("  " + ", ".join(f"{name} {splits[name]}" for name in SPLITS if splits[name]))
    fields = {"cases": len(cases), "patients": patients, "abnormal": abnormal, "splits": dict(splits)}
    progress.result({"manifest": str(out), **fields})


def _spacing(text: str) -> tuple[float, float, float]:
    """'2' or '1,1,3'."""
    try:
        sizes = [float(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if len(sizes) not in (1, 3):
        raise InputError(f"--spacing is one voxel size in mm or three with commas between, not {text!r}.")
    x, y, z = sizes * 3 if len(sizes) == 1 else sizes
    return x, y, z


def _lesions(text: str) -> list[LesionRequest]:
    """'tumour=5' as five requests."""
    from ..synthesis.lesions import LesionRequest

    match = re.fullmatch(r"([a-z]+)(?:=(\d{1,4}))?", text)
    if match is None or match.group(1) not in LESION_NAMES:
        raise InputError(f"--lesions is KIND=COUNT with one of the kinds {', '.join(LESION_NAMES)}, not {text!r}.")
    return [LesionRequest(match.group(1))] * int(match.group(2) or 1)


def _add_folder(sources: argparse._SubParsersAction) -> None:
    parser = sources.add_parser(
        "folder",
        help="image files: one file is one case",
        description="Every image file under SRC/normal (label 0) and SRC/abnormal (label 1) is a case; without these\n"
        "folders every image under SRC is a normal one. NIfTI, NRRD, MetaImage, PNG, JPEG or single DICOM files.\n"
        "With --normal any folders are classes, and the column 'class' says which. The classes may also lie in\n"
        "SRC/train, SRC/val and SRC/test; --split then keeps the test as it is.",
        formatter_class=_HELP,
    )
    parser.add_argument("source", metavar="SRC", help="the folder")
    parser.add_argument(
        "--patient-pattern",
        metavar="REGEX",
        help="found in each path below SRC; its first group is the patient: '(sub-[0-9]+)' (default: every case "
        "is a patient of its own)",
    )
    parser.add_argument(
        "--normal",
        action="append",
        default=[],
        metavar="FOLDER",
        help="a folder of normals (may be given again); all folders beside it are abnormal",
    )
    parser.add_argument(
        "--masks",
        metavar="DIR",
        help="masks of abnormal images, each under the path of its image below SRC or below the folder of its class; "
        "images without one are cases all the same",
    )
    add_out(parser)
    add_split(parser, published="images under SRC/test")


def _add_dicom(sources: argparse._SubParsersAction) -> None:
    parser = sources.add_parser(
        "dicom",
        help="a tree of DICOM files: one series is one case",
        description="Every image series under SRC is a case. Patients are named by a hash of their ID, never by their\n"
        "name; the paths of the files stand in the manifest as they are.",
        formatter_class=_HELP,
    )
    parser.add_argument("source", metavar="SRC", help="the folder, with any folders in it")
    parser.add_argument("--modality", metavar="CODE", help="only series of this modality: MR, CT, CR, ...")
    parser.add_argument("--description", metavar="REGEX", help="only series whose description contains this (any case)")
    parser.add_argument(
        "--salt",
        help="secret text mixed into the hash of patient IDs: the same text gives the same names in every manifest "
        "(default: a random one, so that names mean nothing outside this manifest)",
    )
    parser.add_argument("--label", type=int, choices=(0, 1), help=_LABEL_HELP)
    add_out(parser)
    add_split(parser)


def _add_phantom(sources: argparse._SubParsersAction) -> None:
    parser = sources.add_parser(
        "phantom",
        help="synthetic scans of brains or whole heads, made from real anatomy",
        description="Makes MR images of individual anatomy, contrast, coil shading and noise from the anatomy SRC,\n"
        "into the folder 'volumes' beside the manifest: of the template icbm152 (skull-stripped), or of label maps of\n"
        "heads with FreeSurfer's values, one anatomy each. Subjects are spread evenly over the heads, whose names\n"
        "stand in the column 'anatomy'. Run again with the same settings, it makes what is missing.",
        formatter_class=_HELP,
    )
    parser.add_argument(
        "source", metavar="SRC", help=f"{', '.join(ANATOMY_NAMES)}, a label map, or a folder of label maps"
    )
    parser.add_argument("--subjects", type=int, default=24, metavar="N", help="normal subjects (default 24)")
    parser.add_argument("--contrast", choices=CONTRAST_NAMES, default="t1", help="look of the images (default t1)")
    parser.add_argument("--spacing", default="2", metavar="MM", help="voxel size, or three as 1,1,3 (default 2)")
    parser.add_argument(
        "--seed", type=int, default=0, help="whole number; the same seed gives the same images (default 0)"
    )
    parser.add_argument(
        "--lesions",
        nargs="+",
        default=[],
        metavar="KIND=COUNT",
        help=f"further subjects with a lesion, by kind ({', '.join(LESION_NAMES)}): tumour=5 plaques=5",
    )
    parser.add_argument(
        "--workers", type=int, default=min(2, os.cpu_count() or 1), metavar="N", help="processes (default 2)"
    )
    parser.add_argument("--stripped", action="store_true", help="show the brain only, not the whole head")
    parser.add_argument(
        "--plaque-shapes",
        metavar="MASKS",
        help="folder of lesion masks in MNI space, or a pattern such as 'ms/mask_*.nii.gz': plaques have the shapes of "
        "their lesions (default: ellipsoids)",
    )
    splits = parser.add_mutually_exclusive_group()
    splits.add_argument(
        "--split",
        action="store_true",
        help="assign splits, by anatomy where there are several; lesions go to validate and test only",
    )
    splits.add_argument(
        "--split-anatomies",
        nargs="+",
        metavar="SPLIT=NAME,...",
        help="splits by anatomy, names or patterns: train=head_0[1-7] calibrate=head_09 validate=head_08 test=head_1*; "
        "lesions of train and calibrate, and anatomies not named, stay without a split",
    )
    parser.add_argument(
        "--supervised",
        action="store_true",
        help="with --split-anatomies: lesions of train are in train, for detectors that learn from masks",
    )
    add_out(parser)


def _add_check(sources: argparse._SubParsersAction) -> None:
    parser = sources.add_parser(
        "check",
        help="read a manifest and all its images, and say all that is wrong or odd",
        description="Prints who stands in which split and what the images are, then notes, warnings and problems.\n"
        "With problems the exit code is 2. The result of --progress json has `splits` (a list of rows), `warnings`\n"
        "and `notes`.",
        formatter_class=_HELP,
    )
    parser.add_argument("manifest", metavar="cohort.csv", type=Path, help="the manifest")
    add_progress_option(parser)
