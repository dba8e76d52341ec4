"""The models a worker keeps loaded."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from AnomalyDetectionLib.models.bundle import load_bundle
from AnomalyDetectionLib.models.manifest import read_manifest
from AnomalyDetectionLib.scoring.model import Model

CAPACITY = 2
"""Two models can be compared by turns; a third pushes out the one that was not used for longest."""


class LoadedModels:
    """Bundles by path, loaded anew when one of their files has changed."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._models: OrderedDict[Path, tuple[str, Model]] = OrderedDict()

    def get(self, folder: str, loading: Callable[[], None] = lambda: None) -> Model:
        """The model of a bundle; `loading` is called if it must be read.

        Raises
        ------
        InputError
            If the bundle is damaged or gone, even if it was loaded before.
        """
        path = Path(folder).resolve()
        state = _state_of(path)
        kept = self._models.get(path)
        if kept is None or kept[0] != state:
            self._models.pop(path, None)
            while len(self._models) >= self._capacity:
                self._models.popitem(last=False)
            loading()
            self._models[path] = (state, load_bundle(path))
        self._models.move_to_end(path)
        return self._models[path][1]

    def forget(self, folder: str | None) -> int:
        """Drop a model, or all; returns how many were dropped."""
        if folder is None:
            count = len(self._models)
            self._models.clear()
            return count
        return int(self._models.pop(Path(folder).resolve(), None) is not None)

    def described(self) -> list[dict[str, Any]]:
        """The loaded models as messages, the one used last at the end."""
        return [loaded_message(path, model) for path, (_, model) in self._models.items()]


def loaded_message(path: Path, model: Model) -> dict[str, Any]:
    """What a program is told of a loaded model."""
    return {
        "bundle": str(path),
        "model": asdict(model.identity),
        "calibration_n": model.calibration.n,
        "thresholds": model.calibration.threshold.to_json(),
    }


def _state_of(path: Path) -> str:
    """What changes when a bundle does: the manifest's hash, and each file's size and time (or that it is gone)."""
    manifest = read_manifest(path)
    states = []
    for name in sorted(manifest.get("files") or {}):
        try:
            facts = (path / name).stat()
            states.append((name, facts.st_size, facts.st_mtime_ns))
        except (OSError, ValueError):
            states.append((name, -1, -1))
    return json.dumps([manifest["sha256"], states])
