"""Fit a detector to the normals of a cohort.

CONFIG is a YAML file or the name of a recipe that ships with the software.  The cohort's manifest must say in its
column split which normals are for training (train) and which for calibration (calibrate); all its images and masks are
checked first, as `cohort check` does.  RUN holds the fitted model; `slicer-anomaly export RUN --out BUNDLE` makes a
bundle of it.  Where the manifest has several images a case (`image_t1`, `image_flair`), `--set input.channels=[flair]`
chooses the one to train on; the model then takes the same one of other manifests.

With fewer than 60 normals in train and calibrate together each is used for both: scored by a detector that was fitted
to the others, fold by fold, while the final one is fitted to all (`calibration: {method: auto | split | cross}`).  A
case is called abnormal beyond the calibration normals, or from a score on that separates the normal and abnormal cases
of the split validate best (`threshold: {method: normals | roc}`).

Detectors that learn from labels (classifier) or masks (unet) are fitted to the abnormal cases of the split train as
well, and validated on both classes: `cohort --split --supervised` divides patients so.  Probabilities and, with
`threshold: {method: roc, sensitivity: 0.9}` or the like, the threshold are fitted to the split validate.

Detectors trained by gradient (autoencoder) take the normals of the split validate, or else of a share of the training
patients, to tell when to stop.  A run that was stopped, or killed, goes on with --resume at the epoch it was in.  While
they train, --progress json has events "training" with `epoch`, `step` of `steps`, `train_loss`, `validation_loss` (null
within an epoch), `eta_s` and `memory_bytes`.

To fewer than 20 normals only zscore and features (nearest neighbours) are fitted, with a warning; others with
`--set few_normals=true`, to try something out, and the model card says so.

`fusion` is fitted to nobody: it adds up what models that there are already find rare (`--set
options.members=[BUNDLE,BUNDLE]`), and is calibrated on the split calibrate, which none of them may have learnt from.

At its end the baselines that `slicer-anomaly evaluate` judges the model against are fitted to the same normals and
stored with it (`baselines:` in the configuration: a list, `all` or `none`).

The last line of --progress json: event "result" with `run`, `model`, `sha256`, `training_normals` and
`calibration_normals`.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from AnomalyDetectionLib.cli.folder import OutputFolder
from AnomalyDetectionLib.cli.progress import Progress, add_progress_option
from AnomalyDetectionLib.errors import InputError, is_out_of_memory

from .configuration import add_configuration_arguments, chosen_configuration
from .numbers import add_skip_unreadable_argument, check_seed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `slicer-anomaly train`."""
    add_configuration_arguments(parser)
    parser.add_argument("--cohort", metavar="CSV", type=Path, required=True, help="the cohort manifest")
    parser.add_argument("--out", metavar="RUN", type=Path, required=True, help="folder of the training run")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was stopped")
    add_skip_unreadable_argument(parser)
    parser.add_argument("--seed", type=int, default=0, help="seed of whatever is random (default: 0)")
    add_progress_option(parser)


def run(args: argparse.Namespace) -> int:
    """Train; returns the exit code."""
    check_seed(args.seed)

    from AnomalyDetectionLib.models.devices import choose_device
    from AnomalyTrainingLib.cohorts.channels import channel_of_config
    from AnomalyTrainingLib.cohorts.checks import check_cohort
    from AnomalyTrainingLib.cohorts.manifest import read_manifest
    from AnomalyTrainingLib.evaluation.baselines.fit import attach_baselines
    from AnomalyTrainingLib.training.few_normals import check_enough_normals
    from AnomalyTrainingLib.training.roles import Roles
    from AnomalyTrainingLib.training.run import check_place, train

    config = chosen_configuration(args)
    cohort = channel_of_config(read_manifest(args.cohort), config.input.channels)
    roles = Roles.of(cohort, config)  # refuses a cohort without the normals it needs before a folder is made
    check_enough_normals(cohort, config, roles)
    check_place(config, cohort, args.out, seed=args.seed, resume=args.resume)
    choose_device(args.device, 0)
    needs = (0, 1) if any(case.label for case in roles.train) else (0,)
    with Progress(args.progress, by_stage=True) as progress:
        if notice := roles.notice():
            progress.say(notice)
        report = check_cohort(cohort, needs=needs, skip_unreadable=args.skip_unreadable, progress=progress)
        for oddity in report.texts("warning"):
            progress.warn(oddity)
        check_enough_normals(report.cohort, config, Roles.of(report.cohort, config))
        kept = {case.case for case in report.cohort}
        with _nothing_left(args.out), _enough_memory(config.training.batch), OutputFolder(args.out) as folder:
            folder.clear_leftovers()
            model = train(
                config,
                report.cohort,
                args.out,
                device=args.device,
                seed=args.seed,
                resume=args.resume,
                left_out=[case.case for case in cohort if case.case not in kept],
                progress=progress,
                events=lambda fields: progress.event("training", **fields),
                warn=progress.warn,
                finish=attach_baselines,
            )
        facts = model.info["training"]
        for warning in (model.calibration.warning(), facts.get("warning"), facts.get("clinical warning")):
            if warning:
                progress.warn(warning)
        normals = model.info["training"]["normals"]
        progress.say(
            f"{config.name} {config.version}: {config.detector} fitted to {normals} normals, "
            f"calibrated on {model.calibration.n}, in {args.out}"
        )
        progress.say(f"Next: slicer-anomaly export {args.out} --out BUNDLE")
        progress.result(
            {
                "run": str(args.out),
                "model": model.identity.id,
                "sha256": model.identity.sha256,
                "training_normals": normals,
                "calibration_normals": model.calibration.n,
            }
        )
    return 0


@contextmanager
def _enough_memory(batch: int) -> Iterator[None]:
    """Say what helps where training runs out of memory."""
    try:
        yield
    except Exception as error:
        if isinstance(error, InputError) or not is_out_of_memory(error):
            raise
        raise InputError(
            f"There is not enough memory to train with batches of {batch}; lower training.batch or input.size in the "
            "configuration, or choose another --device."
        ) from error


@contextmanager
def _nothing_left(out: Path) -> Iterator[None]:
    """Take a new run's folder away again where bad input ends it before there is anything worth going on from.

    The mended input would make another run, and the folder would then refuse it.
    """
    new = not out.exists()
    try:
        yield
    except InputError:
        if new and out.is_dir() and [path.name for path in out.iterdir()] == ["run.json"]:
            shutil.rmtree(out)
        raise
