"""Colour pictures as one channel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of R, G, B (ITU-R BT.601): the Y of DICOM's YBR_FULL and of JPEG."""


def luminance(rgb: NDArray, out: NDArray[np.float32]) -> None:
    """Write the luminance of (..., 3) RGB into `out`; grey stored as colour keeps its exact values."""
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    if np.array_equal(red, green) and np.array_equal(green, blue):
        out[...] = red
        return
    np.multiply(red, np.float32(LUMINANCE[0]), out=out, dtype=np.float32, casting="unsafe")
    out += green * np.float32(LUMINANCE[1])
    out += blue * np.float32(LUMINANCE[2])
