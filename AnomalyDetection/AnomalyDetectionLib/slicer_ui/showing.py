"""Showing results: layers and layout of the views, and going to a finding."""

from __future__ import annotations

from typing import Any

import slicer

from AnomalyDetectionLib.scoring.result import Finding

from .colours import OPACITY, refresh_legend
from .results import Results
from .volumes import is_single_image

LABEL_OPACITY = 0.5
"""Of the label map while it stands in for the segmentation."""


def show(results: Results) -> None:
    """Volume behind, heat in front, findings outlined; a single image in one view, in its own plane."""
    volume = results.input
    if volume is None:
        return
    slicer.util.setSliceViewerLayers(background=volume, foreground=results.score, label=None, foregroundOpacity=OPACITY)
    if is_single_image(volume):
        show_one_view(volume)
    fit_views()
    refresh_legend(results.score)


def show_one_view(volume: Any) -> None:
    """Leave only the red slice view, turned to the plane of a single image."""
    layout = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    if layout is not None:
        layout.SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView)
    red = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")
    if red is not None:
        red.RotateToVolumePlane(volume)


def fit_views() -> None:
    """Fit all slice views to what they show."""
    logics = slicer.app.applicationLogic().GetSliceLogics()
    for index in range(logics.GetNumberOfItems()):
        logics.GetItemAsObject(index).FitSliceToBackground()


def drag(results: Results, threshold: float) -> tuple[Finding, ...]:
    """Show the findings above another threshold while a slider moves: the label map stands in for the outlines.

    Raises
    ------
    InputError
        If the threshold is not a rarity above 0.
    """
    findings = results.relabel(threshold, dragging=True)
    if results.labels is not None:
        slicer.util.setSliceViewerLayers(label=results.labels, labelOpacity=LABEL_OPACITY)
    return findings


def drop(results: Results, threshold: float) -> tuple[Finding, ...]:
    """The slider has come to rest: outlines again, at this threshold.

    Raises
    ------
    InputError
        If the threshold is not a rarity above 0.
    """
    findings = results.relabel(threshold)
    slicer.util.setSliceViewerLayers(label=None)
    return findings


def jump_to(results: Results, label: int) -> bool:
    """Centre all slice views on a finding's rarest voxel, and let the 3D views turn about it.

    Parameters
    ----------
    label
        The finding's number, as in the table.

    Returns
    -------
    False where there is no such finding any more.
    """
    place = results.place_of(label)
    if place is None:
        return False
    slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *place, slicer.vtkMRMLSliceNode.CenteredJumpSlice)
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    if crosshair is not None:
        crosshair.SetCrosshairRAS(*place)
    for camera in slicer.util.getNodesByClass("vtkMRMLCameraNode"):
        _focus(camera, place)
    return True


def _focus(camera: Any, point: tuple[float, float, float]) -> None:
    """Move a camera so that it looks at a point as it looked at its former focus."""
    former, position = camera.GetFocalPoint(), camera.GetPosition()
    camera.SetFocalPoint(*point)
    camera.SetPosition(*(place + new - old for place, new, old in zip(position, point, former, strict=True)))
    camera.ResetClippingRange()
