"""Findings as the scene has them: segments with terminology, and the rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _

from AnomalyDetectionLib.scoring.result import Finding

from .colours import colour_of
from .reviews import Review

TERMINOLOGY = (
    "Segmentation category and type - 3D Slicer General Anatomy list"
    "~SCT^49755003^Morphologically Altered Structure~SCT^4147007^Mass~^^"
    "~Anatomic codes - DICOM master list~^^~^^"
)
"""Context, category, type and modifier, then anatomic context, region and modifier
(vtkSlicerTerminologiesModuleLogic::DeserializeTerminologyEntry)."""

FINDING = "finding-"
"""How the IDs of the segments begin that are made of findings, before the finding's number."""

MOST_SEGMENTS = 64
"""Segments beyond that, at a threshold far too low, would only make the views slow; label map and table have all."""

COLUMNS = (
    "Finding",
    "Side",
    "Size",
    "Unit",
    "Peak",
    "Mean",
    "R",
    "A",
    "S",
    "Extent R",
    "Extent A",
    "Extent S",
    "Review",
    "Comment",
)
"""Names of the table's columns; people see the titles, which are translated."""


def size_text(finding: Finding) -> str:
    """The size with its unit, such as "3.2 mL"."""
    digits = 0 if finding.size_unit == "px" or finding.size >= 100 else 1 if finding.size >= 1 else 2
    return f"{finding.size:.{digits}f} {finding.size_unit}"


def side_text(side: str) -> str:
    """The side in the user's language."""
    return {"left": _("left"), "right": _("right"), "midline": _("midline")}.get(side, _("side unknown"))


def segment_name(finding: Finding) -> str:
    """Such as "Finding 1 (left, 3.2 mL)"."""
    parts = [size_text(finding)] if finding.side == "unknown" else [side_text(finding.side), size_text(finding)]
    return _("Finding {number} ({facts})").format(number=finding.label, facts=", ".join(parts))


def segment_id(label: int) -> str:
    """The same for a rank whenever segments are made anew, so that other code can point at it."""
    return f"{FINDING}{label}"


def is_of_finding(identity: str) -> bool:
    """Whether a segment was made of a finding: not those that the user drew, or copied ("finding-1_1")."""
    return identity.startswith(FINDING) and identity.removeprefix(FINDING).isdecimal()


def fill_segmentation(node: Any, labels: Any, findings: Sequence[Finding]) -> None:
    """Make a vtkMRMLSegmentationNode hold one segment a finding, the first `MOST_SEGMENTS` of them, beside the user's.

    Parameters
    ----------
    labels
        vtkMRMLLabelMapVolumeNode with the findings' labels.
    """
    segmentation = node.GetSegmentation()
    modifying = node.StartModify()
    try:
        present = [segmentation.GetNthSegmentID(index) for index in range(segmentation.GetNumberOfSegments())]
        former = [identity for identity in present if is_of_finding(identity)]
        if former == present:
            # Otherwise each segment is wiped out of the voxels that all share, a pass over the volume for every one;
            # the user's own may share them too, and then they must be.
            for identity in former:
                segmentation.GetSegment(identity).RemoveAllRepresentations()
        for identity in former:
            segmentation.RemoveSegment(identity)
        ids = vtk.vtkStringArray()
        for finding in findings[:MOST_SEGMENTS]:
            identity = segment_id(finding.label)
            segmentation.AddEmptySegment(identity, segment_name(finding), colour_of(finding.label))
            segmentation.GetSegment(identity).SetTerminology(TERMINOLOGY)
            ids.InsertNextValue(identity)
        if findings:
            logic = slicer.modules.segmentations.logic()
            if not logic.ImportLabelmapToSegmentationNode(labels, node, ids):
                raise RuntimeError("the findings cannot be made segments")
    finally:
        node.EndModify(modifying)


def review_text(decision: str) -> str:
    """A reader's decision in the user's language."""
    return {"accept": _("accepted"), "unsure": _("unsure"), "reject": _("rejected")}.get(decision, "")


def fill_table(node: Any, findings: Sequence[Finding], reviews: Sequence[Review]) -> None:
    """Make a vtkMRMLTableNode hold one row a finding; columns as `COLUMNS`, with titles and units."""
    modifying = node.StartModify()
    try:
        table = node.GetTable()
        if table.GetNumberOfColumns() != len(COLUMNS):
            node.RemoveAllColumns()
            for name in COLUMNS:
                column = _column_type(name)()
                column.SetName(name)
                node.AddColumn(column)
        table.SetNumberOfRows(len(findings))
        for row, (finding, review) in enumerate(zip(findings, reviews, strict=True)):
            for name, value in zip(COLUMNS, _row(finding, review), strict=True):
                table.SetValueByName(row, name, vtk.vtkVariant(value))
        _describe_columns(node, findings)
        node.SetUseColumnTitleAsColumnHeader(True)
        table.Modified()
    finally:
        node.EndModify(modifying)


def _column_type(name: str) -> Any:
    if name == "Finding":
        return vtk.vtkIntArray
    return vtk.vtkStringArray if name in ("Side", "Unit", "Review", "Comment") else vtk.vtkDoubleArray


def _row(finding: Finding, review: Review) -> tuple[int | float | str, ...]:
    return (
        finding.label,
        side_text(finding.side),
        round(finding.size, 3),
        finding.size_unit,
        round(finding.peak, 2),
        round(finding.mean, 2),
        *(round(value, 1) for value in finding.centroid_ras),
        *(round(value, 1) for value in finding.extent_mm),
        review_text(review.decision),
        review.comment,
    )


def _describe_columns(node: Any, findings: Sequence[Finding]) -> None:
    unit = findings[0].size_unit if findings else ""
    length = "px" if unit == "px" else "mm"
    described = {
        "Finding": (_("Finding"), "", _("1 has the rarest voxel.")),
        "Side": (_("Side"), "", _("Side of the patient.")),
        "Size": (_("Size"), unit, _("Volume; area in a single image.")),
        "Unit": (_("Unit"), "", _("Unit of the size.")),
        "Peak": (_("Peak rarity"), "", _("Rarity x: one in 10^x voxels of normal images is as unusual.")),
        "Mean": (_("Mean rarity"), "", _("Mean over the finding.")),
        "R": (_("R"), "mm", _("Centre, towards the patient's right.")),
        "A": (_("A"), "mm", _("Centre, towards the front.")),
        "S": (_("S"), "mm", _("Centre, towards the head.")),
        "Extent R": (_("Extent R–L"), length, _("Along the image axis nearest to right–left.")),
        "Extent A": (_("Extent A–P"), length, _("Along the image axis nearest to front–back.")),
        "Extent S": (_("Extent S–I"), length, _("Along the image axis nearest to head–feet.")),
        "Review": (_("Review"), "", _("What the reader decided.")),
        "Comment": (_("Comment"), "", _("The reader's.")),
    }
    for name, (title, unit_label, description) in described.items():
        node.SetColumnTitle(name, title)
        node.SetColumnUnitLabel(name, unit_label)
        node.SetColumnDescription(name, description)
