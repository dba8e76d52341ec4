"""An empty scene, and results of simulated heads in it."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simulated
from project.cmake_lists import CHECKOUT
from PySide6 import QtCore, QtTest, QtWidgets

import harness
from AnomalyDetectionLib.imaging.read import read_volume
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.models.bundle import load_bundle, write_bundle
from AnomalyDetectionLib.models.catalogue import Catalogue
from AnomalyDetectionLib.scoring.calibrate import calibrate
from AnomalyDetectionLib.scoring.contract import InputSpec
from AnomalyDetectionLib.scoring.model import Model
from AnomalyDetectionLib.scoring.registry import build
from AnomalyDetectionLib.scoring.result import ModelIdentity, ScoreResult
from AnomalyDetectionLib.scoring.scorer import Scorer

LESION = (-30.0, 10.0, 10.0)


@pytest.fixture
def scene() -> Iterator[Any]:
    """Slicer's scene, empty before and after."""
    harness.start()
    import slicer

    slicer.mrmlScene.Clear()
    yield slicer.mrmlScene
    slicer.mrmlScene.Clear()


@pytest.fixture(scope="session")
def head() -> Volume:
    """A left-handed head with a bright lesion in the patient's left."""
    return simulated.head(70, lesion_ras=LESION, flips=(-1, 1, 1))


@pytest.fixture(scope="session")
def result(model: Model, head: Volume) -> ScoreResult:
    return Scorer(model).score(head)


def add_volume(volume: Volume, name: str = "head") -> Any:
    """The volume as a node of the scene."""
    import slicer

    return slicer.util.addVolumeFromArray(np.array(volume.array), volume.ijk_to_ras, name)


RESOURCES = CHECKOUT / "AnomalyDetection" / "Resources"
SAMPLE = RESOURCES / "SampleData" / "brain_flair_3mm.nii.gz"
ARTEFACTS = CHECKOUT / "artefacts"


@pytest.fixture(scope="session")
def starter_result() -> ScoreResult:
    """The sample, scored by the starter model that ships."""
    (entry,) = Catalogue(RESOURCES / "Models", RESOURCES / "none").entries()
    volume = replace(read_volume(SAMPLE), modality="MR", name="brain_flair_3mm")
    return Scorer(load_bundle(entry.folder), device="cpu").score(volume, case="brain_flair_3mm")


@pytest.fixture(scope="module")
def opened() -> Iterator[Any]:
    """The module's panel in the main window, as Slicer opens it; its worker is shared by the tests of a file."""
    harness.open_module(str(CHECKOUT / "AnomalyDetection" / "AnomalyDetection.py"))
    import slicer

    window = slicer.util.mainWindow()
    window.resize(1250, 960)
    window.show()
    slicer.mrmlScene.Clear()
    slicer.util.selectModule("AnomalyDetection")
    yield slicer.util.getModuleWidget("AnomalyDetection")
    slicer.util.selectModule("")
    slicer.util.getModuleWidget("AnomalyDetection").cleanup()
    window.hide()


@pytest.fixture
def panel(opened: Any) -> Iterator[Any]:
    """The panel (its own object) with an empty scene."""
    import slicer

    slicer.mrmlScene.Clear()
    slicer.app.processEvents()  # what was rebuilt appears
    widget = slicer.util.getModuleWidget("AnomalyDetection")
    yield widget.controls
    widget.controls.cancel()
    run_until(lambda: not widget.controls.session.is_scoring)
    slicer.mrmlScene.Clear()


@pytest.fixture
def shown(panel: Any, starter_result: ScoreResult) -> Any:
    """The panel with the scored sample."""
    import slicer

    node = load_sample()
    panel.parameters.inputVolume = node
    panel.on_scored(node, starter_result)
    slicer.app.processEvents()  # the views follow in a turn of their own
    return panel


@pytest.fixture
def ready(panel: Any) -> Any:
    """The panel with the sample chosen and the CPU as device."""
    panel.parameters.inputVolume = load_sample()
    panel.parameters.device = "cpu"
    return panel


