"""Which voxels show the patient: nothing else is scored or counted.

Every rule has a name that is stored with the model (`InputSpec.foreground`); "auto" picks one by modality.  Rules work
on block means of about 2 mm, where noise averages out and labelling is eight times cheaper, and trim the rim at full
resolution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib.errors import InputError

from . import masks
from .masks import Mask
from .volume import Volume

WORKING_MM = 2.0
"""Edge of the blocks in which structure is looked for."""
CLOSING_MM = 5.0
"""Gaps up to twice this wide are closed for whole bodies (ear canal, dark rim lesions)."""
STRIPPED_CLOSING_MM = 10.0
"""The same for skull-stripped brains, where outside is exactly known and sulci and dark cortical lesions open to it."""
CT_AIR_HU = -500.0
"""Half way between air (-1000) and water (0)."""
CT_OPENING_MM = 4.0
"""Removes table tops, head holders' shells, blankets and tubes, which are thinner than 8 mm."""
EMISSION_SHARE = 0.03
"""A PET or SPECT voxel is body above this share of the 99th percentile of the voxels that hold any count."""
SUV_BODY = 0.15
"""SUV above which a voxel of a PET belongs to the body; air is below 0.05, lung and muscle above 0.3."""
MINIMUM_SHARE = 1e-4
"""A foreground smaller than this share of the image is none."""


