"""The part of the panel that shows a volume's results: verdict, threshold and what the views show of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _

from .texts import cost_text, explained_text, no_map_text, verdict_html
from .volumes import is_single_image

if TYPE_CHECKING:
    from .results import Results
    from .verdict import Verdict


class ResultView:
    """Verdict and threshold.

    Parameters
    ----------
    dragged
        Given the threshold while its slider moves.
    reset
        Called when the user wants the model's own threshold.
    shown
        Given which of heat, outlines and labels are to be shown.
    solid
        Given whether the findings are to be shown as surfaces.
    """

    def __init__(
        self,
        ui: Any,
        dragged: Callable[[float], None],
        reset: Callable[[], None],
        shown: Callable[[bool, bool, bool], None],
        solid: Callable[[bool], None],
    ) -> None:
        self._ui = ui
        self._results: Results | None = None
        self._shown = shown
        self._solid = solid
        self._filling = False
        # What acts on a map, with what it says of itself where there is one.
        self._of_map = [
            (widget, widget.toolTip)
            for widget in (
                ui.thresholdSlider,
                ui.showOutlinesCheck,
                ui.showLabelsCheck,
                ui.showSurfacesCheck,
            )
        ]
        self._of_heat = [(widget, widget.toolTip) for widget in (ui.opacitySlider, ui.showMapCheck)]
        ui.thresholdSlider.connect("valueIsChanging(double)", lambda value: dragged(value))
        ui.defaultButton.connect("clicked()", lambda: reset())
        for box in (ui.showMapCheck, ui.showOutlinesCheck, ui.showLabelsCheck):
            box.connect("toggled(bool)", lambda checked: self._toggle())
        ui.showSurfacesCheck.connect("toggled(bool)", lambda checked: self._toggle_surfaces())

    def show(self, results: Results | None, emptiness: str) -> None:
        """Show results, or why there are none."""
        self._results = results
        self._ui.emptyLabel.text = emptiness
        self._ui.emptyLabel.setVisible(results is None)
        self._ui.resultBox.setVisible(results is not None)
        flat = results is not None and results.input is not None and is_single_image(results.input)
        self._ui.showSurfacesCheck.setVisible(not flat)
        mapped = results is None or results.mapped
        shown = results is None or results.heat is not None
        for widget, tip, can in (
            *((widget, tip, mapped) for widget, tip in self._of_map),
            *((widget, tip, shown) for widget, tip in self._of_heat),
        ):
            widget.enabled = can
            widget.toolTip = tip if can else no_map_text()
        self.refresh()

    def refresh(self) -> None:
        """Bring the words to the present threshold."""
        if self._results is None:
            return
        verdict = self._results.verdict()
        self._ui.verdictLabel.text = verdict_html(verdict)
        default = self._results.thresholds.default
        self._ui.costLabel.text = self._under_the_threshold(verdict)
        self._ui.defaultButton.text = _("Back to the model's own {default:.1f}").format(default=default)
        self._ui.defaultButton.setVisible(abs(verdict.threshold - default) > 1e-6)

    def _under_the_threshold(self, verdict: Verdict) -> str:
        """What the threshold costs, or what there is instead of one."""
        if verdict.mapped:
            return cost_text(verdict.threshold, verdict.false_findings_per_normal)
        return explained_text(verdict.explained) if verdict.explained else no_map_text()

    def show_layers(self, heat: bool, outlines: bool, labels: bool) -> None:
        """Bring the boxes to what the views show."""
        self._filling = True
        self._ui.showMapCheck.checked = heat
        self._ui.showOutlinesCheck.checked = outlines
        self._ui.showLabelsCheck.checked = labels
        self._filling = False

    def show_surfaces(self, solid: bool) -> None:
        """Bring the box of the surfaces to what the segmentation has."""
        self._filling = True
        self._ui.showSurfacesCheck.checked = solid
        self._filling = False

    @property
    def wants_surfaces(self) -> bool:
        """Whether the user wants findings as surfaces."""
        return bool(self._ui.showSurfacesCheck.checked)

    def _toggle_surfaces(self) -> None:
        if not self._filling:
            self._solid(self.wants_surfaces)

    def _toggle(self) -> None:
        if not self._filling:
            self._shown(
                bool(self._ui.showMapCheck.checked),
                bool(self._ui.showOutlinesCheck.checked),
                bool(self._ui.showLabelsCheck.checked),
            )
