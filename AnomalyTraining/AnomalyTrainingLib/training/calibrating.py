"""Calibration of a run: on normals that were held out, or out of fold on those the detector is fitted to.

Cross-conformal calibration (Vovk, Annals of Mathematics and Artificial Intelligence 2015) uses every normal twice: the
final detector is fitted to all of them, and each is scored by another detector that was fitted without its fold.  The
pooled scores are not those of the final detector, and its cases were in part fitted with each other; so p-values hold
up to a mild dependence only (the guarantee is P(p <= a) <= 2 a, Barber et al., Annals of Statistics 2021, for a close
relative), in practice close to a.  The final detector has seen more normals than those of the folds and tends to score
new normals a little lower, which errs on the side of calling fewer cases abnormal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from AnomalyDetectionLib.scoring.calibrate import Gathering
from AnomalyDetectionLib.scoring.calibration import Reducer
from AnomalyDetectionLib.scoring.findings import LeastSize
from AnomalyDetectionLib.scoring.model import Calibration, Model
from AnomalyDetectionLib.scoring.raw import score_raw
from AnomalyDetectionLib.scoring.result import ModelIdentity
from AnomalyTrainingLib.cohorts.manifest import Case, load_case_volume

from .config import TrainConfig
from .roles import Roles, folds_of
from .statistics import Fitted, ProgressCallback

FitFold = Callable[[tuple[Case, ...], Path, int], Fitted]
"""Fits a detector to these normals, in this folder, as fold number such-and-such (from 1)."""


def out_of_fold(
    config: TrainConfig, roles: Roles, folder: Path, fit: FitFold, seed: int, device: str, progress: ProgressCallback
) -> Calibration:
    """Score every normal by a detector that was fitted without its fold, and calibrate on all of these scores.

    Parameters
    ----------
    folder
        Keeps the normals' raw maps, and what `fit` leaves, until the run has ended: folds that are done are not
        repeated.
    """
    with _gathering(config, folder / "maps") as gathering:
        for number, (rest, held) in enumerate(folds_of(roles.train, roles.folds, seed), 1):
            waiting = [case for case in held if case.label == 0 and not gathering.holds(case.case)]
            if not waiting:
                continue
            fitted = fit(rest, folder / str(number), number)
            stage = f"fold {number}/{roles.folds}: scoring"
            for done, case in enumerate(waiting, 1):
                volume = load_case_volume(case)
                raw = score_raw(fitted.detector, fitted.template, volume, device=device)
                gathering.add(volume, raw, case.case)
                progress(stage, done / len(waiting))
        return gathering.calibration()


def held_out(
    config: TrainConfig, fitted: Fitted, cases: tuple[Case, ...], device: str, progress: ProgressCallback
) -> Calibration:
    """Calibrate a detector on normals that it was not fitted to."""
    with _gathering(config) as gathering:
        for done, case in enumerate(cases, 1):
            volume = load_case_volume(case)
            gathering.add(volume, score_raw(fitted.detector, fitted.template, volume, device=device))
            progress("calibrating", done / len(cases))
        return gathering.calibration()


def as_model(config: TrainConfig, fitted: Fitted, calibration: Calibration, roles: Roles) -> Model:
    """The model of a fitted detector and its calibration."""
    identity = ModelIdentity(config.name, config.version, "", config.detector)
    names = "\n".join(sorted(case.case for case in roles.calibrate))
    facts: dict[str, Any] = {
        "normals": len(roles.calibrate),
        "patients": len({case.patient for case in roles.calibrate}),
        "method": f"cross-conformal, {roles.folds} folds by patient" if roles.folds else "held-out normals",
        "cases_sha256": hashlib.sha256(names.encode()).hexdigest(),
    }
    if roles.folds:
        facts["folds"] = roles.folds  # by which the baselines are calibrated alike
    info = {"training": dict(fitted.facts), "calibration": facts}
    if fitted.used:
        info["used"] = dict(fitted.used)
    return Model(identity, fitted.detector, calibration, fitted.template, info)


def _gathering(config: TrainConfig, folder: Path | None = None) -> Gathering:
    return Gathering(
        Reducer(config.volume_score.fraction, config.volume_score.least_voxels),
        LeastSize(config.findings.least_ml, config.findings.least_mm2, config.findings.least_px),
        folder,
    )
