"""What the panel is set to, kept in the scene."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from slicer import vtkMRMLScalarVolumeNode
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

from .colours import OPACITY

LOWEST, HIGHEST = 1.0, 12.0
"""Rarities the threshold can be set to: those whose cost is measured on the calibration normals
(`scoring.thresholds.LEVELS`)."""


@parameterNodeWrapper
class Parameters:
    """Settings of the panel; they are saved and loaded with the scene.

    Attributes
    ----------
    inputVolume
        The volume to score, whose results are shown.
    modelSha256
        Hash of the chosen model; "" for the first that can be used.
    device
        "auto", "cpu", "cuda:N" or "mps".
    threshold
        Rarity above which voxels of the shown results are findings.
    opacity
        Of the heat.
    explainMethod, explainLayer
        How a classifier's score is explained ("" for not at all), and the layer looked at ("" for the default).
    currentFinding
        Label of the finding that the views went to last; 0 for none.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    modelSha256: str = ""
    device: str = "auto"
    explainMethod: str = ""
    explainLayer: str = ""
    threshold: Annotated[float, WithinRange(LOWEST, HIGHEST)] = 4.0
    opacity: Annotated[float, WithinRange(0.0, 1.0)] = OPACITY
    currentFinding: int = 0

    if TYPE_CHECKING:  # what the decorator adds
        parameterNode: Any

        def __init__(self, parameterNode: Any) -> None: ...

        def connectGui(self, gui: Any) -> int: ...

        def disconnectGui(self, guiTag: int) -> None: ...
