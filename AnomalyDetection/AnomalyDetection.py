"""The 3D Slicer module that scores a volume and shows what is unusual in it, as a shell around AnomalyDetectionLib."""

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


class AnomalyDetection(ScriptedLoadableModule):
    """What the module selector and the help section say of the module."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Anomaly Detection")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Quantification")]
        parent.contributors = ["The Anomaly Detection for 3D Slicer contributors"]
        parent.helpText = _(
            "Scores a volume and shows what is unusual in it as a calibrated map with findings. "
            "For research use; not a medical device. Version {version}."
        ).format(version=AnomalyDetectionLib.__version__)
        parent.acknowledgementText = _("Released under the Apache License 2.0.")


class AnomalyDetectionWidget(ScriptedLoadableModuleWidget):
    """The module's panel."""

    def setup(self) -> None:
        """Build the panel from its .ui file."""
        ScriptedLoadableModuleWidget.setup(self)
        self.panel = slicer.util.loadUI(self.resourcePath("UI/AnomalyDetection.ui"))
        self.layout.addWidget(self.panel)
        self.ui = slicer.util.childWidgetVariables(self.panel)
        self.panel.setMRMLScene(slicer.mrmlScene)

    def onReload(self) -> None:
        """Reload the library too: Slicer itself reloads this file only."""
        forget_library("AnomalyDetectionLib")
        ScriptedLoadableModuleWidget.onReload(self)


class AnomalyDetectionTest(ScriptedLoadableModuleTest):
    """Runs inside 3D Slicer (Reload and Test) and under the project's own harness."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        self.setUp()
        self.test_the_panel_opens_and_says_what_the_module_does()

    def test_the_panel_opens_and_says_what_the_module_does(self) -> None:
        widget = slicer.util.getModuleWidget("AnomalyDetection")
        self.assertIs(widget.panel.mrmlScene(), slicer.mrmlScene)
        self.assertTrue(widget.ui.purposeLabel.text)
        self.assertTrue(widget.ui.purposeLabel.wordWrap)
