"""The reading of results: what the panel and the views show of them, and what a reader does with them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
from slicer.i18n import tr as _

from AnomalyDetectionLib.errors import InputError, one_line
from AnomalyDetectionLib.imaging.write import safe_name

from . import showing
from .export import export
from .findings_view import FindingsView
from .result_view import ResultView
from .results import Results
from .reviews import Review
from .run_view import RunView
from .surfaces import Surfaces

if TYPE_CHECKING:
    from AnomalyDetectionLib.scoring.result import Finding

    from .parameters import Parameters


class Reading:
    """The results that are looked at, with their threshold, their layers, their findings and the reviews of these.

    Parameters
    ----------
    ui
        The widgets of AnomalyDetection.ui.
    parameters
        Gives the scene's parameters.
    quietly
        Makes a context in which nobody follows the parameters.
    run
        Takes messages.
    """

    def __init__(
        self,
        ui: Any,
        parameters: Callable[[], Parameters],
        quietly: Callable[[], AbstractContextManager[None]],
        run: RunView,
    ) -> None:
        self._ui = ui
        self._parameters = parameters
        self._quietly = quietly
        self._run = run
        self.results: Results | None = None
        self.findings: tuple[Finding, ...] = ()
        self.surfaces = Surfaces()
        self.result = ResultView(ui, self.drag, self.reset_threshold, self._show_layers, self._show_surfaces)
        self.table = FindingsView(ui, self.go_to, self._review)
        ui.exportButton.connect("clicked()", lambda: self._ask_export())

    # ---- which results

    def follow(self, node: Any) -> None:
        """Show the results of a volume where they are not shown yet."""
        results = Results.find(node)
        former = self.results.score if self.results is not None else None
        if results is None:
            self.adopt(None)
        elif results.score is not former:
            self.adopt(results)
            self.result.show_surfaces(Surfaces.are_shown(results))
            if showing.is_shown(results):  # as in a scene that was saved with them
                self.result.show_layers(*showing.layers(results))
            else:
                self._show_in_views(results)

    def adopt(self, results: Results | None, findings: tuple[Finding, ...] | None = None) -> None:
        """Make results those that the panel shows, and the parameters theirs; `findings` where they are known."""
        if findings is None:
            findings = results.findings() if results is not None else ()
        self.results, self.findings = results, findings
        if results is not None:
            with self._quietly():
                self._parameters().threshold = results.threshold
        if self._parameters().inputVolume is None:
            self.result.show(results, _("Findings appear here once a volume is scored."))
        else:
            self.result.show(results, _("This volume is not scored yet."))
        self._show_findings()

    def forget(self) -> None:
        """Show no results, and ask the parameters nothing: their scene is being closed, or another read."""
        self.results, self.findings = None, ()
        self.result.show(None, _("Findings appear here once a volume is scored."))
        self.table.show((), [], 0)

    @property
    def is_gone(self) -> bool:
        """Whether the results that are shown have left the scene."""
        return self.results is not None and self.results.score.GetScene() is None

    def present(self, results: Results) -> None:
        """Let the views show results that have just been made, and go to the first finding."""
        if self.results is results and not self.is_gone:
            self._show_in_views(results)
            self._show_surfaces(self.result.wants_surfaces)
            if self.findings:
                self.go_to(self.findings[0].label)

    # ---- threshold

    def drag(self, threshold: float) -> None:
        """The slider of the threshold moves; it says so too when it follows the parameters, and when it comes back."""
        if abs(threshold - self._parameters().threshold) < 1e-9:
            self.follow_threshold(threshold)
        elif self.results is not None:
            self.findings = showing.drag(self.results, threshold)
            self._show_findings()

    def follow_threshold(self, threshold: float) -> None:
        """The threshold has come to rest somewhere else."""
        if self.results is None:
            return
        if abs(threshold - self.results.threshold) > 1e-9 or showing.is_dragging(self.results):
            self.findings = showing.drop(self.results, threshold)
            self._show_findings()
            self.result.show_layers(*showing.layers(self.results))
            self._show_surfaces(self.result.wants_surfaces)

    def reset_threshold(self) -> None:
        """Back to the model's own threshold."""
        if self.results is not None:
            self._parameters().threshold = self.results.thresholds.default

    # ---- layers

    def set_opacity(self, opacity: float) -> None:
        """Let the heat cover more or less of the image."""
        showing.set_heat_opacity(self.results, opacity)

    def _show_in_views(self, results: Results) -> None:
        showing.show(results, self._parameters().opacity)
        self.result.show_layers(*showing.layers(results))

    def _show_layers(self, heat: bool, outlines: bool, labels: bool) -> None:
        if self.results is not None:
            showing.show_layers(self.results, heat, outlines, labels, self._parameters().opacity)

    def _show_surfaces(self, solid: bool) -> None:
        if self.results is not None and solid:
            self.surfaces.show(self.results)
        elif self.results is not None:
            self.surfaces.hide(self.results)

    # ---- findings

    def go_to(self, label: int) -> None:
        """Let all views go to a finding."""
        if self.results is not None and showing.jump_to(self.results, label):
            self._parameters().currentFinding = label
            self.table.mark(label)

    def _show_findings(self) -> None:
        reviews = self.results.reviews.in_order(self.findings) if self.results is not None else []
        self.table.show(self.findings, reviews, self._parameters().currentFinding)
        self.result.refresh()

    def _review(self, finding: Finding, review: Review) -> None:
        if self.results is not None:
            self.results.review(finding, review)

    # ---- export

    def _ask_export(self) -> None:
        if self.results is None:
            return
        folder = qt.QFileDialog.getExistingDirectory(self._ui.exportButton, _("Export into a folder"), "")
        if folder:
            self.export(Path(str(folder)) / safe_name(self.results.case))

    def export(self, folder: Path) -> None:
        """Write the shown results into a folder."""
        assert self.results is not None
        try:
            written = export(self.results, folder)
        except InputError as error:
            self._run.fail(one_line(str(error)))
            return
        self._run.say(_("Written to {folder}").format(folder=written))
