"""Volumes of the scene as the scoring's `Volume`, and new nodes in the place of a volume."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import DTypeLike, NDArray
from vtk.util.numpy_support import get_vtk_array_type

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.colour import luminance
from AnomalyDetectionLib.imaging.volume import Volume

MODALITY = "AnomalyDetection.Modality"
"""Attribute of a volume node: the modality (DICOM code) the user chose where the data do not tell."""

FROM_VOXELS = ("MR", "CT")
"""Modalities whose voxels mean in the scene what they mean in the file.  Others are read from their files: Slicer has
no SUV without its PET extension, and turns no MONOCHROME1 round."""

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif")
"""Files that know nothing of millimetres."""

_UNITS = {"[hnsf'U]": "HU", "{SUVbw}g/ml": "SUVbw", "Bq/ml": "BQML"}
"""UCUM codes that Slicer gives volumes, and DICOM's words for them."""


def modality_of(node: Any) -> str:
    """DICOM code of a volume's modality, or "" where nothing tells.

    The DICOM header comes first, then what the user chose (`MODALITY`), then the subject hierarchy.
    """
    return _header(node, "0008,0060") or node.GetAttribute(MODALITY) or _hierarchy_modality(node)


def volume_of(node: Any) -> Volume:
    """A volume node as the scoring takes it.

    Colour pictures become luminance; linear transforms are part of the geometry.

    Parameters
    ----------
    node
        vtkMRMLScalarVolumeNode, or vtkMRMLVectorVolumeNode of three components.

    Returns
    -------
    float32 (K, J, I), in the place where the scene shows it (RAS mm).

    Raises
    ------
    InputError
        If the node holds no image, is a label map, is bent by a transform, or its DICOM files cannot be read.
    """
    name = node.GetName() or "volume"
    array = _array(node, name)
    affine = ijk_to_world(node)
    modality = modality_of(node)
    files = dicom_files(node)
    if files and modality not in FROM_VOXELS:
        return _from_files(files, array.shape, affine, name)
    known = spacing_is_known(node)
    return Volume(
        array,
        affine,
        modality=modality,
        units=_units(node, modality),
        spacing_known=known,
        orientation_known=known,
        name=name,
    )


def ijk_to_world(node: Any) -> NDArray[np.float64]:
    """4 x 4, voxel index (i, j, k) to RAS mm of the scene, the node's transform included.

    Raises
    ------
    InputError
        If that transform is not linear.
    """
    local, to_world = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(local)
    transform = node.GetParentTransformNode()
    if transform is not None:
        if not transform.IsTransformToWorldLinear():
            raise InputError(
                f"{node.GetName()}: the transform {transform.GetName()} bends this volume; harden it (right-click the "
                "volume in the Data module) or take the volume out of it, then score again."
            )
        transform.GetMatrixTransformToWorld(to_world)
    return slicer.util.arrayFromVTKMatrix(to_world) @ slicer.util.arrayFromVTKMatrix(local)


def add_in_place_of(
    node: Any, array: NDArray, name: str, class_name: str = "vtkMRMLScalarVolumeNode", kind: DTypeLike = np.float32
) -> Any:
    """A new volume node with other voxels (K, J, I) in the place of a volume, under the same transform.

    Its grey window is for the caller to set.

    Parameters
    ----------
    kind
        Type of its voxels, which the array's are converted to.
    """
    local = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(local)
    new = slicer.mrmlScene.AddNewNodeByClass(class_name, name)
    new.SetIJKToRASMatrix(local)
    new.CreateDefaultDisplayNodes()
    if new.GetDisplayNode().IsA("vtkMRMLScalarVolumeDisplayNode"):
        new.GetDisplayNode().AutoWindowLevelOff()  # a histogram of all voxels: 0.13 s for 256³
    set_voxels(new, array, kind)
    new.SetAndObserveTransformNodeID(node.GetTransformNodeID())
    return new


