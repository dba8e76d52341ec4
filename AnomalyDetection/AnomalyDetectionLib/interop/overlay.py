"""overlay.png: a scored case at a glance, drawn with Pillow alone."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from AnomalyDetectionLib.imaging.colour import RGB
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.imaging.write import atomically
from AnomalyDetectionLib.scoring.explaining import Attribution
from AnomalyDetectionLib.scoring.result import ScoreResult

from .views import FAINT, OUTLINE, Plane, Scene, draw_view, opacity, shade

WIDTH, HEIGHT = 1500, 600
MARGIN, GUTTER, CAPTION = 22, 14, 84
BAR_WIDTH = 150
BAR_LEFT, BAR_RIGHT = WIDTH - MARGIN - 82, WIDTH - MARGIN - 64
BACKGROUND: RGB = (13, 14, 18)
PANEL: RGB = (0, 0, 0)
TEXT: RGB = (236, 238, 242)
QUIET: RGB = (150, 156, 168)
VERDICTS: dict[str, RGB] = {"good": (120, 205, 140), "check": (245, 195, 80), "poor": (250, 110, 95)}
CALLED = {True: ": abnormal", False: ": normal", None: ""}
DISCLAIMER = "Research use only"


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _plain(text: str) -> str:
    """Text in letters that Pillow's own font has (accents off, others as ?)."""
    kept = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(c if " " <= c <= "~" or c in "·…" else "?" for c in kept)


