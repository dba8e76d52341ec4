"""Artefacts: worse with severity, repeatable, and in place."""

from __future__ import annotations

import numpy as np
import pytest

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyTrainingLib.synthesis.anatomy import icbm152
from AnomalyTrainingLib.synthesis.artefacts import ARTEFACTS, SEVERITIES, degrade
from AnomalyTrainingLib.synthesis.phantom import synthesise

IN_PLANE = [name for name in ARTEFACTS if name != "missing-slices"]


@pytest.fixture(scope="module")
def scan() -> Volume:
    return synthesise(icbm152(), 1, contrast="t1", spacing=(3.0, 3.0, 4.0)).volume


def damage(scan: Volume, spoilt: Volume) -> float:
    """Root mean square change in the brain, relative to its mean."""
    brain = scan.array > 0
    change = (spoilt.array - scan.array)[brain].astype(np.float64)
    return float(np.sqrt((change**2).mean()) / scan.array[brain].mean())


@pytest.mark.parametrize("name", ARTEFACTS)
@pytest.mark.parametrize("seed", [0, 5])
def test_every_artefact_is_worse_with_severity_and_keeps_the_geometry(scan, name, seed):
    spoilt = [degrade(scan, name, severity, seed=seed) for severity in SEVERITIES]
    damages = [damage(scan, volume) for volume in spoilt]
    assert all(np.diff(damages) > 0), damages
    assert 0.005 < damages[0] < 0.35 and 0.05 < damages[-1] < 1.2, damages
    for volume in spoilt:
        assert volume.grid.same_place(scan.grid) and volume.modality == "MR"
        assert volume.array.dtype == np.float32 and np.isfinite(volume.array).all()
        assert not volume.array[scan.array == 0].any()  # stripped stays stripped


@pytest.mark.parametrize("name", ARTEFACTS)
def test_the_seed_decides_and_the_volume_given_is_left_alone(scan, name):
    before = scan.sha256()
    first, again = (degrade(scan, name, 3, seed=1).sha256() for _ in range(2))
    assert first == again != before == scan.sha256()
    if name not in ("blur", "low-resolution"):  # nothing in these is left to chance
        assert len({degrade(scan, name, 3, seed=seed).sha256() for seed in range(6)}) > 1


@pytest.mark.parametrize("name", IN_PLANE)
def test_a_single_slice_and_negative_values_are_spoilt_too(scan, name):
    single = scan.slice(scan.shape[0] // 2)
    shifted = single.with_array(single.array - 1000)
    spoilt = degrade(shifted, name, 4)
    assert spoilt.shape == single.shape
    np.testing.assert_allclose(spoilt.array + 1000, degrade(single, name, 4).array, atol=0.5)
    assert damage(single, degrade(single, name, 4)) > 0.01


def test_unusable_requests_are_refused(scan):
    with pytest.raises(InputError, match="no artefact 'rain'; known are motion"):
        degrade(scan, "rain", 1)
    for severity in (0, 6):
        with pytest.raises(InputError, match="from 1 to 5"):
            degrade(scan, "noise", severity)
    with pytest.raises(InputError, match="fewer than 10 slices"):
        degrade(scan.slice(20), "missing-slices", 1)
    with pytest.raises(InputError, match="every voxel has the value"):
        degrade(scan.with_array(np.zeros(scan.shape)), "noise", 1)
