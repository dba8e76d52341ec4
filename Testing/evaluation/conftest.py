"""A small model of simulated single images with its baselines, trained once by the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from evaluation.frames import write_cohort

COUNTS = {"train": (8, 0), "calibrate": (6, 0), "validate": (4, 4), "test": (5, 5)}
COLUMNS = {"age": ["40", "51", "62", "", "73"], "sex": ["F", "M"], "site": ["north", "south", "north"]}


@dataclass(frozen=True)
class Trained:
    """A cohort and the bundle that was made from it."""

    manifest: Path
    run: Path
    bundle: Path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    from AnomalyDetectionLib.cli.main import main

    folder = tmp_path_factory.mktemp("frames")
    manifest = write_cohort(folder / "cohort", COUNTS, columns=COLUMNS)
    config = str(manifest.with_name("config.yaml"))
    arguments = ["train", config, "--cohort", str(manifest), "--out", str(folder / "run"), "--progress", "none"]
    assert main(arguments) == 0
    assert main(["export", str(folder / "run"), "--out", str(folder / "bundle")]) == 0
    return Trained(manifest, folder / "run", folder / "bundle")
