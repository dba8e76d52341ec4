"""`classical` and `classical_normals` tell textures apart, answer as scikit-learn does, and judge patients left out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.covariance import LedoitWolf
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.svm import SVC, OneClassSVM

from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.detectors.classical import Classical, ClassicalNormals
from AnomalyDetectionLib.detectors.classical_fitting import Labelled, isotonic, platt
from AnomalyDetectionLib.detectors.texture import Texture
from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.models.bundle import load_bundle
from AnomalyDetectionLib.scoring.contract import Batch, InputSpec
from AnomalyDetectionLib.scoring.registry import build
from AnomalyDetectionLib.scoring.scorer import Scorer
from AnomalyTrainingLib.cohorts.manifest import load_case_volume, read_manifest

SIZE = 48
SPEC = InputSpec("slices", ("DX",), "radiograph", grid="frame", size=(SIZE, SIZE))
SMALL: dict[str, Any] = {"cell": 8, "regions": 2, "neighbours": [5, 10]}
ALONE: dict[str, Any] = {"cell": 8, "regions": 2}


@cache
def picture(seed: int, stripes: bool) -> NDArray[np.float32]:
    """Noise that is as smooth in every direction, or across more than along; grey levels are spread alike in both."""
    noise = np.random.default_rng(seed).normal(size=(SIZE, SIZE))
    smooth = gaussian_filter(noise, (0.7, 2.8) if stripes else (1.4, 1.4))
    ranks = smooth.ravel().argsort().argsort().reshape(SIZE, SIZE)
    return (ranks / ranks.max()).astype(np.float32)


def batch(seed: int, stripes: bool = False, patient: int | None = None, slices: int = 1) -> Batch:
    image = np.stack([picture(1000 * seed + n, stripes) for n in range(slices)])[:, None]
    foreground = torch.ones(slices, 1, SIZE, SIZE, dtype=torch.bool)
    label = torch.full((slices,), float(stripes))
    return Batch(
        torch.from_numpy(image), foreground, label=label, patient=torch.full((slices,), patient if patient else seed)
    )


def learnt(**options: Any) -> Classical:
    """Fitted to 40 labelled images."""
    detector = build("classical", SPEC, SMALL | options)
    assert isinstance(detector, Classical)
    for seed in range(40):
        detector.absorb(batch(seed, stripes=seed % 2 == 1))
    detector.finish()
    return detector


@cache
def of_normals(model: str) -> ClassicalNormals:
    """Fitted to 40 normals."""
    detector = build("classical_normals", SPEC, ALONE | {"model": model})
    assert isinstance(detector, ClassicalNormals)
    for seed in range(40):
        detector.absorb(batch(seed))
    detector.finish()
    return detector


NEW = [(seed, stripes) for seed in range(500, 512) for stripes in (False, True)]


def scores(detector: Classical | ClassicalNormals) -> NDArray[np.float32]:
    with torch.inference_mode():
        found = [detector.score(batch(seed, stripes)) for seed, stripes in NEW]
    assert all(one.map is None for one in found)
    return np.array([float(one.image[0]) for one in found if one.image is not None])


def vectors(detector: Classical | ClassicalNormals, batches: list[Batch]) -> NDArray[np.float32]:
    """Standardised features, as the detector compares them."""
    images, inside = (torch.cat([getattr(one, name) for one in batches]).numpy() for name in ("image", "foreground"))
    return detector._standardised(detector.texture(images, inside))


TRUTH = np.array([stripes for _, stripes in NEW])


# -- textures


@pytest.mark.parametrize("model", ["svm", "knn"])
@pytest.mark.parametrize("features", [["hog"], ["glcm"], ["wavelet"], ["hog", "glcm", "wavelet"]])
def test_textures_of_the_same_grey_levels_are_told_apart_by_each_family_and_model(
    model: str, features: list[str]
) -> None:
    found = scores(learnt(model=model, features=features))
    assert roc_auc_score(TRUTH, found) > 0.9
    assert found[TRUTH].mean() > 0 > found[~TRUTH].mean(), "log-odds lie on either side of even odds"


@pytest.mark.parametrize("model", ["mahalanobis", "ocsvm", "knn"])
def test_a_texture_that_normals_do_not_have_lies_farther_from_them(model: str) -> None:
    assert roc_auc_score(TRUTH, scores(of_normals(model))) > 0.9


def test_what_lies_outside_the_foreground_does_not_count() -> None:
    texture = Texture((SIZE, SIZE), 1, ("hog", "glcm", "wavelet"), 8, 2)
    image, inside = np.stack([picture(1, False)] * 2)[:, None], np.zeros((2, 1, SIZE, SIZE), dtype=bool)
    inside[..., 8:40] = True
    image[1, 0, :, 40:] = 1 - image[1, 0, :, 40:]
    first, second = texture(image, inside)
    assert np.array_equal(first, second) and first.shape == (sum(texture.counts.values()),)
    inside[1, ..., 40:] = True
    assert not np.array_equal(*texture(image, inside))


def test_every_family_weighs_alike_however_many_numbers_it_has() -> None:
    detector = learnt()
    values = vectors(detector, [batch(seed, stripes=seed % 2 == 1) for seed in range(40)])
    start = 0
    for count in detector.texture.counts.values():
        assert values[:, start : start + count].var(axis=0).sum() == pytest.approx(1.0, abs=1e-3)
        start += count


# -- what is stored answers as scikit-learn does


def test_stored_support_vectors_decide_as_scikit_learn_does() -> None:
    detector = learnt(C=[4.0], gamma=[1.0])
    train = [batch(seed, stripes=seed % 2 == 1) for seed in range(40)]
    svm = SVC(C=4.0, gamma=1 / 3, class_weight="balanced")
    svm.fit(vectors(detector, train), [seed % 2 for seed in range(40)])
    new = [batch(*one) for one in NEW]
    found = np.concatenate([detector.raw(one) for one in new])
    assert np.abs(found - svm.decision_function(vectors(detector, new))).max() < 1e-6


def test_stored_neighbours_answer_as_scikit_learn_does() -> None:
    detector = learnt(model="knn", neighbours=[7])
    train = vectors(detector, [batch(seed, stripes=seed % 2 == 1) for seed in range(40)]).astype(np.float64)
    knn = KNeighborsClassifier(7, weights="distance").fit(train, [seed % 2 for seed in range(40)])
    new = [batch(*one) for one in NEW]
    found = np.concatenate([detector.raw(one) for one in new])
    assert np.abs(found - knn.predict_proba(vectors(detector, new).astype(np.float64))[:, 1]).max() < 1e-6
    assert detector.raw(batch(3, stripes=True))[0] == pytest.approx(1.0, abs=1e-5), "it was learnt from"


def reference_of_ocsvm(train: NDArray, new: NDArray) -> NDArray:
    return -OneClassSVM(nu=0.1, gamma=1 / 3).fit(train).decision_function(new)


def reference_of_knn(train: NDArray, new: NDArray) -> NDArray:
    return NearestNeighbors(n_neighbors=5).fit(train).kneighbors(new)[0].mean(axis=1)


def reference_of_mahalanobis(train: NDArray, new: NDArray) -> NDArray:
    return np.sqrt(LedoitWolf().fit(train).mahalanobis(new))


@pytest.mark.parametrize(
    ("model", "reference"),
    [("ocsvm", reference_of_ocsvm), ("knn", reference_of_knn), ("mahalanobis", reference_of_mahalanobis)],
)
def test_stored_normals_are_compared_with_as_scikit_learn_does(
    model: str, reference: Callable[[NDArray, NDArray], NDArray]
) -> None:
    detector = of_normals(model)
    train, new = ([batch(*one) for one in cases] for cases in ([(seed,) for seed in range(40)], NEW))
    found = np.concatenate([detector.raw(one) for one in new])
    wanted = reference(*(vectors(detector, part).astype(np.float64) for part in (train, new)))
    assert np.abs(found / wanted - 1).max() < 1e-6


@pytest.mark.parametrize("options", [{"probability": "platt"}, {"probability": "isotonic"}, {"model": "knn"}])
def test_a_rebuilt_detector_scores_the_same_without_scikit_learn(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = learnt(**options)
    before = scores(detector)
    rebuilt = build("classical", SPEC, json.loads(json.dumps(detector.config())))
    rebuilt.load_state_dict(detector.state_dict(), strict=True)
    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert isinstance(rebuilt, Classical)
    assert np.array_equal(scores(rebuilt), before)
    assert {str(value.device) for value in rebuilt.to("meta").state_dict().values()} == {"cpu"}


# -- patients, probabilities


def test_patients_stay_whole_in_every_inner_fold_and_both_classes_are_in_each() -> None:
    patients = np.arange(60) // 3
    data = Labelled(np.zeros((60, 1), dtype=np.float32), patients % 2, patients)
    parts = data.folds(5, 0)
    assert len(parts) == 5 and sorted(np.concatenate([held for _, held in parts])) == list(range(60))
    for rest, held in parts:
        assert not set(patients[rest]) & set(patients[held]) and set(data.labels[held]) == {0, 1}


def test_settings_are_judged_on_patients_who_were_left_out() -> None:
    """Three copies of a picture of each patient, with a label that means nothing."""
    detector = build("classical", SPEC, SMALL | {"model": "knn", "neighbours": [2]})
    for number in range(90):
        one = batch(number // 3, patient=1 + number // 3)
        one.label = torch.tensor([float(np.random.default_rng(number // 3).random() < 0.5)])
        one.image = (one.image + 1e-3 * torch.rand(one.image.shape)).clamp(0, 1)
        detector.absorb(one)
    detector.finish()
    assert detector.facts()["AUROC of left-out training images"] < 0.85, "and 1 if a patient stood on both sides"


@pytest.mark.parametrize("curve", [platt, isotonic])
def test_log_odds_of_left_out_decisions_are_those_that_are_true(curve: Callable[..., NDArray]) -> None:
    random = np.random.default_rng(0)
    decisions = random.normal(0, 0.5, 6000)
    labels = (random.random(6000) < 1 / (1 + np.exp(-(3 * decisions - 1)))).astype(int)
    found = curve(decisions, labels)
    if curve is platt:
        assert found.ravel() == pytest.approx([3, -1], abs=0.25)
        return
    probability = 1 / (1 + np.exp(-np.interp([-0.6, 0.0, 0.6], found[0], found[1])))
    assert probability == pytest.approx(1 / (1 + np.exp(-(3 * np.array([-0.6, 0.0, 0.6]) - 1))), abs=0.08)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(decisions, labels).predict([-0.6, 0.0, 0.6])
    assert probability == pytest.approx(theirs, abs=1e-6)


def test_a_model_that_tells_nothing_says_so_and_its_scores_do_not_turn_round() -> None:
    labels = np.arange(200) % 2
    slope, _ = platt(-labels + np.random.default_rng(0).normal(0, 0.1, 200), labels).ravel()
    assert 0 < slope < 0.1


# -- volumes


def test_slices_of_a_volume_are_learnt_from_up_to_a_number_and_pooled_to_one_score() -> None:
    spec = InputSpec("slices", ("MR",), "mr-robust", size=(SIZE, SIZE))
    detector = build("classical", spec, SMALL | {"model": "knn", "most": 60, "slices_per_case": 4, "slices": "max"})
    for seed in range(20):
        detector.absorb(batch(seed, stripes=seed % 2 == 1, slices=6))
    detector.finish()
    assert detector.get_buffer("vectors").shape[0] == 60
    found = detector.score(batch(900, stripes=True, slices=6)).image
    assert found is not None and found.shape == (6,) and detector.pooled(found) == found.max()


# -- bad input


def test_a_class_that_is_absent_or_has_too_few_patients_is_named() -> None:
    for labels, sentence in (([0] * 20, "abnormal images of at least 4 patients, and there are none"), (None, "of 3")):
        detector = build("classical", SPEC, SMALL)
        for seed in range(20):
            one = batch(seed, patient=1 + seed % 7)
            one.label = torch.tensor([float(labels[seed] if labels else seed % 7 < 3)])
            detector.absorb(one)
        with pytest.raises(InputError, match=sentence):
            detector.finish()


def test_images_that_are_all_alike_or_hold_no_numbers_are_refused() -> None:
    detector = build("classical_normals", SPEC, ALONE)
    for _ in range(30):
        detector.absorb(batch(1))
    with pytest.raises(InputError, match="copies of one"):
        detector.finish()
    one = batch(2)
    one.image[0, 0, 20, 20] = torch.nan
    with pytest.raises(InputError, match="are no numbers"):
        detector.absorb(one)
    few = build("classical_normals", SPEC, ALONE)
    for seed in range(4):
        few.absorb(batch(seed))
    with pytest.raises(InputError, match="4 images are too few"):
        few.finish()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"features": []}, "features are some of hog, glcm, wavelet"),
        ({"features": ["hog", "hog"]}, "each once"),
        ({"cell": 40}, "cell is 40"),
        ({"regions": 7}, "regions is 7"),
        ({"model": "ocsvm"}, "model 'ocsvm' is none of svm, knn"),
        ({"C": []}, "C is "),
        ({"gamma": [0.0]}, "gamma is "),
        ({"slices": "median"}, "slices 'median'"),
        ({"inner_folds": 1}, "inner_folds is 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=f"classical: .*{sentence}"):
        build("classical", SPEC, SMALL | options)


def test_a_missing_package_is_named_as_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pywt", None)
    with pytest.raises(InputError, match="'PyWavelets'"):
        build("classical", SPEC, SMALL).absorb(batch(0))


# -- from end to end

CONFIG = """
name: texture
detector: {detector}
options: {{cell: 8, regions: 2}}
input: {{kind: slices, intensity: radiograph, grid: frame, size: [48, 48]}}
calibration: {{method: split}}
baselines: none
"""
COUNTS = {"train": (22, 10), "calibrate": (20, 0), "validate": (5, 5), "test": (8, 8)}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PNG images of noise and of stripes, two of each patient."""
    folder, rows = tmp_path_factory.mktemp("textures"), ["case,patient,image,label,split"]
    for split, counts in COUNTS.items():
        for label, count in enumerate(counts):
            for _ in range(count):
                number = len(rows)
                pixels = 40 + 200 * picture(number, bool(label))
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"c{number}.png")
                rows.append(f"c{number},{split}{label}-{number // 2},c{number}.png,{label},{split}")
    (folder / "cohort.csv").write_text("\n".join(rows) + "\n")
    return folder / "cohort.csv"


