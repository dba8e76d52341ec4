"""An explanation comes through every door alike: Python, the command line and the worker; and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.imaging.read import read_volume
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.interop.overlay import render_overlay
from AnomalyDetectionLib.interop.reports import FILES, is_complete, write_case
from AnomalyDetectionLib.models.bundle import load_bundle, write_bundle
from AnomalyDetectionLib.scoring.calibrate import calibrate
from AnomalyDetectionLib.scoring.contract import InputSpec
from AnomalyDetectionLib.scoring.explaining import Attribution, Explanation
from AnomalyDetectionLib.scoring.model import Model
from AnomalyDetectionLib.scoring.registry import build
from AnomalyDetectionLib.scoring.result import ModelIdentity, ScoreResult
from AnomalyDetectionLib.scoring.scorer import Scorer
from AnomalyDetectionLib.worker.process import Worker
from AnomalyDetectionLib.worker.session import LIBRARY


def film(seed: int) -> np.ndarray:
    """A radiograph of 48 x 40 pixels, uint8: a grey body before black."""
    array = np.random.default_rng(seed).normal(10, 2, (48, 40))
    array[6:42, 6:34] += 60 + np.linspace(0, 120, 28)
    return array.clip(0, 255).astype(np.uint8)


def volume(seed: int) -> Volume:
    return Volume(film(seed)[None].astype(np.float32), np.eye(4), modality="DX", name=f"film-{seed}")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small classifier of weights that have learnt nothing."""
    spec = InputSpec("slices", ("DX",), "radiograph", size=(32, 32))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        detector = build("classifier", spec, {"network": "hybrid", "weights": "random"}).eval().requires_grad_(False)
    calibration = calibrate(detector, None, (volume(seed) for seed in range(5)), device="cpu")
    folder = tmp_path_factory.mktemp("models") / "judge"
    write_bundle(Model(ModelIdentity("judge", "1.0.0", "", "classifier"), detector, calibration), folder)
    return folder


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "one.png"
    sitk.WriteImage(sitk.GetImageFromArray(film(91)), str(path))
    return path


@pytest.fixture(scope="module")
def result(bundle: Path) -> ScoreResult:
    return Scorer(load_bundle(bundle), "cpu").score(volume(91), explain=Explanation("integrated-gradients"))


def score(bundle: Path, image: Path, out: Path, *options: str) -> int:
    arguments = ["score", str(bundle), str(image), "--out", str(out), "--modality", "DX", "--device", "cpu"]
    return main([*arguments, "--progress", "none", *options])


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker() as made:
        yield made


