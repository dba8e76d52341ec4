"""Another threshold on a finished map gives what scoring with it would have given."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import simulated
from project.cmake_lists import CHECKOUT

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.scoring.findings import label_regions
from AnomalyDetectionLib.scoring.model import Model
from AnomalyDetectionLib.scoring.relabel import relabelled
from AnomalyDetectionLib.scoring.scorer import Scorer


def test_relabelling_gives_what_scoring_with_that_threshold_gives(model: Model) -> None:
    volume = simulated.head(54, lesion_ras=(-30.0, 10.0, 10.0))
    scorer = Scorer(model, "cpu")
    default, low = scorer.score(volume), scorer.score(volume, threshold=2.0)
    again = relabelled(default, 2.0)
    assert len(again.findings) > len(default.findings) >= 1
    assert again.findings == low.findings
    assert np.array_equal(again.labels, low.labels)
    assert again.threshold == 2.0 and again.false_findings_per_normal == low.false_findings_per_normal
    assert relabelled(again, default.threshold).findings == default.findings


@pytest.mark.parametrize("threshold", [0.0, -1.0, float("nan"), float("inf")])
def test_a_threshold_that_is_no_rarity_is_refused(model: Model, threshold: float) -> None:
    result = Scorer(model, "cpu").score(simulated.head(54))
    with pytest.raises(InputError, match="rarity above 0"):
        relabelled(result, threshold)


def test_regions_at_the_very_border_of_the_image_are_labelled_in_their_place() -> None:
    rarity = np.zeros((5, 6, 7), np.float32)
    rarity[0, 0, 0], rarity[4, 5, 6], rarity[4, 0, 3:5] = 5.0, 4.0, 3.0
    labels = label_regions(rarity, 3.0, 1)
    assert (labels[0, 0, 0], labels[4, 5, 6]) == (1, 2) and labels[4, 0, 3:5].tolist() == [3, 3]
    assert np.count_nonzero(labels) == 4
    assert not label_regions(rarity, 6.0, 1).any()


def test_relabelling_needs_no_torch() -> None:
    code = "import sys; import AnomalyDetectionLib.scoring.relabel; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT / "AnomalyDetection").returncode == 0
