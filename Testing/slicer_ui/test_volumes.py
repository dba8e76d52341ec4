"""Volumes of the scene reach the scoring as they are, and new nodes lie where their volume lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.read import read_volume

GEOMETRIES = {
    "upright": np.diag([2.0, 3.0, 4.0]),
    "left-handed": np.diag([-2.0, 3.0, 4.0]),
    "flipped": np.diag([-2.0, -3.0, 4.0]),
    "sagittal": np.array([[0.0, 0, 4], [2, 0, 0], [0, 3, 0]]),
}


def oblique(degrees: float = 25.0) -> np.ndarray:
    angle = np.radians(degrees)
    about_s = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    about_r = np.array([[1, 0, 0], [0, np.cos(0.4), -np.sin(0.4)], [0, np.sin(0.4), np.cos(0.4)]])
    return about_s @ about_r @ np.diag([2.0, 3.0, 4.0])


GEOMETRIES["oblique"] = oblique()
GEOMETRIES["oblique and left-handed"] = oblique() @ np.diag([1.0, 1.0, -1.0])


def affine(directions: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = directions
    matrix[:3, 3] = (11.0, -22.0, 33.0)
    return matrix


def add(slicer: Any, array: np.ndarray, matrix: np.ndarray, name: str = "image", kind: str | None = None) -> Any:
    return slicer.util.addVolumeFromArray(array, matrix, name, kind)


def voxel_at(slicer: Any, node: Any, ras: np.ndarray) -> float:
    """The voxel that the scene shows at a place, found with the scene's own matrices and transforms."""
    import vtk

    to_node = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(None, node.GetParentTransformNode(), to_node)
    to_ijk = vtk.vtkMatrix4x4()
    node.GetRASToIJKMatrix(to_ijk)
    i, j, k = (round(v) for v in to_ijk.MultiplyPoint([*to_node.TransformPoint(ras), 1.0])[:3])
    return float(slicer.util.arrayFromVolume(node)[k, j, i])


@pytest.fixture
def slicer(scene: Any) -> Any:
    import slicer

    return slicer


@pytest.fixture
def voxels() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 3000, (5, 6, 7)).astype(np.int16)


@pytest.mark.parametrize("moved", [False, True], ids=["in place", "under a transform"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_every_voxel_is_where_the_scene_shows_it_there_and_back(
    slicer: Any, voxels: np.ndarray, geometry: str, moved: bool
) -> None:
    from AnomalyDetectionLib.slicer_ui.volumes import add_in_place_of, volume_of

    node = add(slicer, voxels, affine(GEOMETRIES[geometry]))
    if moved:
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(affine(oblique(-40) / (2, 3, 4))))
        node.SetAndObserveTransformNodeID(transform.GetID())
    volume = volume_of(node)
    assert volume.array.dtype == np.float32 and np.array_equal(volume.array, voxels)
    back = add_in_place_of(node, volume.array + np.float32(0.5), "map")
    assert back.GetName() == "map"
    for k, j, i in np.ndindex(*voxels.shape):
        place = volume.grid.to_ras(np.array([i, j, k]))
        assert voxel_at(slicer, node, place) == voxels[k, j, i]
        assert voxel_at(slicer, back, place) == voxels[k, j, i] + 0.5


def test_the_scoring_gets_a_copy_and_not_the_scenes_memory(slicer: Any, voxels: np.ndarray) -> None:
    from AnomalyDetectionLib.slicer_ui.volumes import volume_of

    node = add(slicer, voxels.astype(np.float32), np.eye(4))
    volume = volume_of(node)
    slicer.util.arrayFromVolume(node)[:] = 0
    assert np.array_equal(volume.array, voxels)


def test_a_volume_bent_by_a_transform_is_refused_until_that_is_hardened(slicer: Any, voxels: np.ndarray) -> None:
    import vtk

    from AnomalyDetectionLib.slicer_ui.volumes import volume_of

    node = add(slicer, voxels, np.eye(4), "Head")
    bend = vtk.vtkThinPlateSplineTransform()
    points, moved = vtk.vtkPoints(), vtk.vtkPoints()
    for place in ((0, 0, 0), (9, 0, 0), (0, 9, 0), (0, 0, 9), (5, 5, 5)):
        points.InsertNextPoint(place)
        moved.InsertNextPoint(place if place != (5, 5, 5) else (6, 5, 5))
    bend.SetSourceLandmarks(points)
    bend.SetTargetLandmarks(moved)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "Warp")
    transform.SetAndObserveTransformToParent(bend)
    node.SetAndObserveTransformNodeID(transform.GetID())
    with pytest.raises(InputError, match="Head: the transform Warp bends this volume; harden it"):
        volume_of(node)


def test_a_sheared_volume_is_refused(slicer: Any, voxels: np.ndarray) -> None:
    from AnomalyDetectionLib.slicer_ui.volumes import volume_of

    node = add(slicer, voxels, np.eye(4), "Gantry")
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    sheared = np.eye(4)
    sheared[1, 2] = 0.3
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(sheared))
    node.SetAndObserveTransformNodeID(transform.GetID())
    with pytest.raises(InputError, match="Gantry: the voxel axes are sheared"):
        volume_of(node)