@pytest.mark.parametrize("detector", ["classical", "classical_normals"])
def test_a_bundle_holds_no_code_and_every_door_gives_its_score_without_a_map(
    detector: str, manifest: Path, tmp_path: Path
) -> None:
    config, bundle, out = tmp_path / "config.yaml", tmp_path / "bundle", tmp_path / "evaluation"
    config.write_text(CONFIG.format(detector=detector))
    quiet = ["--progress", "none", "--device", "cpu"]
    train = ["train", str(config), "--cohort", str(manifest), "--out", str(tmp_path / "run"), *quiet]
    assert main(train) == 0
    assert main(["export", str(tmp_path / "run"), "--out", str(bundle)]) == 0
    judged = ["evaluate", str(bundle), "--cohort", str(manifest), "--out", str(out), "--resamples", "50", *quiet]
    assert main(judged) == 0
    document = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert document["methods"][detector]["volume"]["auroc"]["value"] > 0.9

    model = load_bundle(bundle)
    assert {type(value) for value in torch.load(bundle / "models/model.pt", weights_only=True).values()} == {
        torch.Tensor
    }
    card = (bundle / "docs/README.md").read_text(encoding="utf-8")
    assert "it makes no map" in card and "hog 900, glcm 75, wavelet 50" in card
    assert ("AUROC of left-out training images" in card) == (detector == "classical")
    first = read_manifest(manifest).of(split="test").cases[0]
    result = Scorer(model, "cpu").score(load_case_volume(first))
    row = next(row for row in document["cases"][detector] if row["case"] == first.case)
    assert not result.mapped and row["score"] == pytest.approx(result.volume_score, abs=1e-6)
    assert (result.probability is not None) == (detector == "classical")
