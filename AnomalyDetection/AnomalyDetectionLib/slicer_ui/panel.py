"""The module's panel: what is chosen, what runs, what is shown; each part has its own view, and all meet here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from AnomalyDetectionLib.errors import InputError, one_line
from AnomalyDetectionLib.models.catalogue import Catalogue

from .device_view import DeviceView
from .explain_view import ExplainView, explanation_for
from .input_view import InputView, default_input, is_candidate
from .install import Installation, SlicerEnvironment
from .model_view import ModelView
from .parameters import Parameters
from .reading import Reading
from .results import Results
from .run_view import RunView
from .session import Session
from .setup import Setup
from .shortcuts import Shortcuts
from .texts import fit_text, warning_text
from .volumes import modality_of

if TYPE_CHECKING:
    from AnomalyDetectionLib.scoring.result import ScoreResult
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
        self._following = False
        self._is_entered = False
        self.session = Session(self)
        self.run = RunView(ui)
        installation = Installation(SlicerEnvironment(resources / "requirements.txt"))
        self.setup = Setup(self.run, installation, lambda: self.session.list_devices(self._scoring_is_possible))
        self.input = InputView(ui, self._refresh_fit)
        self.models = ModelView(ui, Catalogue(resources / "Models", user_models()), self._choose_model, self.run.fail)
        self.devices = DeviceView(ui, self._choose_device, self._ask_devices)
        self.explaining = ExplainView(ui, self._choose_explanation)
        self.reading = Reading(ui, lambda: self.parameters, self._quietly, self.run)
        self.shortcuts = Shortcuts(
            {
                "N": lambda: self.reading.table.step(1),
                "P": lambda: self.reading.table.step(-1),
                "Ctrl+Return": self.score,
                "Ctrl+Enter": self.score,
                "Esc": self.cancel,
            }
        )
        ui.scoreButton.connect("clicked()", lambda: self.score())
        ui.cancelButton.connect("clicked()", lambda: self.cancel())
        ui.setupButton.connect("clicked()", lambda: self.setup.go_on())
        ui.setupLaterButton.connect("clicked()", lambda: self.run.hide_setup())
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self._on_scene_closing)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self._on_scene_closed)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartImportEvent, self._on_scene_importing)
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
        self.reading.results = None
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
        return self.reading.results

    def _disconnect(self) -> None:
        if self._parameters is not None:
            if self._gui_tag is not None:
                self._parameters.disconnectGui(self._gui_tag)
            self.removeObserver(self._parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self._on_parameters)
        self._parameters, self._gui_tag = None, None

    # ---- parameters

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """While the panel itself changes the parameters or the scene, nobody follows."""
        former, self._following = self._following, True
        try:
            yield
        finally:
            self._following = former

    def _on_parameters(self, caller: Any = None, event: Any = None) -> None:
        if not self._following:
            self.follow_parameters()

    def follow_parameters(self) -> None:
        """Bring everything to what the parameter node says."""
        if self._parameters is None:
            return
        with self._quietly():
            self._leave_out_results()
            node = self._parameters.inputVolume
            self.input.show(node)
            self.models.show(self._parameters.modelSha256)
            self.devices.show(self._parameters.device)
            self._show_explanation()
            self._refresh_fit()
            self.reading.follow(node)
            self.reading.follow_threshold(self._parameters.threshold)
            self.reading.set_opacity(self._parameters.opacity)
            self.reading.table.mark(self._parameters.currentFinding)

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

    def _choose_explanation(self, method: str, layer: str) -> None:
        self.parameters.explainMethod, self.parameters.explainLayer = method, layer

    def _show_explanation(self) -> None:
        parameters = self.parameters
        self.explaining.show(parameters.explainMethod, parameters.explainLayer, self.models.current())

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
        if entry is None or not entry.usable:
            return
        try:
            explain = explanation_for(entry, self.parameters.explainMethod, self.parameters.explainLayer)
            if self.setup.is_needed(explain):
                return
            self.run.show_running()
            self.session.score(node, entry, self.parameters.device, explain)
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
        former = Results.find(volume_node)
        results = Results.add(volume_node, result)
        self._leave_out_results()
        self.run.log(_("Scored {volume} on {device}.").format(volume=volume_node.GetName(), device=result.device))
        is_chosen = volume_node is self.parameters.inputVolume
        if is_chosen and self._is_entered:
            self.reading.adopt(results, result.findings)
            in_turns(lambda: self.reading.present(results), lambda: self._remove(former))
            return
        in_turns(lambda: self._remove(former))
        if not is_chosen:  # else it is shown when the user comes back: the views are another module's until then
            self.run.say(_("{volume} is scored; choose it to see the result.").format(volume=volume_node.GetName()))

    def _remove(self, former: Results | None) -> None:
        """Take results out of the scene that others have replaced, unless they have gone already."""
        if former is not None and former.score.GetScene() is not None:
            with self._quietly():  # which is no reason to look for others
                former.remove()
                self._leave_out_results()

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

    def _leave_out_results(self) -> None:
        """Let the selector of volumes offer scans only."""
        every = list(Results.all())
        self.input.leave_out(node for one in every for node in (one.score, one.attribution) if node is not None)

    # ---- the scene

    def _on_scene_closing(self, caller: Any, event: Any) -> None:
        self.session.cancel()
        self._on_scene_importing()

    def _on_scene_importing(self, caller: Any = None, event: Any = None) -> None:
        # Until the end the parameters name the volumes of the file by what may be the IDs of others, without voxels.
        self._disconnect()
        self.reading.forget()

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
        if self.reading.is_gone or self._parameters.inputVolume is None:
            self.reading.results = None
            self.follow_parameters()


def in_turns(*steps: Callable[[], None]) -> None:
    """Do things one a turn of the event loop, so that the window is never blocked for as long as all take."""

    def turn() -> None:
        steps[0]()
        in_turns(*steps[1:])

    if steps:
        qt.QTimer.singleShot(0, turn)


def user_models() -> Path:
    """Where models that the user installs are kept: beside Slicer's settings, so that updates of Slicer find them."""
    return Path(slicer.app.userSettings().fileName()).parent / "AnomalyDetection" / "Models"
