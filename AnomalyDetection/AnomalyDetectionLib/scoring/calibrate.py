"""Fit rarity, volume score, p-value and thresholds on the normals of a site."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.template import Template
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.imaging.write import atomically

from .calibration import Calibrator, Reducer, Sketch
from .contract import Detector
from .decision import Decision
from .findings import LeastSize
from .model import Calibration
from .raw import RawScore, score_raw
from .thresholds import LEVELS, Threshold, count_findings


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
    known, so memory does not grow with the number of normals.  Of a detector that makes no map the curve is that of
    whole cases, and the volume score is the raw one.

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
    context manager.

    Parameters
    ----------
    reducer, least_size
        Of the calibration to be made.
    folder
        Where the maps wait and stay, so that a run that was stopped need not score them again; None for a temporary
        folder that goes with the gathering.
    """

    def __init__(self, reducer: Reducer, least_size: LeastSize, folder: Path | None = None) -> None:
        self._reducer, self._least_size = reducer, least_size
        self._temporary = tempfile.TemporaryDirectory(prefix="calibration-") if folder is None else None
        self._folder = Path(self._temporary.name) if self._temporary else folder or Path()
        self._count = 0

    def __enter__(self) -> Gathering:
        return self

    def __exit__(self, *_failure: object) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()

    def holds(self, name: str) -> bool:
        """Whether the normal of that name was taken in before."""
        return (self._folder / f"{name}.npz").exists()

    def add(self, volume: Volume, raw: RawScore, name: str | None = None) -> None:
        """Take in one normal, under a name of its own.

        Raises
        ------
        OutputError
            If its map cannot be kept.
        """
        self._count += 1
        if raw.image is not None:
            self._keep(name, {"image": np.array(raw.image)})
            return
        content: dict[str, NDArray] = {
            "values": raw.raw[raw.scored],
            "scored": np.packbits(raw.scored),
            "shape": np.array(volume.shape),
            "least_voxels": np.array(self._least_size.voxels(volume)),
        }
        self._keep(name, content)

    def _keep(self, name: str | None, content: dict[str, NDArray]) -> None:
        atomically(self._folder / f"{name or self._count}.npz", lambda partial: _save(partial, content))

    def calibration(self) -> Calibration:
        """Curve, volume scores, threshold and decision of the normals taken in.

        Raises
        ------
        InputError
            With fewer than two.
        """
        paths = sorted(self._folder.glob("[!.]*.npz"))
        if len(paths) < 2:
            raise InputError(f"Calibration needs at least 2 normal cases; there are {len(paths)}.")
        if "image" in _read(paths[0]):
            return self._of_cases(np.array([float(_read(path)["image"]) for path in paths]))
        calibrator = Calibrator.fit([Sketch.of(_read(path)["values"]) for path in paths])
        scores, counts = [], []
        for path in paths:
            kept = _read(path)
            shape = tuple(int(n) for n in kept["shape"])
            rarity_values = calibrator(kept["values"])
            scores.append(self._reducer(rarity_values))
            rarity = np.zeros(shape, dtype=np.float32)
            rarity[np.unpackbits(kept["scored"], count=int(np.prod(shape))).reshape(shape).view(bool)] = rarity_values
            counts.append(count_findings(rarity, int(kept["least_voxels"])))
        threshold = Threshold.fit(counts, self._least_size)
        normal_scores = np.sort(np.array(scores))
        return Calibration(calibrator, self._reducer, threshold, normal_scores, Decision.by_normals(normal_scores))

    def _of_cases(self, scores: NDArray[np.float64]) -> Calibration:
        """Of a detector without a map: no voxel is ever a finding, so no threshold of findings costs anything."""
        calibrator = Calibrator.fit([Sketch.of(np.array([score], dtype=np.float32)) for score in scores])
        threshold = Threshold.fit([np.zeros(LEVELS.size, dtype=np.int32)] * scores.size, self._least_size)
        return Calibration(calibrator, self._reducer, threshold, np.sort(scores), Decision.by_normals(scores))


def _save(path: Path, content: dict[str, NDArray]) -> None:
    with path.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **content)


def _read(path: Path) -> dict[str, NDArray]:
    with np.load(path, allow_pickle=False) as data:
        return {name: data[name] for name in data.files}
