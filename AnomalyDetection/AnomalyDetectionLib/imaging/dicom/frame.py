"""`Frame`: one slice of a patient, whether it has a file of its own or shares one with others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from AnomalyDetectionLib.errors import InputError

from .header import Header
from .values import items, numbers, words

Vector = tuple[float, ...]


@dataclass(slots=True)
class Frame:
    """One image plane.

    Attributes
    ----------
    header
        The file that holds it.
    index
        Its number in that file, from 0.
    sources
        Data sets in which its attributes are looked up, the most specific first (PS3.3 C.7.6.16: per-frame functional
        groups, shared functional groups, the data set itself).
    position
        LPS millimetres of the centre of the first voxel, or empty.
    orientation
        Direction cosines (LPS) of a row, then of a column, six numbers, or empty.
    spacing
        Millimetres between rows, then between columns (the order of Pixel Spacing), or empty.
    """

    header: Header
    index: int
    sources: Sequence[Dataset]
    position: Vector
    orientation: Vector
    spacing: Vector

    @property
    def name(self) -> str:
        """For messages: the file, and the frame where it holds several."""
        if self.header.frame_count > 1:
            return f"{self.header.path.name} (frame {self.index + 1})"
        return self.header.name

    def numbers(self, keyword: str) -> Vector:
        """Values of a numeric attribute, empty if absent."""
        for source in self.sources:
            if values := numbers(source, keyword):
                return values
        return ()

    def words(self, keyword: str) -> tuple[str, ...]:
        """Values of a code, empty if absent."""
        for source in self.sources:
            if values := words(source, keyword):
                return values
        return ()

    @property
    def image_type(self) -> tuple[str, ...]:
        """Frame Type, or Image Type of a single-frame object."""
        return self.words("FrameType") or self.words("ImageType")

    @property
    def rescale(self) -> tuple[float, float]:
        """Slope and intercept from stored to real values."""
        slope, intercept = self.numbers("RescaleSlope"), self.numbers("RescaleIntercept")
        return (slope[0] if slope else 1.0, intercept[0] if intercept else 0.0)


def frames_of(header: Header) -> list[Frame]:
    """The image planes of one file, with the geometry it states.

    Raises
    ------
    InputError
        If the file announces more frames than it describes or could hold.
    """
    if "SharedFunctionalGroupsSequence" in header.dataset or "PerFrameFunctionalGroupsSequence" in header.dataset:
        return _enhanced(header)
    if header.frame_count > header.file_size:
        raise InputError(
            f"{header.path}: the header announces {header.frame_count} frames, more than the file can hold."
        )
    return [_plane(header, index, (header.dataset,)) for index in range(header.frame_count)]


def _enhanced(header: Header) -> list[Frame]:
    shared = [
        macro for group in items(header.dataset, "SharedFunctionalGroupsSequence")[:1] for macro in _macros(group)
    ]
    groups = items(header.dataset, "PerFrameFunctionalGroupsSequence")
    if len(groups) != header.frame_count:
        raise InputError(
            f"{header.path}: the header announces {header.frame_count} frames but describes {len(groups)}; "
            "export the file again."
        )
    return [_plane(header, index, (*_macros(group), *shared, header.dataset)) for index, group in enumerate(groups)]


def _macros(group: Dataset) -> list[Dataset]:
    """The first item of every functional group macro."""
    found = []
    for element in group:
        if element.VR == "SQ" and element.value:
            found.append(element.value[0])
    return found


def _plane(header: Header, index: int, sources: Sequence[Dataset]) -> Frame:
    frame = Frame(header, index, sources, (), (), ())
    position, orientation = frame.numbers("ImagePositionPatient"), frame.numbers("ImageOrientationPatient")
    spacing = frame.numbers("PixelSpacing")
    frame.position = position if len(position) == 3 else ()
    frame.orientation = orientation if len(orientation) == 6 else ()
    frame.spacing = spacing if len(spacing) == 2 and min(spacing) > 0 else ()
    return frame
