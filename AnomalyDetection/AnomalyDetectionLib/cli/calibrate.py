"""Adapt a model to another scanner or site: fit its calibration again on normals from there.

The detector stays as it is; rarity, p-values and the default threshold are measured on the cohort's normal images
(label 0; none that the model has learnt from).  At least 2 are needed; 19 or more let p = 0.05 be reached.  The new
bundle keeps hashes of them, by which `evaluate` tells that they are not held out: of the images, and of the patients
where the manifest has the column `patient`.

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
from AnomalyDetectionLib.models.seen import is_crossed, learnt_from, patient_hash, pixel_hash

from .inputs import Row, manifest_rows, missing_sentence, read_request
from .progress import Progress, add_progress_option

if TYPE_CHECKING:
    from AnomalyDetectionLib.imaging.volume import Volume
    from AnomalyDetectionLib.scoring.model import Model

LEAST_NORMALS = 2
_SHOWN = 3


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
        warn_of_training(rows, model, progress)
        normals = Normals(rows, model)
        calibration = calibrate(
            model.detector,
            model.template,
            normals.volumes(progress),
            device=args.device,
            reducer=model.calibration.reducer,
            least_size=model.calibration.threshold.least_size,
            progress=lambda done: progress("scored", 1.0),
        )
        calibration = replace(calibration, probability=model.calibration.probability)  # of log-odds: still the same
        written = write_bundle(with_calibration(model, calibration, provenance(rows), normals.hashes()), args.out)
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


def warn_of_training(rows: list[Row], model: Model, progress: Progress) -> None:
    """Point out cases that the model may have learnt from by their split, and those whose patients are not named."""
    splits = ("train", "calibrate") if is_crossed(model.info) else ("train",)
    if trained := sum(row.split in splits for row in rows):
        named = " or ".join(map(repr, splits))
        progress.warn(
            f"{trained} of {len(rows)} cases stand in the split {named}; if this model was trained on them, its "
            "p-values will be too small and its threshold too low: leave them out."
        )
    if unnamed := sum(not row.patient for row in rows):
        progress.warn(
            f"{unnamed} of {len(rows)} cases have no patient in the manifest: that another image is of theirs will not "
            "be noticed when the model is judged."
        )


class Normals:
    """Calibration normals, none of which the model has learnt from.

    Raises
    ------
    InputError
        If the model has learnt from one of the patients, as far as its bundle says.
    """

    def __init__(self, rows: list[Row], model: Model) -> None:
        patients, self._known = learnt_from(model.info)
        self._rows = rows
        self._model = f"{model.identity.id} {model.identity.version}"
        self._images: set[str] = set()
        if shared := [row.case for row in rows if row.patient and patient_hash(row.patient) in patients]:
            names = ", ".join(shared[:_SHOWN]) + (", …" if len(shared) > _SHOWN else "")
            raise InputError(
                f"{len(shared)} of {len(rows)} cases ({names}) are of patients that {self._model} has learnt from, so "
                "its p-values would be too small and its threshold too low; leave them out, or rename the patients if "
                "they are other people."
            )

    def volumes(self, progress: Progress) -> Iterator[Volume]:
        """Their images, one by one.

        Raises
        ------
        InputError
            If one cannot be read, or the model has learnt from it under another name.
        """
        for index, row in enumerate(self._rows):
            progress.start_case(row.case, index)
            progress("scoring", 0.0)
            volume = read_request(row.request)
            digest = pixel_hash(volume)
            if digest in self._known:
                raise InputError(
                    f"{row.case}: {self._model} has learnt from the very same image, so its p-values would be too "
                    "small and its threshold too low; leave this case out."
                )
            self._images.add(digest)
            yield volume

    def hashes(self) -> dict[str, list[str]]:
        """What a bundle keeps of them, once their images have been read."""
        patients = {patient_hash(row.patient) for row in self._rows if row.patient}
        return {"patients_sha256": sorted(patients), "images_sha256": sorted(self._images)}