@dataclass(frozen=True)
class Reduced:
    """A volume in blocks.

    `mean` are the block means, float32 (K, J, I); `factors` the voxels per block along (k, j, i); `spacing` the block
    size in mm along (i, j, k).
    """

    mean: NDArray[np.float32]
    factors: tuple[int, int, int]
    spacing: masks.Spacing

    @classmethod
    def of(cls, array: NDArray[np.float32], spacing: masks.Spacing, spacing_known: bool) -> Reduced:
        """Block means, by adding strided views: no full-size copy is made."""
        if spacing_known:
            wanted = [round(WORKING_MM / s) for s in spacing[::-1]]
        else:
            wanted = [max(array.shape[1:]) // 256] * 3
        # At least 64 blocks along an axis, as far as it has them: small images are not coarsened away.
        factors = tuple(max(1, min(f, n // 64)) for f, n in zip(wanted, array.shape, strict=True))
        counts = [n // f for n, f in zip(array.shape, factors, strict=True)]
        total = np.zeros(counts, dtype=np.float32)
        for offset in np.ndindex(*factors):
            total += array[tuple(slice(o, c * f, f) for o, c, f in zip(offset, counts, factors, strict=True))]
        total /= float(np.prod(factors))
        size = spacing if spacing_known else (WORKING_MM / 2,) * 3
        return cls(total, factors, tuple(s * f for s, f in zip(size, factors[::-1], strict=True)))

    def expand(self, low: Mask, shape: tuple[int, ...]) -> Mask:
        """A mask of blocks as a mask of voxels; voxels left over at the far edges follow their neighbours."""
        index = [np.minimum(np.arange(n) // f, m - 1) for n, f, m in zip(shape, self.factors, low.shape, strict=True)]
        return low[index[0]][:, index[1]][:, :, index[2]]


def _trim(array: NDArray[np.float32], reduced: Reduced, low: Mask, threshold: float) -> Mask:
    """Voxels of the block mask, less those at or below the threshold in rim blocks that pass it on the mean.

    Blocks that only closing or filling brought in stay whole: they are dark tissue, not partial air.
    """
    full = reduced.expand(low, array.shape)
    if max(reduced.factors) == 1:
        return full
    rim = low & ~masks.erode(low, 1.01 * max(reduced.spacing), reduced.spacing) & (reduced.mean > threshold)
    return full & ~(reduced.expand(rim, array.shape) & (array <= threshold))


# ------------------------------------------------------------------------------------------------------------------ MR


def _frame_constant(array: NDArray[np.float32]) -> float | None:
    """The value that most of the in-plane frame has exactly, as masked images have; None where there is none."""
    frame = np.concatenate([array[:, [0, -1], :].ravel(), array[:, :, [0, -1]].ravel()])
    values, counts = np.unique(frame[:: max(1, frame.size // 200_000)], return_counts=True)
    top = int(counts.argmax())
    return float(values[top]) if counts[top] >= 0.4 * counts.sum() else None


def _otsu(values: NDArray[np.float32]) -> float:
    """Threshold of greatest between-class variance (Otsu, IEEE SMC 9, 1979), blind to the brightest 0.5 %."""
    top = float(np.percentile(values, 99.5))
    counts, edges = np.histogram(np.minimum(values, top), bins=256)
    centres = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    moment = np.cumsum(counts * centres)
    mean_below = moment / np.maximum(below, 1)
    mean_above = (moment[-1] - moment) / np.maximum(above, 1)
    return float(edges[1:][np.argmax(below * above.astype(float) * (mean_below - mean_above) ** 2)])


def air_threshold(values: NDArray[np.float32]) -> float | None:
    """The value that divides air from tissue in a magnitude image, or None where there is no air in it.

    Air is the darker Otsu class.  The threshold stands six lower half-widths above its mode: beyond the 99.9th
    percentile of Rician noise (5.4 half-widths), yet so low that tissue which a bias field darkens to a fifth stays in.
    """
    sample = values[:: max(1, values.size // 300_000)]
    otsu = _otsu(sample)
    dark, bright = sample[sample <= otsu], sample[sample > otsu]
    if dark.size == 0 or bright.size == 0:
        return None
    base = min(0.0, float(np.percentile(sample, 0.1)))
    tissue = float(np.median(bright)) - base
    counts, edges = np.histogram(dark, bins=128)
    mode = float(edges[:-1][counts.argmax()] + edges[1:][counts.argmax()]) / 2
    if mode - base > 0.35 * tissue:
        return None  # the darker class is tissue: the image is cropped inside the patient
    below = dark[dark < mode]
    half_width = 1.4826 * float(np.median(mode - below)) if below.size else 0.0
    noise = mode + max(6 * half_width, 0.03 * tissue)
    return min(noise, otsu, mode + 0.35 * tissue)


def _magnitude(volume: Volume) -> Mask:
    """Patient against air in MR and images of unknown kind."""
    array, constant = volume.array, _frame_constant(volume.array)
    if constant is not None and _is_stripped(array, constant):
        distance = array if constant == 0 and array.min() >= 0 else np.abs(array - np.float32(constant))
        reduced = Reduced.of(distance, volume.spacing, volume.spacing_known)
        present = reduced.mean[reduced.mean > 0]
        # One per cent of the tissue's level: resampling leaves dust around a mask.
        threshold = 0.01 * float(np.percentile(present, 95)) if present.size else 0.0
        low = _solid(reduced.mean > threshold, STRIPPED_CLOSING_MM, 0.0, reduced.spacing)
        return _trim(distance, reduced, low, threshold)
    reduced = Reduced.of(array, volume.spacing, volume.spacing_known)
    values = reduced.mean.ravel()
    found = air_threshold(values[values != constant] if constant is not None else values)
    if found is None:
        return np.ones(volume.shape, dtype=bool) if constant is None else _fill_whole(array != np.float32(constant))
    low = _solid(reduced.mean > found, CLOSING_MM, 1.01 * max(reduced.spacing[:2]), reduced.spacing)
    return _trim(array, reduced, low, found)


def _is_stripped(array: NDArray[np.float32], constant: float) -> bool:
    """True if everything but the constant is tissue: a masked image rather than one whose air was zeroed in part."""
    step = max(1, round((array.size / 300_000) ** (1 / 3)))
    sample = array[:: min(step, array.shape[0]), ::step, ::step].ravel()
    rest = sample[sample != np.float32(constant)]
    if rest.size == 0:
        return True
    if rest.min() < constant:
        return True  # z-scored after masking: tissue lies on both sides of the outside's value
    level = float(np.percentile(rest, 95)) - constant
    return float(np.mean(rest - constant < 0.1 * level)) < 0.3


def _fill_whole(mask: Mask) -> Mask:
    return masks.fill(masks.largest(mask, 0.1))


def _solid(mask: Mask, closing_mm: float, opening_mm: float, spacing: masks.Spacing, share: float = 0.1) -> Mask:
    """Specks and threads off, main components kept, gaps closed, holes filled."""
    if opening_mm:
        opened = masks.open_(mask, opening_mm, spacing)
        mask = opened if opened.any() else mask
    mask = masks.largest(mask, share)
    return masks.fill(masks.close(mask, closing_mm, spacing))


# -------------------------------------------------------------------------------------------------- other modalities


def _ct_body(volume: Volume) -> Mask:
    """Body in Hounsfield units: table, holders and blankets off, lungs, airways and bowel gas in."""
    reduced = Reduced.of(volume.array, volume.spacing, volume.spacing_known)
    dense = reduced.mean > CT_AIR_HU
    low = _solid(dense, CLOSING_MM, CT_OPENING_MM, reduced.spacing, share=0.25)
    return _trim(volume.array, reduced, low, CT_AIR_HU)


def _emission(volume: Volume) -> Mask:
    """Body in PET and SPECT, where air still holds some scattered counts."""
    reduced = Reduced.of(volume.array, volume.spacing, volume.spacing_known)
    if volume.units == "SUVbw":
        threshold = SUV_BODY
    else:
        counted = reduced.mean[reduced.mean > 0]
        threshold = EMISSION_SHARE * float(np.percentile(counted, 99)) if counted.size else 0.0
    return reduced.expand(_solid(reduced.mean > threshold, CLOSING_MM, 0.0, reduced.spacing), volume.shape)


def _flat_edges(image: NDArray[np.float32]) -> tuple[slice, slice]:
    """The rectangle inside rows and columns that are flat: collimator shadow or padding.

    A row is flat if its 10th to 90th percentile span less than 2 % of the image's grey range (so letters do not count).
    """
    span = float(np.subtract(*np.percentile(image[::4, ::4], (99.5, 0.5))))
    bounds = []
    for axis in (0, 1):
        low, high = np.percentile(image, (10, 90), axis=1 - axis)
        busy = np.flatnonzero(high - low > 0.02 * span)
        bounds.append(slice(int(busy[0]), int(busy[-1]) + 1) if busy.size else slice(0, image.shape[axis]))
    return bounds[0], bounds[1]


def _black_border(image: NDArray[np.float32]) -> Mask:
    """Pixels at the darkest value (to 0.5 % of the range: JPEG) that are connected to the edge of the image."""
    low, high = np.percentile(image, (0, 99.5))
    black = (image <= low + 0.005 * (high - low))[np.newaxis]
    return (black & ~masks.enclosed_in_slices(black))[0]


def _radiograph(volume: Volume) -> Mask:
    """All of a projection image but collimator borders, padding and saturated direct exposure."""
    result = np.zeros(volume.shape, dtype=bool)
    for out, image in zip(result, volume.array, strict=True):
        window = _flat_edges(image)
        out[window] = ~_black_border(image[window])
    return masks.largest(result, 0.1)


def _mammogram(volume: Volume) -> Mask:
    """Breast against the unexposed or, in images "for processing", the saturated background."""
    reduced = Reduced.of(volume.array, volume.spacing, volume.spacing_known)
    low, high = np.percentile(reduced.mean, (0.1, 99.9))
    counts, edges = np.histogram(np.clip(reduced.mean, low, high), bins=64)
    background = float(edges[counts.argmax()] + edges[counts.argmax() + 1]) / 2
    distance = np.abs(volume.array - np.float32(background))
    blocks = Reduced.of(distance, volume.spacing, volume.spacing_known)
    mask = _solid(blocks.mean > 0.05 * float(high - low), CLOSING_MM, CLOSING_MM, blocks.spacing, share=0.25)
    return blocks.expand(mask, volume.shape)


def _ultrasound(volume: Volume) -> Mask:
    """The insonated field: pixels that are not black in some frame (a cine's frames share one field)."""
    brightest = volume.array.max(axis=0, keepdims=True)
    low, high = np.percentile(brightest, (0, 99.5))
    lit = brightest > low + 0.03 * (high - low)
    spacing = (1.0, 1.0, 1.0)  # radii in pixels: the closing bridges speckle, whose size follows the sampling
    field = masks.fill(masks.largest(masks.close(lit, 5.0, spacing), 0.25))
    return np.broadcast_to(field, volume.shape).copy()


def _border(volume: Volume) -> Mask:
    """Everything but a black border (screenshots and exported pictures)."""
    return np.stack([~_black_border(image) for image in volume.array])


def _everything(volume: Volume) -> Mask:
    return np.ones(volume.shape, dtype=bool)


RULES: dict[str, Callable[[Volume], Mask]] = {
    "mr": _magnitude,
    "ct-body": _ct_body,
    "emission": _emission,
    "radiograph": _radiograph,
    "mammogram": _mammogram,
    "ultrasound": _ultrasound,
    "border": _border,
    "everything": _everything,
}
"""Rule name -> function; the names are stored with models and never change their meaning."""

BY_MODALITY: dict[str, str] = {
    "MR": "mr",
    "CT": "ct-body",
    "CR": "radiograph",
    "DX": "radiograph",
    "XR": "radiograph",
    "RF": "radiograph",
    "XA": "radiograph",
    "MG": "mammogram",
    "US": "ultrasound",
    "PT": "emission",
    "NM": "emission",
}


def choose(volume: Volume) -> str:
    """Name of the rule that "auto" stands for."""
    if volume.modality in BY_MODALITY:
        rule = BY_MODALITY[volume.modality]
        return "mr" if rule == "ct-body" and volume.units not in ("HU", "") else rule
    if volume.units == "HU":
        return "ct-body"
    return "border" if volume.is_slice and not volume.spacing_known else "mr"


def foreground(volume: Volume, rule: str = "auto") -> NDArray[np.bool_]:
    """The voxels that show the patient.

    Parameters
    ----------
    rule
        A name in `RULES`, or "auto".

    Returns
    -------
    bool (K, J, I); within `volume.region` where there is one.

    Raises
    ------
    InputError
        If the rule is unknown or the image shows no patient.
    """
    name = choose(volume) if rule == "auto" else rule
    if name not in RULES:
        raise InputError(f"There is no foreground rule {name!r}; known are auto, {', '.join(RULES)}.")
    mask = RULES[name](volume)
    if volume.region is not None:
        mask &= volume.region
    if np.count_nonzero(mask) <= MINIMUM_SHARE * mask.size:
        raise InputError(
            f"{volume.name}: no patient can be told from the background (foreground rule {name!r}); "
            "check that this is the image you mean and that its modality is right."
        )
    return mask
