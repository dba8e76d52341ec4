"""Real values of slices: rescale per slice, padding, MONOCHROME1, unused bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut

from AnomalyDetectionLib.errors import InputError

from ..colour import luminance
from .codec import LOSSY, stored_frames
from .frame import Frame
from .header import Header
from .values import integer, items, numbers, word

MEASURED = ("CT", "PT")
"""Modalities whose values are measurements: MONOCHROME1 says there how to show them, not what they are."""
_BACKGROUND_SHARE = 0.01
_LIMIT_FREE = 256 << 20
_LIMIT_RATIO = 1032  # the most that deflate can do; what claims more from fewer bytes is no image


def real_values(frames: Sequence[Frame], *, colour: bool) -> tuple[NDArray[np.float32], list[str]]:
    """Values of the frames in their order, rescaled, brighter meaning higher.

    Parameters
    ----------
    frames
        All of one size.
    colour
        Whether colour may be turned into luminance; a colour slice of a CT or MR is a picture of a result and refused.

    Returns
    -------
    array, notes
        (K, J, I) float32, and what the user should be told.

    Raises
    ------
    InputError
        If a file is truncated, damaged, in colour where that has no meaning, or claims more pixels than it can hold.
    """
    notes: list[str] = []
    by_file: dict[int, tuple[Header, dict[int, int]]] = {}
    for place, frame in enumerate(frames):
        by_file.setdefault(id(frame.header), (frame.header, {}))[1][frame.index] = place
    for header, _ in by_file.values():
        check_claim(header)
        _check_kind(header, colour)
    array = np.empty((len(frames), frames[0].header.rows, frames[0].header.columns), dtype=np.float32)
    padded: dict[int, float] = {}
    for header, places in by_file.values():
        for index, stored in stored_frames(header, sorted(places)):
            place = places[index]
            empty = _fill(array[place], stored, frames[place])
            if empty is not None:
                padded[place] = empty
    if padded:
        _replace_padding(array, padded, notes)
    lossy = sorted({h.transfer_syntax.name for h, _ in by_file.values() if h.transfer_syntax in LOSSY})
    if lossy or any(word(h.dataset, "LossyImageCompression") == "01" for h, _ in by_file.values()):
        notes.append(f"The pixels were compressed with loss ({', '.join(lossy) or 'before export'}).")
    if colour and any(h.samples == 3 or h.photometric == "PALETTE COLOR" for h, _ in by_file.values()):
        notes.append("Colour was turned into luminance (BT.601).")
    return array, notes


def same_pixels(first: Frame, second: Frame) -> bool:
    """Whether two slices hold the same stored values and turn them into the same real ones."""
    one, other = first.header, second.header
    if (one.rows, one.columns, one.signed, first.rescale) != (other.rows, other.columns, other.signed, second.rescale):
        return False
    ((_, values),) = stored_frames(one, [first.index])
    ((_, others),) = stored_frames(other, [second.index])
    return bool(np.array_equal(values, others))


def check_claim(header: Header) -> None:
    """Refuse, before memory is taken, a header that announces more than its file could hold."""
    claimed = header.rows * header.columns * header.frame_count * header.samples * max(8, header.bits_allocated) // 8
    if claimed > max(_LIMIT_FREE, _LIMIT_RATIO * header.file_size):
        raise InputError(
            f"{header.path}: the header announces {claimed >> 20} MiB of pixels, more than its {header.file_size} "
            "bytes can hold; the file is damaged."
        )


def _check_kind(header: Header, colour: bool) -> None:
    is_colour = header.samples != 1 or header.photometric == "PALETTE COLOR"
    if is_colour and not colour:
        raise InputError(
            f"{header.path}: the {header.modality} image is in colour ({header.photometric}), a picture of a result "
            "rather than a measured image; choose the original series."
        )
    if not header.transfer_syntax.is_transfer_syntax:
        raise InputError(
            f"{header.path}: its transfer syntax {header.transfer_syntax} is unknown; export the image uncompressed."
        )
    if header.samples not in (1, 3) or header.bits_allocated not in (1, 8, 16, 32):
        raise InputError(
            f"{header.path}: images of {header.samples} samples a pixel and {header.bits_allocated} bits are not read."
        )


def _fill(out: NDArray[np.float32], stored: NDArray, frame: Frame) -> float | None:
    """Write the real values of one frame; if it contains padding, leave that as NaN and return its value."""
    header = frame.header
    if header.samples == 3:
        luminance(stored, out)
        return None
    if header.photometric == "PALETTE COLOR":
        luminance(_looked_up(apply_color_lut, stored, header), out)
        if out.max() > 255:  # 16-bit tables: the scale of an RGB frame from the same machine
            np.divide(out, 256, out=out)
        return None
    values, low, high = _used_bits(stored, header)
    if items(header.dataset, "ModalityLUTSequence"):
        out[...] = _looked_up(apply_modality_lut, values, header)
    else:
        _rescale(out, values, *frame.rescale)
    if header.photometric == "MONOCHROME1" and header.modality not in MEASURED:
        _invert(out, frame, low, high)
    padding = _padding(values, header)
    if padding is not None and padding.any():
        value = float(out[padding].max())
        out[padding] = np.nan
        return value
    return None


def _used_bits(stored: NDArray, header: Header) -> tuple[NDArray, int, int]:
    """Stored values without the bits outside Bits Stored (PS3.5 8.1.1: overlays, rubbish), and their range."""
    allocated = stored.dtype.itemsize * 8
    used = integer(header.dataset, "BitsStored", allocated)
    high_bit = integer(header.dataset, "HighBit", used - 1)
    if not 0 < used <= high_bit + 1 <= allocated:
        used, high_bit = allocated, allocated - 1
    low, high = (-(1 << (used - 1)), (1 << (used - 1)) - 1) if header.signed else (0, (1 << used) - 1)
    if used == allocated:
        return stored, low, high
    native = stored.astype(stored.dtype.newbyteorder("="))
    np.left_shift(native, allocated - 1 - high_bit, out=native)
    np.right_shift(native, allocated - used, out=native)
    return native, low, high


def _rescale(out: NDArray[np.float32], values: NDArray, slope: float, intercept: float) -> None:
    if slope == 1 and float(intercept).is_integer() and values.dtype.itemsize <= 2:
        out[...] = values
        if intercept:
            out += np.float32(intercept)
    else:
        out[...] = values * np.float64(slope) + intercept


def _invert(out: NDArray[np.float32], frame: Frame, low: int, high: int) -> None:
    """Turn MONOCHROME1 round within the range that the bits allow, the same for every image of a scanner."""
    slope, intercept = frame.rescale
    if items(frame.header.dataset, "ModalityLUTSequence"):
        np.subtract(out.max() + out.min(), out, out=out)
    else:
        np.subtract(np.float32((low + high) * slope + 2 * intercept), out, out=out)


def _padding(values: NDArray, header: Header) -> NDArray[np.bool_] | None:
    """Where the stored value says that there is no image (PS3.3 C.7.5.1.1.2)."""
    limits = numbers(header.dataset, "PixelPaddingValue")[:1] + numbers(header.dataset, "PixelPaddingRangeLimit")[:1]
    if not limits:
        return None
    wrap = 1 << header.bits_allocated
    if header.signed:  # an explicit US where SS is meant
        limits = tuple(limit - wrap if limit >= wrap // 2 else limit for limit in limits)
    low, high = min(limits), max(limits)
    return (values == low) if low == high else (values >= low) & (values <= high)


def _replace_padding(array: NDArray[np.float32], padded: dict[int, float], notes: list[str]) -> None:
    """Give padding the smallest value of the image, unless it reads as background already (0 under an MR from 1)."""
    smallest = np.fmin.reduce(array, axis=None)
    if np.isnan(smallest):
        raise InputError("every pixel is marked as padding (Pixel Padding Value); there is nothing to score.")
    margin = _BACKGROUND_SHARE * (np.fmax.reduce(array, axis=None) - smallest)
    count = 0
    for place, value in padded.items():
        empty = np.isnan(array[place])
        if 0 <= smallest - value <= margin:
            array[place][empty] = value
        else:
            count += int(np.count_nonzero(empty))
            array[place][empty] = smallest
    if count:
        notes.append(
            f"{count} pixels are marked as padding and count as the smallest value of the image, {smallest:g}."
        )


def _looked_up(table: Callable[[NDArray, Dataset], NDArray], stored: NDArray, header: Header) -> NDArray:
    try:
        return np.asarray(table(stored, header.dataset))
    except Exception as error:  # pydicom indexes the table as the file describes it
        raise InputError(
            f"{header.path}: its look-up table is damaged ({type(error).__name__}: {error}); export the image again."
        ) from error
