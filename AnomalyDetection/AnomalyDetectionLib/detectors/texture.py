"""Hand-made descriptions of images: oriented gradients, grey-level co-occurrence, wavelets.

Dalal & Triggs (CVPR 2005), Haralick et al. (IEEE SMC 1973) and Mallat (IEEE PAMI 1989), by scikit-image and PyWavelets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib.errors import InputError

Family = Literal["hog", "glcm", "wavelet"]

ORIENTATIONS, BLOCK = 9, 2
"""Of histograms of gradients: bins of half a turn, and cells along the side of the blocks they are normalised in."""

LEVELS = 32
DISTANCES = (1, 2, 4)
"""Pixels between the two of a pair, whose grey levels are counted together."""
ANGLES = (0.0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
PROPERTIES = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation")

WAVELET, DEPTH = "db2", 3
LEAST_ENERGY = 1e-8
"""Added before the logarithm: the square of a fortieth of a grey level of 8 bits."""

WHEELS = {"skimage": "scikit-image", "pywt": "PyWavelets", "sklearn": "scikit-learn"}
"""What packages are called where they are installed from."""


class Texture:
    """What images are described by: for each channel the families that were asked for, one after the other.

    Parameters
    ----------
    size
        (H, W) of every image.
    channels
        Of every image.
    families
        Some of "hog", "glcm", "wavelet".
    cell
        Pixels along the side of a cell of gradients.
    regions
        Co-occurrence and wavelets describe the whole image, and each of so many times so many parts of it.

    Attributes
    ----------
    counts
        Numbers that each family has.

    Raises
    ------
    InputError
        If the image is too small for the cells, regions or wavelets, or a family is named twice or unknown.
    """

    def __init__(
        self, size: tuple[int, int], channels: int, families: Sequence[Family], cell: int, regions: int
    ) -> None:
        self.size, self.families, self.cell, self.regions = size, tuple(families), cell, regions
        if not families or len(set(families)) < len(families) or not set(families) <= set(get_args(Family)):
            raise InputError(f"features are some of {', '.join(get_args(Family))}, each once; not {list(families)}.")
        if cell < 2 or min(size) < BLOCK * cell:
            raise InputError(f"cell is {cell}: an input.size of {list(size)} has no {BLOCK} x {BLOCK} cells of that.")
        if regions < 1 or min(size) < regions * 2**DEPTH:
            raise InputError(f"regions is {regions}: each needs {2**DEPTH} pixels, and input.size is {list(size)}.")
        blocks = (size[0] // cell - BLOCK + 1) * (size[1] // cell - BLOCK + 1)
        places = 1 + (regions**2 if regions > 1 else 0)
        each = {
            "hog": blocks * BLOCK**2 * ORIENTATIONS,
            "glcm": places * len(PROPERTIES) * len(DISTANCES),
            "wavelet": places * (3 * DEPTH + 1),
        }
        self.counts = {family: channels * each[family] for family in self.families}

    def __call__(self, images: NDArray[np.float32], foreground: NDArray[np.bool_]) -> NDArray[np.float32]:
        """The numbers of images (N, C, H, W), (N, F); nothing outside their foreground (N, 1, H, W) counts.

        Raises
        ------
        InputError
            If a package is missing that they are worked out with.
        """
        makers = {"hog": self._gradients, "glcm": self._co_occurrence, "wavelet": self._wavelets}
        rows = []
        for image, inside in zip(images, foreground[:, 0], strict=True):
            kept = np.where(inside, image, 0.0)
            rows.append(np.concatenate([makers[f](channel, inside) for f in self.families for channel in kept]))
        return np.stack(rows).astype(np.float32)

    def _gradients(self, image: NDArray, inside: NDArray[np.bool_]) -> NDArray:
        with on_demand():
            from skimage.feature import hog
        return hog(
            image,
            orientations=ORIENTATIONS,
            pixels_per_cell=(self.cell, self.cell),
            cells_per_block=(BLOCK, BLOCK),
            block_norm="L2-Hys",
        )

    def _co_occurrence(self, image: NDArray, inside: NDArray[np.bool_]) -> NDArray:
        """Properties of the pairs inside the foreground, in whatever direction: (places * properties * distances,)."""
        with on_demand():
            from skimage.feature import graycomatrix, graycoprops
        grey = np.where(inside, 1 + np.clip(image * LEVELS, 0, LEVELS - 1).astype(np.uint8), 0).astype(np.uint8)
        counted = [
            # The level 0 is what lies outside.
            graycomatrix(part, DISTANCES, ANGLES, LEVELS + 1, symmetric=True)[1:, 1:].sum(axis=3)
            for part in self._parts(grey)
        ]
        pairs = np.stack(counted, axis=3)
        found = np.stack([graycoprops(pairs, name) for name in PROPERTIES])
        return np.where(pairs.any(axis=(0, 1)), found, 0.0).ravel()

    def _wavelets(self, image: NDArray, inside: NDArray[np.bool_]) -> NDArray:
        """Logarithm of the mean energy of every sub-band: (sub-bands * places,)."""
        with on_demand():
            from pywt import wavedec2
        coarse, *details = wavedec2(image, WAVELET, mode="periodization", level=DEPTH)
        bands = [coarse / 2**DEPTH, *(band for level in details for band in level)]
        energies = [[np.mean(np.square(part)) for part in self._parts(band)] for band in bands]
        return np.log(np.array(energies) + LEAST_ENERGY).ravel()

    def _parts(self, image: NDArray) -> Iterator[NDArray]:
        """The whole image, and its regions."""
        yield image
        if self.regions > 1:
            for rows in np.array_split(image, self.regions, axis=0):
                yield from np.array_split(rows, self.regions, axis=1)


@contextmanager
def on_demand() -> Iterator[None]:
    """Say what is missing where a package is imported that 3D Slicer does not bundle.

    Raises
    ------
    InputError
        If it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        name = WHEELS.get(str(error.name), error.name)
        raise InputError(
            f"The classical detectors need the Python package {name!r}; install it and try again."
        ) from error