def set_voxels(node: Any, array: NDArray, kind: DTypeLike) -> None:
    """Give a volume node the voxels (K, J, I) as another type: one pass, where first converting them takes three."""
    image = vtk.vtkImageData()
    image.SetDimensions(array.shape[::-1])
    image.AllocateScalars(get_vtk_array_type(np.dtype(kind)), 1)
    node.SetAndObserveImageData(image)
    slicer.util.arrayFromVolume(node)[:] = array
    slicer.util.arrayFromVolumeModified(node)


def is_single_image(node: Any) -> bool:
    """Whether a volume node is one image without depth (a radiograph, one slice)."""
    image = node.GetImageData()
    return image is not None and image.GetDimensions()[2] == 1


def spacing_is_known(node: Any) -> bool:
    """Whether a node's millimetres mean something; those of a picture file, which Slicer takes for 1 mm, do not."""
    if dicom_files(node) or not is_single_image(node):
        return True
    storage = node.GetStorageNode()
    file = PurePath((storage.GetFileName() if storage else None) or "")
    if file.suffix:
        return file.suffix.lower() not in PICTURES
    return tuple(node.GetSpacing()) != (1.0, 1.0, 1.0)


def dicom_files(node: Any) -> list[str]:
    """The DICOM files a volume was loaded from, as far as Slicer's database knows them."""
    database = getattr(slicer, "dicomDatabase", None)
    uids = (node.GetAttribute("DICOM.instanceUIDs") or "").split()
    if database is None or not uids:
        return []
    files = [database.fileForInstance(uid) for uid in uids]
    return files if all(files) else []


def _array(node: Any, name: str) -> NDArray[np.float32]:
    """The voxels as float32 (K, J, I), a copy."""
    if node.IsA("vtkMRMLLabelMapVolumeNode"):
        raise InputError(f"{name}: this is a label map; choose the image it belongs to.")
    if node.GetImageData() is None or node.GetImageData().GetPointData().GetScalars() is None:
        raise InputError(f"{name}: the volume holds no image; load it again.")
    components = node.GetImageData().GetNumberOfScalarComponents()
    if node.IsA("vtkMRMLDiffusionWeightedVolumeNode") or components not in (1, 3):
        raise InputError(f"{name}: the volume holds {components} values a voxel; choose one with a single channel.")
    voxels = slicer.util.arrayFromVolume(node)
    if components == 1:
        return voxels.reshape(voxels.shape[:3]).astype(np.float32)
    grey = np.empty(voxels.shape[:3], dtype=np.float32)
    luminance(voxels, grey)
    return grey


def _from_files(files: list[str], shape: tuple[int, ...], affine: NDArray[np.float64], name: str) -> Volume:
    """What the command line makes of the same files; refused where the scene shows something else."""
    from AnomalyDetectionLib.imaging.geometry import Grid
    from AnomalyDetectionLib.imaging.read import read_volume

    volume = read_volume(files)
    shown = Grid((shape[0], shape[1], shape[2]), affine, name)
    if volume.shape != shown.shape or not (volume.is_slice or volume.grid.same_place(shown, tolerance_mm=0.1)):
        raise InputError(
            f"{name}: the volume in the scene was changed after it was loaded (another size or place than its DICOM "
            "files); load it again and score that."
        )
    return volume


def _header(node: Any, tag: str) -> str:
    """A value of the first DICOM instance of a volume, from Slicer's database; "" where there is none."""
    database = getattr(slicer, "dicomDatabase", None)
    uids = (node.GetAttribute("DICOM.instanceUIDs") or "").split()
    return str(database.instanceValue(uids[0], tag) or "").strip() if database is not None and uids else ""


def _hierarchy_modality(node: Any) -> str:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(node)
    return str(hierarchy.GetItemAttribute(item, "DICOM.Modality") or "") if item else ""


def _units(node: Any, modality: str) -> str:
    """Unit of the voxels as `Volume.units` has it."""
    if modality == "CT":
        return "HU"
    coded = node.GetVoxelValueUnits()
    return _UNITS.get(coded.GetCodeValue() or "", "") if coded is not None else ""
