"""Anomaly detection for medical images: a volume goes in, a calibrated map comes out.

The public interface is three lines:

>>> from AnomalyDetectionLib import Scorer, load_bundle, read_volume
>>> model = load_bundle("path/to/bundle")                            # doctest: +SKIP
>>> result = Scorer(model).score(read_volume("path/to/image"))       # doctest: +SKIP

The names are imported when they are first used, so that importing this package, as Slicer does, loads nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .imaging.read import read_volume
    from .models.bundle import load_bundle
    from .scoring.scorer import Scorer

__version__ = "0.1.0"

__all__ = ["Scorer", "load_bundle", "read_volume"]

_HOMES = {
    "Scorer": "AnomalyDetectionLib.scoring.scorer",
    "load_bundle": "AnomalyDetectionLib.models.bundle",
    "read_volume": "AnomalyDetectionLib.imaging.read",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
