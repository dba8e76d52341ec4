"""The part of the panel where a classifier's score is asked to be explained."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _

from AnomalyDetectionLib.scoring.explaining import EXPLAINABLE, METHODS, OF_A_LAYER, Explanation

if TYPE_CHECKING:
    from AnomalyDetectionLib.models.catalogue import Entry


class ExplainView:
    """A list of methods, and the layer that some of them look at; both are greyed out for models that make maps.

    Parameters
    ----------
    chosen
        Called with the method ("" for none) and the layer ("" for the default) that the user chose.
    """

    def __init__(self, ui: Any, chosen: Callable[[str, str], None]) -> None:
        self._combo, self._layer = ui.explainCombo, ui.explainLayerEdit
        self._tips = {widget: widget.toolTip for widget in (self._combo, self._layer)}
        self._chosen = chosen
        self._filling = False
        self._combo.addItem(_("no explanation"), "")
        for method, title in METHODS.items():
            self._combo.addItem(title, method)
        self._combo.connect("currentIndexChanged(int)", lambda index: self._choose())
        self._layer.connect("editingFinished()", lambda: self._choose())

    def show(self, method: str, layer: str, entry: Entry | None) -> None:
        """Follow the parameters and the chosen model."""
        self._filling = True
        self._combo.setCurrentIndex(max(0, self._combo.findData(method)))
        self._layer.text = layer
        self._filling = False
        can = is_explainable(entry)
        self._set(
            self._combo,
            can,
            _("Only models of the detector “classifier” can be explained; one with a map shows in it what it finds."),
        )
        of_a_layer = _("Only Grad-CAM and Grad-CAM++ look at one layer of the network.")
        self._set(self._layer, can and method in OF_A_LAYER, of_a_layer)

    def _set(self, widget: Any, can: bool, why_not: str) -> None:
        widget.enabled = can
        widget.toolTip = self._tips[widget] if can else why_not

    def _choose(self) -> None:
        if not self._filling:
            self._chosen(str(self._combo.currentData or ""), str(self._layer.text).strip())


def is_explainable(entry: Entry | None) -> bool:
    """Whether the model of a catalogue entry is a classifier."""
    return entry is not None and entry.detector in EXPLAINABLE


def explanation_for(entry: Entry | None, method: str, layer: str) -> Explanation | None:
    """What is to be asked of the model; None where nothing is asked for, or it cannot be explained.

    Raises
    ------
    InputError
        If there is no such method.
    """
    if not method or not is_explainable(entry):
        return None
    return Explanation(method, layer if layer and method in OF_A_LAYER else None)
