"""Showing results: layers and layout of the views, and going to a finding."""

from __future__ import annotations

from typing import Any

import slicer

from AnomalyDetectionLib.scoring.result import Finding

from .colours import OPACITY, refresh_legend
from .results import PREFIX, Results
from .volumes import is_single_image

LABEL_OPACITY = 0.5
"""Of the label map while it stands in for the segmentation."""

DRAGGING = PREFIX + "Dragging"
"""Attribute of the segmentation while a slider moves: what is to come back ("segmentation", "labels")."""


def show(results: Results, opacity: float = OPACITY) -> None:
    """Volume behind, heat (if there is a map) in front, findings outlined; a single image in its own plane's view."""
    volume = results.input
    if volume is None:
        return
    slicer.util.setSliceViewerLayers(background=volume, foreground=results.heat, label=None, foregroundOpacity=opacity)
    if is_single_image(volume):
        show_one_view(volume)
    fit_views()
    refresh_legend(results.heat)


def layers(results: Results) -> tuple[bool, bool, bool]:
    """Whether heat, outlines and labels are shown."""
    composites = _composites()
    heat = _has_heat(results)
    labels = results.labels is not None and any(
        node.GetLabelVolumeID() == results.labels.GetID() for node in composites
    )
    return heat, outlines_are_shown(results), labels


def outlines_are_shown(results: Results) -> bool:
    """Whether slice views show the segments."""
    if results.segmentation is None:
        return False
    display = results.segmentation.GetDisplayNode()
    return bool(display.GetVisibility() and display.GetVisibility2D())


def show_outlines(results: Results, shown: bool) -> None:
    """Show or hide the segments in slice views, and leave their surfaces in the 3D views as they are."""
    if results.segmentation is None:
        return
    display = results.segmentation.GetDisplayNode()
    display.SetVisibility2D(shown)
    if shown:  # the user may have closed the segmentation's eye in the Data module
        display.SetVisibility(True)


def show_layers(results: Results, heat: bool, outlines: bool, labels: bool, opacity: float) -> None:
    """Show or hide the heat (with its legend), the outlines and the filled labels, as far as there are any."""
    if results.heat is None:
        return
    slicer.util.setSliceViewerLayers(
        foreground=results.heat if heat else None,
        foregroundOpacity=opacity,
        label=results.labels if labels else None,
        labelOpacity=LABEL_OPACITY,
    )
    show_outlines(results, outlines)
    refresh_legend(results.heat)


def set_heat_opacity(results: Results | None, opacity: float) -> None:
    """Let the heat cover more or less of the image, in the views that show it."""
    if results is None or results.heat is None:
        return
    for node in _composites():
        if node.GetForegroundVolumeID() == results.heat.GetID() and node.GetForegroundOpacity() != opacity:
            node.SetForegroundOpacity(opacity)


def is_shown(results: Results) -> bool:
    """Whether any view has the heat already, or where there is none, the scored volume."""
    if results.heat is not None:
        return _has_heat(results)
    return results.input is not None and any(
        node.GetBackgroundVolumeID() == results.input.GetID() for node in _composites()
    )


def is_dragging(results: Results) -> bool:
    """Whether the label map stands in for the outlines."""
    return results.segmentation is not None and bool(results.segmentation.GetAttribute(DRAGGING))


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
    if results.segmentation is not None and not is_dragging(results):
        shown, labels = results.segmentation.GetDisplayVisibility(), layers(results)[2]
        results.segmentation.SetAttribute(DRAGGING, f"{'segmentation' if shown else ''} {'labels' if labels else ''}")
    findings = results.relabel(threshold, dragging=True)
    if results.labels is not None:
        slicer.util.setSliceViewerLayers(label=results.labels, labelOpacity=LABEL_OPACITY)
    return findings


def drop(results: Results, threshold: float) -> tuple[Finding, ...]:
    """The threshold has come to rest: outlines and labels again as they were before it moved.

    Raises
    ------
    InputError
        If the threshold is not a rarity above 0.
    """
    segmentation = results.segmentation
    if segmentation is not None and is_dragging(results):
        before = (segmentation.GetAttribute(DRAGGING) or "").split()
        shown, labels = "segmentation" in before, "labels" in before
        segmentation.RemoveAttribute(DRAGGING)
    else:
        shown, labels = segmentation is not None and segmentation.GetDisplayVisibility(), layers(results)[2]
    findings = results.relabel(threshold)
    if segmentation is not None:
        segmentation.SetDisplayVisibility(shown)
    slicer.util.setSliceViewerLayers(label=results.labels if labels else None, labelOpacity=LABEL_OPACITY)
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


def _has_heat(results: Results) -> bool:
    """Whether any view shows the heat."""
    heat = results.heat
    return heat is not None and any(node.GetForegroundVolumeID() == heat.GetID() for node in _composites())


def _composites() -> list[Any]:
    return list(slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"))


def _focus(camera: Any, point: tuple[float, float, float]) -> None:
    """Move a camera so that it looks at a point as it looked at its former focus."""
    former, position = camera.GetFocalPoint(), camera.GetPosition()
    camera.SetFocalPoint(*point)
    camera.SetPosition(*(place + new - old for place, new, old in zip(position, point, former, strict=True)))
    camera.ResetClippingRange()
