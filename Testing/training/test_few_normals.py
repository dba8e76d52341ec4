"""Fewer than 20 normals: which detectors are still fitted, and what is said of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training.runs import run_here, train_arguments, write_cohort

from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.errors import InputError
from AnomalyTrainingLib.cohorts.manifest import Case, Cohort, ImageSource
from AnomalyTrainingLib.training.config import CalibrationSection, TrainConfig
from AnomalyTrainingLib.training.few_normals import check_enough_normals
from AnomalyTrainingLib.training.roles import Roles

INPUT = "input: {kind: slices, modalities: [MR], grid: own, spacing: [8.0, 8.0, 8.0], size: [32, 32]}"
AUTOENCODER = f"""
name: tiny
detector: autoencoder
options: {{widths: [4, 8], latent: 8}}
{INPUT}
training: {{epochs: 1, batch: 8}}
calibration: {{method: split}}
baselines: none
"""
NEAREST = f"""
name: tiny
detector: features
options: {{backbones: [resnet18], levels: [2], weights: random, components: 8, stride: 4, bank: 1000, neighbours: 1}}
{INPUT}
calibration: {{method: split}}
baselines: none
"""


def said(train: int, calibrate: int, method: str = "split", **settings: Any) -> str | None:
    """What is said of a detector that is to be fitted to a cohort of normals."""
    splits = ["train"] * train + ["calibrate"] * calibrate + ["validate"]
    cases = [
        Case(f"c{n}", f"p{n}", {"image": ImageSource(Path("x"))}, 0, split=split) for n, split in enumerate(splits)
    ]
    config = TrainConfig(name="x", calibration=CalibrationSection(method=method), **settings)  # type: ignore[arg-type]
    cohort = Cohort(tuple(cases), Path("cohort.csv"))
    return check_enough_normals(cohort, config, Roles.of(cohort, config))


def test_twenty_normals_are_enough_and_those_of_cross_conformal_calibration_count() -> None:
    assert said(20, 5, detector="autoencoder") is None
    assert said(12, 8, "cross", detector="autoencoder") is None
    for train, calibrate, method, count in ((19, 30, "split", 19), (12, 7, "cross", 19)):
        with pytest.raises(InputError, match=rf"^cohort.csv: autoencoder would be fitted to only {count} normals"):
            said(train, calibrate, method, detector="autoencoder")


@pytest.mark.parametrize("detector", ["denoising", "restore", "synthlesion", "features"])
def test_networks_and_gaussians_are_refused_unless_it_is_asked_for(detector: str) -> None:
    settings: dict[str, Any] = {"detector": detector, "options": {"method": "gaussian"}}
    with pytest.raises(InputError, match=r"take zscore, or features with `method: knn`.*few_normals=true"):
        said(3, 3, **settings)
    assert "which `few_normals` allowed" in (said(3, 3, few_normals=True, **settings) or "")
    assert said(20, 3, few_normals=True, **settings) is None


def test_zscore_and_nearest_neighbours_are_fitted_with_a_warning_and_a_fusion_is_not_counted() -> None:
    for settings in ({"detector": "zscore"}, {"detector": "features"}):
        assert "fitted to only 5 normals, fewer than 20: what it finds rare" in (said(5, 2, **settings) or "")
        assert said(20, 2, **settings) is None
    assert said(5, 2, detector="fusion") is None
    with pytest.raises(InputError, match="features would be fitted to only 5 normals"):
        said(5, 2, detector="features", options={"weights": "self"})


def test_a_network_is_refused_before_an_image_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cohort = write_cohort(tmp_path, AUTOENCODER)
    for image in tmp_path.glob("*.nii.gz"):
        image.write_bytes(b"no image")
    assert main([*train_arguments(cohort, tmp_path / "run"), "--progress", "none"]) == 2
    assert "fitted to only 3 normals" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_crossval_refuses_folds_that_leave_too_few_before_an_image_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = write_cohort(tmp_path, AUTOENCODER)
    for image in tmp_path.glob("*.nii.gz"):
        image.write_bytes(b"no image")
    arguments = ["crossval", tmp_path / "config.yaml", "--cohort", cohort, "--out", tmp_path / "out", "--folds", "2"]
    assert main([*map(str, arguments), "--progress", "none"]) == 2
    said = capsys.readouterr().err
    assert f"Fold 1 of 2: {cohort}: autoencoder would be fitted to only" in said and not (tmp_path / "out").exists()


@pytest.mark.parametrize(("config", "more"), [(AUTOENCODER, ["--set", "few_normals=true"]), (NEAREST, [])])
def test_the_warning_is_given_once_and_stands_on_the_card(config: str, more: list[str], tmp_path: Path) -> None:
    cohort = write_cohort(tmp_path, config)
    events = run_here([*train_arguments(cohort, tmp_path / "run"), *more])
    warnings = [event["message"] for event in events if event["event"] == "warning"]
    (few,) = [text for text in warnings if "fitted to only 3 normals" in text]
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "bundle")]) == 0
    card = (tmp_path / "bundle" / "docs" / "README.md").read_text(encoding="utf-8")
    assert card.count(few) == 1 and ("few_normals" in few) == bool(more)
