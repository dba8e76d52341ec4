"""The pages of the studies: what they say follows from the figures, and a model that fails is said to fail."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import study_calibration as study
import study_heads
import study_heads_folds

from AnomalyTrainingLib.evaluation.calibration_check import check_calibration


def judged(p_values: np.ndarray) -> dict:
    return {"calibration": check_calibration(p_values.tolist(), 120).to_json()}


EXACT = judged(np.arange(1, 205) / 205)
SMALL = judged((np.arange(1, 205) / 205) ** 2)
LARGE = judged(np.sqrt(np.arange(1, 205) / 205))


def test_every_anatomy_has_as_many_normals_of_each_split_as_any_other_and_enough_are_held_out() -> None:
    rows = [
        {"anatomy": f"head_{n % 12 + 1:02d}", "split": study.split_of(n)}
        for n in range(12 * sum(study.PER_ANATOMY.values()))
    ]
    counts = Counter((row["split"], row["anatomy"]) for row in rows)
    for split, each in study.PER_ANATOMY.items():
        assert {count for (of, _), count in counts.items() if of == split} == {each}
    splits = Counter(row["split"] for row in rows)
    assert splits["calibrate"] >= 100 and splits["test"] >= 200
    known = {f"head_{n:02d}" for n in range(1, study.KNOWN_ANATOMIES + 1)}
    others = [study.of_other_anatomies(row, row["anatomy"] in known) for row in rows]
    assert {row["anatomy"] for row in others if row["split"] == "test"}.isdisjoint(known)
    assert {row["anatomy"] for row in others if row["split"] in ("train", "calibrate")} == known


@pytest.mark.parametrize(
    ("same", "other", "right", "said"),
    [
        (EXACT, SMALL, True, "the p-values hold (9.8 %), on the other one they do not hold (31.4 %)."),
        (SMALL, SMALL, False, "do not hold (31.4 %), on the other one they do not hold (31.4 %): not as it should be."),
        (EXACT, EXACT, False, "the p-values hold (9.8 %), on the other one they hold (9.8 %): not as it should be."),
        (LARGE, SMALL, False, "the p-values do not hold (1.0 %)"),
    ],
)
def test_p_values_must_hold_on_the_same_scanner_and_must_not_on_another(
    same: dict, other: dict, right: bool, said: str
) -> None:
    found = [{"same": same, "shifted": other, "others": SMALL} for _ in study.SEEDS]
    assert study.as_it_should(found) is right
    text = study.page({"zscore": found}, "flair")
    assert said in text and "people of other anatomies than those calibrated on they do not hold" in text
    realised = study.rate_of(same, 0.1)["realised"]
    assert study.share(realised) in text and text.count("204 | 120") == 3 * len(study.SEEDS)


def test_a_model_that_is_checked_in_brief_answers_for_the_scanner_it_was_calibrated_on() -> None:
    assert study.as_it_should([{"same": EXACT}]) and not study.as_it_should([{"same": SMALL}])
    text = study.page({"one": [{"same": EXACT}], "two": [{"same": SMALL}]}, "flair")
    assert "On the scanner it was calibrated on the p-values hold (9.8 %).\n" in text
    assert "On the scanner it was calibrated on the p-values do not hold (31.4 %).\n" in text
    assert text.count("204 | 120") == 2


def test_one_seed_that_the_check_refutes_is_not_mended_by_another() -> None:
    found = [{"same": same, "shifted": SMALL, "others": SMALL} for same in (SMALL, LARGE)]
    assert study.mean_rate(found, "same") == pytest.approx(0.16, abs=0.01)
    assert not study.holds(found, "same")
    assert not study.holds([{"same": EXACT}, {"same": SMALL}], "same")


def test_the_page_of_the_heads_study_has_the_artefacts_by_severity() -> None:
    def row(artefact: str, severity: int, false: float, method: str = "zscore") -> dict:
        figures = {"cases": 30, "false_findings_per_case": false, "share_poor_quality": 0.1}
        return {"artefact": artefact, "severity": severity, "method": method, **figures}

    rows = [
        row("none", 0, 0.43),
        row("blur", 1, 0.5),
        row("blur", 2, 1.25),
        row("metal", 2, 2.0),
        row("metal", 1, 9, "x"),
    ]
    lines = study_heads.artefacts({"artefacts": rows})
    assert "30 held-out normals" in lines[0] and "Unspoilt: 0.43 (10 %)" in lines[2]
    assert lines[4:8] == [
        "| artefact | severity 1 | severity 2 |",
        "| --- | --- | --- |",
        "| blur | 0.50 (10 %) | 1.25 (10 %) |",
        "| metal | – | 2.00 (10 %) |",
    ]


def compared(name: str, other: str, value: float, low: float, high: float) -> dict:
    difference = {"value": value, "low": low, "high": high}
    return {
        "model": name,
        "other": other,
        "baseline": other,
        "level": "voxel",
        "metric": "dice",
        "difference": difference,
    }


def test_the_page_of_the_folds_says_of_each_model_how_far_it_is_above_the_others() -> None:
    def of(name: str, *comparisons: dict) -> dict:
        return {"methods": {f"heads-{name}": {"kind": "model"}}, "comparisons": list(comparisons)}

    judged = {
        "zscore": of("zscore", compared("heads-zscore", "voxel_intensity", -0.1, -0.2, 0.05)),
        "denoising": of("denoising", compared("heads-denoising", "voxel_intensity", 0.3, 0.2, 0.4)),
    }
    between = [compared("heads-zscore", "heads-denoising", -0.4, -0.5, -0.25)]
    lines = study_heads_folds.differences(judged, between)
    dice = study_heads_folds.HEADINGS.index("Dice")
    rows = [line.split(" | ") for line in lines if "−" in line]
    found = {cells[0]: cells[1 + dice] for cells in rows}
    assert found["| zscore − voxel_intensity"] == "-0.10 (-0.20 to 0.05)"
    assert found["| denoising − voxel_intensity"] == "0.30 (0.20 to 0.40)"
    assert found["| denoising − zscore"] == "0.40 (0.25 to 0.50)"
    assert not any("zscore − zscore" in line for line in lines)
