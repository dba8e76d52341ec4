"""What a bundle says of its making, and of how far it can be believed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import simulated

from AnomalyDetectionLib.imaging.write import write_volume
from AnomalyDetectionLib.models.card import model_card
from AnomalyDetectionLib.scoring.model import Model
from AnomalyTrainingLib.cohorts.manifest import Case, Cohort, ImageSource, write_manifest
from AnomalyTrainingLib.synthesis.cohort import SETTINGS
from AnomalyTrainingLib.training.config import read_config
from AnomalyTrainingLib.training.provenance import data_facts, run_facts


def cohort(folder: Path) -> Cohort:
    cases = []
    for n, spacing in enumerate((8.0, 8.0, 9.0)):
        path = write_volume(
            simulated.head(n, spacing=(spacing,) * 3), folder / ("phantoms" if n else "scans") / f"{n}.nii.gz"
        )
        cases.append(Case(f"secret{n}", f"p{n}", {"image": ImageSource(path)}, 0, split="train"))
    (folder / "phantoms" / SETTINGS).write_text("{}")
    return Cohort(tuple(cases), write_manifest(cases, folder / "cohort.csv"))


def test_the_data_are_described_and_phantoms_recognised_by_what_lies_beside_them(tmp_path: Path) -> None:
    made = cohort(tmp_path)
    facts = data_facts(made, made.cases)
    assert (facts["cases"], facts["patients"], facts["simulated cases"]) == (3, 3, 2)
    assert facts["voxel sizes (mm)"] == "8–9 × 8–9 × 8–9"
    assert data_facts(made, made.cases[:1])["simulated cases"] == 0
    assert "secret" not in str(facts)


def test_the_card_says_how_the_model_was_made_and_what_limits_it(model: Model, tmp_path: Path) -> None:
    made = cohort(tmp_path)
    run = run_facts(read_config("zscore_brain"), 3, "cpu", 12.34)
    curve = [[1 / n, 2 / n, 1e-4] for n in range(1, 41)]
    info = {
        "training": {"normals": 3, "best epoch": 38, "curve": curve},
        "data": data_facts(made, made.cases),
        "calibration": {"method": "cross-conformal, 5 folds by patient"},
        "run": run,
        "description": "Radiographs of left feet.",
    }
    card = model_card(replace(model, info=info))
    for said in (
        "2 of its 3 images were simulated",
        "a p-value of 0.05 stands for 5 % of normals only roughly",
        "Radiographs of left feet.",
        "seed: 3",
        "seconds since the last start: 12.3",
        '"shading_limit": 0.1',
        "| 38 | 0.02632 | 0.05263 | 0.0001 |",
        "not a medical device",
        "nothing yet: `slicer-anomaly evaluate`",
        run["software"]["torch"],
    ):
        assert said in card, said
    assert card.count("| 0.0001 |") == 10, "a table that is read, not all forty epochs"
    assert "All of its images were simulated" in model_card(
        replace(model, info=info | {"data": data_facts(made, made.cases[1:])})
    )
    assert "simulated" not in model_card(
        replace(model, info=info | {"data": data_facts(made, made.cases[:1])})
    ).replace("simulated-heads", "").replace("simulated cases: 0", "")
