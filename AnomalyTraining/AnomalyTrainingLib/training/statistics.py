"""Fitting of statistics detectors: template, absorb, finish, calibrate."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.template import Normal, Template, build_template, frame_template
from AnomalyDetectionLib.scoring.calibrate import calibrate
from AnomalyDetectionLib.scoring.calibration import Reducer
from AnomalyDetectionLib.scoring.contract import Detector, InputSpec
from AnomalyDetectionLib.scoring.findings import LeastSize
from AnomalyDetectionLib.scoring.model import Model
from AnomalyDetectionLib.scoring.prepare import as_normal, check_fits, prepare
from AnomalyDetectionLib.scoring.registry import build
from AnomalyDetectionLib.scoring.result import ModelIdentity
from AnomalyTrainingLib.cohorts.manifest import Case, Cohort, load_case_volume

from .config import TrainConfig

ProgressCallback = Callable[[str, float], None]
"""Called with the stage's name and the share of that stage that is done."""

DEFAULT_TEMPLATE_MM = (2.0, 2.0, 2.0)


def _ignore(stage: str, fraction: float) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Roles:
    """The normals of a cohort by what they are used for."""

    train: tuple[Case, ...]
    calibrate: tuple[Case, ...]

    @classmethod
    def of(cls, cohort: Cohort) -> Roles:
        """Normal cases of the train and the calibrate split.

        Raises
        ------
        InputError
            If either is empty.
        """
        roles = cls(
            tuple(cohort.of(split="train", label=0)),
            tuple(cohort.of(split="calibrate", label=0)),
        )
        for name in ("train", "calibrate"):
            if not getattr(roles, name):
                raise InputError(
                    f"{cohort.path}: there is no normal case (label 0) in the split {name!r}; "
                    "make the manifest with --split, or fill in its split column."
                )
        return roles


def fit(
    config: TrainConfig,
    cohort: Cohort,
    *,
    device: str = "auto",
    template: Template | None = None,
    on_template: Callable[[Template], None] = lambda template: None,
    progress: ProgressCallback = _ignore,
) -> Model:
    """Fit and calibrate a statistics detector.

    Parameters
    ----------
    template
        One that was built from this cohort before (a resumed run); None builds it.
    on_template
        Called with the template as soon as it is built, so that a run can keep it.

    Raises
    ------
    InputError
        If a split is empty, a case cannot be read, or the detector needs more normals or is trained by gradient.
    """
    roles = Roles.of(cohort)
    spec = config.input.spec()
    detector = build(config.detector, spec, config.options)
    if detector.passes == 0:
        raise InputError(f"The detector {config.detector!r} is trained by gradient, not by statistics.")
    if template is None and spec.grid != "own":
        template = make_template(spec, roles.train, progress)
        on_template(template)
    for turn in range(detector.passes):
        _absorb(detector, template, roles.train, progress, f"statistics {turn + 1}/{detector.passes}")
        detector.finish()
    return calibrated_model(config, detector, template, roles, device, progress)


def calibrated_model(
    config: TrainConfig,
    fitted: Detector,
    template: Template | None,
    roles: Roles,
    device: str,
    progress: ProgressCallback,
) -> Model:
    """The model of a fitted detector, calibrated on the cohort's calibration normals."""
    detector = _rebuilt(config, fitted.spec, fitted)
    calibration = calibrate(
        detector,
        template,
        (load_case_volume(case) for case in roles.calibrate),
        device=device,
        reducer=Reducer(config.volume_score.fraction, config.volume_score.least_voxels),
        least_size=LeastSize(config.findings.least_ml, config.findings.least_mm2, config.findings.least_px),
        progress=lambda done: progress("calibrating", done / len(roles.calibrate)),
    )
    identity = ModelIdentity(config.name, config.version, "", config.detector)
    return Model(identity, detector, calibration, template, provenance(roles))


def _rebuilt(config: TrainConfig, spec: InputSpec, fitted: Detector) -> Detector:
    """The detector as a bundle will rebuild it, so that what is calibrated is what will score."""
    detector = build(config.detector, spec, fitted.config())
    detector.load_state_dict(fitted.state_dict(), strict=True)
    return detector.eval().requires_grad_(False)


def _normals(spec: InputSpec, cases: tuple[Case, ...]) -> Iterator[Normal]:
    for case in cases:
        volume = load_case_volume(case)
        check_fits(volume, spec)
        yield as_normal(volume, spec)


def make_template(spec: InputSpec, cases: tuple[Case, ...], progress: ProgressCallback) -> Template:
    """The average of training normals that images will be aligned with."""
    if spec.grid == "frame":
        if spec.size is None or len(spec.size) != 2:
            raise InputError("A configuration with `grid: frame` needs `size: [rows, columns]`.")
        return frame_template(_normals(spec, cases), (spec.size[0], spec.size[1]))
    return build_template(
        lambda: _normals(spec, cases),
        spec.spacing or DEFAULT_TEMPLATE_MM,
        lambda done: progress("building the template", done / len(cases)),
    )


def _absorb(
    detector: Detector, template: Template | None, cases: tuple[Case, ...], progress: ProgressCallback, stage: str
) -> None:
    for done, case in enumerate(cases, 1):
        volume = load_case_volume(case)
        check_fits(volume, detector.spec)
        detector.absorb(prepare(volume, detector.spec, template).batch)
        progress(stage, done / len(cases))


def provenance(roles: Roles) -> dict[str, Any]:
    """What the bundle says of the cases it was made from: counts and a hash of their names, no names."""
    return {
        "training": {"normals": len(roles.train), "patients": len({c.patient for c in roles.train})},
        "calibration": {
            "normals": len(roles.calibrate),
            "patients": len({c.patient for c in roles.calibrate}),
            "cases_sha256": hashlib.sha256("\n".join(sorted(c.case for c in roles.calibrate)).encode()).hexdigest(),
        },
    }
