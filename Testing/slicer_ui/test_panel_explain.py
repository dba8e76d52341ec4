"""Explaining a classifier by real clicks: the method, the heat with its legend, and what becomes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PySide6 import QtCore, QtTest, QtWidgets

import harness
from AnomalyDetectionLib.imaging.read import read_volume
from AnomalyDetectionLib.scoring.explaining import LABEL

from .conftest import ARTEFACTS, add_volume, click, film, picture, run_until
from .test_install import Machine


@pytest.fixture
def classifier(ready: Any, models: Path, judge_of_images: Path) -> Any:
    """The panel with a radiograph and a classifier, and the part Advanced opened."""
    node = add_volume(film(9), "film")
    node.SetAttribute("AnomalyDetection.Modality", "DX")
    ready.parameters.inputVolume = node
    ready.models.install(str(judge_of_images))
    ready.ui.advancedButton.collapsed = False
    yield ready
    ready.ui.advancedButton.collapsed = True
    ready.parameters.explainMethod = ready.parameters.explainLayer = ""


def choose(panel: Any, title: str) -> None:
    """Pick a method from the opened list, as a user does, by the keyboard."""
    combo = panel.ui.explainCombo
    assert combo.isVisible() and combo.enabled
    combo.setFocus()
    QtTest.QTest.keyClick(combo, QtCore.Qt.Key.Key_Home)
    for _ in range(combo.findText(title)):
        QtTest.QTest.keyClick(combo, QtCore.Qt.Key.Key_Down)
    assert combo.currentText == title


def score(panel: Any) -> None:
    import slicer

    click(panel.ui.scoreButton)
    run_until(lambda: not panel.session.is_scoring)
    for _ in range(5):
        slicer.app.processEvents()


def composite() -> Any:
    import slicer

    return slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()


@pytest.mark.slow
def test_a_chosen_method_puts_heat_over_the_image_with_a_legend_that_says_what_it_is_not(
    classifier: Any, tmp_path: Path
) -> None:
    import slicer

    ui = classifier.ui
    choose(classifier, "Integrated gradients")
    assert classifier.parameters.explainMethod == "integrated-gradients" and not ui.explainLayerEdit.enabled
    score(classifier)
    results = classifier.results
    assert results is not None, ui.messageLabel.text
    picture("explained")
    heat = results.attribution
    assert composite().GetForegroundVolumeID() == heat.GetID() and ui.showMapCheck.checked
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(heat)
    assert legend.GetTitleText() == LABEL == "attribution, not segmentation"
    assert "heat: Integrated gradients" in ui.verdictLabel.text and LABEL in ui.costLabel.text
    assert results.labels is None and results.segmentation is None and not ui.findingsTable.isVisible()
    for control in (ui.thresholdSlider, ui.showOutlinesCheck, ui.showLabelsCheck):
        assert not control.enabled
    assert heat.GetID() in ui.inputSelector.sortFilterProxyModel().hiddenNodeIDs
    view = slicer.app.layoutManager().sliceWidget("Red")
    warm = harness.grab(view).astype(float)
    harness.save_png(view, ARTEFACTS / "view-explained.png")
    ui.showMapCheck.click()
    assert composite().GetForegroundVolumeID() is None
    assert np.abs(harness.grab(view).astype(float) - warm).sum(axis=2).max() > 100
    ui.showMapCheck.click()
    ui.opacitySlider.value = 0.3
    assert composite().GetForegroundOpacity() == pytest.approx(0.3)

    classifier.reading.export(tmp_path / "film")
    said = json.loads((tmp_path / "film" / "report.json").read_text())["attribution"]
    assert said["method"] == "integrated-gradients" and said["label"] == LABEL
    array = slicer.util.arrayFromVolume(heat).copy()
    assert array.any() and np.array_equal(read_volume(tmp_path / "film" / "attribution.nii.gz").array, array)
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    again = classifier.results
    assert again is not None and np.array_equal(slicer.util.arrayFromVolume(again.heat), array)
    assert again.verdict().explained == "Integrated gradients" and ui.opacitySlider.enabled


@pytest.mark.slow
def test_a_layer_that_is_not_there_is_answered_with_the_nearest_and_a_later_score_takes_the_heat_away(
    classifier: Any,
) -> None:
    import slicer

    ui = classifier.ui
    choose(classifier, "Grad-CAM")
    assert ui.explainLayerEdit.enabled
    ui.explainLayerEdit.setFocus()
    QtTest.QTest.keyClicks(ui.explainLayerEdit, "stage.1")
    QtTest.QTest.keyClick(ui.explainLayerEdit, QtCore.Qt.Key.Key_Return)
    score(classifier)
    assert "the nearest are stages.1" in ui.messageLabel.text and classifier.results is None
    ui.explainLayerEdit.selectAll()
    QtTest.QTest.keyClicks(ui.explainLayerEdit, "stages.1")
    QtTest.QTest.keyClick(ui.explainLayerEdit, QtCore.Qt.Key.Key_Return)
    score(classifier)
    former = classifier.results.attribution
    assert json.loads(former.GetAttribute("AnomalyDetection.AttributionFacts"))["layer"] == "stages.1"
    choose(classifier, "no explanation")
    score(classifier)
    assert classifier.results.attribution is None and former.GetScene() is None
    assert not [n for n in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if "attribution" in n.GetName()]
    assert "no map" in ui.verdictLabel.text and not ui.opacitySlider.enabled


def test_models_that_make_maps_are_not_explained_and_the_list_says_why(classifier: Any) -> None:
    ui = classifier.ui
    choose(classifier, "Occlusion")
    starter = next(i for i in range(ui.modelCombo.count) if "starter" in ui.modelCombo.itemText(i))
    ui.modelCombo.setCurrentIndex(starter)
    assert not ui.explainCombo.enabled and "Only models of the detector “classifier”" in ui.explainCombo.toolTip
    assert not ui.explainLayerEdit.enabled
    ui.modelCombo.setCurrentIndex(1 - starter)
    assert ui.explainCombo.enabled and ui.explainCombo.currentText == "Occlusion"


def test_what_a_method_needs_is_offered_for_installation_when_it_is_asked_for(classifier: Any) -> None:
    from AnomalyDetectionLib.slicer_ui.install import Installation

    machine, former = Machine(), classifier.setup.installation
    machine.torch = True
    classifier.setup.installation = Installation(machine)
    try:
        for title, explains in (("Grad-CAM", False), ("Saliency", True)):
            choose(classifier, title)
            click(classifier.ui.scoreButton)
            assert machine.explains == explains and classifier.ui.setupBox.isVisible()
    finally:
        classifier.setup.installation = former
        classifier.run.hide_setup()


def test_the_advanced_part_is_closed_until_it_is_opened(panel: Any) -> None:
    ui = panel.ui
    assert isinstance(ui.advancedButton, QtWidgets.QWidget)
    assert ui.advancedButton.collapsed and not ui.explainCombo.isVisible()
    ui.advancedButton.collapsed = False
    assert ui.explainCombo.isVisible() and ui.explainLayerEdit.isVisible()
    ui.advancedButton.collapsed = True
