"""Let experts read cases, and analyse what they say.

`review form` makes DIR/form.html: cases of a cohort, blinded and shuffled by --seed, with or without what the model
shows.  It is one page that needs no network and keeps its answers in the browser until its reader saves them as a file;
give each reader a copy.  DIR/key.json says which case is which: keep it to yourself.

`review analyse` takes that key and the readers' files (JSON or CSV; also the review.csv of cases exported from the
Slicer module) and writes review.html and review.json: each reader against the truth, agreement (Cohen's kappa of every
two, Fleiss' kappa and Krippendorff's alpha of all), and the model against what most readers say, with intervals by
patient.

The last line of --progress json: event "result" with `form`, `cases` (of form) or `readers`, `review` (of analyse).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from AnomalyDetectionLib.cli.folder import OutputFolder
from AnomalyDetectionLib.cli.progress import Progress, add_progress_option
from AnomalyDetectionLib.errors import InputError

from .evaluate import SPLITS
from .numbers import check_seed

MOST_SLICES = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Two modes: make a form, analyse answers."""
    modes = parser.add_subparsers(dest="mode", required=True, metavar="{form,analyse}")
    _add_form(modes)
    _add_analyse(modes)


def _add_form(modes: argparse._SubParsersAction) -> None:
    form = modes.add_parser("form", help="make a form for experts to read cases of a cohort")
    form.add_argument("bundle", metavar="BUNDLE", type=Path, help="the model's folder")
    form.add_argument("--cohort", metavar="CSV", type=Path, required=True, help="the cohort manifest")
    form.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder for form.html and key.json")
    form.add_argument("--split", choices=SPLITS, default="test", help="whose cases are read (default: test)")
    form.add_argument("--cases", type=int, metavar="N", help="take N cases, of each class its share (default: all)")
    form.add_argument("--without-map", action="store_true", help="show the images alone")
    form.add_argument("--slices", type=int, default=12, metavar="N", help="slices of a volume (default: 12)")
    form.add_argument("--title", default="Reading", help="heading of the form")
    form.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    form.add_argument("--seed", type=int, default=0, help="seed of the order (default: 0)")
    add_progress_option(form)


def _add_analyse(modes: argparse._SubParsersAction) -> None:
    analyse = modes.add_parser("analyse", help="analyse readers' answers to a form")
    analyse.add_argument("key", metavar="KEY", type=Path, help="key.json, or the folder that `review form` wrote")
    analyse.add_argument(
        "--answers", metavar="FILE", nargs="+", type=Path, default=[], help="what the readers saved, JSON or CSV"
    )
    analyse.add_argument(
        "--slicer",
        metavar="READER=DIR",
        nargs="+",
        default=[],
        help="a reader's name and the folder of cases exported with reviews from the Slicer module",
    )
    analyse.add_argument(
        "--out", metavar="DIR", type=Path, required=True, help="folder for review.html and review.json"
    )
    analyse.add_argument("--resamples", type=int, default=2000, metavar="N", help="of the bootstrap (default: 2000)")
    analyse.add_argument("--seed", type=int, default=0, help="seed of the bootstrap (default: 0)")
    add_progress_option(analyse)


def run(args: argparse.Namespace) -> int:
    """Make a form or analyse answers; returns the exit code."""
    check_seed(args.seed)
    return _form(args) if args.mode == "form" else _analyse(args)


def _form(args: argparse.Namespace) -> int:
    if args.cases is not None and args.cases < 1:
        raise InputError(f"--cases is a number from 1, not {args.cases}.")
    if not 1 <= args.slices <= MOST_SLICES:
        raise InputError(f"--slices is a number from 1 to {MOST_SLICES}, not {args.slices}.")

    from AnomalyDetectionLib.models.bundle import load_bundle
    from AnomalyDetectionLib.models.devices import choose_device

    from ..cohorts.channels import channel_of_model
    from ..cohorts.manifest import read_manifest
    from ..evaluation.reading.form import FormSettings, chosen_cases, make_form
    from ..evaluation.reading.key import FORM_NAME, KEY_NAME

    settings = FormSettings(
        args.split, args.cases, args.slices, not args.without_map, args.seed, args.device, args.title
    )
    cohort = read_manifest(args.cohort)
    chosen_cases(cohort, settings)
    model = load_bundle(args.bundle)
    cohort = channel_of_model(cohort, model.detector.spec.channels)
    choose_device(args.device, 0)
    with Progress(args.progress) as progress, OutputFolder(args.out) as folder:
        folder.clear_leftovers()
        _check_free(args.out, (FORM_NAME, KEY_NAME))
        key = make_form(model, cohort, args.out, settings, lambda share: progress("making the form", share))
        progress.say(f"{len(key.cases)} cases in {args.out / FORM_NAME}: give a copy to each reader.")
        progress.say(f"{args.out / KEY_NAME} says which case is which: keep it for `review analyse`.")
        progress.result({"form": str(args.out / FORM_NAME), "cases": len(key.cases)})
    return 0


def _check_free(out: Path, names: tuple[str, ...]) -> None:
    """Refuse to write over a form that readers may be at: their answers belong to its key."""
    for name in names:
        if (out / name).exists():
            raise InputError(f"{out / name}: there is such a file already; choose another folder, or delete it.")


def _analyse(args: argparse.Namespace) -> int:
    if not 1 <= args.resamples <= 1_000_000:
        raise InputError(f"--resamples is a number from 1 to 1,000,000, not {args.resamples}.")
    folders = _named_folders(args.slicer)

    from ..evaluation.reading.analysis import analyse
    from ..evaluation.reading.answers import read_readers
    from ..evaluation.reading.key import read_key
    from ..evaluation.reading.report import HTML_NAME, write_review

    key = read_key(args.key)
    readers = read_readers(key, args.answers, folders)
    with Progress(args.progress) as progress:
        review = analyse(key, readers, resamples=args.resamples, seed=args.seed)
        with OutputFolder(args.out):
            write_review(review, args.out)
        for sentence in review["sentences"]:
            progress.say(sentence)
        progress.say(f"See {args.out / HTML_NAME}")
        progress.result({"readers": len(readers), "review": str(args.out / HTML_NAME)})
    return 0


def _named_folders(given: list[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for text in given:
        name, separator, folder = text.partition("=")
        if not separator or not name.strip() or not folder:
            raise InputError(f"--slicer takes a reader's name and a folder, READER=DIR, not {text!r}.")
        if name.strip() in found:
            raise InputError(f"--slicer names the reader {name.strip()!r} twice.")
        found[name.strip()] = Path(folder)
    return found
