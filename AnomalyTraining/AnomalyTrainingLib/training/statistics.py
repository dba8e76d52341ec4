"""Fitting of statistics detectors: template, absorb, finish."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.template import Normal, Template, build_template, frame_template
from AnomalyDetectionLib.scoring.contract import Detector, InputSpec
from AnomalyDetectionLib.scoring.prepare import as_normal, check_fits, prepare
from AnomalyDetectionLib.scoring.registry import build
from AnomalyTrainingLib.cohorts.manifest import Case, load_case_volume

from .config import TrainConfig

ProgressCallback = Callable[[str, float], None]
"""Called with the stage's name and the share of that stage that is done."""

DEFAULT_TEMPLATE_MM = (2.0, 2.0, 2.0)


def _ignore(stage: str, fraction: float) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Fitted:
    """A detector that has learned, and is still to be calibrated.

    Attributes
    ----------
    facts
        What the bundle says of its training.
    used
        Hashes of what it has seen in other runs, as members of a fusion have (`models.seen.Used`).
    """

    detector: Detector
    template: Template | None
    facts: Mapping[str, Any]
    used: Mapping[str, Any] = field(default_factory=dict)


def fit_statistics(
    config: TrainConfig,
    cases: tuple[Case, ...],
    *,
    template: Template | None = None,
    on_template: Callable[[Template], None] = lambda template: None,
    progress: ProgressCallback = _ignore,
) -> Fitted:
    """Fit a statistics detector.

    Parameters
    ----------
    cases
        Normals, and abnormal cases where the detector learns from labels.
    template
        One that was built from these cases before (a resumed run); None builds it.
    on_template
        Called with the template as soon as it is built, so that a run can keep it.

    Raises
    ------
    InputError
        If a case cannot be read, or the detector needs more normals or is trained by gradient.
    """
    spec = config.input.spec()
    detector = build(config.detector, spec, config.options)
    if detector.passes == 0:
        raise InputError(f"The detector {config.detector!r} is trained by gradient, not by statistics.")
    if template is None and spec.grid != "own":
        template = make_template(spec, tuple(case for case in cases if case.label == 0), progress)
        on_template(template)
    for turn in range(detector.passes):
        _absorb(detector, template, cases, progress, f"statistics {turn + 1}/{detector.passes}")
        detector.finish()
    return Fitted(rebuilt(config, detector), template, {**training_facts(cases), **detector.facts()})


def rebuilt(config: TrainConfig, fitted: Detector) -> Detector:
    """The detector as a bundle will rebuild it, so that what is calibrated is what will score."""
    detector = build(config.detector, fitted.spec, fitted.config())
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
    patients = {name: number for number, name in enumerate(sorted({case.patient for case in cases}))}
    for done, case in enumerate(cases, 1):
        volume = load_case_volume(case)
        check_fits(volume, detector.spec)
        batch = prepare(volume, detector.spec, template).items()
        batch.label = torch.full((batch.image.shape[0],), float(case.label))
        batch.patient = torch.full((batch.image.shape[0],), patients[case.patient])
        detector.absorb(batch)
        progress(stage, done / len(cases))


def training_facts(cases: tuple[Case, ...]) -> dict[str, Any]:
    """What the bundle says of the cases a detector was fitted to: counts, no names."""
    ill = sum(case.label for case in cases)
    return {
        "normals": len(cases) - ill,
        **({"abnormal cases": ill} if ill else {}),
        "patients": len({case.patient for case in cases}),
    }
