"""Scoring by real clicks, with a real worker and the starter model, and all that can go wrong meanwhile."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PySide6 import QtCore, QtTest

from AnomalyDetectionLib.worker.workspace import is_alive

from .conftest import add_volume, click, film, load_sample, picture, run_until


def begin(panel: Any) -> int:
    """Click Score and wait until the worker is in the middle of it; returns the worker's process."""
    click(panel.ui.scoreButton)
    assert panel.session.is_scoring, panel.ui.messageLabel.text or panel.ui.setupLabel.text
    run_until(lambda: panel.ui.stageLabel.text.startswith("Aligning"))
    return int(panel.session.pid)


def finish(panel: Any) -> float:
    return run_until(lambda: not panel.session.is_scoring)


@pytest.mark.slow
def test_a_click_scores_the_volume_and_the_window_is_never_blocked_meanwhile(
    ready: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(ready)
    picture("scoring")
    ui = ready.ui
    assert not ui.scoreButton.isVisible() and ui.progressBar.isVisible() and 0 < ui.progressBar.value < 1000
    handed: list[float] = []
    show = ready.run.show_progress

    def noted(progress: Any) -> None:  # the last stage may be over before the next look at the label
        show(progress)
        if ui.stageLabel.text.startswith("Handing"):
            handed.append(time.monotonic())

    monkeypatch.setattr(ready.run, "show_progress", noted)
    longest = run_until(lambda: handed and handed[0])
    assert longest < 0.1, f"no event could get in for {longest * 1000:.0f} ms"
    finish(ready)
    picture("result")
    assert ready.results.input is ready.parameters.inputVolume
    assert "Abnormal" in ui.verdictLabel.text and ui.findingsTable.rowCount == ready.results.verdict().findings > 0
    assert ready.parameters.currentFinding == 1 and ui.currentLabel.text.startswith("1 of ")
    assert ui.scoreButton.isVisible() and not ui.progressBar.isVisible()


@pytest.mark.slow
def test_escape_stops_the_score_within_a_second_and_the_next_one_works(ready: Any) -> None:
    import slicer

    begin(ready)
    asked = time.monotonic()
    window = slicer.util.mainWindow()
    window.activateWindow()
    QtTest.QTest.keyClick(window, QtCore.Qt.Key.Key_Escape)
    finish(ready)
    assert time.monotonic() - asked < 1.5
    assert ready.ui.messageLabel.text == "Stopped." and ready.results is None
    begin(ready)
    click(ready.ui.cancelButton)
    finish(ready)
    assert ready.results is None


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_is_told_once_and_the_next_score_has_another(ready: Any) -> None:
    pid = begin(ready)
    os.kill(pid, signal.SIGKILL)
    finish(ready)
    picture("error")
    assert "memory ran out" in ready.ui.messageLabel.text and ready.ui.scoreButton.enabled
    assert begin(ready) != pid
    click(ready.ui.cancelButton)
    finish(ready)


@pytest.mark.slow
def test_deleting_the_volume_in_the_middle_stops_the_score(ready: Any) -> None:
    import slicer

    begin(ready)
    slicer.mrmlScene.RemoveNode(ready.parameters.inputVolume)
    finish(ready)
    assert ready.results is None and ready.parameters.inputVolume is None
    assert not ready.ui.scoreButton.enabled and "Load a volume first" in ready.ui.stageLabel.text


@pytest.mark.slow
def test_closing_the_scene_in_the_middle_stops_the_score_and_leaves_an_empty_panel(ready: Any) -> None:
    import slicer

    begin(ready)
    slicer.mrmlScene.Clear()
    finish(ready)
    assert ready.results is None and not ready.ui.scoreButton.enabled
    assert not list(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"))
    ready.parameters.inputVolume = load_sample()
    assert ready.ui.scoreButton.enabled


@pytest.mark.slow
def test_a_result_is_not_given_to_the_volume_that_has_the_same_id_in_the_next_scene(
    ready: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import slicer

    begin(ready)
    scored = ready.parameters.inputVolume.GetID()
    monkeypatch.setattr(ready.session, "cancel", lambda: None)  # as where the result was on its way already
    slicer.mrmlScene.Clear()
    ready.parameters.inputVolume = load_sample()
    assert ready.parameters.inputVolume.GetID() == scored
    finish(ready)
    assert ready.results is None and "was removed while it was scored" in ready.ui.messageLabel.text


@pytest.mark.slow
def test_leaving_the_module_lets_the_score_go_on_and_coming_back_shows_it(ready: Any) -> None:
    import slicer

    begin(ready)
    slicer.util.selectModule("")
    finish(ready)
    slicer.util.selectModule("AnomalyDetection")
    assert ready.results is not None and ready.ui.findingsTable.rowCount > 0


def test_a_model_whose_file_is_gone_is_named_before_anything_runs(ready: Any, models: Path) -> None:
    assert ready.ui.scoreButton.enabled
    (models / "starter-brain-flair" / "models" / "model.pt").unlink()
    click(ready.ui.scoreButton)
    assert not ready.session.is_scoring and not ready.ui.scoreButton.enabled
    assert "model.pt" in ready.ui.stageLabel.text


def test_a_volume_without_voxels_is_refused_in_a_sentence(ready: Any) -> None:
    import slicer

    ready.parameters.inputVolume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "hollow")
    click(ready.ui.scoreButton)
    assert not ready.session.is_scoring
    assert "hollow: the volume holds no image" in ready.ui.messageLabel.text


def test_an_image_that_is_all_one_value_fails_with_the_scorers_own_sentence(ready: Any) -> None:
    import slicer

    flat = slicer.util.addVolumeFromArray(np.full((30, 40, 40), 7.0, np.float32), name="flat")
    flat.SetAttribute("AnomalyDetection.Modality", "MR")
    ready.parameters.inputVolume = flat
    click(ready.ui.scoreButton)
    finish(ready)
    assert "✗" in ready.ui.messageLabel.text and "flat" in ready.ui.messageLabel.text
    assert ready.results is None and ready.ui.scoreButton.enabled


@pytest.mark.slow
def test_a_model_that_judges_whole_images_gives_a_verdict_and_says_that_there_is_no_map(
    ready: Any, models: Path, judge_of_images: Path, tmp_path: Path
) -> None:
    import slicer

    node, ui = add_volume(film(9), "film"), ready.ui
    node.SetAttribute("AnomalyDetection.Modality", "DX")
    ready.parameters.inputVolume = node
    ready.models.install(str(judge_of_images))
    click(ui.scoreButton)
    finish(ready)
    slicer.app.processEvents()
    picture("whole image")
    results = ready.results
    assert results is not None, ui.messageLabel.text
    assert "whole image judged, no map" in ui.verdictLabel.text and "Volume score" in ui.verdictLabel.text
    assert "there is no map" in ui.costLabel.text and not ui.findingsTable.isVisible()
    for control in (ui.thresholdSlider, ui.opacitySlider, ui.showMapCheck, ui.showOutlinesCheck, ui.showLabelsCheck):
        assert not control.enabled and "there is no map" in control.toolTip
    assert [node.GetName() for node in results.nodes()[1:]] == ["film - verdict"]
    assert "there is no map" in results.document.GetText() and "judge, version 2.1.0" in results.document.GetText()
    composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    assert composite.GetBackgroundVolumeID() == node.GetID() and composite.GetForegroundVolumeID() is None
    assert slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(results.score) is None
    ready.reading.export(tmp_path / "film")
    assert json.loads((tmp_path / "film" / "report.json").read_text())["mapped"] is False
    said = results.verdict()
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert ready.results is not None and ready.results.verdict() == said and not ui.thresholdSlider.enabled
    ready.parameters.inputVolume = load_sample()
    slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode").SetViewArrangement(
        slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView
    )


# The last two take the panel away.


@pytest.mark.slow
def test_reloading_in_the_middle_ends_the_worker_and_leaves_a_panel_that_works(ready: Any) -> None:
    import slicer

    pid = begin(ready)
    kept = {name: module for name, module in sys.modules.items() if name.startswith("AnomalyDetectionLib")}
    try:
        slicer.util.getModuleWidget("AnomalyDetection").onReload()
        run_until(lambda: not is_alive(pid), seconds=5)
        rebuilt = slicer.util.getModuleWidget("AnomalyDetection").controls
        assert rebuilt is not ready and not rebuilt.session.is_scoring
        assert rebuilt.parameters.inputVolume is ready._logic.getParameterNode().GetNodeReference("inputVolume")
        assert rebuilt.ui.scoreButton.enabled
    finally:
        for name in [name for name in sys.modules if name.startswith("AnomalyDetectionLib")]:
            del sys.modules[name]
        sys.modules.update(kept)  # other tests hold classes of the library as it was imported first


@pytest.mark.slow
def test_quitting_in_the_middle_ends_the_worker(ready: Any) -> None:
    import slicer

    pid = begin(ready)
    slicer.app.aboutToQuit.emit()
    run_until(lambda: not is_alive(pid), seconds=5)
    assert not ready.session.is_scoring
