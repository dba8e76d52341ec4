"""Scored cases as a scene that 3D Slicer opens, where Slicer's libraries are at hand."""

from __future__ import annotations

import importlib.util
import multiprocessing
import platform
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from AnomalyDetectionLib.errors import one_line
from AnomalyDetectionLib.scoring.result import ScoreResult

from ..cohorts.manifest import Case, load_case_volume

PACKAGE = "slicer_core"


class SceneMissing(Exception):
    """The scene was not written; the message is one sentence that says why."""


def write_case_scene(cases: Sequence[tuple[Case, ScoreResult]], path: Path) -> Path:
    """Write cases into one scene as the Slicer module shows them, the first of them in the views.

    It is done in a process of its own: Slicer's libraries are large, and a scene can be started once a process.

    Raises
    ------
    OutputError
        If the file cannot be written.
    SceneMissing
        If Slicer's libraries are absent, as where `slicer-core` has no wheel, or do not work on this computer.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        raise SceneMissing(
            f"No {path.name} was written: the package slicer-core is not installed; it comes for some computers only "
            f"(this one: {platform.system()} {platform.machine()}, Python {platform.python_version()})."
        )
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_write, cases, path).result()
        except ImportError as error:
            raise SceneMissing(
                f"No {path.name} was written: Slicer's libraries cannot be loaded here ({one_line(str(error), 200)})."
            ) from error
        except BrokenProcessPool as error:
            raise SceneMissing(f"No {path.name} was written: Slicer's libraries crashed on this computer.") from error


def _write(cases: Sequence[tuple[Case, ScoreResult]], path: Path) -> Path:
    from AnomalyDetectionLib.slicer_ui.offscreen.write import write_scene

    return write_scene([(load_case_volume(case), result) for case, result in cases], path)
