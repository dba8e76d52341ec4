"""The header of one DICOM file, and where its pixels begin."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from functools import cached_property
from io import BufferedReader
from pathlib import Path

from pydicom.dataset import FileDataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from AnomalyDetectionLib.errors import InputError

from ..sniff import DICOM, HEAD, kind_from
from .values import integer, word

_PIXEL_DATA = 0x7FE00010
_ALL_PIXELS = frozenset({_PIXEL_DATA, 0x7FE00009, 0x7FE00008})  # integer, double, float
_INFLATED_LIMIT = 1 << 30
_UNDEFINED = 0xFFFFFFFF

NOT_SCANS = frozenset(
    {
        "1.2.840.10008.1.3.10",  # DICOMDIR
        "1.2.840.10008.5.1.4.1.1.66.4",  # segmentation
        "1.2.840.10008.5.1.4.1.1.66.7",  # label map segmentation
        "1.2.840.10008.5.1.4.1.1.30",  # parametric map
        "1.2.840.10008.5.1.4.1.1.481.2",  # RT dose
    }
)
"""Storage classes with pixels that are nobody's scan: results and dose grids are not to be scored."""


@dataclass(eq=False)
class Header:
    """Everything before the pixels of one DICOM file.

    Attributes
    ----------
    path
        The file.
    dataset
        Its elements up to the pixel data.
    transfer_syntax
        As declared, or as found where the file has no meta header.
    pixels
        Where the bytes of Pixel Data begin in the file and how many there are (None where the length is undefined);
        None where there is no such element, or in a deflated file.
    file_size
        Bytes.
    """

    path: Path
    dataset: FileDataset
    transfer_syntax: UID
    pixels: tuple[int, int | None] | None
    file_size: int

    @property
    def name(self) -> str:
        """The file's name, with the instance number by which a viewer knows it."""
        instance = word(self.dataset, "InstanceNumber")
        return f"{self.path.name} (instance {instance})" if instance else self.path.name

    @cached_property
    def rows(self) -> int:
        return integer(self.dataset, "Rows")

    @cached_property
    def columns(self) -> int:
        return integer(self.dataset, "Columns")

    @cached_property
    def frame_count(self) -> int:
        return max(1, integer(self.dataset, "NumberOfFrames", 1))

    @cached_property
    def samples(self) -> int:
        return integer(self.dataset, "SamplesPerPixel", 1)

    @cached_property
    def bits_allocated(self) -> int:
        return integer(self.dataset, "BitsAllocated", 16)

    @cached_property
    def signed(self) -> bool:
        return integer(self.dataset, "PixelRepresentation") == 1

    @cached_property
    def photometric(self) -> str:
        return word(self.dataset, "PhotometricInterpretation").upper() or "MONOCHROME2"

    @cached_property
    def modality(self) -> str:
        return word(self.dataset, "Modality").upper()

    @cached_property
    def series_uid(self) -> str:
        return word(self.dataset, "SeriesInstanceUID")

    @property
    def is_image(self) -> bool:
        """True for a picture that somebody took: it has pixels and is no segmentation, dose, report or index."""
        if word(self.dataset, "SOPClassUID") in NOT_SCANS or self.modality in ("SEG", "RTDOSE"):
            return False
        deflated = self.transfer_syntax == DeflatedExplicitVRLittleEndian
        return self.rows > 0 and self.columns > 0 and (self.pixels is not None or deflated)


def read_header(path: Path) -> Header | None:
    """Read a DICOM file up to its pixels; None if it is another kind of file.

    Raises
    ------
    InputError
        If the file cannot be opened, or is damaged before its pixels.
    """
    found: list[int] = []

    def at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
        if tag in _ALL_PIXELS:
            found.append(int(tag))
            return True
        return False

    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD)
            if kind_from(head) != DICOM:
                return None
            size = stream.seek(0, 2)
            _check_deflated(stream, head)
            stream.seek(0)
            dataset = read_partial(stream, stop_when=at_pixels, force=True)
            element = stream.tell(), stream.read(12)
    except OSError as error:
        raise InputError(f"{path}: the file cannot be read ({error.strerror or error}).") from error
    except InputError:
        raise
    except Exception as error:  # pydicom's parser raises whatever a damaged file makes it stumble over
        raise InputError(
            f"{path}: the DICOM header is damaged ({type(error).__name__}: {error}); copy or export the file again."
        ) from error
    declared = dataset.file_meta.get("TransferSyntaxUID")
    syntax = declared if isinstance(declared, UID) and declared else _syntax_found(dataset)
    inside = found == [_PIXEL_DATA] and syntax != DeflatedExplicitVRLittleEndian
    return Header(path, dataset, syntax, _pixel_bytes(dataset, *element) if inside else None, size)


def _pixel_bytes(dataset: FileDataset, start: int, element: bytes) -> tuple[int, int | None] | None:
    """Where the value of the element that begins at `start` with these 12 bytes lies."""
    implicit, little = dataset.original_encoding
    at = 4 if implicit else 8
    if len(element) < at + 4:
        return None
    (length,) = struct.unpack(("<" if little else ">") + "L", element[at : at + 4])
    return start + at + 4, None if length == _UNDEFINED else length


def truncated(header: Header) -> InputError:
    """The error for a file that is shorter than it says."""
    return InputError(f"{header.path}: the file ends before its pixels do (truncated); copy or export it again.")


def _syntax_found(dataset: FileDataset) -> UID:
    implicit, little = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def _check_deflated(stream: BufferedReader, head: bytes) -> None:
    """Refuse a deflated data set that would blow up in memory; pydicom unpacks it in one go."""
    if DeflatedExplicitVRLittleEndian.encode() not in head:
        return
    inflated, inflater = 0, zlib.decompressobj(-zlib.MAX_WBITS)
    stream.seek(144 + struct.unpack("<L", head[140:144])[0])  # past the meta header, whose length comes first
    while chunk := stream.read(1 << 16):
        inflated += len(inflater.decompress(chunk))
        if inflated > _INFLATED_LIMIT:
            raise InputError(
                f"{stream.name}: the deflated data set unpacks to more than {_INFLATED_LIMIT >> 20} MiB; "
                "it is not read."
            )
