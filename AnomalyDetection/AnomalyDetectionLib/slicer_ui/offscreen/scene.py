"""Slicer's scene with the application logic and the logics of its modules, all of them Slicer's own C++ classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
import vtk

#: The logics of Slicer's loadable modules that `slicer-core` carries, by the module's name.  `Terminologies` is absent:
#: its logic reads files of the application's share folder, which the package lacks.
MODULE_LOGICS = {
    "Colors": "vtkSlicerColorLogic",
    "CropVolume": "vtkSlicerCropVolumeLogic",
    "Data": "vtkSlicerDataModuleLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Models": "vtkSlicerModelsLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Sequences": "vtkSlicerSequencesLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Texts": "vtkSlicerTextsLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Units": "vtkSlicerUnitsLogic",
    "VolumeRendering": "vtkSlicerVolumeRenderingLogic",
    "Volumes": "vtkSlicerVolumesLogic",
}

#: The first colours of Slicer's table GenericColors, for the labels 1, 2, …; the package lacks the file.
LABEL_COLOURS = (
    (128, 174, 128),
    (241, 214, 145),
    (177, 122, 101),
    (111, 184, 210),
    (216, 101, 79),
    (221, 130, 101),
    (144, 238, 144),
    (192, 104, 88),
)

#: Objects that the scene points to without owning them.
kept: list[Any] = []


def make_scene(home: Path) -> tuple[Any, Any]:
    """A scene with the nodes that Slicer makes at its start.

    Parameters
    ----------
    home
        An empty folder, for the application's home and temporary files.

    Returns
    -------
    The `vtkMRMLScene` and its `vtkSlicerApplicationLogic`.
    """
    write_messages_to_stderr()
    scene = slicer.vtkMRMLScene()
    logic = slicer.vtkSlicerApplicationLogic()
    write_colour_files(home / "share" / "ColorFiles")
    logic.SetHomeDirectory(str(home))
    logic.SetShareDirectory("share")
    logic.SetTemporaryPath(str(home))
    logic.SetMRMLScene(scene)
    connect_data_io(scene, logic, home)
    logic.SetSliceLogics(vtk.vtkCollection())
    logic.SetViewLogics(vtk.vtkCollection())
    crosshair = slicer.vtkMRMLCrosshairNode()
    crosshair.SetCrosshairName("default")
    scene.AddNode(crosshair)
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
    return scene, logic


def write_colour_files(folder: Path) -> None:
    """The one of the application's colour tables in files that label maps read from files are shown in, in part."""
    folder.mkdir(parents=True)
    rows = [f"{label} {label} {red} {green} {blue} 255" for label, (red, green, blue) in enumerate(LABEL_COLOURS, 1)]
    text = "\n".join(["#Filename: GenericColors.txt", "0 0 0 0 0 0", *rows, ""])
    (folder / "GenericColors.txt").write_text(text, encoding="utf-8")


def connect_data_io(scene: Any, logic: Any, home: Path) -> None:
    """What a scene needs to read bundles: a cache folder, and the manager that loads files into nodes."""
    remote = slicer.vtkMRMLRemoteIOLogic()
    (home / "cache").mkdir()
    remote.GetCacheManager().SetRemoteCacheDirectory(str(home / "cache"))
    manager = slicer.vtkDataIOManagerLogic()
    manager.SetMRMLApplicationLogic(logic)
    manager.SetAndObserveDataIOManager(remote.GetDataIOManager())
    logic.SetMRMLSceneDataIO(scene, remote, manager)
    kept.extend((remote, manager))


def make_module_logics(scene: Any, application_logic: Any) -> dict[str, Any]:
    """The logic of each of Slicer's modules, known to the application logic under the module's name."""
    logics = {}
    for name, class_name in MODULE_LOGICS.items():
        logic = getattr(slicer, class_name)()
        logic.SetMRMLApplicationLogic(application_logic)
        logic.SetMRMLScene(scene)
        application_logic.SetModuleLogic(name, logic)
        logics[name] = logic
    application_logic.SetColorLogic(logics["Colors"])
    logics["Colors"].AddDefaultColorNodes()
    return logics


def write_messages_to_stderr() -> None:
    window = vtk.vtkOutputWindow()
    window.SetDisplayModeToAlwaysStdErr()
    vtk.vtkOutputWindow.SetInstance(window)
