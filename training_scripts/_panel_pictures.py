"""Pictures of the panel in 3D Slicer, taken under the project's harness with a real score of the sample."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
WINDOW = (1180, 860)
THUMBNAIL = 160


def take(pictures: Path, thumbnail: Path) -> list[Path]:
    """Score the sample in the panel and picture the window; returns what was written.

    Parameters
    ----------
    pictures
        Folder of the README's pictures.
    thumbnail
        File of the sample's picture in Slicer's Sample Data module.
    """
    sys.path[:0] = [str(ROOT / name) for name in ("Testing", "AnomalyTraining", "AnomalyDetection")]
    import harness

    widget = harness.open_module(str(ROOT / "AnomalyDetection" / "AnomalyDetection.py"))
    import slicer

    slicer.mrmlScene.Clear()  # or the views do not know yet whose legend to show
    window = slicer.util.mainWindow()
    window.resize(*WINDOW)
    window.show()
    slicer.util.selectModule("AnomalyDetection")
    node = slicer.util.loadVolume(
        str(ROOT / "AnomalyDetection" / "Resources" / "SampleData" / "brain_flair_3mm.nii.gz")
    )
    node.SetAttribute("AnomalyDetection.Modality", "MR")
    widget.controls.parameters.inputVolume = node
    widget.ui.scoreButton.click()
    while widget.controls.session.is_scoring:
        slicer.app.processEvents()
        time.sleep(0.01)
    if widget.controls.results is None:
        raise RuntimeError(widget.ui.messageLabel.text)
    slicer.app.processEvents()  # the views follow in a turn of their own
    widget.ui.showSurfacesCheck.checked = True
    while widget.controls.reading.surfaces.is_busy:
        slicer.app.processEvents()
    _refresh(slicer)
    written = [pictures / "slicer.png", thumbnail]
    pictures.mkdir(parents=True, exist_ok=True)
    _small(harness.grab(window), written[0])
    _small(harness.grab(slicer.app.layoutManager().sliceWidget("Red")), thumbnail, THUMBNAIL)
    slicer.app.unload_modules()
    return written


def _refresh(slicer: Any) -> None:
    """Draw all views as they are now."""
    slicer.app.processEvents()
    for name in slicer.app.layoutManager().sliceViewNames():
        slicer.app.layoutManager().sliceWidget(name).sliceView().forceRender()
    slicer.app.layoutManager().resetThreeDViews()
    slicer.app.layoutManager().threeDWidget(0).threeDView().forceRender()
    slicer.app.processEvents()


def _small(pixels: Any, path: Path, side: int | None = None) -> None:
    """Write a PNG, at most `side` pixels wide and high."""
    picture = Image.fromarray(pixels)
    if side is not None:
        picture.thumbnail((side, side))
    picture.save(path, optimize=True)
