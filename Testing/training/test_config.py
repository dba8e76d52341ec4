"""Configurations: what is wrong is named with its key and the nearest right one, before anything starts."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.errors import InputError
from AnomalyTrainingLib.training.config import read_config, recipes

BASE = "name: x\ndetector: autoencoder\ninput: {kind: slices, size: [32, 32]}\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(BASE + text)
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch: 3", r"unknown key 'epoch' \(did you mean 'training.epochs'\?\)"),
        ("training: {epoch: 3}", r"'training.epoch' \(did you mean 'training.epochs'\?\)"),
        ("training: {augment: {rotate: 3}}", r"\(did you mean 'training.augment.rotate_degrees'\?\)"),
        ("training: {epochs: 1.5}", "'training.epochs': the value should be a valid integer"),
        ("training: {epochs: true}", "'training.epochs': the value cannot be true or false"),
        ("training: 3", "'training': the value should be a valid dictionary, not 3"),
        ("training: {augment: {on: perhaps}}", "'training.augment.on': the value should be a valid boolean"),
        ("options: {latnet: 3}", r"'options.latnet' \(did you mean 'options.latent'\?\)"),
        ("options: {latent: many}", "'options.latent': the value should be a valid integer, not 'many'"),
        ("options: {latent: true}", "'options.latent': the value cannot be true or false"),
        ("options: {widths: [4, x]}", r"'options.widths.1': the value should be a valid integer"),
        ("options: {loss: simm}", "'options.loss': the value should be 'mse' or 'ssim', not 'simm'"),
        ("options: {variational: perhaps}", "'options.variational': the value should be a valid boolean"),
        ("options: {widths: [4, 4, 4, 4, 4, 4]}", "must be multiples of 64"),
        ("threshold: {method: rok}", "'threshold.method': the value should be 'normals' or 'roc'"),
        ("calibration: {folds: 1}", "'calibration.folds'"),
        ("1: 3", "Keys should be strings"),
    ],
)
def test_what_is_wrong_is_named_at_any_depth(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said) as caught:
        read_config(written(tmp_path, text))
    assert "\n" not in str(caught.value) and str(tmp_path / "config.yaml") in str(caught.value)


def test_names_of_rules_and_detectors_are_checked_and_all_problems_said_at_once(tmp_path: Path) -> None:
    text = "name: x\ndetector: autoencodr\ninput: {intensity: mr-robst, spacing: [1, true, 2]}\nverison: 1.0.0\n"
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        read_config(tmp_path / "config.yaml")
    for part in ("'autoencoder'", "'mr-robust'", "'input.spacing'", "'version'"):
        assert part in str(caught.value)


def test_numbers_and_truth_values_that_yaml_reads_as_text_are_understood(tmp_path: Path) -> None:
    config = read_config(
        written(tmp_path, "options: {kl_weight: 1e-4, variational: 'true'}\ntraining: {learning_rate: 1e-3}")
    )
    assert read_config(written(tmp_path, "training: {augment: {on: no}}")).training.augment.on is False
    assert config.options == {"kl_weight": 1e-4, "variational": True} and config.training.learning_rate == 1e-3


def test_settings_given_beside_the_file_are_checked_alike(tmp_path: Path) -> None:
    path = written(tmp_path, "options: {latent: 32}")
    changes = ["training.epochs=3", "options.latent=64", "options.widths=[4, 8]", "input.spacing=null"]
    config = read_config(path, changes)
    assert config.training.epochs == 3 and config.options == {"latent": 64, "widths": [4, 8]}
    for change, said in [
        ("training.epoch=3", r"with training.epoch=3: unknown key .* \(did you mean 'training.epochs'\?\)"),
        ("options.loss=l1", "should be 'mse' or 'ssim'"),
        ("latent", "write a key and a value"),
        ("name.x=3", "'name' is a value, not a section"),
        ("name=[", "the value is not YAML"),
    ]:
        with pytest.raises(InputError, match=said):
            read_config(path, [change])


@pytest.mark.parametrize("verb", ["train", "crossval"])
def test_the_command_line_takes_settings_and_refuses_wrong_ones_before_it_reads_the_cohort(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: str) -> str:
        places = ["--cohort", str(tmp_path / "none.csv"), "--out", str(tmp_path / "run")]
        assert main([verb, "autoencoder_brain", *places, *arguments]) == 2
        return capsys.readouterr().err

    assert "'options.loss': the value should be 'mse' or 'ssim', not 'sism'" in said("--loss", "sism")
    assert "did you mean 'training.epochs'?" in said("--loss", "ssim", "--set", "training.epoch=3")
    assert "none.csv" in said("--loss", "ssim", "--set", "training.epochs=3", "--set", "options.latent=64")
    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--set KEY=VALUE" in shown and "--loss NAME" in shown


def test_the_shipped_recipes_are_right() -> None:
    files = resources.files("AnomalyTrainingLib") / "recipes"
    assert set(recipes()) == {path.name.removesuffix(".yaml") for path in files.iterdir() if path.name.endswith("yaml")}
    assert {"zscore_brain", "brain_restore", "chest_classifier", "nih_resnet50"} <= set(recipes())
    for name in recipes():
        # Which models are fused only the user knows.
        assert read_config(name, ["options.members=[a, b]"] if name == "brain_fusion" else []).name
