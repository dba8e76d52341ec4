"""What the panel offers, whose results it shows, and what a saved scene brings back; no worker is needed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks.bench_open import openings
from PySide6 import QtCore, QtGui, QtWidgets

from AnomalyDetectionLib.models.bundle import load_bundle, write_bundle
from AnomalyDetectionLib.scoring.result import ScoreResult

from .conftest import RESOURCES, SAMPLE, click, load_sample, picture, run_until, texts


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


def test_a_score_that_ends_in_another_module_leaves_the_views_alone_and_is_shown_on_coming_back(
    panel: Any, starter_result: ScoreResult
) -> None:
    import slicer

    scored, looked_at = load_sample(), load_sample()
    panel.parameters.inputVolume = scored
    slicer.util.selectModule("")
    slicer.util.setSliceViewerLayers(background=looked_at, foreground=None)
    composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    panel.on_scored(scored, starter_result)
    slicer.app.processEvents()  # the views follow in a turn of their own
    assert composite.GetBackgroundVolumeID() == looked_at.GetID() and composite.GetForegroundVolumeID() is None
    slicer.util.selectModule("AnomalyDetection")
    assert panel.results.input is scored and panel.ui.findingsTable.rowCount == len(starter_result.findings)
    assert composite.GetForegroundVolumeID() == panel.results.score.GetID()


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


def test_a_scene_that_is_added_leaves_the_results_of_the_open_one_as_they_are(shown: Any, tmp_path: Path) -> None:
    import slicer

    shown.parameters.threshold = 2.5
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    shown.parameters.threshold = 4.0
    own = shown.results
    rows = own.table.GetTable().GetNumberOfRows()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert own.threshold == 4.0 and own.table.GetTable().GetNumberOfRows() == rows
    assert shown.results.score is not own.score and shown.results.threshold == shown.parameters.threshold == 2.5
    assert shown.ui.findingsTable.rowCount == len(shown.reading.findings) > rows


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


def test_what_a_model_says_of_itself_is_shown_as_it_stands_and_never_as_markup(
    panel: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import slicer

    model = load_bundle(RESOURCES / "Models" / "starter-brain-flair")
    picture_of = '<img src="file:///somewhere/else.png">'
    info = {**model.info, "title": f"Brain {picture_of}", "contrast": picture_of, "description": "<b>best</b>"}
    write_bundle(replace(model, info=info, identity=replace(model.identity, id="marked")), tmp_path / "marked")
    panel.models.install(str(tmp_path / "marked"))
    tip = QtGui.QTextDocumentFragment.fromHtml(panel.ui.modelCombo.toolTip).toPlainText()
    note = panel.ui.modelNoteLabel.text
    questions: list[str] = []
    with monkeypatch.context() as patch:  # a user is asked, a test is not
        patch.setattr(type(slicer.app), "testingEnabled", lambda app: False)
        patch.setattr(slicer.util, "confirmOkCancelDisplay", questions.append)
        click(panel.ui.removeModelButton)
    click(panel.ui.removeModelButton)
    asked = QtGui.QTextDocumentFragment.fromHtml(questions[0]).toPlainText()
    assert asked.startswith(f"Delete the model Brain {picture_of}") and QtGui.Qt.mightBeRichText(questions[0])
    assert tip.startswith(f"Brain {picture_of}") and "\n<b>best</b>" in tip and picture_of in note
    for label in (panel.ui.modelNoteLabel, panel.ui.stageLabel):
        assert label.textFormat == QtCore.Qt.TextFormat.PlainText, label.objectName


def test_the_card_of_a_model_fetches_no_pictures(panel: Any, model_zip: Path, tmp_path: Path) -> None:
    panel.models.install(str(model_zip))
    entry = panel.models.current()
    address = (tmp_path / "picture.png").as_uri()
    card = entry.folder / "docs" / "README.md"
    card.write_text(f"# Card\n![one]({address})\n![two][far]\n<img src='{address}'>\n\n[far]: {address}\n", "utf-8")
    click(panel.ui.modelCardButton)
    (dialog,) = (widget for widget in QtWidgets.QApplication.topLevelWidgets() if widget.windowTitle == entry.title)
    (shown,) = dialog.findChildren(QtWidgets.QTextBrowser)
    html, plain, follows = shown.toHtml(), shown.toPlainText(), shown.openLinks
    dialog.close()
    click(panel.ui.removeModelButton)
    assert "<img" not in html and "one" in plain and "two" in plain and "<img src" in plain and not follows


@pytest.fixture(scope="module")
def model_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter model under another name, as an archive."""
    model = load_bundle(RESOURCES / "Models" / "starter-brain-flair")
    folder = tmp_path_factory.mktemp("zip") / "bundle"
    write_bundle(replace(model, identity=replace(model.identity, id="another")), folder)
    return Path(shutil.make_archive(str(folder), "zip", folder))
