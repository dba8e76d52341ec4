"""The sample in Slicer's Sample Data module: what is registered is there, and its checksum is right."""

from __future__ import annotations

import hashlib
import sys
import types
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import harness

from .conftest import RESOURCES, SAMPLE


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the module registers when Slicer has started (Slicer's own module is not part of the harness)."""
    harness.start()
    from AnomalyDetectionLib.slicer_ui.sample import register

    said: dict[str, Any] = {}
    module: Any = types.ModuleType("SampleData")
    module.SampleDataLogic = types.SimpleNamespace(registerCustomSampleDataSource=lambda **source: said.update(source))
    monkeypatch.setitem(sys.modules, "SampleData", module)
    register(RESOURCES / "SampleData")
    return said


def test_what_is_fetched_is_the_shipped_file_with_its_checksum(registered: dict[str, Any], tmp_path: Path) -> None:
    urllib.request.urlretrieve(registered["uris"], tmp_path / "fetched")  # as Slicer's module fetches it
    content = (tmp_path / "fetched").read_bytes()
    assert content == SAMPLE.read_bytes()
    assert registered["checksums"] == f"SHA256:{hashlib.sha256(content).hexdigest()}"


def test_it_has_a_picture_and_a_category_of_its_own(registered: dict[str, Any]) -> None:
    assert Path(registered["thumbnailFileName"]).is_file()
    assert registered["category"] == "Anomaly Detection" and registered["fileNames"].endswith(".nii.gz")
