"""The 3D Slicer module that trains, evaluates and exports models: a thin shell around AnomalyTrainingLib."""

from __future__ import annotations

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

import AnomalyDetectionLib
from AnomalyDetectionLib.slicer_ui.common.reloading import forget_library


class AnomalyTraining(ScriptedLoadableModule):
    """What the module selector and the help section say of the module."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Anomaly Training")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Quantification")]
        parent.dependencies = ["AnomalyDetection"]
        parent.contributors = ["The Anomaly Detection for 3D Slicer contributors"]
        parent.helpText = _(
            "Learns from normal cases what a scan usually looks like, measures how well that finds what is not, "
            "and packs the result as a model for the Anomaly Detection module. "
            "For research use; not a medical device. Version {version}."
        ).format(version=AnomalyDetectionLib.__version__)
        parent.acknowledgementText = _("Released under the Apache License 2.0.")


class AnomalyTrainingWidget(ScriptedLoadableModuleWidget):
    """The module's panel."""

    def setup(self) -> None:
        """Build the panel from its .ui file."""
        ScriptedLoadableModuleWidget.setup(self)
        self.panel = slicer.util.loadUI(self.resourcePath("UI/AnomalyTraining.ui"))
        self.layout.addWidget(self.panel)
        self.ui = slicer.util.childWidgetVariables(self.panel)
        self.panel.setMRMLScene(slicer.mrmlScene)

    def onReload(self) -> None:
        """Reload the library too: Slicer itself reloads this file only."""
        forget_library("AnomalyTrainingLib")
        ScriptedLoadableModuleWidget.onReload(self)


class AnomalyTrainingTest(ScriptedLoadableModuleTest):
    """Runs inside 3D Slicer (Reload and Test) and under the project's own harness."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        self.setUp()
        self.test_the_panel_opens_and_says_what_the_module_does()

    def test_the_panel_opens_and_says_what_the_module_does(self) -> None:
        widget = slicer.util.getModuleWidget("AnomalyTraining")
        self.assertIs(widget.panel.mrmlScene(), slicer.mrmlScene)
        self.assertTrue(widget.ui.purposeLabel.text)
        self.assertTrue(widget.ui.purposeLabel.wordWrap)
