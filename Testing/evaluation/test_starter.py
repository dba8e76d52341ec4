"""The starter models: measured by the rules of every evaluation, and shipped as the script describes them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import simulated
from project.cmake_lists import CHECKOUT

from AnomalyDetectionLib.imaging.write import write_labels, write_volume
from AnomalyDetectionLib.models.bundle import load_bundle
from AnomalyDetectionLib.models.catalogue import CATALOGUE, described
from AnomalyDetectionLib.scoring.model import Model
from AnomalyTrainingLib.cohorts.manifest import Case, ImageSource, read_manifest, write_manifest
from AnomalyTrainingLib.evaluation.starter import DATA, STARTERS, measure, presented, ship
from AnomalyTrainingLib.training.config import read_config
from AnomalyTrainingLib.training.provenance import run_facts

SHIPPED = CHECKOUT / "AnomalyDetection" / "Resources" / "Models"


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
    listed = json.loads((SHIPPED / CATALOGUE).read_text())["models"]
    assert [(row["id"], row["title"], row["description"]) for row in listed] == [
        (starter.name, starter.title, starter.description) for starter in STARTERS
    ]
    for starter in STARTERS:
        model = load_bundle(SHIPPED / starter.name)
        assert presented(starter, model, model.info["metrics"]).info == model.info


def test_a_starter_says_beside_its_figures_that_they_are_of_one_anatomy_and_nothing_of_the_machine(
    model: Model, tmp_path: Path
) -> None:
    (starter,) = STARTERS
    run = run_facts(read_config("zscore_brain"), 3, "cpu", 12.34)
    own = replace(model, identity=replace(model.identity, id=starter.name), info={"run": run})
    ship([presented(starter, own, {"volume_auroc": 0.99, "data": "the best there are"})], tmp_path)
    (entry,) = (described(tmp_path / row["folder"]) for row in json.loads((tmp_path / CATALOGUE).read_text())["models"])
    assert entry.figures == {"volume_auroc": 0.99, "data": DATA}
    assert "one anatomy" in DATA and "one simulated anatomy only" in entry.description
    card = (entry.folder / "docs" / "README.md").read_text()
    assert card.index(entry.description) < card.index("volume_auroc: 0.99") and f"- data: {DATA}" in card
    assert set(load_bundle(entry.folder).info["run"]) == {"config", "seed", "device", "software"}
    assert not [word for word in ("processor", "threads", "seconds") if word in card]


def test_a_starter_is_shipped_again_under_the_same_hash_in_place_of_the_former(model: Model, tmp_path: Path) -> None:
    first, second = (ship([model], tmp_path)[0] for _ in range(2))
    assert first.identity == second.identity
