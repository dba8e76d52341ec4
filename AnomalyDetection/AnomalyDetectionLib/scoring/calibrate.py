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
from .decision import Decision
from .findings import LeastSize
from .model import Calibration
from .scorer import RawScore, score_raw
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
    with Gathering(reducer or Reducer(), least_size or LeastSize()) as gathering:
        for done, volume in enumerate(normals, 1):
            gathering.add(volume, score_raw(detector, template, volume, device=device))
            progress(done)
        return gathering.calibration()


class Gathering:
    """The raw maps of calibration normals, gathered one by one, until they make a calibration.

    Several detectors can be calibrated in one pass over the normals, each with a gathering of its own.  Use as a
    context manager: the maps wait in a temporary folder.

    Parameters
    ----------
    reducer, least_size
        Of the calibration to be made.
    """

    def __init__(self, reducer: Reducer, least_size: LeastSize) -> None:
        self._reducer, self._least_size = reducer, least_size
        self._sketches: list[Sketch] = []
        self._kept: list[tuple[Path, tuple[int, int, int], int]] = []  # file, shape, least voxels of a finding
        self._folder = tempfile.TemporaryDirectory(prefix="calibration-")

    def __enter__(self) -> Gathering:
        return self

    def __exit__(self, *_failure: object) -> None:
        self._folder.cleanup()

    def add(self, volume: Volume, raw: RawScore) -> None:
        """Take in one normal."""
        values = raw.raw[raw.scored]
        self._sketches.append(Sketch.of(values))
        path = Path(self._folder.name) / f"{len(self._sketches)}.npz"
        np.savez(path, values=values, scored=np.packbits(raw.scored))
        self._kept.append((path, volume.shape, self._least_size.voxels(volume)))

    def calibration(self) -> Calibration:
        """Curve, volume scores, threshold and decision of the normals taken in.

        Raises
        ------
        InputError
            With fewer than two.
        """
        if len(self._sketches) < 2:
            raise InputError(f"Calibration needs at least 2 normal cases; there are {len(self._sketches)}.")
        calibrator = Calibrator.fit(self._sketches)
        scores, counts = [], []
        for path, shape, least_voxels in self._kept:
            with np.load(path, allow_pickle=False) as data:
                rarity_values = calibrator(data["values"])
                scored = np.unpackbits(data["scored"], count=int(np.prod(shape))).reshape(shape).view(bool)
            scores.append(self._reducer(rarity_values))
            rarity = np.zeros(shape, dtype=np.float32)
            rarity[scored] = rarity_values
            counts.append(count_findings(rarity, least_voxels))
        threshold = Threshold.fit(counts, self._least_size)
        normal_scores = np.sort(np.array(scores))
        return Calibration(calibrator, self._reducer, threshold, normal_scores, Decision.by_normals(normal_scores))
