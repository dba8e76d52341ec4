"""An empty scene, and results of simulated heads in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import simulated

import harness
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.scoring.model import Model
from AnomalyDetectionLib.scoring.result import ScoreResult
from AnomalyDetectionLib.scoring.scorer import Scorer

LESION = (-30.0, 10.0, 10.0)


@pytest.fixture
def scene() -> Iterator[Any]:
    """Slicer's scene, empty before and after."""
    harness.start()
    import slicer

    slicer.mrmlScene.Clear()
    yield slicer.mrmlScene
    slicer.mrmlScene.Clear()


@pytest.fixture(scope="session")
def head() -> Volume:
    """A left-handed head with a bright lesion in the patient's left."""
    return simulated.head(70, lesion_ras=LESION, flips=(-1, 1, 1))


@pytest.fixture(scope="session")
def result(model: Model, head: Volume) -> ScoreResult:
    return Scorer(model).score(head)


def add_volume(volume: Volume, name: str = "head") -> Any:
    """The volume as a node of the scene."""
    import slicer

    return slicer.util.addVolumeFromArray(np.array(volume.array), volume.ijk_to_ras, name)
