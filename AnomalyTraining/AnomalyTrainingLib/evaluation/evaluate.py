"""A model and the baselines on the same held-out cases, judged by the same rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.scoring.findings import label_regions
from AnomalyDetectionLib.scoring.model import Model
from AnomalyDetectionLib.scoring.prepare import as_normal, prepare
from AnomalyDetectionLib.scoring.result import ScoreResult

from ..cohorts.manifest import Case, load_case_mask, load_case_volume
from .baselines import BASELINES, NormalStatistics, ScoreMap
from .metrics import (
    LesionHits,
    best_dice_oracle,
    dice_at,
    lesion_hits,
    threshold_at_false_findings,
    voxel_average_precision,
)

SCHEMA = "slicer-anomaly/metrics/1"
"""Of metrics.json; see `schemas/metrics-1.schema.json`."""


@dataclass(frozen=True, eq=False)
class Baseline:
    """A fitted baseline with the threshold its calibration normals gave it."""

    name: str
    score: ScoreMap
    threshold: float


@dataclass(frozen=True, eq=False)
class Judged:
    """One held-out case as one method sees it, in the image's own geometry (K, J, I)."""

    case: str
    score: NDArray[np.float32]
    labels: NDArray[np.int32]
    truth: NDArray[np.bool_]
    foreground: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """A held-out case, its image and what the model made of it."""

    case: Case
    volume: Volume
    result: ScoreResult


def fit_baselines(
    model: Model,
    train: Sequence[Case],
    calibrate: Sequence[Case],
    progress: Callable[[float], None] = lambda fraction: None,
) -> list[Baseline]:
    """Fit the baselines on a model's own training normals and set their thresholds on its calibration normals.

    Parameters
    ----------
    model
        One whose detector works on a template: the template is the mean image of the training normals.
    progress
        Called with the share that is done.

    Raises
    ------
    ValueError
        If the model has no template.
    InputError
        If a case cannot be read or prepared.
    """
    if model.template is None:
        raise ValueError("the baselines need the mean image of a model with a template")
    total = len(train) + 2 * len(calibrate)

    def intensities() -> Iterable[NDArray[np.float32]]:
        for done, case in enumerate(train, start=1):
            image, foreground, _ = as_normal(load_case_volume(case), model.detector.spec)
            yield image[foreground]
            progress(done / total)

    statistics = NormalStatistics.fit(model.template.image, intensities())
    scores = {name: build(statistics) for name, build in BASELINES.items()}
    maps: dict[str, list[NDArray[np.float32]]] = {name: [] for name in scores}
    foregrounds = []
    least = 1
    for done, case in enumerate(calibrate, start=1):
        volume = load_case_volume(case)
        least = model.calibration.threshold.least_size.voxels(volume)
        scored, foreground = _baseline_maps(model, scores, volume)
        foregrounds.append(foreground)
        for name, score in scored.items():
            maps[name].append(score)
        progress((len(train) + done) / total)
    fitted = []
    for done, (name, score_map) in enumerate(scores.items(), start=1):
        threshold = threshold_at_false_findings(maps[name], foregrounds, least)
        fitted.append(Baseline(name, score_map, threshold))
        progress((len(train) + len(calibrate) * (1 + done / len(scores))) / total)
    return fitted


def evaluate(
    model: Model,
    baselines: Sequence[Baseline],
    held_out: Sequence[HeldOut],
    progress: Callable[[float], None] = lambda fraction: None,
) -> dict[str, Any]:
    """Metrics of the model and of each baseline over held-out cases, as plain JSON values.

    Baselines are judged on the foreground that the model scored, in the geometry of the image.
    """
    methods: dict[str, list[Judged]] = {model.identity.detector: []}
    methods |= {baseline.name: [] for baseline in baselines}
    for done, held in enumerate(held_out, start=1):
        mask = load_case_mask(held.case, held.volume)
        truth = np.zeros(held.volume.shape, dtype=bool) if mask is None else mask
        inside = held.result.foreground | truth  # a lesion where the model does not judge counts as missed
        name, result = held.case.case, held.result
        methods[model.identity.detector].append(Judged(name, result.rarity.array, result.labels, truth, inside))
        least = model.calibration.threshold.least_size.voxels(held.volume)
        maps, _ = _baseline_maps(model, {b.name: b.score for b in baselines}, held.volume)
        for baseline in baselines:
            score = np.where(inside, maps[baseline.name], np.float32(0))
            above = (inside & (score >= baseline.threshold)).astype(np.float32)
            labels = label_regions(above, 1.0, least)
            methods[baseline.name].append(Judged(name, score, labels, truth, inside))
        progress(done / len(held_out))
    thresholds = {model.identity.detector: held_out[0].result.threshold} | {b.name: b.threshold for b in baselines}
    return {name: judge(cases, thresholds[name]) for name, cases in methods.items()}


def judge(cases: Sequence[Judged], threshold: float) -> dict[str, Any]:
    """Voxel and lesion metrics of one method.

    Average precision and Dice are over the cases with a lesion; Dice is at the threshold that was fixed on calibration
    normals, and the best Dice beside it is an oracle's.  None where there is no case to compute a figure from.
    """
    hits = [lesion_hits(case.labels, case.truth, case.foreground) for case in cases]
    ill = [case for case in cases if case.truth.any()]
    columns = ([c.score for c in ill], [c.truth for c in ill], [c.foreground for c in ill])
    oracle = best_dice_oracle(*columns) if ill else None
    normal = [hit for case, hit in zip(cases, hits, strict=True) if not case.truth.any()]
    return {
        "threshold": threshold,
        "voxel_average_precision": voxel_average_precision(*columns) if ill else None,
        "dice": dice_at(*columns, threshold) if ill else None,
        "dice_oracle": oracle[0] if oracle else None,
        "lesions": sum(hit.lesions for hit in hits),
        "lesions_found": sum(hit.found for hit in hits),
        "false_findings_per_normal": sum(h.false_findings for h in normal) / len(normal) if normal else None,
        "cases": [_case_row(case, hit) for case, hit in zip(cases, hits, strict=True)],
    }


def _case_row(case: Judged, hit: LesionHits) -> dict[str, Any]:
    return {
        "case": case.case,
        "lesions": hit.lesions,
        "lesions_found": hit.found,
        "lesion_voxels": list(hit.sizes_voxels),
        "false_findings": hit.false_findings,
    }


def _baseline_maps(
    model: Model, scores: dict[str, ScoreMap], volume: Volume
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.bool_]]:
    """Score maps in the image's geometry by name, and its foreground; prepared as for the model."""
    prepared = prepare(volume, model.detector.spec, model.template)
    image = prepared.batch.image[0, 0].numpy()
    inside = prepared.batch.foreground[0, 0].numpy()
    maps = {name: prepared.to_input(score(image, inside)) for name, score in scores.items()}
    return maps, prepared.foreground
