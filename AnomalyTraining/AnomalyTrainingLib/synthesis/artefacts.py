"""What spoils scans: ten artefacts, each in five severities, to see what a detector makes of them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.volume import Volume

from .acquisition import rician, rotation
from .deformation import bspline_noise

SEVERITIES = (1, 2, 3, 4, 5)

Image = NDArray[np.float32]
Spacing = tuple[float, float, float]
Artefact = Callable[[Image, Spacing, int, np.random.Generator], Image]
"""Takes an image scaled to about 0 ... 1, its spacing (mm along i, j, k), a severity and a generator."""

_STRIPPED_SHARE = 0.2  # of voxels that hold the very lowest value: only a mask leaves so many


def degrade(volume: Volume, name: str, severity: int, *, seed: int = 0) -> Volume:
    """The volume with an artefact; the same seed gives the same one, and severities differ in strength only.

    Where the background was cut away (a fifth of the voxels or more hold the lowest value) it stays so: the artefact
    happens in the scanner, the cutting after it.

    Parameters
    ----------
    name
        A name in `ARTEFACTS`.
    severity
        1 (hardly seen) to 5 (not for diagnosis).

    Raises
    ------
    InputError
        If the name or severity is unknown, the image is constant, or it has too few slices for the artefact.
    """
    if name not in ARTEFACTS:
        raise InputError(f"There is no artefact {name!r}; known are {', '.join(ARTEFACTS)}.")
    if severity not in SEVERITIES:
        raise InputError(f"The severity of an artefact is a whole number from 1 to 5, not {severity}.")
    volume.check_values()
    low = float(volume.array.min())
    high = float(np.quantile(volume.array, 0.995))
    scale = high - low if high > low else float(volume.array.max()) - low
    rng = np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(name.encode())]))
    image = (volume.array - low) / scale
    try:
        spoilt = ARTEFACTS[name](image, volume.spacing, severity, rng)
    except InputError as error:
        raise InputError(f"{volume.name}: {error}") from error
    cut = volume.array == low
    if cut.mean() >= _STRIPPED_SHARE:
        spoilt = np.where(cut, 0, spoilt)
    return volume.with_array((spoilt * scale + low).astype(np.float32))


def _motion(image: Image, spacing: Spacing, severity: int, rng: np.random.Generator) -> Image:
    """The head moves five times while lines are taken along j, by up to 1.2 mm and 1 degree per severity.

    A line belongs to the pose of its moment; the middle of k-space to the first pose, so that the image stays in place.
    """
    count = image.shape[1]
    moments = np.sort(rng.uniform(0, 1, 5))
    line = np.abs(np.fft.fftfreq(count)) * 2  # centre-out order: 0 in the middle, 1 at the edge
    pose_of_line = np.searchsorted(0.04 + 0.9 * moments, line)
    spectrum = np.fft.fft(image, axis=1)
    for pose in range(1, len(moments) + 1):
        turn, shift = rng.uniform(-1, 1, 3) * severity, rng.uniform(-1.2, 1.2, 3) * severity
        if image.shape[0] == 1:
            turn, shift = turn * (0, 0, 1), shift * (1, 1, 0)
        taken = pose_of_line == pose
        if taken.any():
            spectrum[:, taken] = np.fft.fft(_posed(image, spacing, turn, shift), axis=1)[:, taken]
    return np.abs(np.fft.ifft(spectrum, axis=1)).astype(np.float32)


def _posed(image: Image, spacing: Spacing, degrees: NDArray, shift_mm: NDArray) -> Image:
    size = np.array(spacing[::-1])
    matrix = np.diag(1 / size) @ rotation(degrees)[::-1, ::-1] @ np.diag(size)
    centre = (np.array(image.shape) - 1) / 2
    return ndimage.affine_transform(image, matrix, centre - matrix @ centre + shift_mm[::-1] / size, order=1)


def _ghosting(image: Image, spacing: Spacing, severity: int, rng: np.random.Generator) -> Image:
    """Breathing or pulsation: every second to fourth line along j is weaker, by 10 % per severity."""
    spectrum = np.fft.fft(image, axis=1)
    lines = np.arange(image.shape[1]) % int(rng.integers(2, 5)) == 1
    spectrum[:, lines] *= 1 - 0.1 * severity
    return np.abs(np.fft.ifft(spectrum, axis=1)).astype(np.float32)


def _spikes(image: Image, spacing: Spacing, severity: int, rng: np.random.Generator) -> Image:
    """Three bad points of k-space: stripes over the whole image, each of 2.5 % per severity."""
    total = image.astype(np.complex64)
    for _ in range(3):
        cycles = rng.uniform(0.05, 0.25, 3) * rng.choice([-1, 1], 3)
        k, j, i = (
            np.exp(2j * np.pi * f * np.arange(n)).astype(np.complex64) for f, n in zip(cycles, image.shape, strict=True)
        )
        phase = np.exp(2j * np.pi * rng.uniform())
        total += (0.025 * severity * phase) * (k[:, None, None] * j[:, None] * i)
    return np.abs(total).astype(np.float32)


def _bias(image: Image, spacing: Spacing, severity: int, rng: np.random.Generator) -> Image:
    """Coil shading over some 100 mm: a factor with a standard deviation of about 6 % per severity."""
    field = bspline_noise(image.shape, spacing, 100.0, rng)[0].numpy()
    field = (field - field.mean()) / max(float(field.std()), 1e-6)
    return (image * np.exp(0.06 * severity * field)).astype(np.float32)


def _noise(image: Image, spacing: Spacing, severity: int, rng: np.random.Generator) -> Image:
    """Rician noise of 3 % per severity."""
    return rician(image, 0.03 * severity, rng).astype(np.float32)


def _blur(image: Image, spacing: Spacing, severity: int, rng: np.random.Generator) -> Image:
    """A Gaussian of 0.6 mm standard deviation per severity; within the slice where there is only one.

    By cosine transform: a kernel sampled at the voxels would not blur at all below a third of a voxel.
    """
    for axis in (0, 1, 2) if image.shape[0] > 1 else (1, 2):
        count = image.shape[axis]
        sigma = 0.6 * severity / spacing[2 - axis]
        gain = np.exp(-0.5 * (np.pi * sigma * np.arange(count) / count) ** 2)
        waves = fft.dct(image, axis=axis) * np.expand_dims(gain, [other for other in range(3) if other != axis])
        image = fft.idct(waves, axis=axis).astype(np.float32)
    return np.maximum(image, 0)


def _gamma(image: Image, spacing: Spacing, severity: int, rng: np.random.Generator) -> Image:
    """Another transfer curve: exponent 1.15 per severity, or its inverse."""
    exponent = 1.15 ** (severity * float(rng.choice([-1, 1])))
    return np.power(image, exponent).astype(np.float32)


def _low_resolution(image: Image, spacing: Spacing, severity: int, rng: np.random.Generator) -> Image:
    """Slices 1 + 0.7 per severity times as thick, interpolated back; lines in place of slices where there is one."""
    axis = 0 if image.shape[0] > 1 else 1
    matrix = _thick(image.shape[axis], 1 + 0.7 * severity)
    return np.moveaxis(np.tensordot(matrix, image, axes=(1, axis)), 0, axis).astype(np.float32)


def _thick(count: int, factor: float) -> NDArray[np.float64]:
    """(count, count) matrix: averages over boxes of `factor` samples, then linear interpolation between these."""
    edges = np.append(np.arange(0, count, factor), count)
    sample = np.arange(count)
    shares = np.minimum(sample + 1, edges[1:, None]) - np.maximum(sample, edges[:-1, None])
    average = np.clip(shares, 0, None) / np.diff(edges)[:, None]
    middles = (edges[1:] + edges[:-1] - 1) / 2
    back = np.stack([np.interp(sample, middles, unit) for unit in np.eye(len(middles))], axis=1)
    return back @ average


def _missing_slices(image: Image, spacing: Spacing, severity: int, rng: np.random.Generator) -> Image:
    """4 % of the slices that show anything are empty, per severity; at least so many as the severity."""
    shown = np.flatnonzero((image > 0.1).any(axis=(1, 2)))
    if len(shown) < 10:
        raise InputError("with fewer than 10 slices none can be left out; choose another artefact.")
    order = rng.permutation(shown)
    spoilt = image.copy()
    spoilt[order[: severity * max(1, round(0.04 * len(shown)))]] = 0
    return spoilt


def _metal(image: Image, spacing: Spacing, severity: int, rng: np.random.Generator) -> Image:
    """A metal part as MR shows it: a void of 5 mm radius per severity, around it the field of a dipole.

    The field shifts signal along i by up to 3 mm per severity and piles it up where it crowds together.
    """
    inside = np.flatnonzero(ndimage.binary_erosion(image > 0.1, iterations=2, structure=np.ones((1, 3, 3))))
    place = np.array(np.unravel_index(inside[int(rng.integers(inside.size))] if inside.size else 0, image.shape))
    k, j, i = ((np.arange(n) - c) * s for n, c, s in zip(image.shape, place, spacing[::-1], strict=True))
    k, j, i = k[:, None, None], j[None, :, None], i[None, None, :]
    radius = 5.0 * severity
    distance = np.maximum(np.sqrt(k**2 + j**2 + i**2), 1e-3)
    axis = j if image.shape[0] == 1 else k  # of the main field
    field = (radius / np.maximum(distance, radius)) ** 3 * (3 * (axis / distance) ** 2 - 1)
    shift = 1.5 * severity * field / spacing[0]  # the field is 2 at the poles
    index = np.indices(image.shape, dtype=np.float32)
    index[2] += shift
    moved = ndimage.map_coordinates(image, index, order=1, mode="nearest")
    crowding = np.clip(np.abs(1 + np.gradient(shift, axis=2)), 0.3, 3)
    return (moved * crowding * np.clip((distance - radius) / 3 + 0.5, 0, 1)).astype(np.float32)


ARTEFACTS: Mapping[str, Artefact] = {
    "motion": _motion,
    "ghosting": _ghosting,
    "spikes": _spikes,
    "bias": _bias,
    "noise": _noise,
    "blur": _blur,
    "gamma": _gamma,
    "low-resolution": _low_resolution,
    "missing-slices": _missing_slices,
    "metal": _metal,
}
"""Artefacts by name."""
