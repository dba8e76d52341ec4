"""Slices of a scored volume as pictures: radiological convention, true proportions, rarity as heat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from AnomalyDetectionLib.imaging.colour import INFERNO, RGB
from AnomalyDetectionLib.imaging.geometry import Canonical, Grid
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.scoring.result import ScoreResult

LOWEST_SHADE = 0.3
"""Where on the map heat begins: what is darker would look like a hole in the image."""
FAINT, STRONGEST = 1.0, 0.85
"""Rarity below which nothing is painted, and the opacity reached at the threshold."""
TOP = 1.6
"""The hottest colour stands at this multiple of the threshold: the same for all cases of a model."""
ATTRIBUTION_TOP = 2.0
"""Where on the scale of rarities the peak of an attribution is painted: it has no scale that cases have in common."""
OUTLINE: RGB = (90, 225, 255)


@dataclass(frozen=True)
class Plane:
    """Which way a view looks.

    `axis` is the canonical array axis it cuts; `rows`, `columns` the axes that run down and across the picture, both
    against their array order; `letters` stand at the left, right, top and bottom.
    """

    name: str
    axis: int
    letters: tuple[str, str, str, str]

    @property
    def shown(self) -> tuple[int, int]:
        """The array axes that run down and across."""
        rows, columns = (axis for axis in range(3) if axis != self.axis)
        return rows, columns


AXIAL = Plane("axial", 0, ("R", "L", "A", "P"))
CORONAL = Plane("coronal", 1, ("R", "L", "S", "I"))
SAGITTAL = Plane("sagittal", 2, ("A", "P", "S", "I"))
AS_STORED = Plane("", 0, ("", "", "", ""))


@dataclass(frozen=True)
class Scene:
    """Everything the views cut, in canonical order, and the voxel they meet in.

    `rarity` is what is painted: of a classifier's explanation its attribution, from `FAINT` (0) to `top` (the peak).
    `box` is the part worth showing, per array axis; `window` the grey values that become black and white;
    `top` the rarity of the hottest colour.
    """

    image: NDArray[np.float32]
    rarity: NDArray[np.float32]
    labels: NDArray[np.int32]
    spacing: tuple[float, float, float]
    focus: tuple[int, int, int]
    box: tuple[slice, slice, slice]
    window: tuple[float, float]
    threshold: float
    top: float
    planes: tuple[Plane, ...]

    @classmethod
    def of(cls, volume: Volume, result: ScoreResult) -> Scene:
        """The scene of a scored volume; arrays are views, not copies."""
        if volume.orientation_known:
            turn = Canonical.of(volume.grid)
            grid = turn.grid(volume.grid)
        else:
            turn, grid = Canonical((0, 1, 2), (False, False, False)), volume.grid
        image, rarity, labels, inside = (
            turn.apply(array) for array in (volume.array, _heat(result), result.labels, result.foreground)
        )
        focus = _focus(grid, rarity, result)
        explained = result.attribution is not None
        return cls(
            image=image,
            rarity=rarity,
            labels=labels,
            spacing=grid.spacing,
            focus=focus,
            box=_box(inside) if volume.orientation_known else (slice(None),) * 3,
            window=_window(volume, result.foreground),
            threshold=ATTRIBUTION_TOP if explained else result.threshold,
            top=ATTRIBUTION_TOP if explained else max(2.0, TOP * result.threshold),
            planes=_planes(volume, image.shape),
        )

    def size_mm(self, plane: Plane) -> tuple[float, float]:
        """Width and height of a view in mm."""
        rows, columns = plane.shown
        counts = [len(range(*self.box[axis].indices(self.image.shape[axis]))) for axis in (columns, rows)]
        return counts[0] * self.spacing[2 - columns], counts[1] * self.spacing[2 - rows]

    def cut(self, array: NDArray, plane: Plane) -> NDArray:
        """The slice of an array that a view shows, first row at the top, first column at the left."""
        index: list[int | slice] = list(self.box)
        index[plane.axis] = self.focus[plane.axis]
        part = array[tuple(index)]
        return part if plane is AS_STORED else part[::-1, ::-1]

    def place(self, plane: Plane, size: tuple[int, int]) -> tuple[float, float]:
        """Where the focus lies in a view of `size` pixels: x, y."""
        position = []
        for axis, pixels in zip(plane.shown[::-1], size, strict=True):
            first, last, _ = self.box[axis].indices(self.image.shape[axis])
            share = (self.focus[axis] - first + 0.5) / (last - first)
            position.append(pixels * (share if plane is AS_STORED else 1 - share))
        return position[0], position[1]


def _heat(result: ScoreResult) -> NDArray[np.float32]:
    """What is painted (K, J, I): rarity, or what speaks for abnormal in an attribution."""
    attribution = result.attribution
    if attribution is None:
        return result.rarity.array
    share = np.clip(attribution.map.array, 0, None) / (attribution.peak or 1.0)
    return (FAINT + (ATTRIBUTION_TOP - FAINT) * share).astype(np.float32)


def _planes(volume: Volume, shape: tuple[int, ...]) -> tuple[Plane, ...]:
    if not volume.orientation_known:
        return (AS_STORED,)
    planes = (AXIAL, CORONAL, SAGITTAL)
    return tuple(plane for plane in planes if shape[plane.axis] == 1)[:1] if 1 in shape else planes


def _focus(grid: Grid, rarity: NDArray[np.float32], result: ScoreResult) -> tuple[int, int, int]:
    """The peak of the first finding, the hottest voxel where there is none, the middle without a map; (k, j, i)."""
    if result.findings:
        i, j, k = np.round(grid.to_ijk(np.array(result.findings[0].peak_ras))).astype(int)
        k, j, i = (int(np.clip(index, 0, n - 1)) for index, n in zip((k, j, i), grid.shape, strict=True))
        return k, j, i
    if not (result.mapped or result.attribution):  # whole images are judged: no place is more to the point
        k, j, i = (n // 2 for n in grid.shape)
        return k, j, i
    k, j, i = (int(index) for index in np.unravel_index(int(rarity.argmax()), rarity.shape))
    return k, j, i


def _box(inside: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """The foreground's box and a margin of 3 % of the image."""
    box = []
    for axis in range(3):
        shown = np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))
        margin = max(1, round(0.03 * inside.shape[axis]))
        first, last = (int(shown[0]), int(shown[-1])) if shown.size else (0, inside.shape[axis] - 1)
        box.append(slice(max(0, first - margin), min(inside.shape[axis], last + margin + 1)))
    return box[0], box[1], box[2]


