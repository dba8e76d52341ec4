"""The starter models: measured by the rules of every evaluation, and shipped as the script describes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import simulated
from project.cmake_lists import CHECKOUT

from AnomalyDetectionLib.imaging.write import write_labels, write_volume
from AnomalyDetectionLib.models.catalogue import CATALOGUE
from AnomalyDetectionLib.scoring.model import Model
from AnomalyTrainingLib.cohorts.manifest import Case, ImageSource, read_manifest, write_manifest
from AnomalyTrainingLib.evaluation.starter import STARTERS, measure


def case_of(folder: Path, subject: int, ill: bool) -> Case:
    """A simulated head on disk, with a bright ball and its mask where it is ill."""
    name = f"head-{subject}"
    sound = simulated.head(subject)
    volume = simulated.head(subject, lesion_ras=(-30, 10, 10)) if ill else sound
    write_volume(volume, folder / f"{name}.nii.gz")
    mask = folder / f"{name}_mask.nii.gz" if ill else None
    if mask is not None:
        write_labels((np.abs(volume.array - sound.array) > 1).astype(np.uint8), volume.grid, mask)
    covariates = {"lesion": "ball"} if ill else {}
    image = {"image": ImageSource(folder / f"{name}.nii.gz")}
    return Case(name, name, image, label=int(ill), mask=mask, split="test", covariates=covariates)


def test_the_figures_of_a_starter_come_with_the_numbers_of_cases(model: Model, tmp_path: Path) -> None:
    cases = [case_of(tmp_path, subject, ill) for subject, ill in ((30, False), (31, False), (60, True), (61, True))]
    write_manifest(cases, tmp_path / "cohort.csv")
    done: list[float] = []
    figures = measure(model, read_manifest(tmp_path / "cohort.csv"), done.append)
    assert (figures["normals"], figures["with_lesions"], figures["volume_auroc"]) == (2, 2, 1.0)
    assert figures["found_ball"] == "2 of 2" and float(figures["mean_dice"]) > 0.5
    assert figures["called_abnormal_of_with_lesions"] == 2 and figures["called_abnormal_of_normals"] in (0, 1, 2)
    assert done == [0.25, 0.5, 0.75, 1.0]


def test_the_shipped_starter_is_the_one_that_the_script_describes() -> None:
    listed = json.loads((CHECKOUT / "AnomalyDetection" / "Resources" / "Models" / CATALOGUE).read_text())["models"]
    assert [(row["id"], row["title"], row["description"]) for row in listed] == [
        (starter.name, starter.title, starter.description) for starter in STARTERS
    ]
