"""The recipes for ChestX-ray14 and MURA, from the data sets as they are published to an evaluation, at tiny size."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from training.published import MURA_STUDIES, nih_row, write_mura, write_nih
from training.runs import run_here

from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.models.bundle import load_bundle
from AnomalyTrainingLib.cohorts.manifest import read_manifest
from AnomalyTrainingLib.training.config import read_config

TINY = ("input.size=[64, 64]", "training.epochs=1", "training.warmup_epochs=0", "training.batch=8")


def nih(folder: Path) -> Path:
    rows = [nih_row(f"{number:08d}_000.png", "Mass" if number % 2 else "No Finding") for number in range(44)]
    return write_nih(folder, rows, test=[row.split(",")[0] for row in rows[:4]])


def mura(folder: Path) -> Path:
    wrists = [("train", "WRIST", number, 1, number % 2, 1) for number in range(12, 42)]
    return write_mura(folder, [*MURA_STUDIES, *wrists])


RECIPES = [
    ("nih_resnet50", "nih", nih, "resnet50"),
    ("nih_densenet121", "nih", nih, "densenet121"),
    ("mura_densenet169", "mura", mura, "densenet169"),
]


@pytest.mark.parametrize("recipe", [name for name, *_ in RECIPES])
def test_recipes_have_the_settings_of_the_paper(recipe: str) -> None:
    config = read_config(recipe)
    training = config.training
    assert (config.input.size, config.threshold.method) == ((224, 224), "roc")
    assert (training.learning_rate, training.batch, training.schedule, training.patience) == (1e-4, 32, "plateau", 10)
    assert config.options["weights"] == "random", "no package carries those of ImageNet"
    assert config.options["dropout"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "kind", "published", "network"), RECIPES)
def test_a_published_data_set_is_learnt_from_and_judged_on_its_own_test(
    recipe: str, kind: str, published: Callable[[Path], Path], network: str, tmp_path: Path
) -> None:
    source = published(tmp_path / "published")
    cohort, run, bundle, out = (tmp_path / name for name in ("cohort.csv", "run", "model", "evaluation"))
    run_here(["cohort", kind, str(source), "--split", "--supervised", "--out", str(cohort)])
    changes = [part for change in TINY for part in ("--set", change)]
    device = ["--device", "cpu"]
    run_here(["train", recipe, "--cohort", str(cohort), "--out", str(run), *changes, *device])
    assert main(["export", str(run), "--out", str(bundle)]) == 0
    shutil.rmtree(run)  # its checkpoints are 300 MB with ResNet-50
    run_here(["evaluate", str(bundle), "--cohort", str(cohort), "--out", str(out), "--resamples", "50", *device])

    model, cases = load_bundle(bundle), read_manifest(cohort)
    assert model.detector.config()["network"] == network
    assert model.info["training"]["starting weights"] == "random"
    assert model.info["training"]["abnormal cases"] == len(cases.of(split="train", label=1))
    document = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    judged = {row["case"]: row["label"] for row in document["cases"]["classifier"]}
    assert judged == {case.case: case.label for case in cases.of(split="test")} and set(judged.values()) == {0, 1}
    shutil.rmtree(bundle)
