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

from .values import integer, word

_PIXEL_DATA = 0x7FE00010
_ALL_PIXELS = frozenset({_PIXEL_DATA, 0x7FE00009, 0x7FE00008})  # integer, double, float
_INFLATED_LIMIT = 1 << 30

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
    pixel_start
        Byte at which the Pixel Data element begins; None where it has none, or in a deflated file.
    file_size
        Bytes.
    """

    path: Path
    dataset: FileDataset
    transfer_syntax: UID
    pixel_start: int | None
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
        return self.rows > 0 and self.columns > 0 and (self.pixel_start is not None or deflated)


def read_header(path: Path) -> Header:
    """Read a DICOM file up to its pixels.

    Raises
    ------
    InputError
        If the file cannot be opened, or is damaged before its pixels.
    """
    found: list[int] = []

    def at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
        if tag in _ALL_PIXELS:
            found.append(int(tag))
        return bool(found)

    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(0)
            dataset = read_partial(_bounded(stream), stop_when=at_pixels, force=True)
            start = stream.tell()
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
    return Header(path, dataset, syntax, start if inside else None, size)


def pixel_bytes(header: Header) -> tuple[int, int]:
    """Where the bytes of uncompressed pixels begin in the file, and how many there are.

    Raises
    ------
    InputError
        If the file ends before the pixels it announces.
    """
    assert header.pixel_start is not None
    implicit, little = header.dataset.original_encoding
    order = "<" if little else ">"
    with header.path.open("rb") as stream:
        stream.seek(header.pixel_start + 4)
        head = stream.read(8)
    if len(head) < 8:
        raise truncated(header)
    if implicit:
        begin, length = header.pixel_start + 8, struct.unpack(order + "L", head[:4])[0]
    else:
        begin, length = header.pixel_start + 12, struct.unpack(order + "L", head[4:])[0]
    if length != 0xFFFFFFFF and begin + length > header.file_size:
        raise truncated(header)
    return begin, min(length, header.file_size - begin)


def truncated(header: Header) -> InputError:
    """The error for a file that is shorter than it says."""
    return InputError(f"{header.path}: the file ends before its pixels do (truncated); copy or export it again.")


def _syntax_found(dataset: FileDataset) -> UID:
    implicit, little = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def _bounded(stream: BufferedReader) -> BufferedReader:
    """The stream itself, once a deflated data set is known not to blow up in memory."""
    head = stream.read(1024)
    stream.seek(0)
    if DeflatedExplicitVRLittleEndian.encode() in head:
        inflated = 0
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        meta = stream.read(144)
        stream.seek(144 + struct.unpack("<L", meta[140:144])[0])
        while chunk := stream.read(1 << 16):
            inflated += len(inflater.decompress(chunk))
            if inflated > _INFLATED_LIMIT:
                raise InputError(f"{stream.name}: the deflated data set unpacks to more than 1 GiB; it is not read.")
        stream.seek(0)
    return stream
