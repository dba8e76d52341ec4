"""Reading and writing of nodes and scenes: what `slicer.util.load…` and `save…` ask the application's IO manager for.

The work is done by Slicer's own logics and storage nodes; here is only the choice among them (qSlicerCoreIOManager
with the readers and writers of the modules).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
import vtk

Properties = dict[str, Any]

#: The type of file that an extension stands for; the longest that fits decides, and anything else is a volume.
FILE_TYPES = {
    ".mrb": "SceneFile",
    ".mrml": "SceneFile",
    ".seg.nrrd": "SegmentationFile",
    ".seg.nhdr": "SegmentationFile",
    ".csv": "TableFile",
    ".tsv": "TableFile",
    ".ctbl": "ColorTableFile",
    ".mrk.json": "MarkupsFile",
    ".stl": "ModelFile",
    ".vtk": "ModelFile",
    ".vtp": "ModelFile",
    ".txt": "TextFile",
}

#: Which options of `AddArchetypeVolume` a property of `loadVolume` switches on.
VOLUME_OPTIONS = {"labelmap": 1, "center": 2, "singleFile": 4, "autoWindowLevel": 8, "discardOrientation": 16}


class CoreIOManager:
    """Reads and writes files for a scene."""

    def __init__(self, scene: Any, application_logic: Any) -> None:
        self._scene = scene
        self._application_logic = application_logic
        self._readers: dict[str, Callable[[str, Properties, Any], list[Any] | None]] = {
            "SceneFile": self._read_scene,
            "VolumeFile": self._read_volume,
            "SegmentationFile": self._read_segmentation,
            "TableFile": self._read_table,
            "ColorTableFile": self._read_colours,
            "MarkupsFile": self._read_markups,
            "ModelFile": self._read_model,
            "TextFile": self._read_text,
        }

    def fileType(self, path: str) -> str:
        """The type of file that is most likely meant by a file name."""
        fitting = [extension for extension in FILE_TYPES if str(path).lower().endswith(extension)]
        return FILE_TYPES[max(fitting, key=len)] if fitting else "VolumeFile"

    def loadNodes(self, file_type: str, properties: Properties, loaded: Any = None, messages: Any = None) -> bool:
        """Read a file into the scene.

        Parameters
        ----------
        properties
            `fileName`, and what the reader of the type understands.
        loaded, messages
            A `vtkCollection` and a `vtkMRMLMessageCollection` to be filled.

        Returns
        -------
        Whether it was read.
        """
        messages = slicer.vtkMRMLMessageCollection() if messages is None else messages
        path = str(properties["fileName"])
        if file_type not in self._readers or not Path(path).exists():
            messages.AddMessage(vtk.vtkCommand.ErrorEvent, f"Loading {path} -  load failed.")
            return False
        nodes = self._readers[file_type](path, properties, messages)
        for node in nodes or []:
            if loaded is not None:
                loaded.AddItem(node)
        return nodes is not None

    def _logic(self, module: str) -> Any:
        return self._application_logic.GetModuleLogic(module)

    def _read_scene(self, path: str, properties: Properties, messages: Any) -> list[Any] | None:
        before = set(self._nodes())
        clear = bool(properties.get("clear", False))
        if path.lower().endswith(".mrb"):
            done = self._scene.ReadFromMRB(str(Path(path).absolute()), clear, messages)
        else:
            self._scene.SetURL(path)
            done = self._scene.Connect(messages) if clear else self._scene.Import(messages)
        return [node for node in self._nodes() if node not in before] if done else None

    def _nodes(self) -> list[Any]:
        return [self._scene.GetNthNode(index) for index in range(self._scene.GetNumberOfNodes())]

    def _read_volume(self, path: str, properties: Properties, messages: Any) -> list[Any] | None:
        options = sum(bit for name, bit in VOLUME_OPTIONS.items() if properties.get(name))
        files = vtk.vtkStringArray()
        for file in properties.get("fileNames", []):
            files.InsertNextValue(str(file))
        name = properties.get("name") or Path(path).name.partition(".")[0]
        node = self._logic("Volumes").AddArchetypeVolume(
            path, name, options, files if files.GetNumberOfValues() else None
        )
        if node is None:
            return None
        if properties.get("colorNodeID"):
            node.GetDisplayNode().SetAndObserveColorNodeID(properties["colorNodeID"])
        if properties.get("show", True):
            self._show(node)
        return [node]

    def _show(self, volume: Any) -> None:
        selection = self._application_logic.GetSelectionNode()
        if volume.IsA("vtkMRMLLabelMapVolumeNode"):
            selection.SetActiveLabelVolumeID(volume.GetID())
        else:
            selection.SetActiveVolumeID(volume.GetID())
        self._application_logic.PropagateVolumeSelection()

    def _read_segmentation(self, path: str, properties: Properties, messages: Any) -> list[Any] | None:
        name = properties.get("name") or Path(path).name.partition(".")[0]
        node = self._logic("Segmentations").LoadSegmentationFromFile(
            path, bool(properties.get("autoOpacities", True)), name, None, messages
        )
        return [node] if node else None

    def _read_table(self, path: str, properties: Properties, messages: Any) -> list[Any] | None:
        node = self._logic("Tables").AddTable(path, properties.get("name") or Path(path).stem, True, "", messages)
        return [node] if node else None

    def _read_colours(self, path: str, properties: Properties, messages: Any) -> list[Any] | None:
        node = self._logic("Colors").LoadColorFile(path, properties.get("name") or Path(path).stem, messages)
        return [node] if node else None

    def _read_markups(self, path: str, properties: Properties, messages: Any) -> list[Any] | None:
        name = properties.get("name") or Path(path).name.partition(".")[0]
        identity = self._logic("Markups").LoadMarkups(path, name, messages)
        return [self._scene.GetNodeByID(identity)] if identity else None

    def _read_model(self, path: str, properties: Properties, messages: Any) -> list[Any] | None:
        node = self._logic("Models").AddModel(path, slicer.vtkMRMLStorageNode.CoordinateSystemLPS, messages)
        return [node] if node else None

    def _read_text(self, path: str, properties: Properties, messages: Any) -> list[Any] | None:
        node = self._scene.AddNewNodeByClass("vtkMRMLTextNode", properties.get("name") or Path(path).stem)
        node.AddDefaultStorageNode(path)
        return [node] if node.GetStorageNode().ReadData(node) else None

    def fileWriterFileType(self, node: Any) -> str:
        """The type of file that a node, or the scene, is written as."""
        return "SceneFile" if node.IsA("vtkMRMLScene") else "NodeFile"

    def saveNodes(self, file_type: str, properties: Properties, messages: Any = None) -> bool:
        """Write the scene (`SceneFile`), or the node with the ID `properties["nodeID"]`, to `properties["fileName"]`.

        Returns
        -------
        Whether it was written.
        """
        messages = slicer.vtkMRMLMessageCollection() if messages is None else messages
        path = Path(properties["fileName"]).absolute()
        if not path.parent.is_dir():
            messages.AddMessage(vtk.vtkCommand.ErrorEvent, f"{path.parent} is not a folder that can be written to")
            return False
        if file_type == "SceneFile":
            return self._write_scene(path, messages)
        return self._write_node(self._scene.GetNodeByID(properties["nodeID"]), path, properties)

    def _write_scene(self, path: Path, messages: Any) -> bool:
        if path.suffix not in (".mrb", ".mrml"):
            path.mkdir(exist_ok=True)
            return bool(self._application_logic.SaveSceneToSlicerDataBundleDirectory(str(path), None))
        self._scene.SetURL(str(path))
        self._scene.SetRootDirectory(str(path.parent))
        if path.suffix == ".mrml":
            return bool(self._scene.Commit())
        written = bool(self._scene.WriteToMRB(str(path), None, messages))
        if written:
            self._scene.SetStorableNodesModifiedSinceRead()
        return written

    def _write_node(self, node: Any, path: Path, properties: Properties) -> bool:
        storage = node.GetStorageNode() if node.GetStorageNode() or node.AddDefaultStorageNode() else None
        if storage is None:
            return False
        storage.SetFileName(str(path))
        storage.SetUseCompression(int(properties.get("useCompression", storage.GetUseCompression())))
        return bool(storage.WriteData(node))
