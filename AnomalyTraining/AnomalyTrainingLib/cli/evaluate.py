"""Judge a model, and beside it the baselines, on cases it has not seen.

The cases of the split are checked first, as `cohort check` does.  Each is then scored once by every method.  The
baselines are those that were fitted with the model and lie in its bundle (or, for bundles without any and with
--refit-baselines, are fitted to the cohort's own train and calibrate normals; --no-baselines leaves them out).  DIR
gets metrics.json, scores.csv, plots (PNG) and report.html, which says in words whether the model beats each baseline
and pictures its worst failures (larger in gallery/); records/ in it holds what every method made of each case, by which
--resume goes on.

A cohort from elsewhere (--split external) is compared with the one the model was made with: case mix, images, scores of
normals, and what the model's threshold costs and finds in each group (age, sex, view, site, ...).

A case that cannot be judged does not stop the others; it is named at the end, and the exit code is then 2.

The last line of --progress json: event "result" with `out`, `report`, `cases`, `failed`, `methods`, and of the model
`auroc`, `average_precision` and `dice` (numbers or null).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from AnomalyDetectionLib.cli.folder import OutputFolder
from AnomalyDetectionLib.cli.progress import Progress, add_progress_option
from AnomalyDetectionLib.errors import InputError

from .numbers import check_seed

if TYPE_CHECKING:  # importing these takes seconds (torch, scikit-learn): only once there is something to judge
    from AnomalyDetectionLib.scoring.model import Model

    from ..cohorts.manifest import Cohort
    from ..evaluation.shift.reference import CohortSummary

SPLITS = ("train", "calibrate", "validate", "test", "external")
JUDGING_SHARE = 0.9
"""Of the time; the rest is for resampling, plots and the report."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `slicer-anomaly evaluate`."""
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="the model's folder")
    parser.add_argument("--split", choices=SPLITS, default="test", help="whose cases are judged (default: test)")
    parser.add_argument(
        "--ceiling", metavar="BUNDLE", type=Path, help="a model that may have seen lesions, shown beside"
    )
    parser.add_argument(
        "--reference",
        metavar="CSV",
        type=Path,
        help="the manifest the model was made from: report how this cohort differs (a bundle of --split external knows "
        "its own cohort, unless an earlier version made it)",
    )
    baselines = parser.add_mutually_exclusive_group()
    baselines.add_argument(
        "--refit-baselines", action="store_true", help="fit the baselines to this cohort's train and calibrate normals"
    )
    baselines.add_argument(
        "--no-baselines", action="store_true", help="judge the model alone, where another evaluation has the baselines"
    )
    parser.add_argument(
        "--artefacts",
        choices=("none", "quick", "full"),
        default="none",
        help="spoil normals with ten artefacts: quick takes 3 normals at severity 3, full all at five severities",
    )
    add_common_arguments(parser)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that `evaluate` and `crossval` share."""
    parser.add_argument("--cohort", metavar="CSV", type=Path, required=True, help="the cohort manifest")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder for the results")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    parser.add_argument(
        "--cluster",
        metavar="COLUMN",
        help="column of the manifest that the intervals draw as a whole, such as anatomy (default: patient; of "
        "crossval, its --group)",
    )
    parser.add_argument("--resamples", type=int, default=2000, metavar="N", help="of the bootstrap (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of whatever is random (default: 0)")
    parser.add_argument(
        "--subgroups", metavar="COL,COL", help="columns to divide the cases by (default: those with a few values)"
    )
    parser.add_argument(
        "--gallery",
        type=int,
        default=6,
        metavar="N",
        help="picture the N worst false positives and false negatives in the report (default: 6, at most 50)",
    )
    parser.add_argument("--resume", action="store_true", help="go on with a run that was stopped")
    add_progress_option(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate; returns the exit code."""
    check_numbers(args)

    from AnomalyDetectionLib.models.bundle import load_bundle
    from AnomalyDetectionLib.models.devices import choose_device

    from ..cohorts.checks import check_judged
    from ..cohorts.manifest import read_manifest
    from ..evaluation.outcome import write_outcome
    from ..evaluation.run import PATIENT, Settings, cases_of, check_folder, judge_cohort

    cohort = read_manifest(args.cohort)
    subgroups = chosen_subgroups(args.subgroups, cohort)
    settings = Settings(
        split=args.split,
        cluster=args.cluster or PATIENT,
        device=args.device,
        artefacts=args.artefacts,
        baselines="none" if args.no_baselines else "refitted" if args.refit_baselines else "stored",
        seed=args.seed,
        shift=args.split == "external" or args.reference is not None,
    )
    cases = cases_of(cohort, settings)
    model = load_bundle(args.bundle)
    ceiling = load_bundle(args.ceiling) if args.ceiling else None
    check_folder(model, ceiling, cohort, args.out, settings, resume=args.resume)
    choose_device(args.device, 0)
    reference = read_manifest(args.reference) if args.reference else None
    with Progress(args.progress) as progress:
        made_with = _made_with(model, reference, progress) if settings.shift else None
        checked = cohort.cases if args.refit_baselines else cases
        for oddity in check_judged(cohort, checked, progress=lambda stage, _: progress(stage, 0.0)):
            progress.warn(oddity)
        with OutputFolder(args.out) as folder:
            folder.clear_leftovers()
            judged = judge_cohort(
                model,
                cohort,
                args.out,
                settings,
                ceiling=ceiling,
                resume=args.resume,
                progress=lambda stage, fraction: progress(stage, JUDGING_SHARE * fraction),
                event=progress.event,
            )
            document = write_outcome(
                judged,
                args.out,
                model=model.identity,
                cohort=cohort,
                cases=cases,
                split=args.split,
                cluster=settings.cluster,
                subgroups=subgroups,
                resamples=args.resamples,
                seed=args.seed,
                shift_from=made_with,
                gallery=args.gallery,
                device=args.device,
                progress=lambda part: progress("resampling and picturing", JUDGING_SHARE + (1 - JUDGING_SHARE) * part),
            )
        return conclude(args.out, document, judged.failed, progress)


