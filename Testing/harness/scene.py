"""Slicer's scene with the application logic and the logics of its modules, all of them Slicer's own C++ classes."""

from __future__ import annotations

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


def make_scene() -> tuple[Any, Any]:
    """A scene with the nodes that Slicer makes at its start.

    Returns
    -------
    The `vtkMRMLScene` and its `vtkSlicerApplicationLogic`.
    """
    write_messages_to_stderr()
    scene = slicer.vtkMRMLScene()
    logic = slicer.vtkSlicerApplicationLogic()
    logic.SetMRMLScene(scene)
    logic.SetSliceLogics(vtk.vtkCollection())
    logic.SetViewLogics(vtk.vtkCollection())
    crosshair = slicer.vtkMRMLCrosshairNode()
    crosshair.SetCrosshairName("default")
    scene.AddNode(crosshair)
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
    return scene, logic


def make_module_logics(scene: Any, application_logic: Any) -> dict[str, Any]:
    """The logic of each of Slicer's modules, known to the application logic under the module's name."""
    logics = {}
    for name, class_name in MODULE_LOGICS.items():
        logic = application_logic.GetColorLogic() if name == "Colors" else getattr(slicer, class_name)()
        logic.SetMRMLApplicationLogic(application_logic)
        logic.SetMRMLScene(scene)
        application_logic.SetModuleLogic(name, logic)
        logics[name] = logic
    logics["Colors"].AddDefaultColorNodes()
    return logics


def write_messages_to_stderr() -> None:
    window = vtk.vtkOutputWindow()
    window.SetDisplayModeToAlwaysStdErr()
    vtk.vtkOutputWindow.SetInstance(window)
