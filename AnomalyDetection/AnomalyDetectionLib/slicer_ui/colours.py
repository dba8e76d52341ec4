"""How results look: rarity as heat with a legend, findings in colours that stand out from it."""

from __future__ import annotations

from typing import Any

import slicer
from slicer.i18n import tr as _

from AnomalyDetectionLib.imaging.colour import INFERNO, RGB

TOP = 6.0
"""The hottest rarity (one in a million): the same for all images and models, so that colours can be compared."""

SHOWN_FROM = 2.0
"""Rarer than one voxel in a hundred is painted.  From 1 on, a tenth of every normal brain would be."""

COOLEST, HOTTEST = 0.35, 0.88
"""Where on the map heat begins and ends: darker would look like a hole in the image, lighter like tissue, and outlines
would not be seen on it."""

OPACITY = 0.6
"""Of the heat over the image."""

LEGEND_SIZE = (0.1, 0.27)
"""Width and height as shares of the view.  Slicer's legend takes no font size: its letters are as large as its box lets
them be (vtkSlicerScalarBarActor::LayoutTicks), here 11 pixels in a view of 300, 35 in one of 1,000."""

FINDING_COLOURS: tuple[RGB, ...] = (
    (90, 225, 255),
    (130, 255, 110),
    (255, 130, 235),
    (110, 150, 255),
    (0, 205, 170),
    (215, 175, 255),
    (205, 255, 60),
    (60, 190, 120),
)
"""By rank, again from the first after the last: cold and clear, for the heat has red, orange and yellow."""


def colour_of(label: int) -> tuple[float, float, float]:
    """Red, green, blue (0 ... 1) of the finding with that label (from 1)."""
    red, green, blue = FINDING_COLOURS[(label - 1) % len(FINDING_COLOURS)]
    return red / 255, green / 255, blue / 255


def add_heat(name: str, coolest: float = SHOWN_FROM, hottest: float = TOP) -> Any:
    """A new vtkMRMLProceduralColorNode for values `coolest` ... `hottest` (rarities if not said): ever lighter.

    Below there is no colour, for Slicer's legend shows all colours that there are.
    """
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLProceduralColorNode", name)
    node.SetHideFromEditors(True)
    function = node.GetColorTransferFunction()
    function.RemoveAllPoints()
    steps = 24
    for step in range(steps + 1):
        share = step / steps
        red, green, blue = _inferno(COOLEST + (HOTTEST - COOLEST) * share)
        function.AddRGBPoint(coolest + (hottest - coolest) * share, red, green, blue)
    return node


def _inferno(position: float) -> tuple[float, float, float]:
    """Colour (0 ... 1) at a position (0 ... 1) of the map."""
    place = position * (len(INFERNO) - 1)
    first = min(int(place), len(INFERNO) - 2)
    part = place - first
    red, green, blue = (a + (b - a) * part for a, b in zip(INFERNO[first], INFERNO[first + 1], strict=True))
    return red / 255, green / 255, blue / 255


def paint_heat(score: Any, heat: Any, coolest: float = SHOWN_FROM, hottest: float = TOP) -> None:
    """Show a map in those colours, from `coolest` on."""
    display = score.GetDisplayNode()
    display.SetAndObserveColorNodeID(heat.GetID())
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(coolest, hottest)
    display.SetThreshold(coolest, 1e6)
    display.ApplyThresholdOn()
    display.InterpolateOn()


def refresh_legend(score: Any | None) -> None:
    """Let the views look again whether they show a map, and so its legend: they are not told of layers."""
    legend = None if score is None else slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(score)
    if legend is not None:
        legend.Modified()


def add_legend(score: Any) -> Any:
    """The legend of a rarity map: a vtkMRMLColorLegendDisplayNode, in slice views only."""
    legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(score)
    legend.SetTitleText(_("Rarity"))
    legend.SetNumberOfLabels(int(TOP - SHOWN_FROM) + 1)
    legend.SetLabelFormat("%.0f")
    legend.SetMaxNumberOfColors(256)
    legend.SetSize(*LEGEND_SIZE)
    for text in (legend.GetTitleTextProperty(), legend.GetLabelTextProperty()):
        text.SetFontFamilyToArial()
        text.SetBold(False)
        text.SetItalic(False)
        text.SetShadow(True)
    legend.SetVisibility3D(False)
    legend.SetVisibility(True)
    return legend


def add_finding_colours(name: str, count: int = 255) -> Any:
    """A new vtkMRMLColorTableNode for label maps of findings."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLColorTableNode", name)
    node.SetHideFromEditors(True)
    node.SetTypeToUser()
    node.SetNumberOfColors(count + 1)
    node.SetColor(0, "none", 0.0, 0.0, 0.0, 0.0)
    for label in range(1, count + 1):
        node.SetColor(label, _("Finding {number}").format(number=label), *colour_of(label), 1.0)
    return node
