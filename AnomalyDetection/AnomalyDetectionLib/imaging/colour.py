"""Colour pictures as one channel, and numbers as colours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RGB = tuple[int, int, int]

INFERNO: tuple[RGB, ...] = (
    (0, 0, 4),
    (31, 12, 72),
    (85, 15, 109),
    (136, 34, 106),
    (186, 54, 85),
    (227, 89, 51),
    (249, 140, 10),
    (249, 201, 50),
    (252, 255, 164),
)
"""Nine of the 256 colours of the map "inferno" (van der Walt and Smith, matplotlib, CC0): lightness rises evenly, also
for readers who tell red from green poorly."""

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