def _made_with(model: Model, manifest: Cohort | None, progress: Progress) -> CohortSummary | None:
    """The cohort a model was made with, by its manifest or else by what the bundle keeps of it."""
    from ..cohorts.channels import channel_of_model
    from ..evaluation.shift.reference import stored_summary, summary_of_manifest

    if manifest is None:
        return stored_summary(model)
    spec = model.detector.spec
    cohort = channel_of_model(manifest, spec.channels)
    return summary_of_manifest(cohort, spec, lambda share: progress("reading the reference cohort", 0.0))


def check_numbers(args: argparse.Namespace) -> None:
    """Refuse numbers that make no sense before anything is read."""
    if not 1 <= args.resamples <= 1_000_000:
        raise InputError(f"--resamples is a number from 1 to 1,000,000, not {args.resamples}.")
    if not 0 <= args.gallery <= 50:
        raise InputError(f"--gallery is a number from 0 to 50, not {args.gallery}.")
    check_seed(args.seed)


def chosen_subgroups(text: str | None, cohort: Cohort) -> list[str] | None:
    """The columns of `--subgroups`, or None where it is not given."""
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = sorted({name for case in cohort for name in case.covariates})
    for name in names:
        if name not in known:
            raise InputError(f"--subgroups: there is no column {name!r}; the columns are {', '.join(known) or 'none'}.")
    return names


def conclude(out: Path, document: Mapping[str, Any], failed: Mapping[str, str], progress: Progress) -> int:
    """Say what came out; returns the exit code."""
    for note in document["notes"]:
        progress.warn(note)
    name, figures = next(iter(document["methods"].items()))
    volume, voxel = figures["volume"], figures["voxel"]
    progress.say(f"{name}: {volume['normal']} normal and {volume['abnormal']} abnormal cases")
    shown = {"AUROC": volume["auroc"], "average precision": volume["average_precision"], "Dice": voxel["dice"]}
    for title, figure in shown.items():
        if figure["value"] is not None:
            between = "" if figure["low"] is None else f" ({figure['low']:.3f} to {figure['high']:.3f})"
            progress.say(f"  {title:<18}{figure['value']:.3f}{between}")
    if failed:
        progress.problem(f"{len(failed)} cases could not be judged:")
        for case, sentence in failed.items():
            progress.problem(f"  {case}: {sentence}")
    progress.say(f"See {out / 'report.html'}")
    progress.result(
        {
            "out": str(out),
            "report": str(out / "report.html"),
            "cases": volume["normal"] + volume["abnormal"],
            "failed": list(failed),
            "methods": list(document["methods"]),
            "auroc": volume["auroc"]["value"],
            "average_precision": volume["average_precision"]["value"],
            "dice": voxel["dice"]["value"],
        }
    )
    return 2 if failed else 0
