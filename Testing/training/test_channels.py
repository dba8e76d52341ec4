"""Manifests with several channels a case: one is chosen by name, and nothing is left out silently."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from evaluation.frames import frame, save, write_cohort

from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.models.bundle import load_bundle
from AnomalyTrainingLib.evaluation.metrics_file import read_metrics

COUNTS = {"train": (6, 0), "calibrate": (4, 0), "test": (3, 3)}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest with the column `image` alone."""
    return write_cohort(tmp_path_factory.mktemp("channels") / "cohort", COUNTS)


@pytest.fixture(scope="module")
def double(plain: Path) -> Path:
    """The same cases with these images as `image_flair`, after others as `image_t1`."""
    with plain.open() as stream:
        rows = list(csv.DictReader(stream))
    manifest = plain.with_name("double.csv")
    with manifest.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["case", "patient", "image_t1", "image_flair", "label", "mask", "split"])
        writer.writeheader()
        for number, row in enumerate(rows):
            save(frame(500 + number)[0], plain.parent / f"t1_{number}.nii.gz")
            channels = {"image_t1": f"t1_{number}.nii.gz", "image_flair": row.pop("image")}
            writer.writerow({**row, **channels})
    return manifest


def run(*words: object) -> int:
    return main([str(word) for word in (*words, "--progress", "none")])


def trained(manifest: Path, out: Path, *settings: str) -> Path:
    config = manifest.with_name("config.yaml")
    sets = [word for setting in ("baselines=none", *settings) for word in ("--set", setting)]
    assert run("train", config, "--cohort", manifest, "--out", out / "run", *sets) == 0
    return out / "run" / "model"


def scores(bundle: Path, manifest: Path, out: Path) -> dict[str, float]:
    assert run("evaluate", bundle, "--cohort", manifest, "--out", out, "--no-baselines", "--resamples", 50) == 0
    return {row["case"]: row["score"] for row in read_metrics(out)["cases"]["zscore"]}


def test_the_chosen_channel_is_the_one_that_is_trained_on_and_judged(
    plain: Path, double: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_plain = trained(plain, tmp_path / "plain")
    of_flair = trained(double, tmp_path / "flair", "input.channels=[flair]")
    assert load_bundle(of_flair).detector.spec.channels == ("flair",)
    states = [load_bundle(bundle).detector.state_dict() for bundle in (of_plain, of_flair)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    judged = scores(of_flair, double, tmp_path / "judged")
    assert judged == scores(of_plain, plain, tmp_path / "judged_plain")

    t1 = double.with_name("t1.csv")
    t1.write_text(double.read_text().replace("image_flair", "note").replace("flair", "t1"))
    assert run("evaluate", of_flair, "--cohort", t1, "--out", tmp_path / "other") == 2
    said = capsys.readouterr().err
    assert "have the channel t1, and the model names 'flair'; give a manifest with the column 'image_flair'" in said
    assert not (tmp_path / "other").exists()
    assert run("score", of_flair, double, "--out", tmp_path / "scored") == 2
    assert "several channels a case (image_t1, image_flair), and scoring takes one" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["train", "crossval"])
def test_several_channels_are_refused_until_one_is_chosen(
    verb: str, double: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*settings: str) -> str:
        sets = [word for setting in settings for word in ("--set", setting)]
        config = double.with_name("config.yaml")
        assert run(verb, config, "--cohort", double, "--out", tmp_path / "out", *sets) == 2
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    assert "have the channels t1, flair, and `input.channels` names none; choose one" in said()
    assert "have the channels t1, flair, and `input.channels` names 't2'" in said("input.channels=[t2]")
    assert "'input.channels': a model looks at one channel of a case; name one" in said("input.channels=[t1, flair]")
