"""Pictures of a case for readers: slices of the image, and the same with what the model shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.interop.views import OUTLINE, Plane, Scene, draw_view
from AnomalyDetectionLib.scoring.result import ScoreResult

from ..gallery import jpeg_of, marked, unmarked

SIDE = 512
_QUALITY = 82
_MOST_FINDINGS = 12


@dataclass(frozen=True)
class Slice:
    """One slice: JPEGs of the image and, where there is a map, of the image with it."""

    plain: bytes
    marked: bytes | None


@dataclass(frozen=True)
class Pictures:
    """What a reader sees of a case.

    Attributes
    ----------
    first
        Index of the slice to begin with.
    findings
        Number of each finding that readers are asked about to the slice in which most of it lies.
    caption
        What the marked pictures show, "" where there are none.
    """

    slices: tuple[Slice, ...]
    first: int
    findings: dict[int, int]
    caption: str


def pictures_of(volume: Volume, result: ScoreResult, slices: int, *, with_map: bool) -> Pictures:
    """The slices of a scored case.

    Parameters
    ----------
    slices
        Of a volume, axial ones spread evenly over its foreground; those of findings come in addition.
    """
    scene = Scene.of(volume, result)
    plane = scene.planes[0]
    numbers = [finding.label for finding in result.findings[:_MOST_FINDINGS]] if with_map else []
    places = {number: _slice_of(scene, plane, number) for number in numbers}
    chosen = _chosen(scene, plane, slices, list(places.values()))
    shown = marked(scene, volume, result) if with_map else None
    made = []
    for index in chosen:
        plain = jpeg_of(_drawn(unmarked(_at(scene, plane, index)), plane), _QUALITY)
        heat = None
        if shown is not None:
            picture = _drawn(_at(shown[1], plane, index), plane)
            heat = jpeg_of(_numbered(picture, _at(scene, plane, index), plane, numbers), _QUALITY)
        made.append(Slice(plain, heat))
    first = chosen.index(places[numbers[0]]) if numbers else len(chosen) // 2
    findings = {number: chosen.index(place) for number, place in places.items()}
    return Pictures(tuple(made), first, findings, "" if shown is None else shown[0])


def _chosen(scene: Scene, plane: Plane, count: int, wanted: Sequence[int]) -> list[int]:
    """Indices along the plane's axis, from the feet (or the first) upwards."""
    low, high, _ = scene.box[plane.axis].indices(scene.image.shape[plane.axis])
    spread = np.unique(np.linspace(low, high - 1, min(count, high - low) + 2).round().astype(int)[1:-1])
    if high - low == 1:
        spread = np.array([low])
    return sorted({*(int(index) for index in spread), *wanted})


def _slice_of(scene: Scene, plane: Plane, number: int) -> int:
    others = tuple({0, 1, 2} - {plane.axis})
    return int((scene.labels == number).sum(axis=others).argmax())


def _at(scene: Scene, plane: Plane, index: int) -> Scene:
    focus = list(scene.focus)
    focus[plane.axis] = index
    return replace(scene, focus=(focus[0], focus[1], focus[2]))


def _drawn(scene: Scene, plane: Plane) -> Image.Image:
    width, height = scene.size_mm(plane)
    scale = SIDE / max(width, height)
    return draw_view(scene, plane, (max(1, round(width * scale)), max(1, round(height * scale))))


def _numbered(picture: Image.Image, scene: Scene, plane: Plane, numbers: Sequence[int]) -> Image.Image:
    """With the number of each finding beside it."""
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=17)
    labels = scene.cut(scene.labels, plane)
    for number in numbers:
        rows, columns = np.nonzero(labels == number)
        if rows.size:
            across = (columns.max() + 1.5) / labels.shape[1] * picture.width
            down = (rows.mean() + 0.5) / labels.shape[0] * picture.height
            place = (min(across, picture.width - 20), down)
            draw.text(place, str(number), fill=OUTLINE, font=font, anchor="lm", stroke_width=2, stroke_fill=(0, 0, 0))
    return picture
