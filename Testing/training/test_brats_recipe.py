"""The recipe `brats_autoencoder` from the release's files to an evaluation, at tiny size."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from training.published import write_nifti
from training.runs import run_here

from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.models.bundle import load_bundle

TINY = (
    "options.widths=[4, 8, 8, 8]",
    "options.latent=8",
    "input.size=[32, 32]",
    "input.spacing=[6.0, 6.0, 6.0]",
    "training.epochs=2",
    "few_normals=true",
    "training.augment.on=false",
    "baselines=[random, voxel_intensity]",
)


def write_patient(folder: Path, number: int) -> None:
    """A smooth round brain of 12 slices with a bright tumour in three of them."""
    generator = np.random.default_rng(number)
    k, j, i = np.mgrid[0:12, 0:32, 0:32]
    inside = ((j - 16) / 13) ** 2 + ((i - 16) / 11) ** 2 + ((k - 6) / 9) ** 2 < 1
    image = np.where(inside, 100 + 20 * np.sin(j / 4 + number) + generator.normal(0, 4, inside.shape), 0)
    tumour = ((j - 14) ** 2 + (i - 13) ** 2 < 30) & (k >= 5) & (k < 8)
    name = f"BraTS2021_{number:05d}"
    write_nifti(folder / name / f"{name}_flair.nii.gz", (image + 80 * tumour).astype(np.float32), 6.0)
    write_nifti(folder / name / f"{name}_seg.nii.gz", np.where(tumour, 2, 0).astype(np.uint8), 6.0)


@pytest.mark.slow
def test_slices_of_a_release_are_learnt_from_and_judged(tmp_path):
    for number in range(5):
        write_patient(tmp_path / "release", number)
    cohort, run, out = (tmp_path / name for name in ("cohort.csv", "run", "evaluation"))
    run_here(["cohort", "brats", str(tmp_path / "release"), "--slices", "--split", "--out", str(cohort)])
    changes = [part for change in TINY for part in ("--set", change)]
    trained = run_here(["train", "brats_autoencoder", "--cohort", str(cohort), "--out", str(run), *changes])
    assert trained[-1]["event"] == "result"
    assert main(["export", str(run), "--out", str(tmp_path / "model")]) == 0
    run_here(["evaluate", str(tmp_path / "model"), "--cohort", str(cohort), "--out", str(out)])
    with cohort.open(encoding="utf-8") as stream:
        tested = [row for row in csv.DictReader(stream) if row["split"] == "test"]
    with (out / "scores.csv").open(encoding="utf-8") as stream:
        scored = {row["case"]: row for row in csv.DictReader(stream)}
    assert scored.keys() == {row["case"] for row in tested}
    assert {row["case"]: row["label"] for row in tested} == {name: row["label"] for name, row in scored.items()}
    assert {"0", "1"} == {row["label"] for row in tested}
    model = load_bundle(tmp_path / "model")
    assert model.info["threshold"]["findings"].startswith("ROC of the validation voxels")
    method = json.loads((out / "metrics.json").read_text(encoding="utf-8"))["methods"]["autoencoder"]
    counted = tuple(sum(row["label"] == label for row in tested) for label in ("0", "1"))
    assert (method["volume"]["normal"], method["volume"]["abnormal"]) == counted
    assert method["voxel"]["dice"]["value"] is not None, "the tumours' masks belong to the slices"
