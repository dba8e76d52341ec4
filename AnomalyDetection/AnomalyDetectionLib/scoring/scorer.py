"""The one function behind every door: model + volume -> ScoreResult."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib.imaging.volume import Volume

from .model import Model
from .raw import Preparations, ProgressCallback, RawScore, Watch, score_prepared, unwatched
from .relabel import find_regions
from .result import ScoreResult


class Scorer:
    """Scores volumes with one model.

    Examples
    --------
    >>> model = load_bundle("brain_t1")                                         # doctest: +SKIP
    >>> result = Scorer(model).score(read_volume("patient.nii.gz"))             # doctest: +SKIP
    >>> result.volume_score, result.p_value, [f.side for f in result.findings]  # doctest: +SKIP
    """

    def __init__(self, model: Model, device: str = "auto") -> None:
        self.model = model
        self.device = device

    def score(
        self,
        volume: Volume,
        *,
        threshold: float | None = None,
        case: str | None = None,
        progress: ProgressCallback = unwatched,
    ) -> ScoreResult:
        """Calibrated map, volume score, p-value and findings of one volume.

        Parameters
        ----------
        threshold
            Rarity above which voxels are findings; None for the model's default.
        case
            Name of the case in reports; the volume's own if None.

        Raises
        ------
        InputError
            If the image does not fit the model or the memory.
        """
        return self.score_prepared(Preparations(volume), threshold=threshold, case=case, progress=progress)

    def score_prepared(
        self,
        preparations: Preparations,
        *,
        threshold: float | None = None,
        case: str | None = None,
        progress: ProgressCallback = unwatched,
    ) -> ScoreResult:
        """`score` of a volume that may have been made ready before, for this model or another one.

        Raises
        ------
        InputError
            As `score`.
        """
        model, volume = self.model, preparations.volume
        raw = score_prepared(model.detector, model.template, preparations, self.device, progress)
        watch = Watch()
        progress("calibrating", 0.9)
        with watch.stage("calibrate"):
            rarity = calibrated(raw, model)
            volume_score = raw.image if raw.image is not None else model.calibration.reducer(rarity[raw.scored])
        progress("finding regions", 0.95)
        thresholds = model.calibration.threshold
        used = thresholds.default if threshold is None else float(threshold)
        mapped = volume.with_array(rarity, units="rarity")
        with watch.stage("findings"):
            labels, findings = find_regions(mapped, used, thresholds.least_size, raw.midline)
        warning = model.calibration.warning()
        probability = model.calibration.probability
        columns = [column.name for column in model.detector.columns]
        progress("done", 1.0)
        return ScoreResult(
            rarity=mapped,
            labels=labels,
            foreground=raw.scored,
            volume_score=volume_score,
            p_value=model.calibration.p_value(volume_score),
            calibration_n=model.calibration.n,
            threshold=used,
            false_findings_per_normal=thresholds.cost(used),
            findings=findings,
            thresholds=thresholds,
            midline=raw.midline,
            quality=raw.quality,
            model=model.identity,
            device=raw.device,
            timings=raw.timings | watch.timings,
            notes=tuple(raw.notes) + ((warning,) if warning else ()),
            case=case or volume.name,
            decision=model.calibration.decision,
            mapped=raw.image is None,
            probability=None if probability is None or raw.image is None else probability(raw.image),
            covariates={name: volume.covariates[name] for name in columns if volume.covariates.get(name)},
        )


def calibrated(raw: RawScore, model: Model) -> NDArray[np.float32]:
    """Rarity map of raw scores, 0 outside what was scored and where there is no map; reuses the raw map's memory."""
    if raw.image is not None:
        return raw.raw
    values = model.calibration.calibrator(raw.raw[raw.scored])
    raw.raw.fill(0)
    raw.raw[raw.scored] = values
    return raw.raw