def test_a_colour_picture_becomes_its_luminance(slicer: Any) -> None:
    from AnomalyDetectionLib.slicer_ui.volumes import volume_of

    rgb = np.random.default_rng(6).integers(0, 255, (4, 5, 6, 3)).astype(np.uint8)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "colour")
    import vtk

    image = vtk.vtkImageData()
    image.SetDimensions(6, 5, 4)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
    node.SetAndObserveImageData(image)
    slicer.util.arrayFromVolume(node)[:] = rgb
    np.testing.assert_allclose(volume_of(node).array, rgb @ np.array([0.299, 0.587, 0.114]), atol=1e-3)


def test_what_is_no_image_is_refused(slicer: Any, voxels: np.ndarray) -> None:
    from AnomalyDetectionLib.slicer_ui.volumes import volume_of

    with pytest.raises(InputError, match="this is a label map"):
        volume_of(add(slicer, voxels, np.eye(4), "l", "vtkMRMLLabelMapVolumeNode"))
    with pytest.raises(InputError, match="nothing: the volume holds no image"):
        volume_of(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "nothing"))


def test_the_modality_is_the_headers_then_the_users_then_the_hierarchys(
    slicer: Any, voxels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    from AnomalyDetectionLib.slicer_ui.volumes import MODALITY, volume_of

    node = add(slicer, voxels, np.eye(4))
    assert volume_of(node).modality == ""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(node)
    hierarchy.SetItemAttribute(item, "DICOM.Modality", "PT")
    assert volume_of(node).modality == "PT"
    node.SetAttribute(MODALITY, "MR")
    assert volume_of(node).modality == "MR" and volume_of(node).units == ""
    node.SetAttribute("DICOM.instanceUIDs", "1.2.3 1.2.4")
    monkeypatch.setattr(slicer, "dicomDatabase", Database({}, "CT"), raising=False)
    assert (volume_of(node).modality, volume_of(node).units) == ("CT", "HU")


class Database:
    """What is asked of ctkDICOMDatabase."""

    def __init__(self, files: dict[str, Path], modality: str) -> None:
        self.files, self.modality = files, modality

    def fileForInstance(self, uid: str) -> str:
        return str(self.files.get(uid, ""))

    def instanceValue(self, uid: str, tag: str) -> str:
        return self.modality if tag == "0008,0060" else ""


def test_a_radiograph_is_read_from_its_file_as_the_command_line_reads_it(
    slicer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import synthetic_dicom

    from AnomalyDetectionLib.slicer_ui.volumes import is_single_image, volume_of

    pixels = np.random.default_rng(8).integers(0, 4095, (20, 30)).astype(np.uint16)
    film = synthetic_dicom.image(pixels, "CR", BitsStored=12, HighBit=11, PhotometricInterpretation="MONOCHROME1")
    path = synthetic_dicom.save(film, tmp_path / "chest.dcm")
    expected = read_volume(path)
    shown = add(slicer, 4095 - expected.array, np.eye(4), "chest")  # Slicer turns no MONOCHROME1 round
    shown.SetAttribute("DICOM.instanceUIDs", "1.2.3")
    monkeypatch.setattr(slicer, "dicomDatabase", Database({"1.2.3": path}, expected.modality), raising=False)
    volume = volume_of(shown)
    assert is_single_image(shown) and np.array_equal(volume.array, expected.array)
    assert (volume.modality, volume.spacing_known) == (expected.modality, expected.spacing_known)
    np.testing.assert_allclose(volume.ijk_to_ras, expected.ijk_to_ras)
    cropped = add(slicer, expected.array[:, 1:], np.eye(4), "cropped")
    cropped.SetAttribute("DICOM.instanceUIDs", "1.2.3")
    with pytest.raises(InputError, match="cropped: the volume in the scene was changed after it was loaded"):
        volume_of(cropped)


@pytest.mark.parametrize(("file", "known"), [("film.png", False), ("film.JPG", False), ("slice.nrrd", True)])
def test_a_picture_file_has_no_millimetres_and_no_sides(slicer: Any, file: str, known: bool) -> None:
    from AnomalyDetectionLib.slicer_ui.volumes import volume_of

    node = add(slicer, np.ones((1, 20, 30), np.float32), np.eye(4))
    assert not volume_of(node).spacing_known  # nothing tells where it comes from, and 1 mm is what Slicer takes then
    node.AddDefaultStorageNode()
    node.GetStorageNode().SetFileName(file)
    volume = volume_of(node)
    assert volume.shape == (1, 20, 30) and volume.spacing_known == volume.orientation_known == known


def test_a_slice_with_a_medical_files_spacing_keeps_it(slicer: Any) -> None:
    from AnomalyDetectionLib.slicer_ui.volumes import volume_of

    volume = volume_of(add(slicer, np.ones((1, 8, 8), np.float32), np.diag([0.5, 0.5, 1.0, 1.0])))
    assert volume.spacing_known and volume.is_slice and volume.spacing[:2] == (0.5, 0.5)
