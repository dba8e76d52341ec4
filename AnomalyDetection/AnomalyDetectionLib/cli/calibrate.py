"""Adapt a model to another scanner or site: fit its calibration again on normals from there.

The detector stays as it is; rarity, p-values and the default threshold are measured on the cohort's normal images
(label 0; none of them may have been used in training).  At least 2 are needed; 19 or more let p = 0.05 be reached.

The last line of --progress json: event "result" with `bundle`, `sha256`, `calibration_normals` and `threshold`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from AnomalyDetectionLib.errors import InputError, OutputError

from .inputs import Row, manifest_rows, missing_sentence, read_request
from .progress import Progress, add_progress_option

if TYPE_CHECKING:
    from AnomalyDetectionLib.imaging.volume import Volume

LEAST_NORMALS = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `slicer-anomaly calibrate`."""
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="the model's folder")
    parser.add_argument("--cohort", metavar="CSV", type=Path, required=True, help="manifest of normals (label 0)")
    parser.add_argument("--out", metavar="BUNDLE2", type=Path, required=True, help="the new bundle's folder")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    add_progress_option(parser)


def run(args: argparse.Namespace) -> int:
    """Calibrate; returns the exit code."""
    rows = normal_rows(args.cohort)
    if os.path.lexists(args.out):
        raise OutputError(f"{args.out}: there is something already; choose another name or remove it first.")

    from AnomalyDetectionLib.models.bundle import load_bundle, with_calibration, write_bundle
    from AnomalyDetectionLib.models.devices import choose_device
    from AnomalyDetectionLib.scoring.calibrate import calibrate

    model = load_bundle(args.bundle)
    choose_device(args.device, 0)
    with Progress(args.progress, total=len(rows)) as progress:
        if trained := sum(row.split == "train" for row in rows):
            progress.warn(
                f"{trained} of {len(rows)} cases stand in the split 'train'; if this model was trained on them, its "
                "p-values will be too small and its threshold too low: leave them out."
            )
        calibration = calibrate(
            model.detector,
            model.template,
            _volumes(rows, progress),
            device=args.device,
            reducer=model.calibration.reducer,
            least_size=model.calibration.threshold.least_size,
            progress=lambda done: progress("scored", 1.0),
        )
        calibration = replace(calibration, probability=model.calibration.probability)  # of log-odds: still the same
        written = write_bundle(with_calibration(model, calibration, provenance(rows)), args.out)
        if warning := calibration.warning():
            progress.warn(warning)
        if model.calibration.decision.method == "roc":
            progress.warn(
                "The model's decision was chosen on validation cases under its former calibration; now a case is "
                "called abnormal beyond these normals."
            )
        progress.say(
            f"{written.identity.id} {written.identity.version}: calibrated on {calibration.n} normals; "
            f"findings are above rarity {calibration.threshold.default:g}; the bundle is in {args.out}"
        )
        progress.result(
            {
                "bundle": str(args.out),
                "sha256": written.identity.sha256,
                "calibration_normals": calibration.n,
                "threshold": calibration.threshold.default,
            }
        )
    return 0


def normal_rows(manifest: Path) -> list[Row]:
    """The cases of a manifest, all of them normal.

    Raises
    ------
    InputError
        If one is not labelled 0, or there are too few.
    """
    rows = manifest_rows(manifest)
    for row in rows:
        if row.label != "0":
            said = f"the label is {row.label!r}" if row.label else "there is no label"
            raise InputError(
                f"{manifest.name}, line {row.line}: {said}; calibration takes normals only, so leave this case out "
                "or give it the label 0."
            )
    if len(rows) < LEAST_NORMALS:
        raise InputError(f"{manifest.name}: calibration needs at least {LEAST_NORMALS} normals, and there is one.")
    if missing := next(filter(None, (missing_sentence(row.request) for row in rows)), None):
        raise InputError(missing)  # now, not after the hour it takes to score those before it
    return rows


def provenance(rows: list[Row]) -> dict[str, object]:
    """What the bundle says of its calibration: a count and a hash of the cases' names, no names."""
    names = "\n".join(sorted(row.case for row in rows))
    return {"normals": len(rows), "cases_sha256": hashlib.sha256(names.encode()).hexdigest()}


def _volumes(rows: list[Row], progress: Progress) -> Iterator[Volume]:
    for index, row in enumerate(rows):
        progress.start_case(row.case, index)
        progress("scoring", 0.0)
        yield read_request(row.request)
