"""Pictures of the worst failures: which cases, which slice, what is on them, and that the report stands alone."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from evaluation.conftest import Trained
from evaluation.frames import write_cohort
from evaluation.made import method
from evaluation.test_report import HOSTILE, Page
from evaluation.test_summary import judged
from PIL import Image

from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.interop.views import AXIAL, OUTLINE, Scene
from AnomalyDetectionLib.models.bundle import load_bundle
from AnomalyTrainingLib.cohorts.manifest import read_manifest
from AnomalyTrainingLib.evaluation.gallery import (
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    Panel,
    Shown,
    _focus,
    jpeg_of,
    make_gallery,
)
from AnomalyTrainingLib.evaluation.report import report_html


def row(case: str, label: int, score: float, called: bool | None) -> dict:
    return {
        "case": case, "patient": f"of-{case}", "label": label, "score": score, "p_value": 0.1, "called": called,
        "false_findings": 0, "findings": 0, "lesions": [], "quality": "good",
    }  # fmt: skip


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("gallery") / "cohort", {"test": (3, 3)}, first=300)


def test_the_worst_of_each_kind_are_shown_beside_map_and_truth(trained: Trained, cohort: Path, tmp_path: Path) -> None:
    cases = {case.case: case for case in read_manifest(cohort)}
    model = load_bundle(trained.bundle)
    rows = [row("c300", 0, 9.0, True), row("c301", 0, 7.0, True), row("c302", 0, 1.0, False)]
    rows += [row("c303", 1, 2.0, False), row("c304", 1, 1.0, False), row("c305", 1, 8.0, True)]
    (tmp_path / "gallery").mkdir()
    (tmp_path / "gallery" / "stale.png").write_bytes(b"of an earlier run")
    shown = make_gallery(rows, cases, lambda case: model, tmp_path, most=1, device="cpu")
    assert [(one.kind, one.row["case"]) for one in shown] == [(FALSE_POSITIVE, "c300"), (FALSE_NEGATIVE, "c304")]
    assert {path.name for path in (tmp_path / "gallery").iterdir()} == {"c300.png", "c304.png"}
    well, ill = shown
    assert [panel.caption.split(",")[0] for panel in well.panels] == ["image", "rarity"]
    assert [panel.caption.split(",")[0] for panel in ill.panels] == ["image", "rarity", "truth"]
    plain, _, truth = (np.asarray(Image.open(io.BytesIO(panel.jpeg))).astype(int) for panel in ill.panels)
    near = np.abs(truth - np.array(OUTLINE)).sum(axis=2) < 90
    assert near.any() and not (np.abs(plain - np.array(OUTLINE)).sum(axis=2) < 90).any(), "only the truth is outlined"
    across, down = (round(float(values.mean())) for values in np.nonzero(near)[::-1])
    mask = np.asarray(Image.fromarray(_mask(cases["c304"])).resize(truth.shape[1::-1], Image.Resampling.NEAREST))
    assert mask[down, across], "and it is around the lesion"
    assert max(panel.width for one in shown for panel in one.panels) <= 340
    assert make_gallery(rows, cases, lambda case: model, tmp_path, most=0) == []
    assert not list((tmp_path / "gallery").iterdir()), "none were asked for"


def _mask(case) -> np.ndarray:
    from AnomalyTrainingLib.cohorts.manifest import load_case_mask, load_case_volume

    volume = load_case_volume(case)
    truth = load_case_mask(case, volume)
    assert truth is not None
    # A single slice of a NIfTI file is drawn in radiological convention.
    from AnomalyDetectionLib.imaging.geometry import Canonical

    return Canonical.of(volume.grid).apply(truth)[0][::-1, ::-1].astype(np.uint8)


def test_a_case_whose_image_has_gone_is_named_instead(trained: Trained, tmp_path: Path) -> None:
    manifest = write_cohort(tmp_path / "cohort", {"test": (1, 0)}, first=350)
    cases = {case.case: case for case in read_manifest(manifest)}
    (tmp_path / "cohort" / "image350.nii.gz").unlink()
    model = load_bundle(trained.bundle)
    (shown,) = make_gallery([row("c350", 0, 3.0, True)], cases, lambda case: model, tmp_path, device="cpu")
    assert shown.panels == () and "image350.nii.gz" in shown.note and shown.link == ""


def test_of_a_volume_the_slice_with_most_of_the_missed_truth_is_shown() -> None:
    labels, truth = np.zeros((6, 8, 8), dtype=np.int32), np.zeros((6, 8, 8), dtype=np.int32)
    truth[1, 1:6, 1:6], truth[4, 2:5, 2:5] = 1, 1
    labels[1, 1:6, 1:6] = 1  # the larger lesion is found
    image = np.zeros((6, 8, 8), dtype=np.float32)
    whole = (slice(None),) * 3
    scene = Scene(image, image, labels, (1.0, 1.0, 1.0), (3, 2, 5), whole, (0, 1), 4.0, 6.4, (AXIAL,))
    assert _focus(scene, AXIAL, truth) == (4, 2, 5)
    assert _focus(scene, AXIAL, None) == (3, 2, 5)
    labels[4] = 1
    assert _focus(scene, AXIAL, truth) == (1, 2, 5), "all is found: where most of it is"


def test_the_report_embeds_the_pictures_and_escapes_what_cases_are_called() -> None:
    document = judged([method("zscore", 1.8, "model"), method("random", 0.0)], resamples=20)
    jpeg = jpeg_of(Image.new("RGB", (40, 30), (90, 10, 10)))
    hostile = Shown(
        FALSE_POSITIVE, row(HOSTILE, 0, 4.0, True), (Panel("image", jpeg, 40, 30),), "gallery/x.png", HOSTILE
    )
    undecided = Shown(FALSE_NEGATIVE, row("b", 1, 0.1, None), (Panel("image", jpeg, 40, 30),), "gallery/b.png")
    text = report_html(document, [], [hostile, undecided])
    page = Page(text)
    assert "<script" not in text and HOSTILE in page.text
    pictures = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 2 and all(str(source).startswith("data:image/jpeg;base64,") for source in pictures)
    assert "Normal cases with the highest scores" in page.text, "one of them has no decision"
    assert "Normal cases called abnormal" in Page(report_html(document, [], [hostile])).text


def test_the_command_line_pictures_as_many_as_asked_for(
    trained: Trained, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = cohort.read_text().splitlines()  # labels that are wrong make failures of both kinds
    swapped = [line.replace(",0,,test", ",1,,test") if line.startswith("c300") else line for line in lines]
    swapped = [re.sub(",1,mask305.nii.gz,", ",0,,", line) for line in swapped]
    (cohort.parent / "swapped.csv").write_text("\n".join(swapped) + "\n")
    cohort = cohort.parent / "swapped.csv"
    base = ["evaluate", str(trained.bundle), "--cohort", str(cohort), "--progress", "none", "--no-baselines"]
    base += ["--resamples", "20", "--device", "cpu"]
    assert main([*base, "--out", str(tmp_path / "a"), "--gallery", "51"]) == 2
    assert "--gallery is a number from 0 to 50" in capsys.readouterr().err
    assert main([*base, "--out", str(tmp_path / "none"), "--gallery", "0"]) == 0
    assert not (tmp_path / "none" / "gallery").exists()
    assert main([*base, "--out", str(tmp_path / "some"), "--gallery", "2"]) == 0
    text = (tmp_path / "some" / "report.html").read_text()
    linked = re.findall(r'href="(gallery/[^"]+)"', text)
    assert linked == ["gallery/c305.png", "gallery/c300.png"]
    assert {path.name for path in (tmp_path / "some" / "gallery").iterdir()} == {"c305.png", "c300.png"}
