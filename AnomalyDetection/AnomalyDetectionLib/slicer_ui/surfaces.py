"""Findings as closed surfaces in the 3D views, made one at a time so that the window is never blocked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import qt
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from .findings import segment_id

if TYPE_CHECKING:
    from .results import Results

TURN_S = 0.03
"""Time for surfaces in one turn of the event loop."""

MARGIN = 1
"""Voxels around a finding that the conversion needs to close its surface."""


class Surfaces:
    """Shows and hides the surfaces of the results that are looked at."""

    def __init__(self) -> None:
        self._work: Iterator[None] | None = None

    @staticmethod
    def are_shown(results: Results) -> bool:
        """Whether the segmentation has surfaces."""
        return results.segmentation is not None and bool(
            results.segmentation.GetSegmentation().ContainsRepresentation(_surface())
        )

    def show(self, results: Results) -> None:
        """Begin to make the surfaces of all segments; they appear together, a moment later."""
        self._work = surfaces_of(results)
        self._go_on(self._work)

    def hide(self, results: Results) -> None:
        """Take them away, and stop where some are still being made."""
        self._work = None
        if results.segmentation is not None:
            results.segmentation.RemoveClosedSurfaceRepresentation()

    @property
    def is_busy(self) -> bool:
        """Whether some are still being made."""
        return self._work is not None

    def _go_on(self, work: Iterator[None]) -> None:
        end = time.monotonic() + TURN_S
        while self._work is work:
            try:
                next(work)
            except StopIteration:
                self._work = None
                return
            if time.monotonic() > end:
                qt.QTimer.singleShot(0, lambda: self._go_on(work))
                return


def surfaces_of(results: Results) -> Iterator[None]:
    """Give every segment its closed surface: a step a surface, and one in which all are handed over.

    Slicer's own conversion passes over the whole volume for every segment (36 ms each at 256³), for all of them share
    one label map: so each is converted from its own box, by the same rule with the same smoothing.  They are handed
    over together because with the first one the views ask Slicer for those that are missing.
    """
    node, labels = results.segmentation, results.labels
    if node is None or labels is None:
        return
    boxes = _boxes(slicer.util.arrayFromVolume(labels), node.GetSegmentation().GetNumberOfSegments())
    yield
    made = {}
    for label, box in boxes.items():
        made[segment_id(label)] = _surface_in(labels, label, box)
        yield
    modifying = node.StartModify()
    try:
        for identity, surface in made.items():
            segment = node.GetSegmentation().GetSegment(identity)
            if segment is not None:  # the user may have deleted it meanwhile
                segment.AddRepresentation(_surface(), surface)
        node.GetDisplayNode().SetPreferredDisplayRepresentationName3D(_surface())
        node.GetDisplayNode().SetVisibility3D(True)
    finally:
        node.EndModify(modifying)
    yield


def _boxes(labels: np.ndarray, most: int) -> dict[int, tuple[slice, slice, slice]]:
    """The box of every label up to `most`, with a margin: one pass over the volume."""
    places = np.flatnonzero(labels)
    if places.size == 0:
        return {}
    values = labels.ravel()[places]
    index = np.stack(np.unravel_index(places, labels.shape))
    boxes = {}
    for label in np.unique(values)[:most]:
        own = index[:, values == label]
        boxes[int(label)] = tuple(
            slice(max(0, low - MARGIN), high + 1 + MARGIN)
            for low, high in zip(own.min(axis=1).tolist(), own.max(axis=1).tolist(), strict=True)
        )
    return boxes  # type: ignore[return-value]


def _surface_in(labels: Any, label: int, box: tuple[slice, slice, slice]) -> Any:
    """The vtkPolyData of one label, in the coordinates of the segmentation."""
    voxels = (slicer.util.arrayFromVolume(labels)[box] == label).astype(np.uint8)
    image = slicer.vtkOrientedImageData()
    k, j, i = (part.start for part in box)
    depth, height, width = voxels.shape
    image.SetExtent(i, i + width - 1, j, j + height - 1, k, k + depth - 1)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    vtk_to_numpy(image.GetPointData().GetScalars())[:] = voxels.ravel()
    matrix = vtk.vtkMatrix4x4()
    labels.GetIJKToRASMatrix(matrix)
    image.SetGeometryFromImageToWorldMatrix(matrix)
    alone = slicer.vtkSegmentation()
    alone.SetSourceRepresentationName(slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName())
    segment = slicer.vtkSegment()
    segment.AddRepresentation(alone.GetSourceRepresentationName(), image)
    alone.AddSegment(segment, "finding")
    alone.CreateRepresentation(_surface())
    return segment.GetRepresentation(_surface())


def _surface() -> str:
    return str(slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName())