@pytest.mark.parametrize(("method", "layer"), [("grad-cam", "stages.1"), ("integrated-gradients", None)])
def test_every_door_gives_the_same_attribution(
    method: str, layer: str | None, bundle: Path, picture: Path, worker: Worker, tmp_path: Path
) -> None:
    options = ["--explain", method, *(("--explain-layer", layer) if layer else ())]
    assert score(bundle, picture, tmp_path, *options) == 0
    asked = replace(read_volume(picture), modality="DX")
    explanation = Explanation(method, layer)
    direct = Scorer(load_bundle(bundle), "cpu").score(asked, explain=explanation).attribution
    through_worker = worker.score(asked, bundle, device="cpu", explain=explanation).attribution
    assert worker.score(asked, bundle, device="cpu").attribution is None
    written = read_volume(tmp_path / "one" / "attribution.nii.gz")
    assert direct is not None and through_worker is not None and direct.map.array.any()
    for other in (written.array, through_worker.map.array):
        assert np.array_equal(other, direct.map.array)
    assert written.grid.same_place(direct.map.grid)
    assert through_worker.facts() == direct.facts()
    report = json.loads((tmp_path / "one" / "report.json").read_text(encoding="utf-8"))
    schema = json.loads((LIBRARY / "AnomalyDetectionLib/schemas/report.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(report, schema)
    said = {"method": method, "layer": layer, "label": "attribution, not segmentation", "file": "attribution.nii.gz"}
    assert report["attribution"] == said
    assert not report["findings"] and not read_volume(tmp_path / "one" / "labels.nii.gz").array.any()


def test_a_run_is_gone_on_with_by_the_same_explanation_only(
    bundle: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert score(bundle, picture, tmp_path, "--explain", "grad-cam++") == 0
    kept = (tmp_path / "one" / "report.json").stat().st_mtime_ns
    assert score(bundle, picture, tmp_path, "--explain", "grad-cam++", "--resume") == 0
    assert (tmp_path / "one" / "report.json").stat().st_mtime_ns == kept
    for other in ((), ("--explain", "grad-cam"), ("--explain", "grad-cam++", "--explain-layer", "stages.0")):
        assert score(bundle, picture, tmp_path, "--resume", *other) == 2
        assert "scored with another explanation (grad-cam++)" in capsys.readouterr().err
    (tmp_path / "one" / "attribution.nii.gz").unlink()
    assert not is_complete(tmp_path / "one")
    assert score(bundle, picture, tmp_path, "--explain", "grad-cam++", "--resume") == 0
    assert is_complete(tmp_path / "one")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--explain", "gradcam"), "did you mean 'grad-cam'"),
        (("--explain-layer", "stages"), "add --explain grad-cam"),
        (("--explain", "saliency", "--explain-layer", "stages"), "'saliency' looks at no layer"),
        (("--explain", "grad-cam", "--explain-layer", "stage.3"), "the nearest are stages.3"),
    ],
)
def test_what_cannot_be_explained_is_refused_in_one_sentence(
    options: tuple[str, ...], sentence: str, bundle: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert score(bundle, picture, tmp_path / "out", *options) == 2
    said = capsys.readouterr().err
    assert sentence in said and len(said.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_detector_with_a_map_is_refused_by_the_command_line(tmp_path: Path, picture: Path, capsys) -> None:
    folder = LIBRARY / "Resources" / "Models" / "starter-brain-flair"
    assert score(folder, picture, tmp_path / "out", "--explain", "grad-cam") == 2
    assert "the detector 'zscore' cannot be explained by 'grad-cam': only classifier can" in capsys.readouterr().err


def test_a_result_without_attribution_takes_that_of_an_earlier_one_away(result: ScoreResult, tmp_path: Path) -> None:
    write_case(volume(91), result, tmp_path / "case")
    assert (tmp_path / "case" / "attribution.nii.gz").exists()
    write_case(volume(91), replace(result, attribution=None), tmp_path / "case")
    assert {path.name for path in (tmp_path / "case").iterdir()} == set(FILES)
    assert is_complete(tmp_path / "case")


def test_the_picture_is_warm_where_the_attribution_is_and_plain_where_it_is_not(result: ScoreResult) -> None:
    array = np.zeros((1, 48, 40), dtype=np.float32)
    array[0, 10:16, 24:32] = 3.0
    array[0, 30:36, 8:16] = -3.0  # speaks against abnormal: not painted
    shown = replace(result, attribution=Attribution(result.rarity.with_array(array), "occlusion"))
    plain, warm = (
        np.asarray(render_overlay(volume(91), one).convert("RGB"), dtype=np.float64)
        for one in (replace(result, attribution=None), shown)
    )
    changed = np.abs(warm - plain).sum(axis=2) > 30
    changed[:, 1330:] = False  # the colour bar
    changed[510:] = False  # the caption
    rows, columns = np.nonzero(changed)
    assert changed.sum() > 1000
    assert np.all(warm[rows, columns][:, 0] >= warm[rows, columns][:, 2]), "heat is red rather than blue"
    upright = render_overlay(volume(91), shown).size
    assert upright == (1500, 600) and np.ptp(rows) < 200 and np.ptp(columns) < 200
    bar = np.abs(warm - plain)[:510, 1330:].sum()
    assert bar > 10_000, "there is a colour bar with its words"
