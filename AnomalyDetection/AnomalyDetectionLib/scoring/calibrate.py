"""Fit rarity, volume score, p-value and thresholds on the normals of a site."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.template import Template
from AnomalyDetectionLib.imaging.volume import Volume

from .calibration import Calibrator, Reducer, Sketch
from .contract import Detector
from .findings import LeastSize
from .model import Calibration
from .scorer import score_raw
from .thresholds import Threshold, count_findings


def calibrate(
    detector: Detector,
    template: Template | None,
    normals: Iterable[Volume],
    *,
    device: str = "auto",
    reducer: Reducer | None = None,
    least_size: LeastSize | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Calibration:
    """Calibrate a fitted detector on normals it was not trained on.

    Every normal is scored once; its raw map waits in a temporary file until the curve from raw score to rarity is
    known, so memory does not grow with the number of normals.

    Parameters
    ----------
    normals
        At least two volumes of normal people.
    progress
        Called with the number of normals scored.

    Raises
    ------
    InputError
        With fewer than two normals.
    """
    reducer, least_size = reducer or Reducer(), least_size or LeastSize()
    sketches: list[Sketch] = []
    kept: list[tuple[Path, tuple[int, int, int], int]] = []  # file, shape, least voxels of a finding
    with tempfile.TemporaryDirectory(prefix="calibration-") as folder:
        for done, volume in enumerate(normals, 1):
            raw = score_raw(detector, template, volume, device=device)
            sketches.append(Sketch.of(raw.raw[raw.scored]))
            path = Path(folder) / f"{done}.npz"
            np.savez(path, values=raw.raw[raw.scored], scored=np.packbits(raw.scored))
            kept.append((path, volume.shape, least_size.voxels(volume)))
            progress(done)
        if len(sketches) < 2:
            raise InputError(f"Calibration needs at least 2 normal cases; there are {len(sketches)}.")
        calibrator = Calibrator.fit(sketches)
        scores, counts = [], []
        for path, shape, least_voxels in kept:
            with np.load(path, allow_pickle=False) as data:
                rarity_values = calibrator(data["values"])
                scored = np.unpackbits(data["scored"], count=int(np.prod(shape))).reshape(shape).view(bool)
            scores.append(reducer(rarity_values))
            rarity = np.zeros(shape, dtype=np.float32)
            rarity[scored] = rarity_values
            counts.append(count_findings(rarity, least_voxels))
    return Calibration(calibrator, reducer, Threshold.fit(counts, least_size), np.sort(np.array(scores)))
