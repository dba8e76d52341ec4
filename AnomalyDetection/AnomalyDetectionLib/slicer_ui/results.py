"""The results of scoring a volume, as nodes of the scene.

Everything of one volume lies in one folder of the subject hierarchy: rarity map, label map, segmentation, table, and
the verdict as a text that anybody can read without the module.
The rarity map refers to the others and carries all that must be known to go on, so that results are found again after
a scene was saved and loaded.  Of a model that judges whole images there is no map: the node is hidden then, without
colours, and has no parts but the verdict and, where the score was explained, the attribution.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.scoring.explaining import METHODS
from AnomalyDetectionLib.scoring.findings import Midline
from AnomalyDetectionLib.scoring.relabel import find_regions
from AnomalyDetectionLib.scoring.result import Finding, ScoreResult
from AnomalyDetectionLib.scoring.thresholds import Threshold

from .attributions import ATTRIBUTION, ATTRIBUTION_HEAT, add_attribution
from .colours import add_finding_colours, add_heat, add_legend, paint_heat
from .facts import SHARED, facts_of, midline_at
from .findings import fill_segmentation, fill_table
from .reviews import Review, Reviews
from .verdict import Verdict, verdict_document
from .volumes import add_in_place_of, ijk_to_world, set_voxels

PREFIX = "AnomalyDetection."
INPUT, LABELS, SEGMENTATION, TABLE, VERDICT = (
    PREFIX + role for role in ("Input", "Labels", "Segmentation", "Table", "Verdict")
)
"""Roles of node references from the rarity map."""
HEAT, FINDING_COLOURS = PREFIX + "Heat", PREFIX + "FindingColours"
"""Roles of the references to the colour nodes."""
FOREGROUND = PREFIX + "Foreground"
"""Role of the reference to the mask of what was scored: hidden, for only writing results needs it."""
PARTS = (LABELS, SEGMENTATION, TABLE, VERDICT, ATTRIBUTION)


class Results:
    """The nodes that hold the results of one volume; made by `create` or found by `find`.

    Nodes may be deleted by the user at any time: what is gone is None here and is not brought up to date.
    """

    def __init__(self, score: Any) -> None:
        self.score = score

    @classmethod
    def create(cls, volume_node: Any, result: ScoreResult) -> Results:
        """Put a result into the scene, in place of what the same volume had before; see `add`."""
        former = cls.find(volume_node)
        results = cls.add(volume_node, result)
        if former is not None:
            former.remove()
        return results

    @classmethod
    def add(cls, volume_node: Any, result: ScoreResult) -> Results:
        """Put a result into the scene, and leave what the same volume had before for the caller to remove.

        Reviews are taken over from there.

        Parameters
        ----------
        volume_node
            The node that was scored; the result has its voxels.
        """
        if volume_node.GetImageData().GetDimensions() != result.rarity.shape[::-1]:
            raise ValueError(f"{volume_node.GetName()}: the result has shape {result.rarity.shape}, not the volume's")
        former = cls.find(volume_node)
        name = volume_node.GetName()
        score = add_in_place_of(volume_node, result.rarity.array, _("{volume} - rarity").format(volume=name))
        score.SetNodeReferenceID(INPUT, volume_node.GetID())
        for key, value in facts_of(result).items():
            score.SetAttribute(PREFIX + key, value)
        if not np.allclose(result.rarity.ijk_to_ras, ijk_to_world(score), atol=1e-3):
            score.SetAttribute(PREFIX + "IjkToRas", json.dumps(result.rarity.ijk_to_ras.tolist()))
        if former is not None:
            Reviews(former).copy_to(score)
        results = cls(score)
        if result.mapped:
            results._add_colours(name)
            results._add_parts(volume_node, name, result.labels)
        else:
            score.SetHideFromEditors(True)
        if result.attribution is not None:
            add_attribution(score, volume_node, result.attribution)
        results._add_foreground(result.foreground, name)
        results._add_verdict(name)
        results._fill(None, result.findings, result.threshold)
        results._file(volume_node, name)
        return results

    @classmethod
    def find(cls, volume_node: Any) -> Results | None:
        """The results of a volume that are in the scene, or None."""
        identity = volume_node.GetID() if volume_node is not None else None
        found = [results for results in cls.all() if identity and results.score.GetNodeReferenceID(INPUT) == identity]
        return found[-1] if found else None

    @classmethod
    def all(cls) -> Iterator[Results]:
        """The results of all volumes, in the order in which they were made."""
        for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
            if node.GetAttribute(PREFIX + "Thresholds"):
                yield cls(node)

    @property
    def input(self) -> Any | None:
        """The volume that was scored."""
        return self.score.GetNodeReference(INPUT)

    @property
    def labels(self) -> Any | None:
        """The vtkMRMLLabelMapVolumeNode of the findings."""
        return self.score.GetNodeReference(LABELS)

    @property
    def segmentation(self) -> Any | None:
        """The vtkMRMLSegmentationNode, one segment a finding."""
        return self.score.GetNodeReference(SEGMENTATION)

    @property
    def table(self) -> Any | None:
        """The vtkMRMLTableNode, one row a finding."""
        return self.score.GetNodeReference(TABLE)

    @property
    def document(self) -> Any | None:
        """The vtkMRMLTextNode with the verdict in sentences."""
        return self.score.GetNodeReference(VERDICT)

    @property
    def attribution(self) -> Any | None:
        """The vtkMRMLScalarVolumeNode of what moved a classifier's score."""
        return self.score.GetNodeReference(ATTRIBUTION)

    @property
    def heat(self) -> Any | None:
        """The map to show over the volume: rarity, or else the attribution; None where there is neither."""
        return self.score if self.mapped else self.attribution

    def nodes(self) -> list[Any]:
        """The rarity map and the parts that are there."""
        return [self.score, *(node for role in PARTS if (node := self.score.GetNodeReference(role)) is not None)]

    def fact(self, key: str) -> str:
        """An attribute that `create` wrote, such as "ModelId" ("" where it is missing)."""
        return self.score.GetAttribute(PREFIX + key) or ""

    @property
    def threshold(self) -> float:
        """Rarity above which voxels are findings now."""
        return float(self.fact("Threshold"))

    @cached_property
    def thresholds(self) -> Threshold:
        """The model's default threshold and what any other costs."""
        return Threshold.from_json(json.loads(self.fact("Thresholds")))

    @property
    def midline(self) -> Midline | None:
        """Between the patient's left and right in the present place of the volume, or None where sides are unknown."""
        return midline_at(self.fact, self.rarity().ijk_to_ras)

    @cached_property
    def mapped(self) -> bool:
        """False for those of a model that judges whole images: they have a verdict and no map."""
        return bool(json.loads(self.fact("Report")).get("mapped", True))

    def verdict(self) -> Verdict:
        """What is said of the volume as a whole, at the present threshold."""
        facts = json.loads(self.fact("Report"))
        return Verdict(
            findings=int(self.fact("Findings")),
            threshold=self.threshold,
            volume_score=float(self.fact("VolumeScore")),
            p_value=float(self.fact("PValue")),
            calibration_n=int(self.fact("CalibrationN")),
            abnormal={"1": True, "0": False}.get(self.fact("Abnormal")),
            quality=self.fact("Quality"),
            reasons=tuple(json.loads(self.fact("QualityReasons"))),
            notes=tuple(json.loads(self.fact("Notes"))),
            false_findings_per_normal=self.thresholds.cost(self.threshold),
            mapped=self.mapped,
            probability=facts.get("probability"),
            explained=METHODS.get((facts.get("attribution") or {}).get("method", ""), ""),
        )

    def rarity(self) -> Volume:
        """The rarity map as it is in the scene, in its present place.

        Sizes and sides of a radiograph are those of its DICOM header, which says more than Slicer takes from it.
        """
        own = json.loads(self.fact("IjkToRas") or "null")
        return Volume(
            slicer.util.arrayFromVolume(self.score),
            ijk_to_world(self.score) if own is None else np.array(own),
            units="rarity",
            spacing_known=self.fact("SpacingKnown") == "1",
            orientation_known=self.fact("OrientationKnown") == "1",
            name=self.score.GetName(),
        )

    def place_of(self, label: int) -> tuple[float, float, float] | None:
        """Where the scene shows the rarest voxel of a finding (RAS mm); None if there is no such finding."""
        if self.labels is None:
            return None
        inside = np.flatnonzero(slicer.util.arrayFromVolume(self.labels) == label)
        if inside.size == 0:
            return None
        rarity = slicer.util.arrayFromVolume(self.score)
        k, j, i = np.unravel_index(inside[int(np.argmax(rarity.ravel()[inside]))], rarity.shape)
        right, anterior, superior = (ijk_to_world(self.score) @ (i, j, k, 1))[:3]
        return float(right), float(anterior), float(superior)

    @property
    def reviews(self) -> Reviews:
        """What a reader decided of the findings."""
        return Reviews(self)

    def review(self, finding: Finding, review: Review) -> None:
        """Keep a reader's decision on a finding at the present threshold, in the table too."""
        findings = self.findings()
        # The reader's may be from before a transform moved the volume: its rarest voxel is no longer at that place.
        self.reviews.set(next(one for one in findings if one.label == finding.label), review)
        if self.table is not None:
            fill_table(self.table, findings, self.reviews.in_order(findings))

    def findings(self) -> tuple[Finding, ...]:
        """The findings at the present threshold, in the present place of the volume."""
        if not self.mapped:
            return ()
        return find_regions(self.rarity(), self.threshold, self.thresholds.least_size, self.midline)[1]

    @property
    def case(self) -> str:
        """The name under which the volume was scored."""
        return str(json.loads(self.fact("Report"))["case"])

    @property
    def foreground(self) -> Any | None:
        """The hidden label map of what was scored."""
        return self.score.GetNodeReference(FOREGROUND)

    def relabel(self, threshold: float, *, dragging: bool = False) -> tuple[Finding, ...]:
        """Find the regions above another threshold; no node is made anew.

        Parameters
        ----------
        dragging
            True while a slider moves: the segmentation, which takes longest, is then left as it is and hidden, and the
            label map is shown in its place by whoever shows one.

        Raises
        ------
        InputError
            If the threshold is not a rarity above 0.
        """
        labels, findings = find_regions(self.rarity(), threshold, self.thresholds.least_size, self.midline)
        self._fill(labels, findings, threshold, dragging=dragging)
        return findings

    def remove(self) -> None:
        """Take these results out of the scene, and their folder if nothing else is in it."""
        hierarchy = _hierarchy()
        folder = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(self.score))
        # All are held until the end: the scene must not delete a node while it removes it.
        roles = (HEAT, FINDING_COLOURS, ATTRIBUTION_HEAT)
        colours = [node for role in roles if (node := self.score.GetNodeReference(role)) is not None]
        mask = [] if self.foreground is None else [self.foreground]
        # Each goes before its display: a volume that is still shown would at once be given another (120 ms at 256³).
        doomed = [part for node in (*reversed(self.nodes()), *mask, *colours) for part in (node, *_helpers_of(node))]
        for node in doomed:
            slicer.mrmlScene.RemoveNode(node)
        if hierarchy.GetItemAttribute(folder, PREFIX + "Folder") and not hierarchy.GetNumberOfItemChildren(folder):
            hierarchy.RemoveItem(folder)

    def _add_colours(self, name: str) -> None:
        heat = add_heat(_("{volume} - rarity colours").format(volume=name))
        self.score.SetNodeReferenceID(HEAT, heat.GetID())
        paint_heat(self.score, heat)
        add_legend(self.score)

    def _add_parts(self, volume_node: Any, name: str, found: np.ndarray) -> None:
        labels = add_in_place_of(
            self.score,
            found,
            _("{volume} - labels").format(volume=name),
            "vtkMRMLLabelMapVolumeNode",
            np.int16,
        )
        colours = add_finding_colours(_("{volume} - finding colours").format(volume=name))
        labels.GetDisplayNode().SetAndObserveColorNodeID(colours.GetID())
        segmentation = slicer.mrmlScene.AddNewNodeByClass(
            "vtkMRMLSegmentationNode", _("{volume} - findings").format(volume=name)
        )
        segmentation.CreateDefaultDisplayNodes()
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
        segmentation.SetAndObserveTransformNodeID(volume_node.GetTransformNodeID())
        display = segmentation.GetDisplayNode()
        display.SetOpacity2DFill(0.0)  # the heat below is not to be hidden
        display.SetOpacity2DOutline(1.0)
        display.SetSliceIntersectionThickness(2)
        table = slicer.mrmlScene.AddNewNodeByClass(
            "vtkMRMLTableNode", _("{volume} - table of findings").format(volume=name)
        )
        roles = (LABELS, SEGMENTATION, TABLE, FINDING_COLOURS)
        for role, node in zip(roles, (labels, segmentation, table, colours), strict=True):
            self.score.SetNodeReferenceID(role, node.GetID())

    def _add_verdict(self, name: str) -> None:
        document = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode", _("{volume} - verdict").format(volume=name))
        document.SetEncoding(vtk.VTK_ENCODING_UTF_8)
        # A file of its own in the saved scene: otherwise a short text is an attribute of the scene's XML.
        document.SetForceCreateStorageNode(slicer.vtkMRMLTextNode.CreateStorageNodeAlways)
        self.score.SetNodeReferenceID(VERDICT, document.GetID())

    def _fill_verdict(self, document: Any) -> None:
        origin = (
            _("Scored by the model {id}, version {version} ({detector}, SHA-256 {sha256}).").format(
                id=self.fact("ModelId"),
                version=self.fact("ModelVersion"),
                detector=self.fact("Detector"),
                sha256=self.fact("ModelSha256"),
            ),
            _("Written by {software}.").format(software=self.fact("Software")),
        )
        document.SetText(verdict_document(self.case, self.verdict(), origin))

    def _add_foreground(self, foreground: np.ndarray, name: str) -> None:
        mask = slicer.mrmlScene.AddNewNodeByClass(
            "vtkMRMLLabelMapVolumeNode", _("{volume} - scored area").format(volume=name)
        )
        mask.SetHideFromEditors(True)
        set_voxels(mask, foreground, np.uint8)
        mask.CopyOrientation(self.score)
        self.score.SetNodeReferenceID(FOREGROUND, mask.GetID())

    def _fill(
        self, labels: np.ndarray | None, findings: tuple[Finding, ...], threshold: float, *, dragging: bool = False
    ) -> None:
        """Bring label map (unless it holds them already: None), table and segmentation to the given findings."""
        self.score.SetAttribute(PREFIX + "Threshold", repr(float(threshold)))
        self.score.SetAttribute(PREFIX + "Findings", str(len(findings)))
        if self.labels is not None and labels is not None:
            slicer.util.arrayFromVolume(self.labels)[:] = labels
            slicer.util.arrayFromVolumeModified(self.labels)
        if self.table is not None:
            fill_table(self.table, findings, self.reviews.in_order(findings))
        if self.document is not None:
            self._fill_verdict(self.document)
        if self.segmentation is not None:
            if not dragging and self.labels is not None:
                fill_segmentation(self.segmentation, self.labels, findings)
            self.segmentation.SetDisplayVisibility(not dragging)
        for node in self.nodes()[1:]:
            for key in SHARED:
                node.SetAttribute(PREFIX + key, self.fact(key))

    def _file(self, volume_node: Any, name: str) -> None:
        """Put all into one folder beside the volume (so that its study is theirs, as DICOM export needs it)."""
        hierarchy = _hierarchy()
        parent = hierarchy.GetItemParent(_item(volume_node))
        folder = hierarchy.CreateFolderItem(parent, _("{volume} - anomalies").format(volume=name))
        hierarchy.SetItemOwnerPluginName(folder, "Folder")
        hierarchy.SetItemAttribute(folder, PREFIX + "Folder", "1")
        for node in (*self.nodes(), self.foreground):
            hierarchy.SetItemParent(_item(node), folder)


def _helpers_of(node: Any) -> list[Any]:
    """The display and storage nodes that serve a node alone."""
    count = node.GetNumberOfDisplayNodes() if node.IsA("vtkMRMLDisplayableNode") else 0
    helpers = [*(node.GetNthDisplayNode(index) for index in range(count)), node.GetStorageNode()]
    return [helper for helper in helpers if helper is not None]


def _hierarchy() -> Any:
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)


def _item(node: Any) -> int:
    """The node's item, which Slicer's plugins have made, or a new one where they have not yet."""
    hierarchy = _hierarchy()
    return hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
