"""The one function behind every door: model + volume -> ScoreResult."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib.imaging.volume import Volume

from .attribution import attribute, check_explainable
from .explaining import Attribution, Explanation
from .model import Model
from .raw import BACK, Preparations, ProgressCallback, RawScore, Watch, score_prepared, unwatched
from .relabel import find_regions
from .result import ScoreResult

EXPLAINING = 0.6
"""Share of the time that an explanation takes where one is asked for; integrated gradients and occlusion take more."""


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
        explain: Explanation | None = None,
        progress: ProgressCallback = unwatched,
    ) -> ScoreResult:
        """Calibrated map, volume score, p-value and findings of one volume.

        Parameters
        ----------
        threshold
            Rarity above which voxels are findings; None for the model's default.
        case
            Name of the case in reports; the volume's own if None.
        explain
            How to explain a classifier's score by a map of what moved it; None for no explanation.

        Raises
        ------
        InputError
            If the image does not fit the model or the memory, or the model cannot be explained so.
        """
        return self.score_prepared(
            Preparations(volume), threshold=threshold, case=case, explain=explain, progress=progress
        )

    def score_prepared(
        self,
        preparations: Preparations,
        *,
        threshold: float | None = None,
        case: str | None = None,
        explain: Explanation | None = None,
        progress: ProgressCallback = unwatched,
    ) -> ScoreResult:
        """`score` of a volume that may have been made ready before, for this model or another one.

        Raises
        ------
        InputError
            As `score`.
        """
        model, volume = self.model, preparations.volume
        if explain is not None:
            check_explainable(model.detector, explain, model.identity.detector)
        share = 1.0 if explain is None else 1 - EXPLAINING
        raw = score_prepared(
            model.detector, model.template, preparations, self.device, lambda stage, part: progress(stage, share * part)
        )
        watch = Watch()
        attribution = None
        if explain is not None:
            with watch.stage("explain"):
                attribution = self._explain(preparations, explain, raw, progress)
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
            attribution=attribution,
        )

    def _explain(
        self, preparations: Preparations, explain: Explanation, raw: RawScore, progress: ProgressCallback
    ) -> Attribution:
        """What moved the score; what must be known of it is added to the notes of the raw score."""
        start = (1 - EXPLAINING) * BACK
        attribution, notes = attribute(
            self.model.detector,
            preparations.ready(self.model.detector.spec, self.model.template),
            explain,
            self.device,
            lambda part: progress("explaining", start + (BACK - start) * part),
        )
        raw.notes += [note for note in notes if note not in raw.notes]
        return attribution


def calibrated(raw: RawScore, model: Model) -> NDArray[np.float32]:
    """Rarity map of raw scores, 0 outside what was scored and where there is no map; reuses the raw map's memory."""
    if raw.image is not None:
        return raw.raw
    values = model.calibration.calibrator(raw.raw[raw.scored])
    raw.raw.fill(0)
    raw.raw[raw.scored] = values
    return raw.raw
