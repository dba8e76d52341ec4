"""Items of the subject hierarchy that come by themselves (qSlicerSubjectHierarchyPluginLogic, which is a Qt class)."""

from __future__ import annotations

from typing import Any

import slicer
import vtk

#: What the plugins of Slicer's modules take into the hierarchy, each under the plugin's name; the first match decides.
PLUGINS = {
    "vtkMRMLLabelMapVolumeNode": "LabelMaps",
    "vtkMRMLScalarVolumeNode": "Volumes",
    "vtkMRMLSegmentationNode": "Segmentations",
    "vtkMRMLMarkupsNode": "Markups",
    "vtkMRMLModelNode": "Models",
    "vtkMRMLTableNode": "Tables",
    "vtkMRMLPlotChartNode": "Plots",
    "vtkMRMLPlotSeriesNode": "Plots",
    "vtkMRMLTextNode": "Texts",
    "vtkMRMLTransformNode": "Transforms",
    "vtkMRMLFolderDisplayNode": "Folder",
}


def keep_up_to_date(scene: Any) -> None:
    """Give every node that is added to the scene an item, and take it away with the node."""
    observe = scene.AddObserver
    hierarchy_of(scene)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def added(caller: Any, event: str, node: Any) -> None:
        if node.IsA("vtkMRMLSubjectHierarchyNode"):
            slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)
        elif not scene.IsImporting():
            add_item(scene, node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def about_to_be_removed(caller: Any, event: str, node: Any) -> None:
        if not scene.IsClosing() and not node.IsA("vtkMRMLSubjectHierarchyNode"):
            remove_item(scene, node)

    def imported(caller: Any, event: str) -> None:
        slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)
        add_missing_items(scene)

    observe(scene.NodeAddedEvent, added)
    observe(scene.NodeAboutToBeRemovedEvent, about_to_be_removed)
    observe(scene.EndImportEvent, imported, 10.0)
    observe(scene.EndBatchProcessEvent, lambda *_: add_missing_items(scene), 10.0)
    observe(scene.EndCloseEvent, lambda *_: slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene))


def hierarchy_of(scene: Any) -> Any:
    """The scene's one `vtkMRMLSubjectHierarchyNode`, made if it is absent."""
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)


def add_item(scene: Any, node: Any) -> None:
    owner = next((name for class_name, name in PLUGINS.items() if node.IsA(class_name)), None)
    if owner is None or node.GetHideFromEditors():
        return
    hierarchy = hierarchy_of(scene)
    hierarchy.CreateItem(hierarchy.GetSceneItemID(), node, owner)


def remove_item(scene: Any, node: Any) -> None:
    hierarchy = hierarchy_of(scene)
    item = hierarchy.GetItemByDataNode(node)
    if item:
        hierarchy.RemoveItem(item, False, False)


def add_missing_items(scene: Any) -> None:
    hierarchy = hierarchy_of(scene)
    for index in range(scene.GetNumberOfNodes()):
        node = scene.GetNthNode(index)
        if not hierarchy.GetItemByDataNode(node):
            add_item(scene, node)
