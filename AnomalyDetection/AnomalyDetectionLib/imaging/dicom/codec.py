"""Stored pixel values out of every transfer syntax.

Uncompressed pixels are read straight from the file.  RLE and whatever pydicom has a decoder for go through pydicom;
the rest goes through GDCM, which SimpleITK carries: a minimal copy of the data set, without rescale and functional
groups, is handed to it as a temporary file, so that it gives stored values back.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import get_decoder, iter_pixels
from pydicom.uid import ExplicitVRBigEndian, RLELossless, SecondaryCaptureImageStorage, generate_uid

from AnomalyDetectionLib.errors import InputError

from .header import Header, truncated

LOSSY = frozenset(
    {
        "1.2.840.10008.1.2.4.50",  # JPEG baseline
        "1.2.840.10008.1.2.4.51",  # JPEG extended
        "1.2.840.10008.1.2.4.81",  # JPEG-LS near-lossless
        "1.2.840.10008.1.2.4.91",  # JPEG 2000, as a rule irreversible
        "1.2.840.10008.1.2.4.203",  # high-throughput JPEG 2000
    }
)
"""Transfer syntaxes whose pixels may differ from those acquired."""

_PIXEL_MODULE = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)


def stored_frames(header: Header, indices: Sequence[int]) -> Iterator[tuple[int, NDArray]]:
    """Decoded frames of one file, each once, in the order of `indices` (ascending, from 0).

    Yields
    ------
    index, array
        (rows, columns) of integers, or (rows, columns, 3) RGB where the file has three samples a pixel; YBR is
        converted.  The array may be reused: copy what is to be kept.

    Raises
    ------
    InputError
        If the file is truncated or damaged, or no decoder here knows its transfer syntax.
    """
    if _is_plain(header):
        yield from _plain_frames(header, indices)
        return
    for index, frame in _decoded_frames(header, indices):
        expected = (header.rows, header.columns) + ((3,) if header.samples == 3 else ())
        if frame.shape != expected:
            raise InputError(f"{header.path}: the pixels decode to {frame.shape}, the header says {expected}.")
        yield index, frame


def _is_plain(header: Header) -> bool:
    """Integers of whole bytes that numpy can read as they lie in the file."""
    syntax = header.transfer_syntax
    if header.pixels is None or syntax.is_encapsulated or syntax.is_deflated:
        return False
    ordered = syntax != ExplicitVRBigEndian or header.bits_allocated > 8  # big-endian OW swaps pairs of bytes
    return header.samples == 1 and header.bits_allocated in (8, 16, 32) and ordered


def _plain_frames(header: Header, indices: Sequence[int]) -> Iterator[tuple[int, NDArray]]:
    assert header.pixels is not None
    start, length = header.pixels
    kind = np.dtype(f"{'i' if header.signed else 'u'}{header.bits_allocated // 8}")
    kind = kind.newbyteorder("<" if header.dataset.original_encoding[1] else ">")
    frame = np.empty((header.rows, header.columns), dtype=kind)
    if length is None or length < frame.nbytes * header.frame_count:
        raise truncated(header)
    with header.path.open("rb") as stream:
        for index in indices:
            stream.seek(start + index * frame.nbytes)
            if stream.readinto(frame.data.cast("B")) != frame.nbytes:
                raise truncated(header)
            yield index, frame


def _decoded_frames(header: Header, indices: Sequence[int]) -> Iterator[tuple[int, NDArray]]:
    """Frames through pydicom or GDCM, whichever comes first and can.

    Decoders of lossy JPEG differ by a grey level or two, and which of them pydicom finds depends on what is installed;
    SimpleITK's GDCM is the same everywhere, so lossy pixels go there first and give the same score at every door.
    Lossless pixels go to pydicom first, which needs no temporary file.
    """
    dataset = _whole(header)
    ways = [_through_pydicom, _through_gdcm]
    if header.transfer_syntax in LOSSY:
        ways.reverse()
    reasons: list[str] = []
    remaining = list(indices)
    for way in ways:
        try:
            for index, frame in way(header, dataset, tuple(remaining)):
                yield index, frame
                remaining.remove(index)
        except _CannotDecode as error:
            reasons.append(str(error))
            continue
        return
    raise InputError(
        f"{header.path}: pixels in the transfer syntax {header.transfer_syntax.name} cannot be decoded here "
        f"({'; '.join(reasons)}); export the series uncompressed or install pylibjpeg's decoders."
    )


class _CannotDecode(Exception):
    """One way of decoding failed; the text says why."""


def _through_pydicom(header: Header, dataset: Dataset, indices: Sequence[int]) -> Iterator[tuple[int, NDArray]]:
    if not pydicom_decodes(header):
        raise _CannotDecode("pydicom has no decoder for it here")
    frames = decode_by_pydicom(dataset, indices)
    for index in indices:
        try:
            frame = next(frames)
        except StopIteration:
            raise _CannotDecode(f"frame {index + 1} is missing") from None
        except Exception as error:  # decoder plug-ins raise whatever damaged data make them stumble over
            raise _CannotDecode(_last_line(error)) from error
        yield index, frame


def _through_gdcm(header: Header, dataset: Dataset, indices: Sequence[int]) -> Iterator[tuple[int, NDArray]]:
    if not header.transfer_syntax.is_encapsulated or header.transfer_syntax == RLELossless:
        raise _CannotDecode("GDCM is not used for it")  # GDCM 3.0 swaps the bytes of 16-bit colour in RLE
    try:
        frames = decode_by_gdcm(dataset)
    except Exception as error:  # GDCM's RuntimeError, and whatever pydicom's writer meets in damaged data
        raise _CannotDecode(f"GDCM: {_last_line(error)}") from error
    if len(frames) != header.frame_count:
        raise _CannotDecode(f"it holds {len(frames)} of the {header.frame_count} frames announced")
    yield from ((index, frames[index]) for index in indices)


def pydicom_decodes(header: Header) -> bool:
    """Whether pydicom, with the packages installed here, has a decoder for the file's transfer syntax."""
    if not header.transfer_syntax.is_encapsulated:
        return True
    try:
        return bool(get_decoder(header.transfer_syntax).is_available)
    except NotImplementedError:
        return False


