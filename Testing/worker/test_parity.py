"""One image through every door gives one map: the direct call, the command line and the worker."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.imaging.read import read_volume
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.imaging.write import write_volume
from AnomalyDetectionLib.models.bundle import load_bundle
from AnomalyDetectionLib.scoring.scorer import Scorer
from AnomalyDetectionLib.worker.process import Worker


@pytest.mark.parametrize("detector", ["zscore", "autoencoder", "fusion"])
def test_every_door_gives_the_same_map_of_an_oblique_anisotropic_volume(
    detector: str, worker: Worker, oblique: Volume, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    bundle = request.getfixturevalue(f"{detector}_bundle")
    image = write_volume(oblique, tmp_path / "schräg.nii.gz")
    volume = read_volume(image)
    assert len(set(np.round(volume.spacing, 3))) == 3 and np.count_nonzero(np.abs(volume.ijk_to_ras[:3, :3]) > 0.1) > 3

    direct = Scorer(load_bundle(bundle), "cpu").score(volume)
    arguments = ["score", str(bundle), str(image), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*arguments, "--progress", "none"]) == 0
    (report,) = (tmp_path / "out").glob("*/report.json")
    command_line = read_volume(report.with_name("score.nii.gz"))
    through_worker = worker.score(volume, bundle, device="cpu")

    inside = direct.rarity.array[direct.foreground]
    assert inside.std() > 0.1 and len(np.unique(inside)) > 1000, "the map is not constant"
    for door in (command_line, through_worker.rarity):
        assert door.grid.same_place(volume.grid)
        assert np.array_equal(door.array, direct.rarity.array)
    assert np.array_equal(read_volume(report.with_name("labels.nii.gz")).array, direct.labels)
    assert np.array_equal(through_worker.labels, direct.labels)
    said = json.loads(report.read_text(encoding="utf-8"))
    assert said["volume_score"] == direct.volume_score == through_worker.volume_score
    assert said["p_value"] == direct.p_value == through_worker.p_value
    assert len(said["findings"]) == len(direct.findings) == len(through_worker.findings)
