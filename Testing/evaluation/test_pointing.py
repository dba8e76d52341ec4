"""The pointing game and the overlap: what is counted, with which intervals, and what stands beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import study_explain as study
import torch
from PIL import Image

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.template import frame_template
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.models.bundle import load_bundle, write_bundle
from AnomalyDetectionLib.scoring.calibrate import calibrate
from AnomalyDetectionLib.scoring.contract import InputSpec
from AnomalyDetectionLib.scoring.explaining import Explanation
from AnomalyDetectionLib.scoring.model import Model
from AnomalyDetectionLib.scoring.prepare import as_normal
from AnomalyDetectionLib.scoring.registry import build
from AnomalyDetectionLib.scoring.result import ModelIdentity
from AnomalyDetectionLib.scoring.scorer import Scorer
from AnomalyTrainingLib.cohorts.manifest import load_case_volume
from AnomalyTrainingLib.evaluation.intervals import clopper_pearson
from AnomalyTrainingLib.evaluation.pointing import Pointed, Pointing, boxes_mask, centre_prior, mean_of_others, point

BOX = boxes_mask("8 4 8 8", (32, 32), 32)


def ramp(mask: np.ndarray) -> np.ndarray:
    """A map that is high in a mask, and rises a little from pixel to pixel, so that no two are alike."""
    return mask * 1.0 + np.linspace(0, 1e-3, mask.size).reshape(mask.shape)


def test_a_map_that_is_the_box_hits_and_covers_it_and_one_beside_it_does_not() -> None:
    exact = point(ramp(BOX), BOX)
    assert exact.hit and exact.iou == 1.0 and exact.inside > 0.95 and exact.boxed == 64 / 1024
    beside = point(ramp(np.roll(BOX, 12, axis=1)), BOX)
    assert not beside.hit and beside.iou == 0.0 and beside.inside < 0.05


def test_half_the_pixels_of_the_box_are_an_iou_of_a_third() -> None:
    assert point(ramp(np.roll(BOX, 4, axis=1)), BOX).iou == pytest.approx(32 / 96)


def test_the_cut_takes_as_many_pixels_as_are_boxed_however_the_map_is_scaled() -> None:
    rng = np.random.default_rng(0)
    found = rng.normal(size=(32, 32))
    assert point(found, BOX).iou == point(np.exp(3 * found), BOX).iou


def test_a_flat_map_points_nowhere_and_equals_share_their_place_at_the_cut() -> None:
    flat = point(np.zeros((32, 32)), BOX)
    assert flat == Pointed(False, 0.0, 64 / 1024, 64 / 1024)
    wide = np.zeros((32, 32))
    wide[4:12, 8:24] = 1.0  # twice the box: each of its pixels counts half
    assert point(wide, BOX).iou == pytest.approx(32 / 96) and not point(wide, BOX).hit


def test_what_speaks_against_abnormal_is_not_inside_or_outside() -> None:
    found = np.where(BOX, 1.0, -5.0)
    assert point(found, BOX).inside == 1.0
    with pytest.raises(ValueError, match="cannot be compared"):
        point(found, np.zeros((32, 32), dtype=bool))


def test_boxes_are_the_pixels_whose_middle_lies_in_one_in_whatever_grid_they_are_counted() -> None:
    one, two = (boxes_mask(text, (32, 32), grid) for text, grid in (("8 4 8 8", 32), ("256 128 256 256", 1024)))
    assert np.array_equal(one, two) and one[4:12, 8:16].all() and one.sum() == 64
    assert boxes_mask("0 0 2 2;30 30 9 9", (32, 32), 32).sum() == 8, "what lies outside is cut off"
    for text in ("1 2 3", "a b c d"):
        with pytest.raises(InputError, match="is no box"):
            boxes_mask(text, (32, 32), 32)
    with pytest.raises(InputError, match="in which grid"):
        boxes_mask("500 500 20 20", (32, 32), 32)


def test_hits_have_the_exact_interval_and_images_of_one_patient_count_as_fewer() -> None:
    pointed = [Pointed(number < 12, 0.3 if number < 12 else 0.1, 0.5, 0.1) for number in range(30)]
    alone = Pointing.of(pointed, [f"p{number}" for number in range(30)])
    assert (alone.hits, alone.images, alone.covered) == (12, 30, 12)
    assert (alone.hit_rate.low, alone.hit_rate.high) == clopper_pearson(12, 30)
    assert alone.iou.value == pytest.approx((12 * 0.3 + 18 * 0.1) / 30) and alone.iou.low < alone.iou.value
    shared = Pointing.of(pointed, [f"p{number // 3}" for number in range(30)])
    assert shared.hit_rate.value == 0.4
    assert shared.hit_rate.high - shared.hit_rate.low > 1.2 * (alone.hit_rate.high - alone.hit_rate.low)


def test_what_other_patients_maps_say_leaves_the_patients_own_images_out() -> None:
    maps = [np.full((4, 4), 1.0), np.eye(4), 100 * np.eye(4)[::-1]]
    mean = mean_of_others(maps, ["a", "b", "c"], 0)
    assert np.allclose(mean, (np.eye(4) + np.eye(4)[::-1]) / 8), "each map counts alike, however high it is"
    assert np.allclose(mean_of_others(maps, ["a", "b", "b"], 1), 1 / 16)
    with pytest.raises(ValueError, match="no other patient"):
        mean_of_others(maps, ["a", "a", "a"], 0)
    assert np.unravel_index(centre_prior((33, 33)).argmax(), (33, 33)) == (16, 16)


def one(hits: int) -> dict:
    pointed = [Pointed(number < hits, 0.2, 0.3, 0.2) for number in range(30)]
    return Pointing.of(pointed, [str(number) for number in range(30)]).to_json()


def test_the_page_says_of_each_method_whether_it_hits_more_than_what_does_not_look_at_the_image() -> None:
    stage = {"down_to": "head.1", "share": 0.01, "spearman": 0.4, "ssim": 0.6}
    better = {"more": 15, "fewer": 2, "p": 0.002}
    alike = {"more": 3, "fewer": 4, "p": 1.0}
    found = {
        "patients": 28,
        "called": 26,
        "boxed": 0.17,
        "methods": {**{name: one(12) for name in study.METHODS}, "centre": one(5), "saliency, smoothed": one(9)},
        "against": {
            name: {"other people's boxes": alike, study.others(name): better if name == "occlusion" else alike}
            for name in study.METHODS
        },
        "randomised": {"images": 5, "methods": {name: [stage] for name in study.CHECKED}},
    }
    text = study.page(found)
    assert "26\nof the 30 are called abnormal" in text and "A random pixel hits 0.17" in text
    assert "| occlusion | 12 | 30 | 0.40 (0.23 to 0.59) |" in text
    assert text.index("| saliency, smoothed |") < text.index("What points without the model") < text.index("| centre |")
    assert "- occlusion: other people's boxes 3 more, 4 fewer (p = 1: no difference shown); " in text
    assert "other people's maps 15 more, 2 fewer (p = 0.002: more)." in text
    assert "| head.1 (1%) | 0.40 / 0.60 |" in text
    assert (
        "grad-cam hits most often (12 times); of the maps that never look at the model centre (5 times)." in text
        and "do not show that" not in text
    )
    found["methods"]["centre"] = one(14)
    assert "the model centre (14 times). So the maps do not show that the model looks where" in study.page(found)


def film(seed: int) -> np.ndarray:
    """A radiograph of 48 x 40 pixels, uint8: a grey body before black."""
    array = np.random.default_rng(seed).normal(10, 2, (48, 40))
    array[6:42, 6:34] += 60 + np.linspace(0, 120, 28)
    return array.clip(0, 255).astype(np.uint8)


def small_crossval(folder: Path) -> Path:
    """Two folds of a classifier that has learnt nothing, each with one boxed case of its own; returns the cohort."""
    rows = ["case,patient,image,label,split,boxes"]
    spec = InputSpec("slices", ("DX",), "radiograph", grid="frame", size=(32, 32))
    for number in (1, 2):
        Image.fromarray(film(number)).save(folder / f"image{number}.png")
        rows.append(f"case{number},p{number},image{number}.png,1,test,{10 * number} 10 12 20")
        fold = folder / "crossval" / "folds" / str(number)
        fold.mkdir(parents=True)
        others = [f"case{n},p{n},{folder / f'image{n}.png'},1,{'test' if n == number else 'train'}" for n in (1, 2)]
        (fold / "cohort.csv").write_text("\n".join(["case,patient,image,label,split", *others]) + "\n")
        normals = [Volume(film(seed)[None].astype(np.float32), np.eye(4), "DX") for seed in range(10, 14)]
        template = frame_template((as_normal(normal, spec) for normal in normals), (32, 32))
        with torch.random.fork_rng():
            torch.manual_seed(number)
            detector = build("classifier", spec, {"network": "hybrid", "weights": "random"}).eval()
        calibration = calibrate(detector, template, normals, device="cpu")
        identity = ModelIdentity(f"fold-{number}", "1.0.0", "", "classifier")
        write_bundle(Model(identity, detector, calibration, template), fold / "run" / "model")
    (folder / "cohort.csv").write_text("\n".join(rows) + "\n")
    return folder / "cohort.csv"


@pytest.mark.slow
def test_the_study_explains_each_boxed_image_by_the_fold_that_has_not_seen_it_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    cohort = small_crossval(tmp_path)
    for_page = ("grad-cam", "saliency")
    monkeypatch.setattr(study, "CHECKED", for_page)
    monkeypatch.setattr(study, "STAGES", 3)
    monkeypatch.setattr(study._environment, "run_inside", lambda extras: None)
    out, page = tmp_path / "out", tmp_path / "page.md"
    arguments = [
        "study",
        str(tmp_path / "crossval"),
        str(cohort),
        "--out",
        str(out),
        "--box-grid",
        "48",
        "--methods",
        *for_page,
    ]
    monkeypatch.setattr("sys.argv", [*arguments, "--page", str(page)])
    assert study.main() == 0
    cases = list(study.boxed_cases(tmp_path / "crossval", cohort))
    assert [(bundle.parts[-3], case.case) for bundle, case in cases] == [("1", "case1"), ("2", "case2")]
    bundle, case = cases[1]
    direct = Scorer(load_bundle(bundle)).score(load_case_volume(case), explain=Explanation("saliency")).attribution
    kept = np.load(out / "maps" / "case2 saliency.npz")["found"]
    assert direct is not None and np.array_equal(kept, direct.map.array[0])
    assert "2 boxed images of 2 patients" in page.read_text() and "| saliency, smoothed |" in page.read_text()
    assert "case1: saliency" in capsys.readouterr().out
    before = page.read_text()
    assert study.main() == 0
    assert "case1: saliency" not in capsys.readouterr().out and page.read_text() == before


def test_images_are_compared_one_by_one_with_the_exact_sign_test() -> None:
    hit, miss = Pointed(True, 0, 0, 0), Pointed(False, 0, 0, 0)
    found = study.against([hit] * 8 + [miss] * 3, [miss] * 8 + [hit] + [miss] * 2)
    assert (found["more"], found["fewer"]) == (8, 1) and found["p"] == pytest.approx(2 * 10 / 2**9)
    assert study.against([hit], [hit])["p"] == 1.0
