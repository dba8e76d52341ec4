"""Results as a scene file (.mrb) that Slicer opens: volume, heat, findings and verdict as the module shows them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import slicer
import slicer.util

from AnomalyDetectionLib.errors import OutputError
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.imaging.write import atomically
from AnomalyDetectionLib.scoring.result import ScoreResult

from .start import start


def write_scene(cases: Sequence[tuple[Volume, ScoreResult]], path: Path) -> Path:
    """Write scored volumes into one scene, the first of them in the views.

    Needs a process of its own, in which nothing else uses Slicer's libraries.

    Parameters
    ----------
    path
        Ends in .mrb.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="slicer-anomaly-") as home:
        scene = start(Path(home))
        from ..results import Results  # these import `slicer.i18n`, which there is from here on
        from ..showing import jump_to, show

        made = [Results.create(_add(volume, result.case), result) for volume, result in cases]
        for results in made[:1]:
            show(results)
            jump_to(results, 1)
        atomically(path, lambda temporary: _bundle(scene, path.name, temporary, Path(home)))
    return path


def _add(volume: Volume, name: str) -> Any:
    """The volume as a node that says its modality as the panel would."""
    from ..volumes import MODALITY

    node = slicer.util.addVolumeFromArray(volume.array, volume.ijk_to_ras, name)
    if volume.modality:
        node.SetAttribute(MODALITY, volume.modality)
    return node


def _bundle(scene: Any, name: str, target: Path, folder: Path) -> None:
    """The scene under its final name, which the folder inside the bundle has too, then in the place of `target`."""
    messages = slicer.vtkMRMLMessageCollection()
    made = folder / name
    if not scene.WriteToMRB(str(made), None, messages):
        raise OutputError(f"{name}: the scene cannot be written ({messages.GetAllMessagesAsString().strip()}).")
    shutil.copyfile(made, target)
