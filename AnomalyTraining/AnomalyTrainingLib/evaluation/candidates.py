"""The methods of an evaluation: the model, its baselines and a ceiling, each able to judge a case."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.scoring.decision import Decision
from AnomalyDetectionLib.scoring.model import Model
from AnomalyDetectionLib.scoring.raw import Preparations
from AnomalyDetectionLib.scoring.scorer import Scorer

from ..cohorts.manifest import Case
from .baselines import DESCRIPTIONS
from .baselines.store import Baselines
from .baselines.tables import CaseClassifier, Row, covariates_of, statistics_of
from .records import CaseRecord, record_of, record_of_score


@dataclass(frozen=True, eq=False)
class Candidate:
    """One method: a model that makes maps, or a judge of whole cases.

    Attributes
    ----------
    kind
        "model", "baseline", "ceiling" or "ablation".
    """

    name: str
    kind: str
    description: str
    model: Model | None = None
    classifier: CaseClassifier | None = None

    @property
    def threshold(self) -> float | None:
        """Rarity from which voxels are findings; None without a map."""
        return self.model.calibration.threshold.default if self.model else None

    @property
    def normal_scores(self) -> NDArray[np.float64]:
        """Scores of its calibration normals, float64 (n,); none of an ablation, for they are of the whole model."""
        if self.kind == "ablation":
            return np.zeros(0)
        if self.model is not None:
            return self.model.calibration.normal_scores
        assert self.classifier is not None
        return self.classifier.normal_scores

    @property
    def volume_threshold(self) -> float | None:
        """Score from which it calls a case abnormal; None without calibration normals, and for an ablation."""
        if self.kind == "ablation":
            return None  # the model's own threshold is of other scores
        if self.model is not None:
            return self.model.calibration.decision.score
        return Decision.by_normals(self.normal_scores).score if self.normal_scores.size else None


def candidates_of(model: Model, baselines: Baselines, ceiling: Model | None = None) -> list[Candidate]:
    """The methods in the order of reports: the model under its detector's name, the baselines, the ceiling."""
    name = model.identity.detector
    found = [Candidate(name, "model", f"{model.identity.id} {model.identity.version}", model)]
    for part, ablated in ablations(model).items():
        described = f"{model.identity.id} {model.identity.version}, by its own trained head for this part alone"
        found.append(Candidate(f"{name} ({part})", "ablation", described, ablated))
    for baseline in baselines.names:
        fitted = baselines.maps.get(baseline)
        classifier = baselines.cases.get(baseline)
        described = DESCRIPTIONS[baseline] + (f" ({classifier.describe()})" if classifier else "")
        found.append(Candidate(baseline, "baseline", described, fitted, classifier))
    if ceiling is not None:
        detector, taken = ceiling.identity.detector, {candidate.name for candidate in found}
        described = f"{ceiling.identity.id} {ceiling.identity.version}, which may have seen what the model has not"
        found.append(
            Candidate(f"{detector} (ceiling)" if detector in taken else detector, "ceiling", described, ceiling)
        )
    return found


def ablations(model: Model) -> dict[str, Model]:
    """The model without its clinical columns, and without its image, where it fuses the two.

    Each part has a head of its own that was trained along with the fused one (`detectors.networks.fusion`): nothing is
    masked.  They share the network, give no probability, and their p-values would be those of other scores.
    """
    if not model.detector.columns or not hasattr(model.detector, "part"):
        return {}
    found = {}
    for name, part in (("image only", "image"), ("clinical only", "clinical")):
        detector = copy.copy(model.detector)
        setattr(detector, "part", part)  # noqa: B010 - mypy takes a module's attributes for tensors
        calibration = replace(model.calibration, probability=None)
        found[name] = replace(model, detector=detector, calibration=calibration)
    return found


@dataclass(frozen=True)
class Judgement:
    """What the methods make of one case.

    Attributes
    ----------
    records
        Method name to record.
    rows
        Supervised baseline's name to what it goes by, of this case.
    failures
        Baseline's name to the sentence why it could not judge the case.
    """

    records: dict[str, CaseRecord]
    rows: dict[str, Row]
    failures: dict[str, str]


def judge_case(
    candidates: Sequence[Candidate],
    case: Case,
    volume: Volume,
    truth: NDArray[np.bool_] | None,
    *,
    cluster: str,
    device: str = "auto",
) -> Judgement:
    """Let every method judge a case; the image is prepared once for all methods that take the same input.

    Raises
    ------
    InputError
        If the model cannot judge the case; what a baseline cannot is noted.
    """
    made = Preparations(volume)
    found = Judgement({}, {}, {})
    for candidate in candidates:
        try:
            found.records[candidate.name] = _record(
                candidate, case, made, truth, cluster, device, candidates[0], found.rows
            )
        except InputError as error:
            if candidate.kind != "baseline":
                raise
            found.failures[candidate.name] = str(error)
    return found


def _record(
    candidate: Candidate,
    case: Case,
    made: Preparations,
    truth: NDArray[np.bool_] | None,
    cluster: str,
    device: str,
    main: Candidate,
    rows: dict[str, Row],
) -> CaseRecord:
    model, classifier = candidate.model, candidate.classifier
    if model is not None:
        return record_of(
            case,
            made.volume,
            Scorer(model, device).score_prepared(made, case=case.case),
            truth,
            cluster=cluster,
            reducer=model.calibration.reducer,
            volume_threshold=candidate.volume_threshold,
            least_size=model.calibration.threshold.least_size,
            conformal=candidate.kind != "ablation",
        )
    assert classifier is not None and main.model is not None
    if candidate.name == "metadata":
        row: Row = covariates_of(case.covariates)[0]
    else:
        row = statistics_of(made.volume, main.model.detector.spec)
    rows[candidate.name] = row
    score = classifier.score(row)
    return record_of_score(
        case, score, cluster=cluster, volume_threshold=candidate.volume_threshold, p_value=classifier.p_value(score)
    )
