"""The 3D Slicer module that scores a volume and shows what is unusual in it, as a shell around AnomalyDetectionLib."""

from __future__ import annotations

import time
from pathlib import Path

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

import AnomalyDetectionLib
from AnomalyDetectionLib.slicer_ui.common.reloading import forget_library


class AnomalyDetection(ScriptedLoadableModule):
    """What the module selector and the help section say of the module."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Anomaly Detection")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Quantification")]
        parent.dependencies = ["Segmentations", "SubjectHierarchy", "Volumes"]
        parent.contributors = ["The Anomaly Detection for 3D Slicer contributors"]
        parent.helpText = _(
            "Scores a volume and shows what is unusual in it as a calibrated map with findings. Choose a volume and a "
            "model, press Score, and go through the findings with N and P. "
            "For research use; not a medical device. Version {version}."
        ).format(version=AnomalyDetectionLib.__version__)
        parent.acknowledgementText = _("Released under the Apache License 2.0.")
        slicer.app.connect("startupCompleted()", self._register_sample)

    def _register_sample(self) -> None:
        from AnomalyDetectionLib.slicer_ui.sample import register

        register(Path(self.resourcePath("SampleData")))


class AnomalyDetectionWidget(ScriptedLoadableModuleWidget):
    """The module's panel."""

    def setup(self) -> None:
        """Build the panel from its .ui file."""
        from AnomalyDetectionLib.slicer_ui.panel import Panel

        ScriptedLoadableModuleWidget.setup(self)
        self.panel = slicer.util.loadUI(self.resourcePath("UI/AnomalyDetection.ui"))
        self.layout.addWidget(self.panel)
        self.ui = slicer.util.childWidgetVariables(self.panel)
        self.panel.setMRMLScene(slicer.mrmlScene)
        self.logic = AnomalyDetectionLogic()
        self.controls = Panel(self.ui, Path(self.resourcePath("UI")).parent, self.logic)
        if slicer.util.mainWindow() is not None and slicer.util.selectedModule() == self.moduleName:
            self.controls.enter()  # after a reload nobody else says that the module is open

    def enter(self) -> None:
        """The user comes to the module."""
        self.controls.enter()

    def exit(self) -> None:
        """The user leaves the module."""
        self.controls.exit()

    def cleanup(self) -> None:
        """The panel goes."""
        self.controls.close()

    def onReload(self) -> None:
        """Reload the library too: Slicer itself reloads this file only."""
        self.controls.close()
        forget_library("AnomalyDetectionLib")
        ScriptedLoadableModuleWidget.onReload(self)


class AnomalyDetectionLogic(ScriptedLoadableModuleLogic):
    """Gives the module's parameter node; everything else is in `AnomalyDetectionLib.slicer_ui`."""


class AnomalyDetectionTest(ScriptedLoadableModuleTest):
    """Runs inside 3D Slicer (Reload and Test) and under the project's own harness."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        self.setUp()
        self.test_the_sample_is_scored_its_lesion_found_and_the_threshold_moved()

    def test_the_sample_is_scored_its_lesion_found_and_the_threshold_moved(self) -> None:
        slicer.util.selectModule("AnomalyDetection")
        widget = slicer.util.getModuleWidget("AnomalyDetection")
        controls, ui = widget.controls, widget.ui
        self.delayDisplay("Score the sample with the starter model")
        sample = Path(widget.resourcePath("SampleData")) / "brain_flair_3mm.nii.gz"
        volume = slicer.util.loadVolume(str(sample))
        controls.parameters.inputVolume = volume
        controls.parameters.device = "cpu"
        self.assertTrue(ui.scoreButton.enabled, ui.stageLabel.text)
        ui.scoreButton.click()
        self.assertTrue(controls.session.is_scoring, ui.setupLabel.text or ui.messageLabel.text)
        limit = time.monotonic() + 120
        while controls.session.is_scoring and time.monotonic() < limit:
            slicer.app.processEvents()
            time.sleep(0.005)
        results = controls.results
        self.assertIsNotNone(results, ui.messageLabel.text)
        found = results.verdict().findings
        self.assertGreaterEqual(found, 1)
        self.assertEqual(ui.findingsTable.rowCount, found)
        self.assertEqual(results.segmentation.GetSegmentation().GetNumberOfSegments(), found)
        self.assertEqual(results.table.GetNumberOfRows(), found)
        lesion = slicer.util.arrayFromVolume(
            slicer.util.loadLabelVolume(str(sample).replace(".nii.gz", "_lesion.nii.gz"))
        )
        labels = slicer.util.arrayFromVolume(results.labels)
        self.assertGreater(((labels == 1) & (lesion > 0)).sum(), 0.5 * (lesion > 0).sum())
        self.delayDisplay("Lower the threshold, and raise it above everything")
        controls.parameters.threshold = 2.0
        self.assertGreater(results.verdict().findings, found)
        controls.parameters.threshold = 12.0
        self.assertEqual(ui.findingsTable.rowCount, results.verdict().findings)
