"""Results in the scene: what is there, where it lies, how it changes, and that it is found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simulated

from AnomalyDetectionLib.imaging.geometry import Canonical
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.scoring.model import Model
from AnomalyDetectionLib.scoring.relabel import find_regions
from AnomalyDetectionLib.scoring.result import ScoreResult
from AnomalyDetectionLib.scoring.scorer import Scorer

from .conftest import add_volume


@pytest.fixture
def slicer(scene: Any) -> Any:
    import slicer

    return slicer


@pytest.fixture
def results(slicer: Any, head: Volume, result: ScoreResult) -> Any:
    from AnomalyDetectionLib.slicer_ui.results import Results

    return Results.create(add_volume(head), result)


def hierarchy(slicer: Any) -> Any:
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)


def segments(results: Any) -> list[Any]:
    segmentation = results.segmentation.GetSegmentation()
    return [segmentation.GetNthSegment(index) for index in range(segmentation.GetNumberOfSegments())]


def rows(table: Any) -> list[dict[str, Any]]:
    columns = [table.GetColumnName(column) for column in range(table.GetNumberOfColumns())]
    count = table.GetNumberOfRows()
    return [{name: table.GetTable().GetValueByName(row, name).ToString() for name in columns} for row in range(count)]


def upright(volume: Volume) -> np.ndarray:
    """The voxels in the order right, anterior, superior: reading a file may turn a left-handed array round."""
    return Canonical.of(volume.grid).apply(volume.array)


def node_ids(slicer: Any) -> set[str]:
    scene = slicer.mrmlScene
    return {scene.GetNthNode(index).GetID() for index in range(scene.GetNumberOfNodes())}


def test_the_rarity_map_and_the_label_map_are_the_results_in_the_volumes_place(
    slicer: Any, results: Any, head: Volume, result: ScoreResult
) -> None:
    from AnomalyDetectionLib.slicer_ui.volumes import ijk_to_world

    assert np.array_equal(slicer.util.arrayFromVolume(results.score), result.rarity.array)
    assert np.array_equal(slicer.util.arrayFromVolume(results.labels), result.labels)
    for node in (results.score, results.labels):
        np.testing.assert_allclose(ijk_to_world(node), head.ijk_to_ras, atol=1e-9)


def test_every_finding_is_a_segment_with_its_name_its_voxels_and_its_terminology(
    slicer: Any, results: Any, result: ScoreResult
) -> None:
    assert result.findings
    for finding, segment in zip(result.findings, segments(results), strict=True):
        identity = f"finding-{finding.label}"
        assert segment.GetName().startswith(f"Finding {finding.label} ({finding.side}, ")
        voxels = slicer.util.arrayFromSegmentBinaryLabelmap(results.segmentation, identity, results.input)
        assert np.array_equal(voxels > 0, result.labels == finding.label)
    parts = segments(results)[0].GetTerminology().split("~")
    assert parts[1:3] == ["SCT^49755003^Morphologically Altered Structure", "SCT^4147007^Mass"]
    assert parts[0] == "Segmentation category and type - 3D Slicer General Anatomy list" and len(parts) == 7
    reference = results.segmentation.GetNodeReference(results.segmentation.GetReferenceImageGeometryReferenceRole())
    assert reference is results.input


def test_names_give_sizes_as_one_says_them(result: ScoreResult) -> None:
    from AnomalyDetectionLib.slicer_ui.findings import segment_name

    finding = replace(result.findings[0], label=1, side="left")
    assert segment_name(replace(finding, size=3.21, size_unit="mL")) == "Finding 1 (left, 3.2 mL)"
    assert segment_name(replace(finding, size=0.123, size_unit="mL")) == "Finding 1 (left, 0.12 mL)"
    assert segment_name(replace(finding, size=512.4, size_unit="mm²")) == "Finding 1 (left, 512 mm²)"
    assert segment_name(replace(finding, size=40, size_unit="px", side="unknown")) == "Finding 1 (40 px)"


def test_the_table_has_a_row_a_finding_with_units(results: Any, result: ScoreResult) -> None:
    finding, row = result.findings[0], rows(results.table)[0]
    assert len(rows(results.table)) == len(result.findings)
    assert (row["Finding"], row["Side"], row["Unit"]) == ("1", "left", "mL")
    assert float(row["Size"]) == pytest.approx(finding.size, abs=1e-3)
    assert float(row["Peak"]) == pytest.approx(finding.peak, abs=0.01)
    assert [float(row[name]) for name in "RAS"] == pytest.approx(list(finding.centroid_ras), abs=0.051)
    assert results.table.GetColumnUnitLabel("Size") == "mL" and results.table.GetColumnUnitLabel("R") == "mm"
    assert results.table.GetColumnTitle("Peak") == "Peak rarity"


def test_every_node_says_which_model_made_it_at_which_threshold(results: Any, result: ScoreResult) -> None:
    assert len(results.nodes()) == 5
    for node in results.nodes():
        said = {key: node.GetAttribute(f"AnomalyDetection.{key}") for key in ("ModelId", "ModelVersion", "ModelSha256")}
        assert tuple(said.values()) == (result.model.id, result.model.version, result.model.sha256)
        assert float(node.GetAttribute("AnomalyDetection.Threshold")) == result.threshold
        assert float(node.GetAttribute("AnomalyDetection.VolumeScore")) == result.volume_score
        assert float(node.GetAttribute("AnomalyDetection.PValue")) == result.p_value
        assert node.GetAttribute("AnomalyDetection.CalibrationN") == str(result.calibration_n)
        assert node.GetAttribute("AnomalyDetection.Quality") == result.quality.verdict
        assert node.GetAttribute("AnomalyDetection.Software").startswith("slicer-anomaly ")


def test_the_verdict_is_a_text_that_needs_no_module_and_follows_the_threshold(
    slicer: Any, results: Any, result: ScoreResult, tmp_path: Path
) -> None:
    from AnomalyDetectionLib.slicer_ui.results import Results

    text = results.document.GetText()
    assert results.document.GetName() == "head - verdict"
    for said in (
        "The model calls the case abnormal.",
        f"The volume score is {result.volume_score:.2f}.",
        f"Of {result.calibration_n} normal scans, together with this one, a share of p = {result.p_value:.3f} scores",
        "The image quality is",
        f"Scored by the model {result.model.id}, version {result.model.version} ",
        result.model.sha256,
        *result.notes,
    ):
        assert said in text, said
    count = len(results.relabel(2.5))
    text = results.document.GetText()
    assert f"There are {count} findings above rarity 2.5." in text
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    (found,) = Results.all()
    assert found.document.GetText() == text
    again = Results.create(found.input, replace(result, volume_score=99.0))
    (document,) = slicer.util.getNodesByClass("vtkMRMLTextNode")
    assert document is again.document and "The volume score is 99.00." in document.GetText()
    again.remove()
    assert not slicer.util.getNodesByClass("vtkMRMLTextNode")


def test_all_nodes_lie_in_one_folder_beside_the_volume(slicer: Any, head: Volume, result: ScoreResult) -> None:
    from AnomalyDetectionLib.slicer_ui.results import Results

    volume = add_volume(head)
    tree = hierarchy(slicer)
    study = tree.CreateStudyItem(tree.CreateSubjectItem(tree.GetSceneItemID(), "P"), "S")
    tree.SetItemParent(tree.GetItemByDataNode(volume), study)
    results = Results.create(volume, result)
    folders = {tree.GetItemParent(tree.GetItemByDataNode(node)) for node in results.nodes()}
    (folder,) = folders
    assert tree.GetItemName(folder) == "head - anomalies" and tree.GetItemParent(folder) == study
    assert tree.GetItemAncestorAtLevel(tree.GetItemByDataNode(results.segmentation), "Study") == study


def test_colours_mean_the_same_for_every_image(slicer: Any, results: Any, head: Volume, result: ScoreResult) -> None:
    from AnomalyDetectionLib.slicer_ui.results import Results

    hotter = replace(result, rarity=result.rarity.with_array(result.rarity.array * 1.7))
    other = Results.create(add_volume(head, "other"), hotter)
    for one in (results, other):
        display = one.score.GetDisplayNode()
        low, high = display.GetWindowLevelMin(), display.GetWindowLevelMax()
        assert (low, high) == (2.0, 6.0) and display.GetApplyThreshold() and display.GetLowerThreshold() == 2.0
        assert display.GetColorNode().GetClassName() == "vtkMRMLProceduralColorNode"
    assert results.score.GetDisplayNode().GetColorNode() is not other.score.GetDisplayNode().GetColorNode()


def test_heat_becomes_ever_lighter(slicer: Any, results: Any) -> None:
    function = results.score.GetDisplayNode().GetColorNode().GetColorTransferFunction()
    colours = np.array([function.GetColor(rarity) for rarity in np.linspace(2.0, 6.0, 41)])
    lightness = colours @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(lightness) > 0).all() and lightness[0] > 0.08
    assert list(function.GetRange()) == [2.0, 6.0], "the legend shows no colour that the image cannot have"


def test_the_verdict_says_in_sentences_what_the_result_holds(results: Any, result: ScoreResult) -> None:
    verdict = results.verdict()
    called, found, score, share, *_ = verdict.sentences()
    assert called == "The model calls the case abnormal." and f"{len(result.findings)} finding" in found
    assert f"{result.volume_score:.2f}" in score
    assert f"Of {result.calibration_n} normal scans" in share and f"p = {result.p_value:.3f}" in share
    assert verdict.abnormal == result.abnormal
    assert verdict.false_findings_per_normal == result.false_findings_per_normal
    assert verdict.reasons == result.quality.reasons and verdict.notes == result.notes


@pytest.mark.parametrize("moved", [False, True], ids=["in place", "under a transform"])
def test_another_threshold_finds_what_scoring_at_it_finds_and_makes_no_new_nodes(
    slicer: Any, head: Volume, result: ScoreResult, moved: bool
) -> None:
    from AnomalyDetectionLib.slicer_ui.results import Results
    from AnomalyDetectionLib.slicer_ui.volumes import volume_of

    volume = add_volume(head)
    if moved:
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        shifted = np.eye(4)
        shifted[:3, 3] = (5.0, 6.0, 7.0)
        transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(shifted))
        volume.SetAndObserveTransformNodeID(transform.GetID())
    place = volume_of(volume).ijk_to_ras
    results = Results.create(volume, replace(result, rarity=replace(result.rarity, ijk_to_ras=place)))
    before = node_ids(slicer)
    findings = results.relabel(2.5)
    labels, expected = find_regions(results.rarity(), 2.5, result.thresholds.least_size, result.midline)
    assert findings == expected and len(findings) != len(result.findings)
    assert np.array_equal(slicer.util.arrayFromVolume(results.labels), labels)
    assert len(segments(results)) == len(rows(results.table)) == len(findings)
    assert results.threshold == float(results.table.GetAttribute("AnomalyDetection.Threshold")) == 2.5
    assert results.verdict().findings == len(findings)
    assert node_ids(slicer) == before
    centre = [float(rows(results.table)[0][name]) for name in "RAS"]
    offset = (5.0, 6.0, 7.0) if moved else (0.0, 0.0, 0.0)
    unmoved = find_regions(result.rarity, 2.5, result.thresholds.least_size, None)[1]
    assert centre == pytest.approx([c + o for c, o in zip(unmoved[0].centroid_ras, offset, strict=True)], abs=0.051)


def test_while_a_slider_moves_the_segmentation_is_left_as_it_is_and_hidden(results: Any, result: ScoreResult) -> None:
    few = len(segments(results))
    dragged = results.relabel(2.0, dragging=True)
    assert len(rows(results.table)) == len(dragged) > few == len(segments(results))
    assert not results.segmentation.GetDisplayVisibility()
    results.relabel(2.0)
    assert len(segments(results)) == len(dragged) and results.segmentation.GetDisplayVisibility()


def test_above_every_rarity_there_are_no_findings_and_then_some_again(results: Any, result: ScoreResult) -> None:
    assert results.relabel(float(result.rarity.array.max()) + 1) == ()
    assert segments(results) == [] == rows(results.table)
    assert "There is no finding above rarity" in results.verdict().sentences()[1]
    assert len(results.relabel(result.threshold)) == len(result.findings) == len(segments(results))


def test_scoring_again_replaces_this_volumes_results_and_no_others(
    slicer: Any, results: Any, head: Volume, result: ScoreResult
) -> None:
    from AnomalyDetectionLib.slicer_ui.results import Results

    other = Results.create(add_volume(head, "other"), result)
    before = node_ids(slicer)
    again = Results.create(results.input, replace(result, volume_score=99.0))
    after = node_ids(slicer)
    assert len(after) == len(before) and not {node.GetID() for node in again.nodes()} & before
    assert {node.GetID() for node in other.nodes()} <= after
    assert Results.find(again.input).fact("VolumeScore") == "99.0"
    assert Results.find(other.input).score is other.score
    tree = hierarchy(slicer)
    assert [tree.GetItemChildWithName(tree.GetSceneItemID(), f"{name} - anomalies") != 0 for name in ("head", "other")]
    assert tree.GetItemName(tree.GetItemParent(tree.GetItemByDataNode(again.score))) == "head - anomalies"


def test_removing_results_leaves_nothing_of_them(slicer: Any, head: Volume, result: ScoreResult) -> None:
    from AnomalyDetectionLib.slicer_ui.results import Results

    volume = add_volume(head)
    before, items = node_ids(slicer), hierarchy(slicer).GetNumberOfItems()
    Results.create(volume, result).remove()
    assert node_ids(slicer) == before and hierarchy(slicer).GetNumberOfItems() == items
    assert Results.find(volume) is None


def test_a_folder_with_something_of_the_users_stays(slicer: Any, results: Any, head: Volume) -> None:
    tree = hierarchy(slicer)
    folder = tree.GetItemParent(tree.GetItemByDataNode(results.score))
    tree.SetItemParent(tree.GetItemByDataNode(add_volume(head, "mine")), folder)
    results.remove()
    assert tree.GetItemName(folder) == "head - anomalies"


def test_a_part_that_the_user_deleted_is_done_without(slicer: Any, results: Any) -> None:
    slicer.mrmlScene.RemoveNode(results.table)
    slicer.mrmlScene.RemoveNode(results.segmentation)
    assert results.table is None and results.segmentation is None
    assert results.relabel(2.5)
    assert len(results.nodes()) == 3
    results.remove()


def test_a_result_of_another_size_is_not_taken(head: Volume, result: ScoreResult, slicer: Any) -> None:
    from AnomalyDetectionLib.slicer_ui.results import Results

    with pytest.raises(ValueError, match="shape"):
        Results.create(slicer.util.addVolumeFromArray(np.zeros((3, 4, 5), np.float32)), result)
    assert list(Results.all()) == []


def test_results_are_found_again_after_the_scene_was_saved_and_loaded(
    slicer: Any, results: Any, head: Volume, result: ScoreResult, tmp_path: Path
) -> None:
    from AnomalyDetectionLib.slicer_ui.results import Results

    results.relabel(2.5)
    names, table, verdict = [s.GetName() for s in segments(results)], rows(results.table), results.verdict()
    colours = [results.score.GetDisplayNode().GetColorNode().GetColorTransferFunction().GetColor(x) for x in (3, 4, 5)]
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    assert list(Results.all()) == []
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    found = Results.find(slicer.util.getNode("head"))
    assert found is not None and found.verdict() == verdict and found.threshold == 2.5
    assert found.fact("ModelSha256") == result.model.sha256
    assert np.array_equal(upright(found.rarity()), upright(result.rarity))
    assert [segment.GetName() for segment in segments(found)] == names
    assert rows(found.table) == table and found.table.GetColumnUnitLabel("Size") == "mL"
    function = found.score.GetDisplayNode().GetColorNode().GetColorTransferFunction()
    np.testing.assert_allclose([function.GetColor(x) for x in (3, 4, 5)], colours, atol=1e-3)
    assert found.score.GetDisplayNode().GetLowerThreshold() == 2.0
    assert slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(found.score).GetVisibility()
    # Nothing of the old objects is needed to go on.
    assert len(found.relabel(result.threshold)) == len(result.findings) == len(segments(found))
    tree = hierarchy(slicer)
    folders = {tree.GetItemParent(tree.GetItemByDataNode(node)) for node in found.nodes()}
    assert [tree.GetItemName(folder) for folder in folders] == ["head - anomalies"]
    found.remove()
    assert Results.find(slicer.util.getNode("head")) is None
    left = [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLStorageNode")]
    assert len(left) == 1, left  # that of the volume itself


def test_a_radiograph_of_unknown_spacing_is_counted_in_pixels(slicer: Any, result: ScoreResult) -> None:
    from AnomalyDetectionLib.slicer_ui.results import Results

    array = np.zeros((1, 60, 60), np.float32)
    array[0, 20:40, 10:30] = 5.0
    image = Volume(array, np.eye(4), "DX", spacing_known=False, orientation_known=False)
    labels, findings = find_regions(image, 3.0, result.thresholds.least_size, None)
    flat = replace(result, rarity=image, labels=labels, findings=findings, threshold=3.0, midline=None)
    results = Results.create(add_volume(image, "film"), flat)
    (row,) = rows(results.table)
    assert (row["Unit"], float(row["Size"]), row["Side"]) == ("px", 400.0, "side unknown")
    assert [segment.GetName() for segment in segments(results)] == ["Finding 1 (400 px)"]
    assert results.relabel(2.0)[0].size_unit == "px"


def test_a_radiograph_is_measured_by_its_header_and_shown_where_the_scene_has_it(
    slicer: Any, result: ScoreResult
) -> None:
    from AnomalyDetectionLib.slicer_ui.results import Results

    array = np.zeros((1, 60, 60), np.float32)
    array[0, 20:40, 10:30] = 5.0
    array[0, 25, 12] = 6.0
    frontal = np.array([[-0.5, 0, 0, 30], [0, 0, -1, 0], [0, -0.5, 0, 30], [0, 0, 0, 1]])
    image = Volume(array, frontal, "DX")
    labels, findings = find_regions(image, 3.0, result.thresholds.least_size, result.midline)
    flat = replace(result, rarity=image, labels=labels, findings=findings, threshold=3.0)
    node = slicer.util.addVolumeFromArray(array, np.diag([-1.0, -1.0, 1.0, 1.0]), "film")  # as Slicer loads it
    results = Results.create(node, flat)
    for threshold in (3.0, 2.0):
        (finding,) = results.relabel(threshold)
        assert (finding.size, finding.size_unit, finding.side) == (100.0, "mm²", findings[0].side)
    assert results.place_of(1) == pytest.approx((-12.0, -25.0, 0.0))
    assert results.place_of(2) is None


def test_a_threshold_far_too_low_makes_no_hundreds_of_segments(slicer: Any, head: Volume, result: ScoreResult) -> None:
    from AnomalyDetectionLib.slicer_ui.findings import MOST_SEGMENTS
    from AnomalyDetectionLib.slicer_ui.results import Results

    array = np.zeros(head.shape, np.float32)
    array[2:-2:4, 2:-2:4, 2:-2:4] = 3.0
    noise = head.with_array(array)
    labels, findings = find_regions(noise, 2.0, replace(result.thresholds.least_size, ml=0.01), None)
    results = Results.create(add_volume(head), replace(result, rarity=noise, labels=labels, findings=findings))
    assert len(segments(results)) == MOST_SEGMENTS < len(findings) == len(rows(results.table))
    assert slicer.util.arrayFromVolume(results.labels).max() == len(findings)


def test_the_scored_volume_itself_is_not_touched(slicer: Any, model: Model) -> None:
    from AnomalyDetectionLib.slicer_ui.results import Results
    from AnomalyDetectionLib.slicer_ui.volumes import volume_of

    node = add_volume(simulated.head(71))
    before = slicer.util.arrayFromVolume(node).copy()
    Results.create(node, Scorer(model).score(volume_of(node)))
    assert np.array_equal(slicer.util.arrayFromVolume(node), before)
