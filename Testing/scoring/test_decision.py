"""Which cases are called abnormal, and that the decision travels with the calibration."""

from __future__ import annotations

import json

import numpy as np
import pytest
import simulated

from AnomalyDetectionLib.scoring.calibration import conformal_p_value
from AnomalyDetectionLib.scoring.decision import Decision
from AnomalyDetectionLib.scoring.model import Calibration, Model
from AnomalyDetectionLib.scoring.scorer import Scorer


@pytest.mark.parametrize("count", [19, 20, 38, 39, 40, 100, 199])
def test_with_enough_normals_a_case_is_called_abnormal_exactly_where_its_p_value_is_005_or_less(count: int) -> None:
    normals = np.random.default_rng(count).normal(size=count)
    decision = Decision.by_normals(normals)
    for score in np.concatenate([normals, normals + 1e-9, np.linspace(-4, 4, 200)]):
        assert decision.calls(score) == (conformal_p_value(score, normals) <= 0.05 + 1e-12), score


def test_with_fewer_normals_only_what_exceeds_all_of_them_is_called_abnormal() -> None:
    decision = Decision.by_normals(np.array([3.0, 1.0, 2.0]))
    assert not decision.calls(3.0) and decision.calls(3.000001)


def test_a_decision_survives_json_to_the_last_bit_and_nonsense_is_refused() -> None:
    for decision in (Decision.by_normals(np.array([1 / 3, 0.1])), Decision(0.7, "roc", 0.9, 0.8, 10, 5)):
        assert Decision.from_json(json.loads(json.dumps(decision.to_json()))) == decision
    good = Decision(0.7, "roc", 0.9, 0.8, 10, 5).to_json()
    for change in ({"method": "dice"}, {"score": float("nan")}, {"sensitivity": None}):
        with pytest.raises(ValueError, match="the decision threshold"):
            Decision.from_json(good | change)


def test_the_result_says_whether_the_case_is_called_abnormal(model: Model) -> None:
    scorer = Scorer(model, "cpu")
    ill = scorer.score(simulated.head(60, lesion_ras=(-30, 10, 10)))
    assert ill.abnormal is True and ill.decision == model.calibration.decision
    assert ill.volume_score >= ill.decision.score > model.calibration.normal_scores.max()
    assert scorer.score(simulated.head(20)).abnormal is False, "a calibration normal itself"


def test_a_calibration_from_before_there_were_decisions_gets_the_one_by_its_normals(model: Model) -> None:
    data = model.calibration.to_json()
    assert Calibration.from_json(data).decision == model.calibration.decision
    del data["decision"]
    assert Calibration.from_json(data).decision == Decision.by_normals(model.calibration.normal_scores)
