"""Reading results in the panel: threshold, table, layers, surfaces, reviews and export; no worker is needed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PySide6 import QtCore, QtTest

import harness
from AnomalyDetectionLib.interop.reports import FILES, write_case
from AnomalyDetectionLib.scoring.result import ScoreResult
from AnomalyDetectionLib.slicer_ui.volumes import volume_of

from .conftest import ARTEFACTS, add_volume, click, load_sample, picture, run_until, texts


def slice_centre(name: str = "Red") -> np.ndarray:
    import slicer

    node = slicer.app.layoutManager().sliceWidget(name).mrmlSliceNode()
    return slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())[:3, 3]


def test_the_verdict_says_call_score_p_value_and_quality(shown: Any, starter_result: ScoreResult) -> None:
    text = shown.ui.verdictLabel.text
    assert "Abnormal" in text and f"p = {starter_result.p_value:.3f}" in text
    assert f"against {starter_result.calibration_n} normal scans" in text and "good" in text
    assert "findings per normal scan" in shown.ui.costLabel.text
    assert not shown.ui.defaultButton.isVisible()


def test_dragging_the_threshold_relabels_at_once_and_letting_go_makes_segments(shown: Any) -> None:
    results, before = shown.results, shown.ui.findingsTable.rowCount
    inner = shown.ui.thresholdSlider._slider
    inner.setSliderDown(True)
    inner.setValue(int(10_000 * (2.5 - 1) / 11))
    dragged = shown.ui.findingsTable.rowCount
    assert dragged > before and results.threshold == pytest.approx(2.5)
    assert results.segmentation.GetSegmentation().GetNumberOfSegments() == before
    inner.setSliderDown(False)
    assert results.segmentation.GetSegmentation().GetNumberOfSegments() == dragged
    assert shown.parameters.threshold == results.threshold == pytest.approx(2.5)
    assert results.segmentation.GetDisplayVisibility() and shown.ui.defaultButton.isVisible()
    picture("many findings")
    click(shown.ui.defaultButton)
    assert shown.ui.findingsTable.rowCount == before


def test_a_threshold_dragged_away_and_back_shows_the_outlines_again(shown: Any) -> None:
    shown.parameters.threshold = 4.0
    before = shown.reading.findings
    inner = shown.ui.thresholdSlider._slider
    inner.setSliderDown(True)
    for rarity in (2.5, 4.0):
        inner.setValue(round(10_000 * (rarity - 1) / 11))
    inner.setSliderDown(False)
    assert shown.results.segmentation.GetDisplayVisibility() and shown.reading.findings == before
    assert shown.results.threshold == shown.parameters.threshold == 4.0


def test_choosing_another_scored_volume_shows_its_outlines_and_leaves_its_segments(
    shown: Any, starter_result: ScoreResult
) -> None:
    first, other = shown.results, load_sample()
    shown.parameters.threshold = 3.0
    corrected = first.segmentation.GetSegmentation()
    corrected.RemoveSegment("finding-2")
    shown.parameters.inputVolume = other
    shown.on_scored(other, starter_result)
    assert shown.results.threshold == starter_result.threshold != first.threshold
    assert shown.results.segmentation.GetDisplayVisibility(), "its outlines stand in no label map's place"
    shown.parameters.inputVolume = first.input
    assert shown.parameters.threshold == shown.ui.thresholdSlider.value == 3.0
    assert first.segmentation.GetDisplayVisibility() and corrected.GetSegment("finding-2") is None


def test_the_overlay_follows_the_threshold_while_it_is_dragged(shown: Any) -> None:
    import slicer

    sizes = []
    for rarity in (3.0, 4.0):  # how long it takes: Testing/benchmarks/bench_relabel.py
        shown.reading.drag(rarity)
        sizes.append(int((slicer.util.arrayFromVolume(shown.results.labels) > 0).sum()))
    shown.reading.reset_threshold()
    assert sizes[0] > sizes[1] > 0


def test_setting_the_threshold_from_code_relabels_too(shown: Any) -> None:
    shown.parameters.threshold = 12.0
    rarest = float(np.max(shown.results.rarity().array))
    assert shown.ui.findingsTable.rowCount == shown.results.verdict().findings == int(rarest > 12)


def test_clicking_a_row_and_pressing_n_and_p_take_all_views_to_the_finding(
    shown: Any, starter_result: ScoreResult
) -> None:
    import slicer

    table, findings = shown.ui.findingsTable, starter_result.findings
    place = table.visualItemRect(table.item(1, 1)).center()
    QtTest.QTest.mouseClick(table.viewport(), QtCore.Qt.MouseButton.LeftButton, pos=place)
    for view in ("Red", "Green", "Yellow"):
        np.testing.assert_allclose(slice_centre(view), findings[1].peak_ras, atol=1e-2)
    assert shown.parameters.currentFinding == 2
    window = slicer.util.mainWindow()
    window.activateWindow()
    shown.ui.scoreButton.setFocus()
    QtTest.QTest.keyClick(window, QtCore.Qt.Key.Key_P)
    np.testing.assert_allclose(slice_centre(), findings[0].peak_ras, atol=1e-2)
    QtTest.QTest.keyClick(window, QtCore.Qt.Key.Key_P)
    np.testing.assert_allclose(slice_centre(), findings[-1].peak_ras, atol=1e-2)
    QtTest.QTest.keyClick(window, QtCore.Qt.Key.Key_N)
    assert shown.parameters.currentFinding == 1 and table.currentRow() == 0


def test_opacity_and_layers_act_on_the_views(shown: Any) -> None:
    import slicer

    composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    shown.parameters.opacity = 0.2
    assert composite.GetForegroundOpacity() == pytest.approx(0.2)
    shown.ui.showMapCheck.click()
    assert composite.GetForegroundVolumeID() is None
    shown.ui.showLabelsCheck.click()
    assert composite.GetLabelVolumeID() == shown.results.labels.GetID()
    shown.ui.showOutlinesCheck.click()
    display = shown.results.segmentation.GetDisplayNode()
    assert not display.GetVisibility2D()
    shown.parameters.threshold = 3.0
    assert not display.GetVisibility2D(), "what was hidden stays hidden"


def test_the_3d_box_makes_surfaces_and_a_new_threshold_makes_them_anew(shown: Any) -> None:
    import slicer

    from AnomalyDetectionLib.slicer_ui.surfaces import Surfaces

    segmentation = shown.results.segmentation
    assert not Surfaces.are_shown(shown.results)
    shown.ui.showSurfacesCheck.setChecked(True)
    run_until(lambda: not shown.reading.surfaces.is_busy)
    assert Surfaces.are_shown(shown.results)
    shown.parameters.threshold = 2.5
    run_until(lambda: not shown.reading.surfaces.is_busy)
    last = segmentation.GetSegmentation().GetNthSegmentID(segmentation.GetSegmentation().GetNumberOfSegments() - 1)
    assert segmentation.GetClosedSurfaceInternalRepresentation(last).GetNumberOfPoints() > 0
    slicer.app.layoutManager().resetThreeDViews()
    harness.save_png(slicer.app.layoutManager().threeDWidget(0), ARTEFACTS / "view-surfaces.png")
    shown.ui.showSurfacesCheck.setChecked(False)
    assert not Surfaces.are_shown(shown.results)


def test_outlines_and_surfaces_are_shown_and_hidden_each_by_its_own_box(shown: Any) -> None:
    import slicer

    def solid() -> np.ndarray:
        return harness.grab(slicer.app.layoutManager().threeDWidget(0)).astype(float)

    def outlined() -> np.ndarray:
        return harness.grab(slicer.app.layoutManager().sliceWidget("Red")).astype(float)

    slicer.app.layoutManager().resetThreeDViews()
    empty, with_outlines = solid(), outlined()
    shown.ui.showSurfacesCheck.setChecked(True)
    run_until(lambda: not shown.reading.surfaces.is_busy)
    slicer.app.layoutManager().resetThreeDViews()
    surfaces = solid()
    assert np.abs(surfaces - empty).max() > 40
    shown.ui.showOutlinesCheck.setChecked(False)
    np.testing.assert_array_equal(solid(), surfaces)
    assert np.abs(outlined() - with_outlines).max() > 40
    shown.ui.showOutlinesCheck.setChecked(True)
    shown.ui.showSurfacesCheck.setChecked(False)
    np.testing.assert_array_equal(outlined(), with_outlines)
    assert np.abs(solid() - surfaces).max() > 40


def test_another_threshold_leaves_the_segments_that_the_reader_made(shown: Any) -> None:
    import slicer

    node, volume = shown.results.segmentation, shown.results.input
    segmentation = node.GetSegmentation()
    drawn = np.zeros(slicer.util.arrayFromVolume(volume).shape, np.uint8)
    drawn[2:5, 3:9, 4:7] = 1
    kept = slicer.util.arrayFromSegmentBinaryLabelmap(node, "finding-1", volume).copy()
    own = {segmentation.AddEmptySegment("", "mine"): drawn, segmentation.AddEmptySegment("finding-1_1", "copy"): kept}
    for identity, voxels in own.items():
        slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, node, identity, volume)
    for threshold in (2.5, 12.0, 3.0):
        shown.parameters.threshold = threshold
        assert segmentation.GetNumberOfSegments() == len(shown.reading.findings) + len(own)
        for identity, voxels in own.items():
            found = slicer.util.arrayFromSegmentBinaryLabelmap(node, identity, volume)
            assert np.array_equal(found > 0, voxels > 0), identity


def test_a_volume_that_is_moved_after_scoring_keeps_its_sides_and_its_reviews(shown: Any) -> None:
    import slicer

    results, seen = shown.results, shown.reading.findings
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    to_the_right = np.eye(4)
    to_the_right[0, 3] = 300.0
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(to_the_right))
    for node in (results.input, results.score, results.labels, results.segmentation):
        node.SetAndObserveTransformNodeID(transform.GetID())
    moved = results.findings()
    assert moved[0].peak_ras[0] == pytest.approx(seen[0].peak_ras[0] + 300)
    assert [finding.side for finding in moved] == [finding.side for finding in seen]
    assert "left" in (finding.side for finding in seen)
    click(shown.ui.acceptButton)
    assert results.reviews.of(moved[0]).decision == "accept"
    assert results.table.GetTable().GetValueByName(0, "Review").ToString() == "accepted"


def test_a_review_is_kept_with_the_finding_whatever_its_number_becomes(shown: Any) -> None:
    shown.reading.go_to(2)
    finding = shown.reading.findings[1]
    click(shown.ui.rejectButton)
    QtTest.QTest.keyClicks(shown.ui.commentEdit, "vessel")
    QtTest.QTest.keyClick(shown.ui.commentEdit, QtCore.Qt.Key.Key_Return)
    assert texts(shown.ui.findingsTable, 5)[1] == "✗"
    table = shown.results.table.GetTable()
    assert table.GetValueByName(1, "Review").ToString() == "rejected"
    assert table.GetValueByName(1, "Comment").ToString() == "vessel"
    shown.parameters.threshold = 2.5
    row = next(i for i, one in enumerate(shown.reading.findings) if one.peak_ras == pytest.approx(finding.peak_ras))
    assert texts(shown.ui.findingsTable, 5)[row] == "✗"
    shown.reading.go_to(row + 1)
    assert shown.ui.rejectButton.checked and shown.ui.commentEdit.text == "vessel"
    click(shown.ui.rejectButton)
    assert texts(shown.ui.findingsTable, 5)[row] == "", "clicked again, it is taken back"


def test_a_comment_is_kept_whatever_is_clicked_next(shown: Any) -> None:
    """A tool button takes no focus when it is clicked, so that nothing tells of the end of the editing."""
    ui, kept = shown.ui, []
    shown.parameters.threshold = 2.5
    for label, text, button in (
        (1, "old bleed", ui.nextButton),
        (2, "a vessel", ui.rejectButton),
        (3, "motion ", ui.defaultButton),
    ):
        shown.reading.go_to(label)
        finding = shown.reading.findings[label - 1]
        QtTest.QTest.keyClicks(ui.commentEdit, text)
        assert ui.commentEdit.text == text, "the field is left alone while somebody types"
        click(button)
        kept.append(shown.results.reviews.of(finding).comment)
    assert kept == ["old bleed", "a vessel", "motion"]


def test_an_export_is_what_the_command_line_writes(shown: Any, starter_result: ScoreResult, tmp_path: Path) -> None:
    shown.reading.export(tmp_path / "panel")
    write_case(volume_of(shown.parameters.inputVolume), starter_result, tmp_path / "direct")
    assert "Written to" in shown.ui.messageLabel.text
    assert sorted(path.name for path in (tmp_path / "panel").iterdir()) == sorted(FILES)
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("panel", "direct")]
    ours, theirs = (report.pop("findings") for report in reports)
    for mine, other in zip(ours, theirs, strict=True):  # the node's matrix differs in the last digits
        assert {key: pytest.approx(value, abs=1e-3) for key, value in other.items()} == mine
    assert reports[0] == reports[1]
    for name in ("findings.csv", "overlay.png", "labels.nii.gz", "score.nii.gz"):
        assert (tmp_path / "panel" / name).read_bytes() == (tmp_path / "direct" / name).read_bytes(), name


@pytest.mark.parametrize(("name", "folder"), [("5: T1/T2", "5_T1_T2"), ("../x", "x")])
def test_an_export_makes_one_folder_in_the_chosen_one_whatever_the_volume_is_called(
    shown: Any, starter_result: ScoreResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, folder: str
) -> None:
    import qt

    shown.on_scored(shown.parameters.inputVolume, replace(starter_result, case=name))
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *about: str(chosen))
    click(shown.ui.exportButton)
    assert [path.name for path in tmp_path.iterdir()] == ["chosen"]
    assert [path.name for path in chosen.iterdir()] == [folder] and (chosen / folder / "report.json").is_file()
    assert json.loads((chosen / folder / "report.json").read_text())["case"] == name


def test_an_export_holds_the_review_where_there_is_one(shown: Any, tmp_path: Path) -> None:
    click(shown.ui.unsureButton)
    shown.reading.export(tmp_path / "case")
    lines = (tmp_path / "case" / "review.csv").read_text().splitlines()
    assert lines[0] == "case,label,review,comment" and lines[1] == "brain_flair_3mm,1,unsure,"
    shown.reading.export(Path("/proc/no/such"))
    assert "✗" in shown.ui.messageLabel.text


def test_a_radiograph_is_counted_in_square_millimetres_in_one_view(panel: Any, starter_result: ScoreResult) -> None:
    from AnomalyDetectionLib.imaging.volume import Volume
    from AnomalyDetectionLib.scoring.relabel import find_regions

    array = np.zeros((1, 60, 60), np.float32)
    array[0, 20:40, 10:30] = 5.0
    image = Volume(array, np.diag([-2.0, -2.0, 1.0, 1.0]), "DX")
    labels, findings = find_regions(image, 3.0, starter_result.thresholds.least_size, None)
    node = add_volume(image, "film")
    panel.parameters.inputVolume = node
    flat = replace(
        starter_result,
        rarity=image,
        labels=labels,
        findings=findings,
        threshold=3.0,
        foreground=array >= 0,
        midline=None,
    )
    panel.on_scored(node, flat)
    import slicer

    slicer.app.processEvents()
    assert not panel.ui.showSurfacesCheck.isVisible()
    assert texts(panel.ui.findingsTable, 2) == ["1600 mm²"]
    layout = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    assert layout.GetViewArrangement() == slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView
    layout.SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
