"""Pictures of the cases that a model gets most wrong: the image, what the model shows on it, and the truth.

The report embeds a small picture of each (JPEG); the one that `score` would make lies beside it, in `gallery/`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from AnomalyDetectionLib.errors import InputError, OutputError
from AnomalyDetectionLib.imaging.geometry import Canonical
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.interop.overlay import write_overlay
from AnomalyDetectionLib.interop.views import Plane, Scene, draw_view
from AnomalyDetectionLib.scoring.explaining import Explanation
from AnomalyDetectionLib.scoring.model import Model
from AnomalyDetectionLib.scoring.result import ScoreResult
from AnomalyDetectionLib.scoring.scorer import Scorer

from ..cohorts.manifest import Case, load_case_mask, load_case_volume
from .failures import failures

FOLDER = "gallery"
DEFAULT, MOST = 6, 50
"""Cases of each kind: with fifty the report grows by about 5 MB."""

SIDE = 340
_QUALITY = 84
_EXPLANATION = Explanation("grad-cam")

FALSE_POSITIVE, FALSE_NEGATIVE = "false positive", "false negative"


@dataclass(frozen=True)
class Panel:
    """One small picture: what it shows, and the bytes of a JPEG."""

    caption: str
    jpeg: bytes
    width: int
    height: int


@dataclass(frozen=True)
class Shown:
    """A case of the gallery.

    Attributes
    ----------
    kind
        `FALSE_POSITIVE` or `FALSE_NEGATIVE`.
    row
        Of `cases` in metrics.json.
    panels
        () where the case could not be shown.
    link
        Place of the large picture beside the report, "" where there is none.
    note
        Where the slice lies, or why the case could not be shown.
    """

    kind: str
    row: Mapping[str, Any]
    panels: tuple[Panel, ...] = ()
    link: str = ""
    note: str = ""


def make_gallery(
    rows: Sequence[Mapping[str, Any]],
    cases: Mapping[str, Case],
    model_of: Callable[[str], Model],
    out: Path,
    *,
    most: int = DEFAULT,
    device: str = "auto",
    progress: Callable[[float], None] = lambda share: None,
) -> list[Shown]:
    """Score the worst failures once more and picture them.

    Parameters
    ----------
    rows
        The model's rows of `cases` in metrics.json.
    cases
        By name.
    model_of
        The model that judged a case.
    out
        The report's folder; what an earlier gallery left in it goes.
    most
        Cases of each kind, 0 for none.

    Raises
    ------
    OutputError
        If a picture cannot be written.
    """
    folder = out / FOLDER
    for stale in folder.glob("*.png"):
        stale.unlink()
    worst = failures(rows, most)
    chosen = [(FALSE_POSITIVE, row) for row in worst.false_positives]
    chosen += [(FALSE_NEGATIVE, row) for row in worst.false_negatives]
    found = []
    for done, (kind, row) in enumerate(chosen, 1):
        found.append(_shown(kind, row, cases[row["case"]], model_of(row["case"]), folder, device))
        progress(done / len(chosen))
    return found


def _shown(kind: str, row: Mapping[str, Any], case: Case, model: Model, folder: Path, device: str) -> Shown:
    try:
        volume = load_case_volume(case)
        truth = load_case_mask(case, volume)
        explain = _EXPLANATION if model.detector.explainable else None
        result = Scorer(model, device).score(volume, case=case.case, explain=explain)
    except OutputError:
        raise
    except InputError as error:  # it could be judged, but its file has gone since
        return Shown(kind, row, note=f"it cannot be shown any more: {error}")
    folder.mkdir(exist_ok=True)
    write_overlay(volume, result, folder / f"{case.case}.png")
    panels, note = _panels(volume, result, truth)
    return Shown(kind, row, panels, f"{FOLDER}/{case.case}.png", note)


def _panels(volume: Volume, result: ScoreResult, truth: NDArray[np.bool_] | None) -> tuple[tuple[Panel, ...], str]:
    """The image, the image with what the model shows, and with the outline of the truth, all of one slice."""
    scene, outlined = Scene.of(volume, result), None
    if truth is not None and truth.any():
        outlined = (Canonical.of(volume.grid).apply(truth) if volume.orientation_known else truth).astype(np.int32)
    plane = scene.planes[0]
    scene = replace(scene, focus=_focus(scene, plane, outlined))
    bare = unmarked(scene)
    size = _size(scene, plane)
    panels = [_panel("image", bare, plane, size)]
    if (shown := marked(scene, volume, result)) is not None:
        panels.append(_panel(shown[0], shown[1], plane, size))
    if outlined is not None:
        panels.append(_panel("truth, outlined", replace(bare, labels=outlined), plane, size))
    depth = scene.image.shape[plane.axis]
    where = f"{plane.name} slice {scene.focus[plane.axis] + 1} of {depth}" if depth > 1 else ""
    return tuple(panels), where


def unmarked(scene: Scene) -> Scene:
    """The image alone."""
    return replace(scene, rarity=np.zeros_like(scene.rarity), labels=np.zeros_like(scene.labels))


def marked(scene: Scene, volume: Volume, result: ScoreResult) -> tuple[str, Scene] | None:
    """What the model shows on an image, with what it is in words: its map, or else what moved its score.

    None where it shows nothing.
    """
    if result.mapped:
        return "rarity, and findings outlined", scene
    attribution = result.attribution
    if attribution is None or attribution.peak <= 0:
        return None
    heat = np.maximum(attribution.map.array, 0) * np.float32(scene.top / attribution.peak)
    turned = Canonical.of(volume.grid).apply(heat) if volume.orientation_known else heat
    return f"{attribution.title}: {attribution.label}", replace(unmarked(scene), rarity=turned)


def _focus(scene: Scene, plane: Plane, truth: NDArray[np.int32] | None) -> tuple[int, int, int]:
    """The slice in which most of the truth is missed, or most of it lies; where it is unknown, that of the rarest."""
    if truth is None:
        return scene.focus
    others = tuple({0, 1, 2} - {plane.axis})
    missed = ((truth > 0) & (scene.labels == 0)).sum(axis=others)
    areas = missed if missed.any() else (truth > 0).sum(axis=others)
    focus = list(scene.focus)
    focus[plane.axis] = int(areas.argmax())
    return focus[0], focus[1], focus[2]


def _size(scene: Scene, plane: Plane) -> tuple[int, int]:
    width, height = scene.size_mm(plane)
    scale = SIDE / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _panel(caption: str, scene: Scene, plane: Plane, size: tuple[int, int]) -> Panel:
    return Panel(caption, jpeg_of(draw_view(scene, plane, size)), *size)


def jpeg_of(picture: Image.Image, quality: int = _QUALITY) -> bytes:
    """The bytes of a JPEG."""
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=quality)
    return stream.getvalue()