def _fit(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    """The text, cut with an ellipsis where it is too long."""
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(text + "…", font=font) > width:
        text = text[:-1]
    return text + "…"


def _sizes(scene: Scene) -> list[tuple[int, int]]:
    """Pixels (width, height) of the views: one scale for all, as large as the room allows."""
    sizes = [scene.size_mm(plane) for plane in scene.planes]
    room_x = WIDTH - 2 * MARGIN - BAR_WIDTH - GUTTER * len(sizes)
    room_y = HEIGHT - CAPTION - 2 * MARGIN
    scale = min(room_x / sum(w for w, _ in sizes), room_y / max(h for _, h in sizes))
    return [(max(1, round(w * scale)), max(1, round(h * scale))) for w, h in sizes]


def render_overlay(volume: Volume, result: ScoreResult) -> Image.Image:
    """The picture of a result.

    Three views in radiological convention (the patient's right at the viewer's left) through the peak of the first
    finding, or through the rarest voxel where there is none (the middle, without crosshair and colour bar, where the
    model makes no map; the peak of the attribution, where its score was explained); one view for a single image,
    without letters where the file does not say how the patient lies.

    Parameters
    ----------
    volume
        The image that was scored.

    Returns
    -------
    RGB, 1500 x 600 pixels.
    """
    scene = Scene.of(volume, result)
    sizes = _sizes(scene)
    picture = Image.new("RGB", (WIDTH, HEIGHT), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    spare = WIDTH - 2 * MARGIN - BAR_WIDTH - sum(w for w, _ in sizes)
    gap = spare / len(sizes)
    x = MARGIN + gap / 2
    for plane, size in zip(scene.planes, sizes, strict=True):
        y = MARGIN + (HEIGHT - CAPTION - 2 * MARGIN - size[1]) // 2
        _panel(picture, scene, plane, (round(x), y), size, cross=result.mapped)
        x += size[0] + gap
    if result.attribution is not None:
        _attribution_bar(picture, scene, result.attribution)
    elif result.mapped:
        _rarity_bar(picture, scene)
    _caption(draw, result)
    return picture


def _panel(
    picture: Image.Image, scene: Scene, plane: Plane, corner: tuple[int, int], size: tuple[int, int], *, cross: bool
) -> None:
    x, y = corner
    width, height = size
    picture.paste(draw_view(scene, plane, size), corner)
    draw = ImageDraw.Draw(picture)
    if cross:
        across, down = scene.place(plane, size)
        _crosshair(draw, x + across, y + down)
    font = _font(18)
    middle = (x + width / 2, y + height / 2)
    places: list[tuple[float, float, str]] = [(x + 6, middle[1], "lm"), (x + width - 6, middle[1], "rm")]
    places += [(middle[0], y + 5, "mt"), (middle[0], y + height - 5, "mb")]
    for letter, (left, top, anchor) in zip(plane.letters, places, strict=True):
        draw.text((left, top), letter, fill=TEXT, font=font, anchor=anchor, stroke_width=2, stroke_fill=PANEL)


def _crosshair(draw: ImageDraw.ImageDraw, x: float, y: float, gap: int = 13, length: int = 9) -> None:
    """Four short strokes that point at a voxel without covering it."""
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        ends = [(x + dx * r, y + dy * r) for r in (gap, gap + length)]
        draw.line(ends, fill=(0, 0, 0), width=3)
        draw.line(ends, fill=TEXT, width=1)


def _rarity_bar(picture: Image.Image, scene: Scene) -> None:
    """The colours of rarities; whole ones and the threshold marked."""
    level = _bar(picture, scene, 0.0, "rarity x: 1 in 10^x normal voxels")
    draw, font = ImageDraw.Draw(picture), _font(15)
    at_threshold = level(scene.threshold)
    for value in range(0, int(scene.top) + 1, max(1, int(np.ceil(scene.top / 10)))):
        y = level(value)
        draw.line([(BAR_RIGHT, y), (BAR_RIGHT + 4, y)], fill=QUIET)
        if abs(y - at_threshold) > 24:
            draw.text((BAR_RIGHT + 8, y), str(value), fill=QUIET, font=font, anchor="lm")
    draw.line([(BAR_LEFT - 5, at_threshold), (BAR_RIGHT + 5, at_threshold)], fill=OUTLINE, width=2)
    draw.text((BAR_RIGHT + 8, at_threshold - 8), f"{scene.threshold:.2f}", fill=OUTLINE, font=font, anchor="lm")
    draw.text((BAR_RIGHT + 8, at_threshold + 8), "threshold", fill=OUTLINE, font=_font(12), anchor="lm")


def _attribution_bar(picture: Image.Image, scene: Scene, attribution: Attribution) -> None:
    """The colours of an attribution, from nothing to its peak."""
    level = _bar(picture, scene, FAINT, f"{attribution.title}: {attribution.label}")
    draw = ImageDraw.Draw(picture)
    for value, said in ((FAINT, "0"), (scene.top, f"{attribution.peak:.2g}")):
        draw.line([(BAR_RIGHT, level(value)), (BAR_RIGHT + 4, level(value))], fill=QUIET)
        draw.text((BAR_RIGHT + 8, level(value)), said, fill=QUIET, font=_font(15), anchor="lm")


def _bar(picture: Image.Image, scene: Scene, lowest: float, label: str) -> Callable[[float], float]:
    """Colours over a middle grey, as they look on tissue, with a label beside; returns the height of a value."""
    top, bottom = MARGIN + 6, HEIGHT - CAPTION - MARGIN - 6
    height = bottom - top
    values = np.linspace(scene.top, lowest, height, dtype=np.float32)
    alpha = opacity(values, scene.threshold)[:, np.newaxis]
    column = 70 * (1 - alpha) + shade(values, scene.top) * alpha
    strip = np.repeat(np.round(column).astype(np.uint8)[:, np.newaxis], BAR_RIGHT - BAR_LEFT, axis=1)
    picture.paste(Image.fromarray(strip), (BAR_LEFT, top))
    font = _font(15)
    box = ImageDraw.Draw(picture).textbbox((0, 0), label, font=font)
    sideways = Image.new("RGB", (int(box[2]) + 2, int(box[3]) + 4), BACKGROUND)
    ImageDraw.Draw(sideways).text((0, 0), label, fill=QUIET, font=font)
    sideways = sideways.rotate(90, expand=True)
    picture.paste(sideways, (BAR_LEFT - 14 - sideways.width, top + (height - sideways.height) // 2))
    return lambda value: bottom - height * (value - lowest) / (scene.top - lowest)


def _caption(draw: ImageDraw.ImageDraw, result: ScoreResult) -> None:
    y = HEIGHT - CAPTION
    draw.line([(MARGIN, y), (WIDTH - MARGIN, y)], fill=(48, 52, 62))
    model = _plain(f"{result.model.id} {result.model.version} ({result.model.detector})")
    draw.text((WIDTH - MARGIN, y + 16), _fit(draw, model, _font(17), 520), fill=QUIET, font=_font(17), anchor="ra")
    title = _fit(draw, _plain(result.case), _font(24), WIDTH - 2 * MARGIN - 540)
    draw.text((MARGIN, y + 10), title, fill=TEXT, font=_font(24))
    font = _font(17)
    count = len(result.findings)
    found = f"{count or 'no'} finding{'' if count == 1 else 's'} above rarity {result.threshold:.2f}"
    if not result.mapped:
        found = "whole image judged, no map"
    if result.attribution is not None:
        found = f"whole image judged  ·  heat: {result.attribution.title}, {result.attribution.label}"
    chance = "" if result.probability is None else f", probability {result.probability:.2f}"
    said = f"{found}  ·  volume score {result.volume_score:.2f}{chance}{CALLED[result.abnormal]}  ·  "
    said += f"p = {result.p_value:.3f} (n = {result.calibration_n})  ·  image quality "
    draw.text((MARGIN, y + 46), said, fill=OUTLINE if count else TEXT, font=font)
    x = MARGIN + draw.textlength(said, font=font)
    verdict = result.quality.verdict
    draw.text((x, y + 46), verdict, fill=VERDICTS.get(verdict, TEXT), font=font)
    draw.text((WIDTH - MARGIN, y + 46), DISCLAIMER, fill=VERDICTS["check"], font=font, anchor="ra")


def write_overlay(volume: Volume, result: ScoreResult, path: str | Path) -> None:
    """Write `render_overlay` as PNG; a temporary name first, then renamed.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    save_png(render_overlay(volume, result), Path(path))


def save_png(picture: Image.Image, path: Path) -> None:
    """Write a picture under a temporary name, then rename it.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    atomically(path, lambda temporary: picture.save(temporary, format="PNG"))


def contact_sheet(images: Sequence[Image.Image | str | Path], titles: Sequence[str], path: str | Path) -> None:
    """Several overlays on one PNG, two across, each under its title.

    Parameters
    ----------
    images
        Pictures or PNG files, at least one.
    titles
        One a picture.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    if not images or len(images) != len(titles):
        raise ValueError(f"a contact sheet needs one title a picture, not {len(titles)} for {len(images)}")
    columns = min(2, len(images))
    cell_width, heading, space = 1000, 40, 16
    pictures = []
    for image in images:
        with image if isinstance(image, Image.Image) else Image.open(image) as opened:
            height = round(opened.height * cell_width / opened.width)
            pictures.append(opened.convert("RGB").resize((cell_width, height), Image.Resampling.LANCZOS))
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    heights = [heading + max(picture.height for picture in row) + space for row in rows]
    sheet = Image.new("RGB", (columns * (cell_width + space) + space, sum(heights) + space), (30, 32, 38))
    draw = ImageDraw.Draw(sheet)
    y = space
    for index, (row, height) in enumerate(zip(rows, heights, strict=True)):
        for column, picture in enumerate(row):
            x = space + column * (cell_width + space)
            title = _fit(draw, _plain(titles[index * columns + column]), _font(24), cell_width)
            draw.text((x, y + 4), title, fill=TEXT, font=_font(24))
            sheet.paste(picture, (x, y + heading))
        y += height
    save_png(sheet, Path(path))
