"""What the views show of results: rendered by Slicer's own classes, off screen, on the sample the module carries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from project.cmake_lists import CHECKOUT

import harness
from AnomalyDetectionLib.imaging.read import read_volume
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.models.bundle import load_bundle
from AnomalyDetectionLib.models.catalogue import Catalogue
from AnomalyDetectionLib.scoring.result import ScoreResult
from AnomalyDetectionLib.scoring.scorer import Scorer

from .conftest import add_volume

RESOURCES = CHECKOUT / "AnomalyDetection" / "Resources"
SAMPLE = RESOURCES / "SampleData" / "brain_flair_3mm.nii.gz"


@pytest.fixture(scope="module")
def lesion() -> np.ndarray:
    return read_volume(SAMPLE.with_name("brain_flair_3mm_lesion.nii.gz")).array > 0


@pytest.fixture(scope="module")
def scored() -> ScoreResult:
    """The sample, scored by the starter model that ships."""
    (entry,) = Catalogue(RESOURCES / "Models", RESOURCES / "none").entries()
    return Scorer(load_bundle(entry.folder), device="cpu").score(replace(read_volume(SAMPLE), modality="MR"))


@pytest.fixture
def shown(scene: Any, scored: ScoreResult) -> Any:
    """The sample and its results in all views."""
    import slicer

    from AnomalyDetectionLib.slicer_ui.results import Results
    from AnomalyDetectionLib.slicer_ui.showing import show

    results = Results.create(slicer.util.loadVolume(str(SAMPLE)), scored)
    show(results)
    return results


def red_picture() -> np.ndarray:
    """The axial view, (rows, columns, 3), as float."""
    import slicer

    return harness.grab(slicer.app.layoutManager().sliceWidget("Red")).astype(float)


def on_screen(mask: np.ndarray, volume: Volume, shape: tuple[int, ...], mirrored_at: float | None = None) -> np.ndarray:
    """Which pixels of the axial view show a mask (K, J, I) of a volume, or its image mirrored in the plane R = x."""
    import slicer

    node = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
    to_ras = slicer.util.arrayFromVTKMatrix(node.GetXYToRAS())
    rows, columns = shape[:2]
    y, x = np.mgrid[0:rows, 0:columns]
    flat = np.stack([x, rows - 1 - y, np.zeros_like(x), np.ones_like(x)], axis=-1)
    ras = (flat @ to_ras.T)[..., :3]
    if mirrored_at is not None:
        ras[..., 0] = 2 * mirrored_at - ras[..., 0]
    index = np.round(volume.grid.to_ijk(ras)).astype(int)
    limits = np.array(volume.shape[::-1])
    inside = ((index >= 0) & (index < limits)).all(axis=-1)
    i, j, k = np.clip(index, 0, limits - 1).transpose(2, 0, 1)
    return inside & mask[k, j, i]


def test_the_starter_finds_the_samples_lesion_and_little_else(scored: ScoreResult, lesion: np.ndarray) -> None:
    found = scored.labels > 0
    dice = 2 * (found & lesion).sum() / (found.sum() + lesion.sum())
    assert dice > 0.6 and scored.abnormal and scored.quality.verdict == "good"
    first = scored.labels == scored.findings[0].label
    assert (first & lesion).sum() > 0.5 * lesion.sum()


def test_the_picture_changes_where_the_lesion_is_and_nowhere_else(
    shown: Any, scored: ScoreResult, lesion: np.ndarray
) -> None:
    import slicer

    from AnomalyDetectionLib.slicer_ui.showing import jump_to

    assert jump_to(shown, 1)
    slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(shown.score).SetVisibility(False)
    picture = red_picture()
    middle = float(scored.midline.point[0])  # type: ignore[union-attr]
    place = (lesion, scored.rarity, picture.shape)
    here, there = on_screen(*place), on_screen(*place, mirrored_at=middle) & ~on_screen(*place)
    assert here.sum() > 500 and there.sum() > 500
    assert np.abs(picture[here].mean(axis=0) - picture[there].mean(axis=0)).max() >= 30
    slicer.util.setSliceViewerLayers(foregroundOpacity=0)
    shown.segmentation.SetDisplayVisibility(False)
    plain = red_picture()
    change = np.abs(picture - plain).max(axis=-1)
    quiet = ~on_screen(scored.rarity.array >= 1.0, scored.rarity, picture.shape)
    assert change[here].mean() >= 30
    assert change[quiet].mean() < 2 and np.abs(plain[there] - picture[there]).mean() < 6


def test_the_legend_stands_beside_the_image_while_the_map_is_shown(shown: Any) -> None:
    import slicer

    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(shown.score)
    with_legend = red_picture()
    legend.SetVisibility(False)
    differing = np.argwhere(np.abs(with_legend - red_picture()).max(axis=-1) > 30)
    assert differing.shape[0] > 300
    assert differing[:, 1].min() > 0.5 * with_legend.shape[1]


def test_scoring_again_while_the_map_is_shown_makes_slicer_report_no_error(
    shown: Any, scored: ScoreResult, capfd: pytest.CaptureFixture[str]
) -> None:
    from AnomalyDetectionLib.slicer_ui.results import Results

    red_picture()
    capfd.readouterr()
    Results.create(shown.input, scored)
    red_picture()
    assert "ERROR" not in capfd.readouterr().err


def test_dragging_shows_the_label_map_and_dropping_the_outlines(shown: Any) -> None:
    import slicer

    from AnomalyDetectionLib.slicer_ui.showing import drag, drop

    def label_layer() -> str | None:
        return slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode().GetLabelVolumeID()

    outlined = red_picture()
    assert len(drag(shown, 3.0)) == shown.verdict().findings
    assert label_layer() == shown.labels.GetID() and not shown.segmentation.GetDisplayVisibility()
    assert np.abs(red_picture() - outlined).max() > 50
    drop(shown, shown.thresholds.default)
    assert label_layer() is None and shown.segmentation.GetDisplayVisibility()
    np.testing.assert_allclose(red_picture(), outlined, atol=1)


def test_going_to_a_finding_centres_every_slice_view_and_turns_the_3d_view_to_it(
    shown: Any, scored: ScoreResult
) -> None:
    import slicer

    from AnomalyDetectionLib.slicer_ui.showing import jump_to

    finding = scored.findings[-1]
    cameras = slicer.util.getNodesByClass("vtkMRMLCameraNode")
    before = [np.subtract(camera.GetPosition(), camera.GetFocalPoint()) for camera in cameras]
    assert jump_to(shown, finding.label)
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceNode")
    assert len(nodes) >= 3
    for node in nodes:
        to_ras = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
        np.testing.assert_allclose(to_ras[:3, 3], finding.peak_ras, atol=1e-3)
    for camera, offset in zip(cameras, before, strict=True):
        np.testing.assert_allclose(camera.GetFocalPoint(), finding.peak_ras, atol=1e-3)
        np.testing.assert_allclose(np.subtract(camera.GetPosition(), camera.GetFocalPoint()), offset, atol=1e-6)
    assert not jump_to(shown, len(scored.findings) + 1)


def test_a_single_image_is_shown_in_one_view_in_its_own_plane(scene: Any, result: ScoreResult) -> None:
    import slicer

    from AnomalyDetectionLib.scoring.relabel import find_regions
    from AnomalyDetectionLib.slicer_ui.results import Results
    from AnomalyDetectionLib.slicer_ui.showing import show

    array = np.zeros((1, 60, 60), np.float32)
    array[0, 20:40, 10:30] = 5.0
    frontal = np.array([[-1.0, 0, 0, 30], [0, 0, -1, 0], [0, -1, 0, 30], [0, 0, 0, 1]])
    image = Volume(array, frontal, "DX")
    labels, findings = find_regions(image, 3.0, result.thresholds.least_size, None)
    flat = replace(result, rarity=image, labels=labels, findings=findings, threshold=3.0)
    results = Results.create(add_volume(image, "film"), flat)
    show(results)
    layout = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    assert layout.GetViewArrangement() == slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView
    red = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
    normal = slicer.util.arrayFromVTKMatrix(red.GetSliceToRAS())[:3, 2]
    assert abs(normal[1]) == pytest.approx(1.0)
    assert red_picture()[..., 0].max() > 100
    layout.SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)


def test_results_whose_volume_is_gone_are_not_shown(shown: Any) -> None:
    import slicer

    from AnomalyDetectionLib.slicer_ui.showing import show

    slicer.mrmlScene.RemoveNode(shown.input)
    show(shown)
    assert shown.input is None


def test_the_sample_is_small_and_everything_of_it_is_listed() -> None:
    files = sorted(SAMPLE.parent.iterdir())
    assert [path.name for path in files] == ["brain_flair_3mm.nii.gz", "brain_flair_3mm_lesion.nii.gz"]
    assert sum(path.stat().st_size for path in files) < 300_000
    listed = Path(CHECKOUT / "AnomalyDetection" / "CMakeLists.txt").read_text()
    assert all(f"Resources/SampleData/{path.name}" in listed for path in files)


def three_d_picture() -> np.ndarray:
    import slicer

    widget = slicer.app.layoutManager().threeDWidget(0)
    slicer.app.layoutManager().resetThreeDViews()
    return harness.grab(widget).astype(float)


def test_surfaces_are_those_of_slicers_own_conversion_and_appear_in_the_3d_view(shown: Any) -> None:
    from AnomalyDetectionLib.slicer_ui.surfaces import Surfaces, surfaces_of

    node = shown.segmentation
    identities = [
        node.GetSegmentation().GetNthSegmentID(n) for n in range(node.GetSegmentation().GetNumberOfSegments())
    ]
    assert node.CreateClosedSurfaceRepresentation()
    expected = [node.GetClosedSurfaceInternalRepresentation(identity) for identity in identities]
    node.RemoveClosedSurfaceRepresentation()
    assert not Surfaces.are_shown(shown)
    before = three_d_picture()
    steps = list(surfaces_of(shown))
    assert len(steps) == len(identities) + 2 and Surfaces.are_shown(shown)
    for identity, other in zip(identities, expected, strict=True):
        made = node.GetClosedSurfaceInternalRepresentation(identity)
        assert made.GetNumberOfPoints() == other.GetNumberOfPoints() > 0
        np.testing.assert_allclose(made.GetBounds(), other.GetBounds(), atol=1e-4)
    assert (np.abs(three_d_picture() - before).max(axis=-1) > 40).sum() > 500
    Surfaces().hide(shown)
    assert not Surfaces.are_shown(shown)
