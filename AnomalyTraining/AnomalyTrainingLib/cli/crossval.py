"""Cross-validate a configuration: train and evaluate it fold by fold, each fold held out once.

The folds are made by patient (or by --group, such as anatomy or site), stratified by label; of the rest, normals are
cut off for calibration as `cohort --split` does.  The manifest's own splits do not count, but cases of the split
external are left out.  DIR gets crossval.json (figures of each fold, mean and SD) and the files of `evaluate` for all
cases together, each judged by the model that had not seen it; folds/N in it holds what was made for each fold.  A run
that was stopped goes on with --resume, as long as the same cases can be read.

The last line of --progress json: as of `evaluate`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from AnomalyDetectionLib.cli.folder import OutputFolder
from AnomalyDetectionLib.cli.progress import Progress

from .configuration import add_configuration_arguments, chosen_configuration
from .evaluate import add_common_arguments, check_numbers, chosen_subgroups, conclude
from .numbers import add_skip_unreadable_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `slicer-anomaly crossval`."""
    add_configuration_arguments(parser)
    parser.add_argument("--folds", type=int, default=5, metavar="K", help="number of folds (default: 5)")
    parser.add_argument(
        "--group",
        metavar="COLUMN",
        default="patient",
        help="column whose values are held out whole, such as anatomy or site (default: patient)",
    )
    add_skip_unreadable_argument(parser)
    add_common_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Cross-validate; returns the exit code."""
    check_numbers(args)

    from AnomalyDetectionLib.models.devices import choose_device

    from ..cohorts.channels import channel_of_config
    from ..cohorts.checks import check_cohort
    from ..cohorts.manifest import read_manifest
    from ..evaluation.crossval import Plan, check_folder, cross_validate, divide
    from ..evaluation.run import Settings
    from ..training.roles import learns_from_abnormal

    config = chosen_configuration(args)
    cohort = channel_of_config(read_manifest(args.cohort), config.input.channels)
    cluster = args.cluster or args.group
    settings = Settings(cluster=cluster, device=args.device, seed=args.seed)
    plan = Plan(
        config,
        args.folds,
        args.group,
        args.seed,
        settings,
        resamples=args.resamples,
        subgroups=chosen_subgroups(args.subgroups, cohort),
        gallery=args.gallery,
    )
    divide(plan, cohort)  # refuses what cannot be trained before a folder is made
    check_folder(plan, cohort, args.out, resume=args.resume)
    choose_device(args.device, 0)
    with Progress(args.progress) as progress:

        def watch(stage: str, share: float) -> None:
            progress(stage, 0.0)  # of the whole, checking is next to nothing

        needs = (0, 1) if learns_from_abnormal(config) else (0,)
        report = check_cohort(cohort, needs=needs, skip_unreadable=args.skip_unreadable, progress=watch)
        for oddity in report.texts("warning"):
            progress.warn(oddity)
        kept = {case.case for case in report.cohort}
        plan = replace(plan, left_out=tuple(case.case for case in cohort if case.case not in kept))
        with OutputFolder(args.out) as folder:
            folder.clear_leftovers()
            _, document, failed = cross_validate(
                plan,
                report.cohort,
                args.out,
                resume=args.resume,
                progress=progress,
                event=progress.event,
                warn=progress.warn,
            )
        return conclude(args.out, document, failed, progress)
