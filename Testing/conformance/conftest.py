"""An empty scene for every test, in the one application of the process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import harness


@pytest.fixture
def scene() -> Iterator[Any]:
    harness.start()
    import slicer

    slicer.mrmlScene.Clear(0)
    yield slicer.mrmlScene
    slicer.mrmlScene.Clear(0)
