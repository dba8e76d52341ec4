"""The module's panel: what is chosen, what runs, what is shown; each part has its own view, and all meet here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from AnomalyDetectionLib.errors import InputError, one_line
from AnomalyDetectionLib.models.catalogue import Catalogue

from . import showing
from .device_view import DeviceView
from .export import export
from .findings_view import FindingsView
from .input_view import InputView, default_input, is_candidate
from .install import Installation, SlicerEnvironment
from .model_view import ModelView
from .parameters import Parameters
from .result_view import ResultView
from .results import Results
from .reviews import Review
from .run_view import RunView
from .session import Session
from .setup import Setup
from .shortcuts import Shortcuts
from .surfaces import Surfaces
from .texts import fit_text, warning_text
from .volumes import modality_of

if TYPE_CHECKING:
    from AnomalyDetectionLib.scoring.result import Finding, ScoreResult
    from AnomalyDetectionLib.worker.client import Progress
    from AnomalyDetectionLib.worker.session import Failure


class Panel(VTKObservationMixin):
    """Connects the parameter node, the worker and the results with the widgets.

    Parameters
    ----------
    ui
        The widgets of AnomalyDetection.ui.
    resources
        The module's folder Resources.
    logic
        Gives the parameter node.
    """

    def __init__(self, ui: Any, resources: Path, logic: Any) -> None:
        super().__init__()
        self.ui = ui
        self._logic = logic
        self._parameters: Parameters | None = None
        self._gui_tag: int | None = None
        self._results: Results | None = None
        self._findings: tuple[Finding, ...] = ()
        self._following = False
        self._is_entered = False
        self.session = Session(self)
        self.run = RunView(ui)
        installation = Installation(SlicerEnvironment(resources / "requirements.txt"))
        self.setup = Setup(self.run, installation, lambda: self.session.list_devices(self._scoring_is_possible))
        self.input = InputView(ui, self._refresh_fit)
        self.models = ModelView(ui, Catalogue(resources / "Models", user_models()), self._choose_model, self.run.fail)
        self.devices = DeviceView(ui, self._choose_device, self._ask_devices)
        self.surfaces = Surfaces()
        self.result = ResultView(ui, self._drag, self._reset_threshold, self._show_layers, self._show_surfaces)
        self.findings = FindingsView(ui, self.go_to, self._review)
        self.shortcuts = Shortcuts(
            {
                "N": lambda: self.findings.step(1),
                "P": lambda: self.findings.step(-1),
                "Ctrl+Return": self.score,
                "Ctrl+Enter": self.score,
                "Esc": self.cancel,
            }
        )
        ui.scoreButton.connect("clicked()", lambda: self.score())
        ui.cancelButton.connect("clicked()", lambda: self.cancel())
        ui.setupButton.connect("clicked()", lambda: self.setup.go_on())
        ui.setupLaterButton.connect("clicked()", lambda: self.run.hide_setup())
        ui.exportButton.connect("clicked()", lambda: self._ask_export())
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self._on_scene_closing)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self._on_scene_closed)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self._on_scene_closed)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeRemovedEvent, self._on_node_removed)
        slicer.app.connect("aboutToQuit()", self.close)
        self.models.refresh()
        self.use_parameters()

    # ---- coming and going

    def enter(self) -> None:
        """The user comes to the module."""
        self._is_entered = True
        self.shortcuts.enable(slicer.util.mainWindow())
        self.models.refresh()
        self.use_parameters()

    def exit(self) -> None:
        """The user leaves the module; a score that is under way goes on."""
        self._is_entered = False
        self.shortcuts.disable()
        self._disconnect()

    def close(self) -> None:
        """The panel goes, or the application: end the worker, let go of everything."""
        slicer.app.disconnect("aboutToQuit()", self.close)
        self.session.close()
        self._results = None
        self.shortcuts.disable()
        self._disconnect()
        self.removeObservers()

    def use_parameters(self) -> None:
        """Connect the scene's parameter node, with the volume that is looked at as the default input."""
        self._disconnect()
        self._parameters = Parameters(self._logic.getParameterNode())
        if self._parameters.inputVolume is None:
            self._parameters.inputVolume = default_input()
        self._gui_tag = self._parameters.connectGui(self.ui)
        self.addObserver(self._parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self._on_parameters)
        self.follow_parameters()

    @property
    def parameters(self) -> Parameters:
        """The scene's parameters, also while the panel is not connected with them."""
        return self._parameters if self._parameters is not None else Parameters(self._logic.getParameterNode())

    @property
    def results(self) -> Results | None:
        """The results that are shown."""
        return self._results

    def _disconnect(self) -> None:
        if self._parameters is not None:
            if self._gui_tag is not None:
                self._parameters.disconnectGui(self._gui_tag)
            self.removeObserver(self._parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self._on_parameters)
        self._parameters, self._gui_tag = None, None

    # ---- parameters

    def _on_parameters(self, caller: Any = None, event: Any = None) -> None:
        if not self._following:
            self.follow_parameters()

    def follow_parameters(self) -> None:
        """Bring everything to what the parameter node says."""
        if self._parameters is None:
            return
        self._following = True
        try:
            self._leave_out_results()
            node = self._parameters.inputVolume
            self.input.show(node)
            self.models.show(self._parameters.modelSha256)
            self.devices.show(self._parameters.device)
            self._refresh_fit()
            self._follow_results(node)
            self._follow_threshold()
            showing.set_heat_opacity(self._results, self._parameters.opacity)
            self.findings.mark(self._parameters.currentFinding)
        finally:
            self._following = False

    def _refresh_fit(self) -> None:
        """Say what speaks against scoring, and whether it can be asked for."""
        node = self.parameters.inputVolume
        entry = self.models.current()
        if node is None or not is_candidate(node):
            hindrance = (
                _("Load a volume first, or choose one above.")
                if node is None
                else _("This is a result, not a scan; choose the volume that it was made from.")
            )
            warning = ""
        else:
            warning = fit_text(entry, modality_of(node))
            hindrance = "" if entry is not None and entry.usable else warning
        self.ui.fitLabel.text = warning_text(warning)
        self.ui.fitLabel.setVisible(bool(warning) and not hindrance)
        if not self.session.is_scoring:
            self.run.show_idle(hindrance)

    def _choose_model(self, sha256: str) -> None:
        self.parameters.modelSha256 = sha256
        self.follow_parameters()

    def _choose_device(self, name: str) -> None:
        self.parameters.device = name

    def _ask_devices(self) -> None:
        if not self.setup.is_needed():
            self.session.list_devices(self.devices.fill)

    # ---- scoring

    def score(self) -> None:
        """Score the chosen volume, once what that needs is installed."""
        node, entry = self.parameters.inputVolume, self.models.current()
        if self.session.is_scoring or not self.ui.scoreButton.enabled or node is None or entry is None:
            return
        self.models.refresh()  # a file of the model may have gone since
        self.models.show(self.parameters.modelSha256)
        self._refresh_fit()
        entry = self.models.current()
        if entry is None or not entry.usable or self.setup.is_needed():
            return
        try:
            self.run.show_running()
            self.session.score(node, entry, self.parameters.device)
        except InputError as error:
            self._refresh_fit()
            self.run.fail(one_line(str(error)))

    def cancel(self) -> None:
        """Stop the score that is under way."""
        if self.session.is_scoring:
            self.run.show_cancelling()
            self.session.cancel()

    def on_progress(self, progress: Progress) -> None:
        self.run.show_progress(progress)

    def on_scored(self, volume_node: Any, result: ScoreResult) -> None:
        self._refresh_fit()
        if volume_node is None or volume_node.GetImageData() is None:
            self.run.warn(_("The volume was removed while it was scored; its result was dropped."))
            return
        if volume_node.GetImageData().GetDimensions() != result.rarity.shape[::-1]:
            self.run.warn(_("The volume was changed while it was scored; score it again."))
            return
        self._following = True  # the former results go, which is no reason to look for others
        try:
            results = Results.create(volume_node, result)
            self._leave_out_results()
        finally:
            self._following = False
        self.run.log(_("Scored {volume} on {device}.").format(volume=volume_node.GetName(), device=result.device))
        if volume_node is self.parameters.inputVolume:
            self._adopt(results, result.findings)
            # In a turn of its own, so that the window is not blocked for as long as both take.
            qt.QTimer.singleShot(0, lambda: self._present(results))
        else:
            self.run.say(_("{volume} is scored; choose it to see the result.").format(volume=volume_node.GetName()))

    def _present(self, results: Results) -> None:
        """Let the views show results that have just been made, and go to the first finding."""
        if self._results is results and results.score.GetScene() is not None:
            self._show_in_views(results)
            self._show_surfaces(self.result.wants_surfaces)
            if self._findings:
                self.go_to(self._findings[0].label)

    def on_failed(self, failure: Failure) -> None:
        self._refresh_fit()
        if failure.kind == "cancelled":
            self.run.say(failure.message)
        else:
            self.run.fail(failure.message)
        if failure.details:
            self.run.log(failure.details)

    def on_said(self, line: str) -> None:
        self.run.log(line)

    # ---- installation

    def _scoring_is_possible(self, devices: list[dict[str, Any]]) -> None:
        """The worker has started with what was installed and told of this computer's devices."""
        self.devices.fill(devices)
        self.run.log(_("Devices: {names}").format(names=", ".join(device["label"] for device in devices)))
        self.score()

    # ---- results

    def _follow_results(self, node: Any) -> None:
        """Show the results of a volume where they are not shown yet."""
        results = Results.find(node)
        former = self._results.score if self._results is not None else None
        if results is None:
            self._adopt(None)
        elif results.score is not former:
            self._adopt(results)
            self.result.show_surfaces(Surfaces.are_shown(results))
            if showing.is_shown(results):  # as in a scene that was saved with them
                self.result.show_layers(*showing.layers(results))
            else:
                self._show_in_views(results)

    def _leave_out_results(self) -> None:
        """Let the selector of volumes offer scans only."""
        self.input.leave_out(results.score for results in Results.all())

    def _show_in_views(self, results: Results) -> None:
        showing.show(results, self.parameters.opacity)
        self.result.show_layers(*showing.layers(results))

    def _adopt(self, results: Results | None, findings: tuple[Finding, ...] | None = None) -> None:
        """Make results those that the panel shows, and the parameters theirs; `findings` where they are known."""
        self._results = results
        if findings is None:
            findings = results.findings() if results is not None else ()
        self._findings = findings
        if results is not None:
            following, self._following = self._following, True
            self.parameters.threshold = results.threshold
            self._following = following
        node = self.parameters.inputVolume
        empty = _("Findings appear here once a volume is scored.")
        if node is not None:
            empty = _("This volume is not scored yet.")
        self.result.show(results, empty)
        self._show_findings()

    def _show_findings(self) -> None:
        reviews = self._results.reviews.in_order(self._findings) if self._results is not None else []
        self.findings.show(self._findings, reviews, self.parameters.currentFinding)
        self.result.refresh()

    def _drag(self, threshold: float) -> None:
        """The slider of the threshold moves."""
        if self._results is not None:
            self._findings = showing.drag(self._results, threshold)
            self._show_findings()

    def _follow_threshold(self) -> None:
        """The threshold has come to rest somewhere else."""
        if self._results is not None and self._parameters is not None:
            threshold = self._parameters.threshold
            if abs(threshold - self._results.threshold) > 1e-9 or showing.is_dragging(self._results):
                self._findings = showing.drop(self._results, threshold)
                self._show_findings()
                self.result.show_layers(*showing.layers(self._results))
                self._show_surfaces(self.result.wants_surfaces)

    def _reset_threshold(self) -> None:
        if self._results is not None:
            self.parameters.threshold = self._results.thresholds.default

    def _show_layers(self, heat: bool, outlines: bool, labels: bool) -> None:
        if self._results is not None:
            showing.show_layers(self._results, heat, outlines, labels, self.parameters.opacity)

    def _show_surfaces(self, solid: bool) -> None:
        if self._results is not None and solid:
            self.surfaces.show(self._results)
        elif self._results is not None:
            self.surfaces.hide(self._results)

    def go_to(self, label: int) -> None:
        """Let all views go to a finding."""
        if self._results is not None and showing.jump_to(self._results, label):
            self.parameters.currentFinding = label
            self.findings.mark(label)

    def _review(self, finding: Finding, review: Review) -> None:
        if self._results is not None:
            self._results.review(finding, review)

    def _ask_export(self) -> None:
        if self._results is None:
            return
        folder = qt.QFileDialog.getExistingDirectory(self.ui.exportButton, _("Export into a folder"), "")
        if folder:
            self.export(Path(str(folder)) / self._results.case)

    def export(self, folder: Path) -> None:
        """Write the shown results into a folder."""
        assert self._results is not None
        try:
            written = export(self._results, folder)
        except InputError as error:
            self.run.fail(one_line(str(error)))
            return
        self.run.say(_("Written to {folder}").format(folder=written))

    # ---- the scene

    def _on_scene_closing(self, caller: Any, event: Any) -> None:
        self.session.cancel()
        self._disconnect()
        self._adopt_nothing()

    def _adopt_nothing(self) -> None:
        self._results, self._findings = None, ()
        self.result.show(None, _("Findings appear here once a volume is scored."))
        self.findings.show((), [], 0)

    def _on_scene_closed(self, caller: Any, event: Any) -> None:
        if self._is_entered:
            self.use_parameters()

    def _on_node_removed(self, caller: Any, event: Any) -> None:
        if slicer.mrmlScene.IsClosing() or self._following:
            return
        self._leave_out_results()  # another volume may get the ID of the one that has gone
        if self.session.volume_is_gone:
            self.session.cancel()
        if self._parameters is None:
            return
        gone = self._results is not None and self._results.score.GetScene() is None
        if gone or self._parameters.inputVolume is None:
            self._results = None
            self.follow_parameters()


def user_models() -> Path:
    """Where models that the user installs are kept: beside Slicer's settings, so that updates of Slicer find them."""
    return Path(slicer.app.userSettings().fileName()).parent / "AnomalyDetection" / "Models"
