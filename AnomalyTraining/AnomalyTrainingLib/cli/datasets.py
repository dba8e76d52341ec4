"""Verbs of `slicer-anomaly cohort` for published data sets and layouts; where to get them: Resources/Datasets.md."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .splitting import add_out, add_split

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
    """The cases of the data set that was named; files that belong to a manifest lie in folders beside it."""
    return _VERBS[args.source_kind][1](args, out, progress)


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
        "--box-masks", action="store_true", help="write a mask of the boxes of each boxed image into the folder 'boxes'"
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
        masks=out.absolute().parent / "boxes" if args.box_masks else None,
        warn=progress.warn,
        progress=lambda share: progress("reading the tables", share),
    )


_VERBS: dict[str, tuple[Callable[[argparse._SubParsersAction], None], _Read]] = {
    "nih": (_add_nih, _read_nih),
}

KINDS = tuple(_VERBS)