def _window(volume: Volume, inside: NDArray[np.bool_]) -> tuple[float, float]:
    values = volume.array[inside]
    values = values[:: max(1, values.size // 200_000)]
    low, high = (float(v) for v in np.percentile(values, (0.5, 99.5))) if values.size else (0.0, 1.0)
    if volume.units == "HU":
        # Bone and air would leave soft tissue without contrast; a chest is shown so that its lungs are seen too.
        chest = float(np.percentile(values, 10)) < -300 if values.size else False
        low, high = max(low, -1000.0 if chest else -160.0), min(high, 240.0)
    elif low > 0 and volume.modality in ("MR", "PT", "NM", ""):
        low = 0.0
    return (low, high) if high > low else (low, low + 1.0)


def shade(rarity: NDArray[np.float32], top: float) -> NDArray[np.float32]:
    """Colours (..., 3) in 0 ... 255 of rarities."""
    share = np.clip((rarity - FAINT) / max(top - FAINT, 1e-6), 0, 1) * (1 - LOWEST_SHADE) + LOWEST_SHADE
    table = np.array(INFERNO, dtype=np.float32)
    position = np.linspace(0, 1, len(table))
    return np.stack([np.interp(share, position, table[:, c]) for c in range(3)], axis=-1).astype(np.float32)


def opacity(rarity: NDArray[np.float32], threshold: float) -> NDArray[np.float32]:
    """0 up to rarity 1, `STRONGEST` from the threshold on; it rises slowly in between, so that noise is faint."""
    share = np.clip((rarity - FAINT) / max(threshold - FAINT, 1e-6), 0, 1)
    return STRONGEST * share**1.5


def draw_view(scene: Scene, plane: Plane, size: tuple[int, int]) -> Image.Image:
    """One view as an RGB picture of `size` (width, height) pixels."""
    low, high = scene.window
    grey = _resize(scene.cut(scene.image, plane), size, Image.Resampling.BICUBIC)
    grey = np.clip((grey - low) / (high - low), 0, 1)[..., np.newaxis] * np.float32(255)
    rarity = _resize(scene.cut(scene.rarity, plane), size, Image.Resampling.BILINEAR)
    alpha = opacity(rarity, scene.threshold)[..., np.newaxis]
    colours = grey * (1 - alpha) + shade(rarity, scene.top) * alpha
    labels = _resize(scene.cut(scene.labels, plane).astype(np.float32), size, Image.Resampling.NEAREST)
    colours[_outline(labels)] = OUTLINE
    return Image.fromarray(np.round(colours).astype(np.uint8))


def _resize(array: NDArray, size: tuple[int, int], how: Image.Resampling) -> NDArray[np.float32]:
    return np.asarray(Image.fromarray(np.ascontiguousarray(array, dtype=np.float32)).resize(size, how))


def _outline(labels: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels just outside a finding: two wide, so that small findings are not painted over."""
    grown = labels
    for _ in range(2):
        p = np.pad(grown, 1, mode="edge")
        grown = np.maximum.reduce([p[1:-1, 1:-1], p[:-2, 1:-1], p[2:, 1:-1], p[1:-1, :-2], p[1:-1, 2:]])
    return grown != labels
