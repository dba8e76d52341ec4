"""Run folders: what `train` leaves behind and `export` turns into a bundle.

`run.json` says which configuration and cohort the folder belongs to and whether the run has ended; `template.npz` is
kept as soon as it is built, so that a run that was killed goes on from there; `model/` is the fitted, calibrated model.
A run by gradient also holds `checkpoints/` (last and best, and the logs) and, until it ends, `prepared/`; one with
cross-conformal calibration, until it ends, `folds/`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from AnomalyDetectionLib import __version__
from AnomalyDetectionLib.errors import InputError, OutputError
from AnomalyDetectionLib.imaging.template import Template
from AnomalyDetectionLib.models.bundle import load_bundle, read_attachments, write_bundle
from AnomalyDetectionLib.scoring.composite import Composite
from AnomalyDetectionLib.scoring.model import Model
from AnomalyDetectionLib.scoring.registry import detector_class
from AnomalyTrainingLib.cohorts.channels import channel_of_config
from AnomalyTrainingLib.cohorts.manifest import Case, Cohort

from .calibrating import as_model, held_out, out_of_fold
from .config import TrainConfig
from .deciding import decided
from .few_normals import check_enough_normals
from .fusing import fuse, without_folders
from .provenance import data_facts, run_facts
from .roles import Roles, check_folds
from .statistics import Fitted, ProgressCallback, fit_statistics

FORMAT = "anomaly-run/1"
LEFT_OUT = "left_out"

Finish = Callable[[TrainConfig, Cohort, Model, str, ProgressCallback], Model]
"""Adds to a calibrated model what its bundle shall hold beside it (config, cohort, model, device, progress):
`evaluation.baselines.fit.attach_baselines`, which this layer does not know."""


def train(
    config: TrainConfig,
    cohort: Cohort,
    out: Path | str,
    *,
    device: str = "auto",
    seed: int = 0,
    resume: bool = False,
    left_out: Sequence[str] = (),
    progress: ProgressCallback = lambda stage, fraction: None,
    events: Callable[[Mapping[str, Any]], None] = lambda fields: None,
    finish: Finish | None = None,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Model:
    """Fit a detector into a run folder and return the calibrated model.

    Parameters
    ----------
    resume
        Continue a run of the same configuration, cohort and seed; a run that has ended is returned as it is.
    left_out
        Cases of the manifest that the cohort is without, because they cannot be read.
    events
        Called with the state of training by gradient (`engine.Events`), and `fold` where it is that of a fold.
    finish
        Called with the calibrated model before it is written.
    warn
        Called with a sentence where something was not possible as configured, or the normals are few.

    Raises
    ------
    InputError
        For bad input, or a folder that holds another run.
    OutputError
        If the folder exists (without `resume`) or cannot be written.
    """
    out = Path(out)
    started = time.monotonic()
    cohort = channel_of_config(cohort, config.input.channels)
    roles = Roles.of(cohort, config)
    check_folds(cohort, roles, seed)
    few = check_enough_normals(cohort, config, roles)
    if few:
        warn(few)
    state = _begin(out, {**_identity(config, cohort, seed), LEFT_OUT: list(left_out)}, resume)
    if state["state"] == "done":
        return load_bundle(out / "model")
    fitting = _Fitting(config, roles, out, device, seed, progress, events)
    calibration = None
    if roles.folds:
        calibration = out_of_fold(config, roles, out / "folds", fitting.fold, seed, device, progress)
    fitted = fitting.final()
    if calibration is None:
        calibration = held_out(config, fitted, roles.calibrate, device, progress)
    model = as_model(config, fitted, calibration, roles)
    data = data_facts(cohort, (*roles.train, *roles.calibrate))
    training = {**model.info["training"], **({"few normals": few} if few else {})}
    model = replace(model, info={**model.info, "training": training, "data": data})
    if roles.decide:
        model, warning = decided(model, config.threshold, roles.decide, device, progress)
        if warning:
            warn(warning)
    if finish is not None and not (out / "model").exists():
        model = finish(config, cohort, model, device, progress)
    shown = without_folders(config, fitted.detector) if isinstance(fitted.detector, Composite) else config
    model = replace(model, info={**model.info, "run": run_facts(shown, seed, device, time.monotonic() - started)})
    written = write_bundle(model, out / "model") if not (out / "model").exists() else load_bundle(out / "model")
    _write_state(out, {**state, "state": "done", "model_sha256": written.identity.sha256})
    _clear(out)
    return written


@dataclass(frozen=True)
class _Fitting:
    """Fits detectors to cases of a run, each in a folder of its own."""

    config: TrainConfig
    roles: Roles
    out: Path
    device: str
    seed: int
    progress: ProgressCallback
    events: Callable[[Mapping[str, Any]], None]

    def final(self) -> Fitted:
        """The detector of the run."""
        return self._fit(self.roles.train, self.out, self.progress, self.events)

    def fold(self, cases: tuple[Case, ...], folder: Path, number: int) -> Fitted:
        """The detector of a fold."""
        name = f"fold {number}/{self.roles.folds}"
        return self._fit(
            cases,
            folder,
            lambda stage, fraction: self.progress(f"{name}: {stage}", fraction),
            lambda fields: self.events({**fields, "fold": number}),
        )

    def _fit(
        self,
        cases: tuple[Case, ...],
        folder: Path,
        progress: ProgressCallback,
        events: Callable[[Mapping[str, Any]], None],
    ) -> Fitted:
        if issubclass(detector_class(self.config.detector), Composite):
            return fuse(self.config, self.roles.calibrate, self.roles.decide, progress)
        kept = folder / "template.npz"
        common: dict[str, Any] = {
            "template": Template.from_file(kept) if kept.exists() else None,
            "on_template": lambda template: write_atomically(kept, template.to_bytes()),
            "progress": progress,
        }
        if detector_class(self.config.detector).passes > 0:
            return fit_statistics(self.config, cases, **common)
        from .gradient import fit_gradient  # Lightning and MONAI take seconds to import

        # What does not depend on a template is prepared once for all folds.
        slices = (self.out if self.config.input.grid == "own" else folder) / "prepared"
        places = (folder / "checkpoints", slices)
        common |= {"device": self.device, "seed": self.seed, "events": events}
        return fit_gradient(self.config, cases, self.roles.validate, *places, **common)


def _clear(out: Path) -> None:
    """Take away what only a run that is to be continued needs."""
    (out / "template.npz").unlink(missing_ok=True)
    for name in ("prepared", "folds"):
        shutil.rmtree(out / name, ignore_errors=True)


def export(run: Path | str, out: Path | str) -> Model:
    """Write the bundle of a run that has ended.

    Raises
    ------
    InputError
        If the folder is no run or the run has not ended.
    """
    run = Path(run)
    state = _read_state(run)
    if state is None:
        raise InputError(f"{run}: not a training run (there is no run.json in it).")
    if state["state"] != "done":
        raise InputError(f"{run}: this run has not ended; continue it with `train ... --out {run} --resume`.")
    model = run / "model"
    return write_bundle(replace(load_bundle(model), attachments=read_attachments(model)), out)


def _identity(config: TrainConfig, cohort: Cohort, seed: int) -> dict[str, Any]:
    """What must agree for a run to be continued."""
    return {
        "format": FORMAT,
        "config": config.model_dump(mode="json"),
        "cohort_sha256": hashlib.sha256(cohort.path.read_bytes()).hexdigest(),
        "seed": seed,
        "software": __version__,
    }


def check_place(config: TrainConfig, cohort: Cohort, out: Path, *, seed: int, resume: bool) -> None:
    """Refuse a folder that `train` would refuse, before anything that takes time.

    Which cases cannot be read is not known by then: of those left out, `train` alone takes note.

    Raises
    ------
    InputError, OutputError
        As `train`.
    """
    _found(out, _identity(config, cohort, seed), resume)


def _begin(out: Path, identity: dict[str, Any], resume: bool) -> dict[str, Any]:
    """The state of the run to go on with, or that of a new one, which the folder then holds."""
    state = _found(out, identity, resume)
    if state is None:
        state = {**identity, "state": "running"}
        _write_state(out, state)
    return state


def _found(out: Path, identity: dict[str, Any], resume: bool) -> dict[str, Any] | None:
    """The state of the run in a folder, which must be this one; None where the folder is empty or not there."""
    found = _read_state(out)
    if found is None:
        # Names with a dot are a lock, and what a killed run left half-written.
        if out.exists() and (not out.is_dir() or any(not entry.name.startswith(".") for entry in out.iterdir())):
            raise OutputError(f"{out}: the folder holds something other than a training run; choose an empty one.")
        return None
    if not resume:
        raise OutputError(
            f"{out}: the folder holds a training run; continue it with --resume or choose another folder."
        )
    found = {LEFT_OUT: [], **found}  # runs that were begun before it was noted do not say
    for key, value in identity.items():
        if found.get(key) == value:
            continue
        if key == LEFT_OUT:
            before, now = (", ".join(cases) or "no case" for cases in (found[key], value))
            raise InputError(
                f"{out}: the run in this folder left out {before}, this one leaves out {now}; choose another folder "
                "for this one."
            )
        name = key.removesuffix("_sha256")
        raise InputError(f"{out}: the run in this folder had another {name}; choose another folder for this one.")
    return found


def _read_state(out: Path) -> dict[str, Any] | None:
    path = out / "run.json"
    if not path.is_file():
        return None
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); choose another folder.") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise InputError(f"{path}: not a training run of this version; choose another folder.")
    return state


def _write_state(out: Path, state: dict[str, Any]) -> None:
    write_atomically(out / "run.json", (json.dumps(state, indent=2, sort_keys=True) + "\n").encode())


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}).") from error
    finally:
        partial.unlink(missing_ok=True)
