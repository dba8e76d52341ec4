"""The part of the panel where a volume is chosen, and said what it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import slicer
from slicer.i18n import tr as _

from .attributions import is_attribution
from .results import PREFIX
from .volumes import MODALITY, modality_of

MODALITIES = ("MR", "CT", "CR", "DX", "MG", "US", "PT", "NM")
"""DICOM codes that a user may give an image whose file does not say."""


class InputView:
    """Shows the modality of the chosen volume, or asks for it.

    Parameters
    ----------
    changed
        Called after the user gave the volume another modality.
    """

    def __init__(self, ui: Any, changed: Callable[[], None]) -> None:
        self._ui = ui
        self._changed = changed
        self._node: Any = None
        self._filling = False
        ui.modalityCombo.addItem(_("not known"), "")
        for code in MODALITIES:
            ui.modalityCombo.addItem(code, code)
        ui.modalityCombo.connect("currentIndexChanged(int)", lambda index: self._choose())
        ui.dicomButton.connect("clicked()", lambda: slicer.util.selectModule("DICOM"))

    def show(self, node: Any) -> None:
        """Follow the chosen volume (None for none)."""
        self._node = node
        self._filling = True
        asks = node is not None and (not modality_of(node) or node.GetAttribute(MODALITY) is not None)
        self._ui.modalityLabel.setVisible(asks)
        self._ui.modalityCombo.setVisible(asks)
        if asks:
            index = self._ui.modalityCombo.findData(modality_of(node))
            self._ui.modalityCombo.setCurrentIndex(max(0, index))
        self._filling = False

    def leave_out(self, nodes: Iterable[Any]) -> None:
        """Offer all volumes but these: results are volumes too, and no scans."""
        self._ui.inputSelector.sortFilterProxyModel().hiddenNodeIDs = [node.GetID() for node in nodes]

    def _choose(self) -> None:
        if self._filling or self._node is None:
            return
        self._node.SetAttribute(MODALITY, self._ui.modalityCombo.currentData or None)
        self._changed()


def default_input() -> Any | None:
    """The volume that the user most likely means: the one that is looked at, or else the only one there is."""
    shown = _background()
    if is_candidate(shown):
        return shown
    there = [node for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if is_candidate(node)]
    return there[0] if len(there) == 1 else None


def is_candidate(node: Any) -> bool:
    """Whether a volume may be scored: not a result of ours, not a label map, not hidden."""
    return (
        node is not None
        and node.IsA("vtkMRMLScalarVolumeNode")
        and not node.IsA("vtkMRMLLabelMapVolumeNode")
        and not node.GetHideFromEditors()
        and node.GetAttribute(PREFIX + "Thresholds") is None
        and not is_attribution(node)
    )


def _background() -> Any | None:
    """The volume behind in the red view, which every layout of slices has, or else in any other."""
    composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    for composite in sorted(composites, key=lambda node: node.GetLayoutName() != "Red"):
        node = slicer.mrmlScene.GetNodeByID(composite.GetBackgroundVolumeID() or "")
        if node is not None:
            return node
    return None
