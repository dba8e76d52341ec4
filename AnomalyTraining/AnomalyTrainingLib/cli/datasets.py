"""Verbs of `slicer-anomaly cohort` for published data sets and layouts; where to get them: Resources/Datasets.md."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from AnomalyDetectionLib.errors import InputError

from .splitting import add_out, add_split, split

if TYPE_CHECKING:
    from AnomalyDetectionLib.cli.progress import Progress

    from ..cohorts.manifest import Case

_HELP = argparse.RawDescriptionHelpFormatter
_Read = Callable[[argparse.Namespace, Path, "Progress"], "list[Case]"]


def add_datasets(sources: argparse._SubParsersAction) -> None:
    """One sub-command for each data set."""
    for add, _ in _VERBS.values():
        add(sources)


def read(args: argparse.Namespace, out: Path, progress: Progress) -> list[Case]:
    """The cases of the data set that was named; files that belong to the manifest lie in a folder of its name."""
    return _VERBS[args.source_kind][1](args, out, progress)


def _beside(out: Path, what: str) -> Path:
    """The folder for files of this manifest only: with other options they would be others, under the same names."""
    return out.absolute().with_name(f"{out.stem}-{what}")


def _add_nih(sources: argparse._SubParsersAction) -> None:
    parser = sources.add_parser(
        "nih",
        help="NIH ChestX-ray14: chest radiographs with fourteen findings",
        description="SRC holds Data_Entry_2017_v2020.csv (or Data_Entry_2017.csv), the images in images_001/images\n"
        "to images_012/images or in images/, and, as far as wanted, train_val_list.txt, test_list.txt and\n"
        "BBox_List_2017.csv. Get it from https://nihcc.app.box.com/v/ChestXray-NIHCC (42 GB; free use, cite\n"
        "Wang et al., CVPR 2017, and acknowledge the NIH Clinical Center).\n\n"
        "Normal is 'No Finding'. Images that are not in the folder are left out. Columns that come out: findings,\n"
        "age (empty beyond 120), sex, view, boxes ('x y w h;...' in the 1024 x 1024 image) and order, the follow-up.",
        formatter_class=_HELP,
    )
    parser.add_argument("source", metavar="SRC", help="the folder with the tables")
    parser.add_argument("--images", metavar="DIR", help="the folder with the images, if they do not lie below SRC")
    parser.add_argument(
        "--finding",
        action="append",
        default=[],
        metavar="NAME",
        help="only this finding is abnormal (may be given again); images with other findings only are left out",
    )
    parser.add_argument(
        "--others-normal", action="store_true", help="with --finding: images with other findings only count as normal"
    )
    parser.add_argument("--view", action="append", default=[], choices=("PA", "AP"), help="only this view")
    parser.add_argument(
        "--box-masks",
        action="store_true",
        help="write a mask of the boxes of each boxed image into a folder beside the manifest, cohort-boxes",
    )
    add_out(parser)
    add_split(parser, published="the images of test_list.txt")


def _read_nih(args: argparse.Namespace, out: Path, progress: Progress) -> list[Case]:
    from ..cohorts.nih import cases_of_nih

    return cases_of_nih(
        args.source,
        findings=args.finding,
        others_normal=args.others_normal,
        views=args.view,
        images=args.images,
        masks=_beside(out, "boxes") if args.box_masks else None,
        accept=lambda cases: split(cases, args),
        warn=progress.warn,
        progress=lambda share: progress("reading the tables", share),
    )


def _add_brats(sources: argparse._SubParsersAction) -> None:
    parser = sources.add_parser(
        "brats",
        help="BraTS 2018 to 2024: brain tumours in four MR contrasts",
        description="SRC holds the training data of one release, in any folders: Brats18_*_flair.nii.gz,\n"
        "BraTS20_Training_001_flair.nii.gz, BraTS2021_00000_flair.nii.gz or BraTS-GLI-00000-000-t2f.nii.gz, with\n"
        "*_seg.nii.gz. Gliomas of several years are refused: they are largely the same patients under other names.\n"
        "Get it from https://www.synapse.org/brats (registration; CC BY 4.0 since 2021, cite Menze et\n"
        "al., TMI 2015 and Baid et al., 2021). Scans without segmentation are left out.\n\n"
        "Binary masks of the whole tumour are written into a folder beside the manifest, cohort-masks. Every scan is\n"
        "an abnormal case; with --slices every axial slice is one, normal where nothing is marked within --margin,\n"
        "and --split deals out the patients: normals 50 % train, 20 % calibrate, 15 % validate, 15 % test. Columns\n"
        "that come out: order (time point), site and grade where the release says them, task (GLI, MEN, MET, PED,\n"
        "SSA).",
        formatter_class=_HELP,
    )
    parser.add_argument("source", metavar="SRC", help="the folder with the scans")
    parser.add_argument(
        "--modality",
        action="append",
        default=[],
        choices=("flair", "t1", "t1c", "t2"),
        help="contrast (default flair); given again, the case has several channels, which few detectors take",
    )
    parser.add_argument("--slices", action="store_true", help="slices instead of scans")
    parser.add_argument(
        "--least-tumour", type=int, default=50, metavar="N", help="pixels that make a slice abnormal (default 50)"
    )
    parser.add_argument(
        "--margin",
        type=int,
        default=2,
        metavar="N",
        help="slices that near to tumour are left out, unless abnormal (default 2)",
    )
    parser.add_argument(
        "--least-brain",
        type=float,
        default=0.25,
        metavar="SHARE",
        help="leave out slices with less brain than this share of the largest one (default 0.25)",
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every n-th slice (default 1)")
    parser.add_argument(
        "--cavity",
        action="store_true",
        help="the resection cavity of 2024 counts as abnormal; without this, slices with nothing else are left out",
    )
    add_out(parser)
    add_split(parser)


def _read_brats(args: argparse.Namespace, out: Path, progress: Progress) -> list[Case]:
    from ..cohorts.brats import SliceRules, cases_of_brats

    rules = SliceRules(args.least_tumour, args.margin, args.least_brain, args.every) if args.slices else None
    return cases_of_brats(
        args.source,
        _beside(out, "masks"),
        modalities=tuple(dict.fromkeys(args.modality)) or ("flair",),
        slices=rules,
        cavity=args.cavity,
        accept=lambda cases: split(cases, args),
        warn=progress.warn,
        progress=lambda share: progress("writing masks", share),
    )


def _add_mura(sources: argparse._SubParsersAction) -> None:
    parser = sources.add_parser(
        "mura",
        help="MURA v1.1: radiographs of the arm and hand, normal and abnormal studies",
        description="SRC is the folder MURA-v1.1 with train_image_paths.csv, train_labeled_studies.csv, the same of\n"
        "valid, and the images. Get it from https://stanfordmlgroup.github.io/competitions/mura/ (research use\n"
        "agreement; cite Rajpurkar et al., 2018). An image has the label of its study. Columns that come out: study,\n"
        "order (image in the study), region. The secret test set is not part of it; 'valid' takes its place.",
        formatter_class=_HELP,
    )
    parser.add_argument("source", metavar="SRC", help="the folder MURA-v1.1")
    parser.add_argument(
        "--region",
        action="append",
        default=[],
        choices=("elbow", "finger", "forearm", "hand", "humerus", "shoulder", "wrist"),
        help="only this part of the body (may be given again)",
    )
    add_out(parser)
    add_split(parser, published="the images of 'valid'")


def _read_mura(args: argparse.Namespace, out: Path, progress: Progress) -> list[Case]:
    from ..cohorts.mura import cases_of_mura

    return cases_of_mura(
        args.source,
        regions=args.region,
        warn=progress.warn,
        progress=lambda share: progress("reading the tables", share),
    )


def _add_mood(sources: argparse._SubParsersAction) -> None:
    parser = sources.add_parser(
        "mood",
        help="MOOD challenge: healthy brains (MR) or abdomens (CT)",
        description="SRC holds brain_train (or abdom_train) and, as far as wanted, toy and toy_label. Get it from\n"
        "https://www.synapse.org/mood (registration; its own terms of use, cite Zimmerer et al., TMI 2022). The\n"
        "training scans are the normals; the toy cases are the test, with --split joined by normals. The challenge's\n"
        "own test cases are secret. The intensities are scaled to 0...1, also those of the CT.",
        formatter_class=_HELP,
    )
    parser.add_argument("source", metavar="SRC", help="the folder of one anatomy")
    add_out(parser)
    add_split(parser, published="the toy cases")


def _read_mood(args: argparse.Namespace, out: Path, progress: Progress) -> list[Case]:
    from ..cohorts.mood import cases_of_mood

    return cases_of_mood(args.source, warn=progress.warn, progress=lambda share: progress("reading the folders", share))


def _add_bids(sources: argparse._SubParsersAction) -> None:
    parser = sources.add_parser(
        "bids",
        help="a data set in the Brain Imaging Data Structure: anatomical scans",
        description="SRC holds sub-*/[ses-*/]anat/*_T1w.nii[.gz], and participants.tsv. Thousands of such data sets\n"
        "are on https://openneuro.org (mostly CC0). Lesion masks are files *_mask.nii[.gz] whose label or desc names\n"
        "a lesion, also those in derivatives/, and *_roi.nii[.gz]. Columns that come out: study (session), order\n"
        "(session in time), age, sex, site, the column of labels, and from JSON sidecars modality, manufacturer and\n"
        "field_strength. Left out are scans that are links to data not fetched and, without --label-column, scans\n"
        "that may show a lesion: their mask is not fetched, or is of another image of the subject.",
        formatter_class=_HELP,
    )
    parser.add_argument("source", metavar="SRC", help="the data set's folder")
    parser.add_argument(
        "--suffix",
        action="append",
        default=[],
        metavar="NAME",
        help="T1w (default), FLAIR, T2w, ...; given again, the case has several channels, which few detectors take",
    )
    parser.add_argument(
        "--entity", action="append", default=[], metavar="KEY-VALUE", help="only scans with this entity, as acq-highres"
    )
    parser.add_argument(
        "--label-column",
        metavar="COLUMN",
        help="column of participants.tsv that says who is normal (default: whose scan has no lesion mask)",
    )
    parser.add_argument(
        "--normal", action="append", default=[], metavar="VALUE", help="value of that column for normal subjects"
    )
    parser.add_argument(
        "--lesion",
        default="lesion|tumou?r",
        metavar="REGEX",
        help="found in the label or desc of lesion masks (default 'lesion|tumou?r')",
    )
    add_out(parser)
    add_split(parser)


def _read_bids(args: argparse.Namespace, out: Path, progress: Progress) -> list[Case]:
    from ..cohorts.bids import cases_of_bids

    entities = {}
    for text in args.entity:
        key, dash, value = text.partition("-")
        if not (key and dash and value):
            raise InputError(f"--entity is KEY-VALUE, as in acq-highres, not {text!r}.")
        entities[key] = value
    return cases_of_bids(
        args.source,
        suffixes=tuple(dict.fromkeys(args.suffix)) or ("T1w",),
        entities=entities,
        label_column=args.label_column,
        normal=args.normal,
        lesion=args.lesion,
        warn=progress.warn,
        progress=lambda share: progress("reading the folders", share),
    )


_VERBS: dict[str, tuple[Callable[[argparse._SubParsersAction], None], _Read]] = {
    "nih": (_add_nih, _read_nih),
    "brats": (_add_brats, _read_brats),
    "mura": (_add_mura, _read_mura),
    "mood": (_add_mood, _read_mood),
    "bids": (_add_bids, _read_bids),
}

KINDS = tuple(_VERBS)
