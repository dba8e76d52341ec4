"""Compare models that were evaluated on the same cohort, case by case.

EVAL_DIR is a folder that `slicer-anomaly evaluate` wrote (its metrics.json is read).  The models are compared on the
cases that all evaluations have: every two of them, in each figure that follows from single cases, with the interval of
the paired difference.  Where the manifests differ a warning says so; evaluations without a case in common are refused.

DIR gets comparison.html (in words, with tables and a forest plot), comparison.csv and comparison.json.

The last line of --progress json: event "result" with `folder`, `models` and `cases`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from AnomalyDetectionLib.cli.folder import OutputFolder
from AnomalyDetectionLib.cli.progress import Progress, add_progress_option
from AnomalyDetectionLib.errors import InputError

from .numbers import check_seed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `slicer-anomaly compare`."""
    parser.add_argument(
        "folders", metavar="EVAL_DIR", nargs="+", type=Path, help="folder of an evaluation; two or more"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder of the comparison")
    parser.add_argument(
        "--resamples", type=int, default=2000, metavar="N", help="draws of the bootstrap (default 2000, at least 100)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap (default 0)")
    add_progress_option(parser)


def run(args: argparse.Namespace) -> int:
    """Compare; returns the exit code."""
    if args.resamples < 100:
        raise InputError(f"--resamples is a whole number of at least 100, not {args.resamples}.")
    check_seed(args.seed)

    from AnomalyTrainingLib.evaluation.comparison import compare_evaluations, read_evaluations, write_comparison

    with Progress(args.progress) as progress:
        models = read_evaluations(args.folders)
        progress("comparing", 0.1)
        comparison = compare_evaluations(models, resamples=args.resamples, seed=args.seed)
        for note in comparison["notes"]:
            progress.warn(note)
        progress("writing", 0.8)
        with OutputFolder(args.out):
            write_comparison(comparison, args.out)
        progress("done", 1.0)
        progress.say(f"{len(models)} models compared on {comparison['cases']} cases: {args.out / 'comparison.html'}")
        progress.result({"folder": str(args.out), "models": len(models), "cases": comparison["cases"]})
    return 0
