"""A detector that judges whole images, with clinical columns, goes through every door: a score and no map."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import SimpleITK as sitk

from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.read import read_volume
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.models.bundle import load_bundle, write_bundle
from AnomalyDetectionLib.scoring.calibrate import calibrate
from AnomalyDetectionLib.scoring.calibration import conformal_p_value
from AnomalyDetectionLib.scoring.contract import InputSpec
from AnomalyDetectionLib.scoring.covariates import ClinicalColumn, encode
from AnomalyDetectionLib.scoring.model import Calibration, Model
from AnomalyDetectionLib.scoring.probability import Probability
from AnomalyDetectionLib.scoring.registry import build
from AnomalyDetectionLib.scoring.result import ModelIdentity
from AnomalyDetectionLib.scoring.scorer import Scorer
from AnomalyDetectionLib.worker.process import Worker
from AnomalyDetectionLib.worker.session import LIBRARY

PLUGIN = '''
import torch
from AnomalyDetectionLib.scoring.contract import Detector, Scores
from AnomalyDetectionLib.scoring.covariates import ClinicalColumn

class Brightness(Detector):
    """Ten times the mean brightness of the patient, and the age beside it."""

    gives_log_odds = True

    def __init__(self, spec, *, clinical=()):
        super().__init__(spec)
        self.columns = tuple(ClinicalColumn.from_json(column) for column in clinical)

    def config(self):
        return {"clinical": [column.to_json() for column in self.columns]}

    def score(self, batch):
        share = (batch.image * batch.foreground).flatten(1).sum(1) / batch.foreground.flatten(1).sum(1)
        score = 10 * share
        if self.columns:
            score = score + torch.nan_to_num(batch.covariates).sum(1)
        return Scores(image=score)
'''
AGE = ClinicalColumn("age", centre=50.0, scale=10.0).to_json()
VIEW = ClinicalColumn("view", ("AP", "PA")).to_json()


def picture(seed: int, level: float) -> np.ndarray:
    """A radiograph of 24 x 20 pixels: a grey square of that brightness before black, uint8."""
    random = np.random.default_rng(seed)
    image = random.normal(10, 2, (24, 20))
    image[3:21, 3:17] = 60 + level + random.normal(0, 3, (18, 14)) + np.linspace(0, 120, 14)
    return image.clip(0, 255).astype(np.uint8)


def volume(seed: int, level: float = 0.0, **covariates: str) -> Volume:
    array = picture(seed, level).astype(np.float32)[None]
    return Volume(array, np.eye(4), modality="DX", name=f"picture-{seed}", covariates=covariates)


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An installed package that brings the detector `brightness`."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "brightness_plugin.py").write_text(PLUGIN, encoding="utf-8")
    facts = folder / "brightness-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: brightness\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[slicer_anomaly.detectors]\nbrightness = brightness_plugin:Brightness\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield folder


def made(kind: str, clinical: list[dict]) -> Model:
    spec = InputSpec(kind, ("DX",), "radiograph", size=(24, 20) if kind == "slices" else None)
    detector = build("brightness", spec, {"clinical": clinical})
    calibration = calibrate(detector, None, (volume(seed, 2.0 * seed, age="50") for seed in range(1, 21)), device="cpu")
    calibration = replace(calibration, probability=Probability(2.0, 20, 20))
    return Model(ModelIdentity("bright", "1.0.0", "", "brightness"), detector, calibration)


@pytest.fixture(scope="module", params=["volume", "slices"])
def bright(plugin: Path, request: pytest.FixtureRequest) -> Model:
    return made(request.param, [])


@pytest.fixture(scope="module")
def clinical(plugin: Path) -> Model:
    return made("volume", [AGE, VIEW])


def test_a_whole_image_gets_a_score_a_p_value_and_a_call_but_no_map(bright: Model) -> None:
    dim, glaring = (Scorer(bright, "cpu").score(volume(90, level)) for level in (-20.0, 90.0))
    for result in (dim, glaring):
        assert not result.mapped and not result.findings
        assert not result.rarity.array.any() and not result.labels.any() and result.foreground.any()
        assert result.p_value == conformal_p_value(result.volume_score, bright.calibration.normal_scores)
        assert result.probability == pytest.approx(1 / (1 + np.exp(-result.volume_score / 2)))
    assert glaring.volume_score > dim.volume_score
    assert glaring.p_value == pytest.approx(1 / 21) and dim.p_value > 0.5
    assert (dim.abnormal, glaring.abnormal) == (False, True)


def test_its_calibration_is_that_of_whole_cases_and_survives_json(bright: Model) -> None:
    calibration = bright.calibration
    assert calibration.n == 20 and not calibration.threshold.findings_per_normal.any()
    again = Calibration.from_json(json.loads(json.dumps(calibration.to_json())))
    assert again.probability == calibration.probability and again.decision == calibration.decision
    data = calibration.to_json()
    del data["probability"]  # a bundle from before there were probabilities
    assert Calibration.from_json(data).probability is None
    with pytest.raises(ValueError, match="temperature"):
        Calibration.from_json({**data, "probability": {"temperature": -1, "normals": 1, "abnormals": 1}})


def test_every_door_gives_the_same_score_of_a_whole_image(clinical: Model, plugin: Path, tmp_path: Path) -> None:
    write_bundle(clinical, tmp_path / "bundle")
    sitk.WriteImage(sitk.GetImageFromArray(picture(91, 40.0)), str(tmp_path / "one.png"))
    (tmp_path / "told.csv").write_text("case,age,view\none,063Y,PA\n")
    arguments = ["score", str(tmp_path / "bundle"), str(tmp_path / "one.png"), "--out", str(tmp_path / "out")]
    arguments += ["--modality", "DX", "--device", "cpu", "--progress", "none"]
    assert main([*arguments, "--covariates", str(tmp_path / "told.csv")]) == 0
    read = read_volume(tmp_path / "one.png")
    asked = replace(read, modality="DX", covariates={"age": "63", "view": "pa"})
    direct = Scorer(load_bundle(tmp_path / "bundle"), "cpu").score(asked)
    path = os.pathsep.join([str(LIBRARY), str(plugin)])
    with Worker(environment={"PYTHONPATH": path}) as worker:
        through_worker = worker.score(asked, tmp_path / "bundle", device="cpu")

    said = json.loads((tmp_path / "out/one/report.json").read_text(encoding="utf-8"))
    schema = json.loads((LIBRARY / "AnomalyDetectionLib/schemas/report.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(said, schema)
    assert said["volume_score"] == direct.volume_score == through_worker.volume_score
    assert said["probability"] == direct.probability == through_worker.probability
    assert said["mapped"] is direct.mapped is through_worker.mapped is False
    assert said["covariates"] == {"age": "063Y", "view": "PA"} and through_worker.covariates == asked.covariates
    assert not read_volume(tmp_path / "out/one/score.nii.gz").array.any()
    assert sitk.ReadImage(str(tmp_path / "out/one/overlay.png")).GetSize() == (1500, 600)
    with (tmp_path / "out/scores.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    assert float(row["probability"]) == direct.probability and row["findings"] == "0"
    plain = Scorer(clinical, "cpu").score(replace(asked, covariates={}))
    assert direct.volume_score == pytest.approx(plain.volume_score + (63 - 50) / 10 + 1, abs=1e-5)


def test_other_covariates_make_a_resumed_run_score_the_case_again(
    clinical: Model, plugin: Path, tmp_path: Path
) -> None:
    write_bundle(clinical, tmp_path / "bundle")
    sitk.WriteImage(sitk.GetImageFromArray(picture(92, 0.0)), str(tmp_path / "one.png"))
    arguments = ["score", str(tmp_path / "bundle"), str(tmp_path / "one.png"), "--out", str(tmp_path / "out")]
    arguments += ["--modality", "DX", "--device", "cpu", "--progress", "none", "--resume"]
    scores = []
    for age in ("30", "70"):
        (tmp_path / "told.csv").write_text(f"case,age\none,{age}\n")
        assert main([*arguments, "--covariates", str(tmp_path / "told.csv")]) == 0
        scores.append(json.loads((tmp_path / "out/one/report.json").read_text())["volume_score"])
    assert scores[1] - scores[0] == pytest.approx(4.0, abs=1e-5)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("case,age\nother,3\n", "names none of the cases"),
        ("case\none\n", "columns of covariates"),
        ("case,age\none,3\none,4\n", "'one' came before"),
    ],
)
def test_a_table_of_covariates_that_fits_no_case_is_refused_in_one_sentence(
    text: str, sentence: str, clinical: Model, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(picture(92, 0.0)), str(tmp_path / "one.png"))
    (tmp_path / "told.csv").write_text(text)
    arguments = ["score", "nowhere", str(tmp_path / "one.png"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--covariates", str(tmp_path / "told.csv"), "--progress", "none"]) == 2
    assert sentence in capsys.readouterr().err


def test_missing_and_unseen_values_are_noted_and_never_a_failure(clinical: Model) -> None:
    scorer = Scorer(clinical, "cpu")
    unseen = scorer.score(volume(93, age="old", view="lateral"))
    assert any("'lateral'" in note and "not seen in training" in note for note in unseen.notes)
    assert any("'old'" in note and "counts as missing" in note for note in unseen.notes)
    missing = scorer.score(volume(93))
    assert any("all clinical columns are missing (age, view)" in note for note in missing.notes)
    assert np.isfinite([unseen.volume_score, missing.volume_score]).all()


def test_columns_become_standardised_numbers_and_one_number_a_category() -> None:
    columns = [ClinicalColumn.from_json(AGE), ClinicalColumn.from_json(VIEW)]
    numbers, notes = encode(columns, {"age": "70", "view": " pa "})
    assert numbers.tolist() == [2.0, 0.0, 1.0, 0.0] and not notes
    numbers, _ = encode(columns, {"age": "018M", "view": "RAO"})
    assert numbers.tolist() == [pytest.approx(-4.85), 0.0, 0.0, 1.0]
    numbers, _ = encode(columns, {})
    assert np.isnan(numbers).all() and numbers.size == 4
    with pytest.raises(InputError, match="unknown key"):
        ClinicalColumn.from_json({"name": "age", "mean": 3})