def decode_by_pydicom(dataset: Dataset, indices: Sequence[int]) -> Iterator[NDArray]:
    """Frames of a whole data set through pydicom; colour comes as RGB."""
    # RLE goes through pydicom's own decoder: pylibjpeg's panics on damaged data, past every `except Exception`.
    plugin = "pydicom" if dataset.file_meta.TransferSyntaxUID == RLELossless else ""
    frames = iter_pixels(dataset, indices=list(indices), decoding_plugin=plugin)
    for _ in indices:
        with quiet_pydicom():
            frame = next(frames, None)
        if frame is None:
            return
        yield frame


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keep pydicom from printing a traceback for every plug-in that fails before one succeeds, and its warnings."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # trailing bytes, missing tables: what can be decoded is decoded
            yield
    finally:
        logger.setLevel(level)


def decode_by_gdcm(dataset: Dataset) -> NDArray:
    """All frames of a whole data set through the GDCM in SimpleITK: (frames, rows, columns[, 3]), colour as RGB.

    Raises
    ------
    RuntimeError
        If GDCM cannot read them.
    """
    copy = Dataset()
    for keyword in _PIXEL_MODULE:
        if keyword in dataset:
            copy[keyword] = dataset[keyword]
    if int(copy.get("SamplesPerPixel", 1)) == 1:
        copy.PhotometricInterpretation = "MONOCHROME2"  # GDCM would look palettes up and turn MONOCHROME1 round
    copy.SOPClassUID, copy.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    copy["PixelData"] = dataset["PixelData"]
    copy.file_meta = FileMetaDataset()
    copy.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pixels.dcm"
        pydicom.dcmwrite(path, copy, enforce_file_format=True)
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(path))
        array = sitk.GetArrayFromImage(reader.Execute())
    kind = np.dtype(f"{'i' if copy.get('PixelRepresentation', 0) else 'u'}{int(copy.BitsAllocated) // 8}")
    return array.astype(kind, copy=False)


def _whole(header: Header) -> Dataset:
    try:
        with quiet_pydicom():
            dataset = pydicom.dcmread(header.path, force=True)
    except Exception as error:  # as in read_header
        raise truncated(header) from error
    if "PixelData" not in dataset:
        raise truncated(header)
    dataset.file_meta.TransferSyntaxUID = header.transfer_syntax
    return dataset


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()[:200]
