"""Off-screen views show what is in the scene, where it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import harness

SHAPE = (40, 60, 50)  # slices, rows, columns
IJK_TO_RAS = np.array([[-2.0, 0, 0, 50], [0, -2.0, 0, 60], [0, 0, 3.0, -60], [0, 0, 0, 1]])
LESION_IJK = (12, 30, 20)


def ras_of(ijk: tuple[int, int, int]) -> tuple[float, float, float]:
    right, anterior, superior, _ = IJK_TO_RAS @ (*ijk, 1)
    return right, anterior, superior


def add_volume(name: str, values: np.ndarray) -> Any:
    import slicer

    return slicer.util.addVolumeFromArray(values, IJK_TO_RAS, name)


def lesion() -> np.ndarray:
    values = np.zeros(SHAPE, np.float32)
    i, j, k = LESION_IJK
    values[k - 4 : k + 5, j - 6 : j + 7, i - 6 : i + 7] = 5
    return values


def show_with_lesion() -> Any:
    """A grey head and, in the foreground, a red lesion on its right side; all views jump to it."""
    import slicer

    head = add_volume("head", np.full(SHAPE, 100, np.int16))
    head.GetDisplayNode().AutoWindowLevelOff()
    head.GetDisplayNode().SetWindowLevelMinMax(0, 200)
    score = add_volume("score", lesion())
    colours = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLProceduralColorNode", "rarity")
    function = colours.GetColorTransferFunction()
    function.RemoveAllPoints()
    function.AddRGBPoint(0, 0, 0, 0)
    function.AddRGBPoint(5, 1, 0, 0)
    display = score.GetDisplayNode()
    display.SetAndObserveColorNodeID(colours.GetID())
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(0, 5)
    display.SetThreshold(2, 9)
    display.SetApplyThreshold(True)
    slicer.util.setSliceViewerLayers(background=head, foreground=score, foregroundOpacity=0.6, fit=True)
    jump = slicer.vtkMRMLSliceNode.OffsetJumpSlice
    slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *ras_of(LESION_IJK), jump)
    return score


def colour_at(name: str, ras: tuple[float, float, float]) -> np.ndarray:
    import slicer

    view = slicer.app.layoutManager().sliceWidget(name)
    row, column = harness.pixel_of(view, ras)
    return harness.grab(view)[row - 2 : row + 3, column - 2 : column + 3].mean(axis=(0, 1))


@pytest.mark.parametrize("name", ["Red", "Yellow", "Green"])
def test_a_lesion_is_red_where_it_is_in_every_slice_view(scene: Any, name: str) -> None:
    show_with_lesion()
    red, green, blue = colour_at(name, ras_of(LESION_IJK))
    assert red > green + 60 and red > blue + 60


def test_the_other_side_of_the_head_keeps_its_grey(scene: Any) -> None:
    show_with_lesion()
    right, anterior, superior = ras_of(LESION_IJK)
    mirrored = colour_at("Red", (-right, anterior, superior))
    assert np.ptp(mirrored) < 1 and 100 < mirrored.mean() < 150
    assert np.abs(colour_at("Red", (right, anterior, superior)) - mirrored).max() > 30


def test_a_label_map_has_the_colour_of_its_table_for_the_label(scene: Any) -> None:
    import slicer

    show_with_lesion()
    labels = slicer.util.addVolumeFromArray(
        (lesion() > 1).astype(np.uint8), IJK_TO_RAS, "labels", "vtkMRMLLabelMapVolumeNode"
    )
    slicer.util.setSliceViewerLayers(foreground=None, label=labels, labelOpacity=1)
    colour = [0.0] * 4
    assert labels.GetDisplayNode().GetColorNode().GetColor(1, colour)
    assert np.abs(colour_at("Red", ras_of(LESION_IJK)) - np.array(colour[:3]) * 255).max() < 2


def test_a_raised_threshold_takes_the_colour_away(scene: Any) -> None:
    score = show_with_lesion()
    score.GetDisplayNode().SetThreshold(6, 9)
    assert np.ptp(colour_at("Red", ras_of(LESION_IJK))) < 1


def test_a_slice_view_follows_its_slice(scene: Any) -> None:
    import slicer

    show_with_lesion()
    slicer.app.layoutManager().sliceWidget("Red").sliceLogic().SetSliceOffset(ras_of((0, 0, 2))[2])
    right, anterior, _ = ras_of(LESION_IJK)
    assert np.ptp(colour_at("Red", (right, anterior, ras_of((0, 0, 2))[2]))) < 1


def test_resetting_the_views_brings_the_whole_volume_into_sight(scene: Any) -> None:
    import slicer

    show_with_lesion()
    view = slicer.app.layoutManager().sliceWidget("Red")
    view.mrmlSliceNode().SetFieldOfView(10, 10, 1)
    slicer.util.resetSliceViews()
    row, column = harness.pixel_of(view, ras_of((0, 0, LESION_IJK[2])))
    assert 0 <= row < 400 and 0 <= column < 400


def test_a_segment_has_its_outline_in_a_slice_and_its_surface_in_3d(scene: Any) -> None:
    import slicer

    score = show_with_lesion()
    slicer.util.setSliceViewerLayers(foreground=None)
    empty = harness.grab(slicer.app.layoutManager().threeDWidget(0))
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "findings")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(score)
    segment = node.GetSegmentation().AddEmptySegment("finding", "finding", [0, 1, 0])
    slicer.util.updateSegmentBinaryLabelmapFromArray((lesion() > 1).astype(np.uint8), node, segment, score)
    node.CreateClosedSurfaceRepresentation()
    red, green, _ = colour_at("Red", ras_of(LESION_IJK))
    assert green > red + 30
    slicer.util.resetThreeDViews()
    surface = harness.grab(slicer.app.layoutManager().threeDWidget(0)).astype(int)
    assert (surface[..., 1] > surface[..., 0] + 60).any() and not (empty[..., 1] > empty[..., 0].astype(int) + 60).any()


def test_a_picture_is_written_as_it_was_grabbed(scene: Any, tmp_path: Path) -> None:
    import slicer

    show_with_lesion()
    picture = harness.save_png(slicer.app.layoutManager().sliceWidget("Red"), tmp_path / "red.png")
    with Image.open(tmp_path / "red.png") as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), picture)
    with pytest.raises(OSError, match="cannot be written"):
        harness.save_png(slicer.app.layoutManager().sliceWidget("Red"), tmp_path / "absent" / "red.png")


def test_the_main_window_shows_the_panel_beside_the_views(scene: Any) -> None:
    import slicer

    show_with_lesion()
    window = slicer.util.mainWindow()
    window.show()
    try:
        for _ in range(20):
            slicer.app.processEvents()
        picture = harness.grab(window).astype(int)
    finally:
        window.hide()
    assert (picture[:, 400:, 0] > picture[:, 400:, 1] + 60).any()
