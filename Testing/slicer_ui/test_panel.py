"""The panel with results in it: opening, choosing, threshold, table, review, export, saving; no worker is needed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from benchmarks.bench_open import openings
from PySide6 import QtCore, QtTest

import harness
from AnomalyDetectionLib.interop.reports import FILES, write_case
from AnomalyDetectionLib.models.bundle import load_bundle, write_bundle
from AnomalyDetectionLib.scoring.result import ScoreResult
from AnomalyDetectionLib.slicer_ui.volumes import volume_of
from harness.window import PANEL_WIDTH

from .conftest import ARTEFACTS, RESOURCES, SAMPLE, add_volume, click, load_sample, picture, run_until


@pytest.fixture
def shown(panel: Any, starter_result: ScoreResult) -> Any:
    """The panel with the scored sample."""
    import slicer

    node = load_sample()
    panel.parameters.inputVolume = node
    panel.on_scored(node, starter_result)
    slicer.app.processEvents()  # the views follow in a turn of their own
    return panel


def texts(table: Any, column: int) -> list[str]:
    return [table.item(row, column).text() for row in range(table.rowCount)]


def slice_centre(name: str = "Red") -> np.ndarray:
    import slicer

    node = slicer.app.layoutManager().sliceWidget(name).mrmlSliceNode()
    return slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())[:3, 3]


def test_without_a_volume_the_panel_says_what_to_do(panel: Any) -> None:
    picture("empty")
    assert not panel.ui.scoreButton.enabled and panel.ui.stageLabel.text.startswith("Load a volume first")
    assert panel.ui.emptyLabel.isVisible() and not panel.ui.resultBox.isVisible()
    assert panel.ui.modelCombo.currentText.startswith("Brain FLAIR (starter)")
    assert "experimental" in panel.ui.modelNoteLabel.text


def test_the_volume_that_is_looked_at_is_the_default_input(panel: Any) -> None:
    import slicer

    first, second = load_sample(), load_sample()
    slicer.util.setSliceViewerLayers(background=second)
    slicer.util.selectModule("")
    slicer.util.selectModule("AnomalyDetection")
    assert panel.parameters.inputVolume is second is panel.ui.inputSelector.currentNode()
    assert panel.ui.scoreButton.enabled and first is not second
    picture("ready")


def offered(panel: Any) -> list[str]:
    selector = panel.ui.inputSelector
    return [selector.nodeFromIndex(index).GetName() for index in range(selector.nodeCount())]


def test_only_scans_are_offered_no_results_and_no_label_maps(shown: Any, starter_result: ScoreResult) -> None:
    import slicer

    assert offered(shown) == ["brain_flair_3mm"] and shown.ui.inputSelector.currentNode() is shown.results.input
    shown.on_scored(shown.results.input, starter_result)
    assert offered(shown) == ["brain_flair_3mm"] and shown.ui.inputSelector.currentNode() is shown.results.input
    gone = shown.results.score.GetID()
    shown.results.remove()
    again = slicer.mrmlScene.AddNode(slicer.vtkMRMLScalarVolumeNode())
    again.SetName("mine")
    while again.GetID() != gone and len(offered(shown)) < 9:  # IDs are given again in the end
        again = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "mine")
    assert set(offered(shown)) == {"brain_flair_3mm", "mine"}


def test_a_second_score_replaces_the_first_once_it_is_shown(shown: Any, starter_result: ScoreResult) -> None:
    import slicer

    from AnomalyDetectionLib.slicer_ui.results import Results

    first = shown.results
    shown.on_scored(first.input, starter_result)
    run_until(lambda: first.score.GetScene() is None)
    assert [results.score for results in Results.all()] == [shown.results.score]
    composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    assert composite.GetForegroundVolumeID() == shown.results.score.GetID()
    assert shown.ui.findingsTable.rowCount == len(starter_result.findings)


def test_results_are_not_offered_in_a_scene_that_was_saved_with_them(shown: Any, tmp_path: Path) -> None:
    import slicer

    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert offered(shown) == ["brain_flair_3mm"] and shown.results is not None


def test_a_result_that_is_chosen_all_the_same_is_refused(shown: Any) -> None:
    shown.parameters.inputVolume = shown.results.score  # as a script may do it
    assert not shown.ui.scoreButton.enabled and shown.ui.stageLabel.text


def test_widgets_and_parameters_follow_each_other(panel: Any) -> None:
    node = load_sample()
    panel.ui.inputSelector.setCurrentNode(node)
    assert panel.parameters.inputVolume is node
    panel.parameters.opacity = 0.3
    assert panel.ui.opacitySlider.value == pytest.approx(0.3)
    panel.ui.deviceCombo.setCurrentIndex(panel.ui.deviceCombo.findData("cpu"))
    assert panel.parameters.device == "cpu"
    panel.parameters.device = "cuda:3"
    assert panel.ui.deviceCombo.currentData == "cuda:3"


def test_an_image_of_another_modality_is_warned_of_before_scoring(panel: Any) -> None:
    node = load_sample()
    node.SetAttribute("AnomalyDetection.Modality", None)
    panel.parameters.inputVolume = node
    panel.follow_parameters()
    assert panel.ui.modalityCombo.isVisible() and "does not say the modality" in panel.ui.fitLabel.text
    panel.ui.modalityCombo.setCurrentIndex(panel.ui.modalityCombo.findData("CT"))
    assert "The image is CT, the model was made for MR" in panel.ui.fitLabel.text
    panel.ui.modalityCombo.setCurrentIndex(panel.ui.modalityCombo.findData("MR"))
    assert not panel.ui.fitLabel.isVisible() and node.GetAttribute("AnomalyDetection.Modality") == "MR"


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


def test_nothing_of_the_panel_is_cut_off_in_slicers_narrow_column(shown: Any) -> None:
    import slicer

    shown.parameters.threshold = 2.5
    assert shown.ui.defaultButton.isVisible() and shown.ui.reviewBox.isVisible()
    assert slicer.util.getModule("AnomalyDetection").widgetRepresentation().minimumSizeHint().width() <= PANEL_WIDTH


def ui_names(kinds: tuple[str, ...]) -> list[str]:
    """Names of widgets of some classes, from the top of the panel to the bottom."""
    tree = ElementTree.parse(RESOURCES / "UI" / "AnomalyDetection.ui")
    return [widget.get("name", "") for widget in tree.iter("widget") if widget.get("class") in kinds]


CONTROLS = (
    *("qMRMLNodeComboBox", "QComboBox", "QPushButton", "QToolButton", "ctkSliderWidget", "QCheckBox"),
    *("QTableWidget", "QLineEdit", "QPlainTextEdit"),
)


def test_every_control_says_in_a_sentence_what_it_is_for(panel: Any) -> None:
    for name in ui_names(CONTROLS):
        tip = getattr(panel.ui, name).toolTip
        assert tip and tip[0].isupper(), name
        assert name == "modelCombo" or tip.rstrip(")").endswith("."), name
    assert "N and P" in panel.ui.findingsTable.toolTip
    assert "N and P" in slicer_help()


def slicer_help() -> str:
    import slicer

    return str(slicer.util.getModule("AnomalyDetection").helpText)


def test_tab_goes_through_the_controls_from_top_to_bottom_and_out_of_table_and_log(shown: Any) -> None:
    names = ui_names(CONTROLS)
    widgets = {name: getattr(shown.ui, name) for name in names}
    walked, widget = [], widgets[names[0]]
    for _ in range(500):
        owner = next((name for name, one in widgets.items() if one is widget or one.isAncestorOf(widget)), None)
        if owner is not None and owner not in walked:
            walked.append(owner)
        widget = widget.nextInFocusChain()
    assert walked == names
    assert not shown.ui.findingsTable.tabKeyNavigation and shown.ui.logText.tabChangesFocus


def test_the_models_name_fits_the_closed_list_and_the_tooltip_has_it_whole(panel: Any) -> None:
    from PySide6 import QtGui

    from AnomalyDetectionLib.slicer_ui.texts import MODEL_LETTERS, shortened

    combo = panel.ui.modelCombo
    room = combo.width - 40  # frame and arrow
    assert QtGui.QFontMetrics(combo.font).horizontalAdvance(combo.currentText) <= room
    assert combo.toolTip.startswith("Brain FLAIR (starter)") and "experimental" in combo.toolTip
    long = shortened("Chest radiographs, frontal, classifier of many findings 3.1", MODEL_LETTERS)
    assert len(long) == MODEL_LETTERS and long.startswith("Chest radiog") and long.endswith("ndings 3.1")
    assert QtGui.QFontMetrics(combo.font).horizontalAdvance(long) <= room


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


def test_a_review_is_kept_with_the_finding_whatever_its_number_becomes(shown: Any) -> None:
    shown.reading.go_to(2)
    finding = shown.reading.findings[1]
    click(shown.ui.rejectButton)
    shown.ui.commentEdit.setText("vessel")
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


def test_switching_the_volume_shows_its_own_results(shown: Any, starter_result: ScoreResult) -> None:
    first, results = shown.parameters.inputVolume, shown.results
    shown.parameters.threshold = 3.0
    other = load_sample()
    shown.parameters.inputVolume = other
    assert shown.results is None and shown.ui.emptyLabel.isVisible()
    shown.on_scored(other, starter_result)
    assert shown.parameters.threshold == pytest.approx(starter_result.threshold)
    shown.parameters.inputVolume = first
    assert shown.results.score is results.score and shown.parameters.threshold == pytest.approx(3.0)


def test_deleting_the_results_empties_the_panel(shown: Any) -> None:
    import slicer

    slicer.mrmlScene.RemoveNode(shown.results.score)
    assert shown.results is None and shown.ui.emptyLabel.isVisible()


def test_a_saved_scene_brings_everything_back_without_a_worker(shown: Any, tmp_path: Path) -> None:
    import slicer

    shown.reading.go_to(2)
    click(shown.ui.acceptButton)
    shown.parameters.threshold = 3.0
    shown.parameters.opacity = 0.4
    shown.parameters.device = "cpu"
    before = [texts(shown.ui.findingsTable, column) for column in range(6)]
    verdict, current = shown.ui.verdictLabel.text, shown.parameters.currentFinding
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    assert shown.results is None
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert shown.session.pid is None
    assert [texts(shown.ui.findingsTable, column) for column in range(6)] == before
    assert shown.ui.verdictLabel.text == verdict and shown.parameters.currentFinding == current == 2
    kept = (shown.parameters.threshold, shown.parameters.opacity, shown.parameters.device)
    assert kept == (pytest.approx(3.0), pytest.approx(0.4), "cpu")
    assert shown.ui.findingsTable.currentRow() == 1


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


def test_the_panel_fits_its_narrow_column_in_every_state(shown: Any) -> None:
    import slicer

    host = slicer.util.getModule("AnomalyDetection").widgetRepresentation()
    assert host.minimumSizeHint().width() <= 310
    shown.parameters.threshold = 1.5
    shown.run.fail("A sentence that is long enough to need a second line in a column that is as narrow as this one.")
    assert host.minimumSizeHint().width() <= 310


def test_opening_imports_only_what_it_needs(tmp_path: Path) -> None:
    _, imported = openings(1, tmp_path)  # how long it takes: Testing/benchmarks/bench_open.py
    assert imported == set()


def test_the_model_is_installed_from_a_file_and_removed(panel: Any, model_zip: Path) -> None:
    panel.models.install(str(model_zip))
    entry = panel.models.current()
    assert entry.id == "another" and panel.parameters.modelSha256 == entry.sha256 and entry.folder.is_dir()
    click(panel.ui.removeModelButton)
    assert not entry.folder.exists() and panel.models.current().id == "starter-brain-flair"
    panel.models.install(str(SAMPLE))
    assert "not a model" in panel.ui.messageLabel.text


@pytest.fixture(scope="module")
def model_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter model under another name, as an archive."""
    model = load_bundle(RESOURCES / "Models" / "starter-brain-flair")
    folder = tmp_path_factory.mktemp("zip") / "bundle"
    write_bundle(replace(model, identity=replace(model.identity, id="another")), folder)
    return Path(shutil.make_archive(str(folder), "zip", folder))


def test_the_overlay_follows_the_threshold_while_it_is_dragged(shown: Any) -> None:
    import slicer

    sizes = []
    for rarity in (3.0, 4.0):  # how long it takes: Testing/benchmarks/bench_relabel.py
        shown.reading.drag(rarity)
        sizes.append(int((slicer.util.arrayFromVolume(shown.results.labels) > 0).sum()))
    shown.reading.reset_threshold()
    assert sizes[0] > sizes[1] > 0