@pytest.fixture
def models(ready: Any, tmp_path: Path) -> Iterator[Path]:
    """A copy of the shipped models, which a test may damage."""
    copy = tmp_path / "Models"
    shutil.copytree(RESOURCES / "Models", copy)
    former = ready.models._catalogue
    ready.models._catalogue = Catalogue(copy, tmp_path / "user")
    ready.models.refresh()
    ready.follow_parameters()
    yield copy
    ready.models._catalogue = former
    ready.models.refresh()


@pytest.fixture(scope="module")
def judge_of_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of radiographs as an archive: small, and of weights that have learnt nothing."""
    import torch

    spec = InputSpec("slices", ("DX",), "radiograph", size=(32, 32))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        detector = build("classifier", spec, {"network": "hybrid", "weights": "random"}).eval().requires_grad_(False)
    calibration = calibrate(detector, None, (film(seed) for seed in range(5)), device="cpu")
    folder = tmp_path_factory.mktemp("models") / "judge"
    write_bundle(Model(ModelIdentity("judge", "2.1.0", "", "classifier"), detector, calibration), folder)
    return Path(shutil.make_archive(str(folder), "zip", folder))


def film(seed: int) -> Volume:
    """A radiograph of 48 x 40 pixels: a grey body before black."""
    array = np.random.default_rng(seed).normal(10, 2, (1, 48, 40)).astype(np.float32)
    array[0, 6:42, 6:34] += 60 + np.linspace(0, 120, 28, dtype=np.float32)
    return Volume(array, np.diag([-1.0, -1.0, 1.0, 1.0]), "DX", name=f"film-{seed}")


def texts(table: Any, column: int) -> list[str]:
    return [table.item(row, column).text() for row in range(table.rowCount)]


def load_sample() -> Any:
    """The sample as a node, said to be MR as a user says it."""
    import slicer

    node = slicer.util.loadVolume(str(SAMPLE))
    node.SetAttribute("AnomalyDetection.Modality", "MR")
    return node


def click(button: Any) -> None:
    """A real click in the middle of a button."""
    assert button.isVisible() and button.enabled, button.text
    QtTest.QTest.mouseClick(button, QtCore.Qt.MouseButton.LeftButton)


def run_until(condition: Callable[[], Any], seconds: float = 60.0) -> float:
    """Let events in until something is true; returns the longest time in which none could get in.

    A condition that answers with a time (of `time.monotonic`) says when it came true: what followed does not count.
    """
    import qt

    beats = [time.monotonic()]
    timer = qt.QTimer()
    timer.setInterval(5)
    timer.connect("timeout()", lambda: beats.append(time.monotonic()))
    timer.start()
    end = time.monotonic() + seconds
    while not (met := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        qt.QCoreApplication.processEvents()
        time.sleep(0.002)
    timer.stop()
    last = met if isinstance(met, float) else time.monotonic()
    counted = [*(beat for beat in beats if beat < last), last]
    return max(later - earlier for earlier, later in itertools.pairwise(counted))


TURNS = 20
"""Of the event loop, more than enough for the layouts: each that lies within another takes a turn of its own."""


def host() -> Any:
    """The widget that holds all of the panel."""
    import slicer

    return slicer.util.getModule("AnomalyDetection").widgetRepresentation()


def settle() -> None:
    """Let the event loop turn until the panel's layouts have come to rest."""
    import slicer

    for _ in range(TURNS):
        slicer.app.processEvents()


def picture(name: str) -> None:
    """Write what the panel shows now to `artefacts/`, which git does not keep; nothing in it may be cut off."""
    settle()
    ARTEFACTS.mkdir(exist_ok=True)
    harness.save_png(host(), ARTEFACTS / f"panel-{name}.png")
    assert cut_off() == []


def cut_off() -> list[str]:
    """The widgets of the panel that are seen and less tall than what is in them."""
    named = [widget for widget in host().findChildren(QtWidgets.QWidget) if widget.objectName and widget.isVisible()]
    own = [widget for widget in named if not widget.objectName.startswith("qt_")]  # those are Qt's, within its widgets
    return [
        f"{widget.objectName}: {widget.height} of {needed} pixels"
        for widget in own
        if widget.height < (needed := needed_height(widget))
    ]


def needed_height(widget: Any) -> int:
    """Pixels that a widget's contents take at its width: more where words are wrapped."""
    if widget.hasHeightForWidth():
        return int(widget.heightForWidth(widget.width))
    return int(widget.minimumSizeHint().height())
