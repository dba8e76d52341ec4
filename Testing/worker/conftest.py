"""Real bundles, a real worker, and plug-ins and programs that misbehave."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simulated

from AnomalyDetectionLib import __version__
from AnomalyDetectionLib.imaging.geometry import Grid, resample
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.models.bundle import load_bundle, write_bundle
from AnomalyDetectionLib.scoring.model import Model
from AnomalyDetectionLib.scoring.registry import build
from AnomalyDetectionLib.scoring.result import ModelIdentity
from AnomalyDetectionLib.worker.process import Worker
from AnomalyDetectionLib.worker.session import LIBRARY

TROUBLE = '''
import ctypes, os, time
import torch
from AnomalyDetectionLib.detectors.zscore import ZScore

class Trouble(ZScore):
    """zscore that does as the file $TROUBLE says before it scores."""

    def score(self, batch):
        with open(os.environ["TROUBLE"], encoding="utf-8") as stream:
            what = stream.read()
        if what == "print":
            print("garbage from Python")
            os.write(1, b"garbage from os.write\\n")
            libc = ctypes.CDLL(None)
            libc.puts(b"garbage from C")
            libc.fflush(None)
        elif what == "kill":
            os.kill(os.getpid(), 9)
        elif what == "crash":
            os.abort()
        elif what == "raise":
            raise KeyError("a key")
        elif what == "allocate":
            torch.empty(10**15)
        elif what == "hang":
            time.sleep(60)
        return super().score(batch)
'''


@pytest.fixture(scope="session")
def zscore_bundle(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated heads' zscore as a bundle, under a name that is not ASCII."""
    folder = tmp_path_factory.mktemp("bundles") / "Köpfe 头"
    write_bundle(model, folder)
    return folder


@pytest.fixture(scope="session")
def autoencoder_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny autoencoder of canonical slices; it has learnt next to nothing."""
    folder = tmp_path_factory.mktemp("bundles") / "autoencoder"
    write_bundle(simulated.tiny_autoencoder(), folder)
    return folder


@pytest.fixture(scope="session")
def fusion_bundle(zscore_bundle: Path, autoencoder_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two as one."""
    folder = tmp_path_factory.mktemp("bundles") / "fusion"
    write_bundle(simulated.fused_model(load_bundle(zscore_bundle), load_bundle(autoencoder_bundle)), folder)
    return folder


@pytest.fixture(scope="session")
def lesioned() -> Volume:
    return simulated.head(50, lesion_ras=(-30.0, 10.0, 10.0))


@pytest.fixture(scope="session")
def oblique() -> Volume:
    """A head with a lesion on a turned grid of 3 x 4 x 6 mm voxels, with all that a Volume can carry."""
    source = simulated.head(51, lesion_ras=(30.0, 10.0, 10.0))
    a, b = np.radians(14), np.radians(-9)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    shape, affine = (30, 54, 62), np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag([-3.0, 4.0, 6.0])  # left-handed besides
    middle = source.grid.to_ras((np.array(source.shape[::-1]) - 1) / 2)
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2)
    array = resample(source.array, source.grid, Grid(shape, affine))
    return Volume(array, affine, modality="MR", units="a.u.", name="schräg", source=["ä.nii"], notes=["A note."])


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """One worker for all tests of a file: what one does to it must not hurt the next."""
    with Worker() as shared:
        yield shared


@pytest.fixture(scope="session")
def plugins(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH with an installed plug-in `trouble`, and beside it a bundle of that detector."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "trouble_plugin.py").write_text(TROUBLE, encoding="utf-8")
    facts = folder / "trouble-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: trouble\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[slicer_anomaly.detectors]\ntrouble = trouble_plugin:Trouble\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        detector = build("trouble", model.detector.spec, model.detector.config())
        detector.load_state_dict(model.detector.state_dict())
        identity = ModelIdentity("trouble", "1.0.0", "", "trouble")
        write_bundle(Model(identity, detector, model.calibration, model.template), folder / "bundle")
    return folder


@pytest.fixture
def trouble(plugins: Path, tmp_path: Path) -> Callable[[str], None]:
    """Says what the plug-in is to do."""

    def say(what: str) -> None:
        (tmp_path / "trouble").write_text(what, encoding="utf-8")

    return say


@pytest.fixture
def troubled(plugins: Path, tmp_path: Path) -> Iterator[Worker]:
    """A worker that finds the plug-in."""
    path = os.pathsep.join([str(LIBRARY), str(plugins)])
    environment = {"TROUBLE": str(tmp_path / "trouble"), "PYTHONPATH": path}
    with Worker(environment=environment) as own:
        yield own


FAKE = """
import json, os, subprocess, sys, time

def say(**message):
    print(json.dumps(message), flush=True)

def hello(**changes):
    facts = {"protocol": 1, "software": SOFTWARE, "python": "3", "torch": None, "pid": os.getpid()}
    say(**{"type": "hello", **facts, **changes})

def ask():
    return json.loads(sys.stdin.readline())

FOLDER = sys.argv[sys.argv.index("--folder") + 1]
"""


@pytest.fixture
def pretend(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Makes workers whose program is the given text: what a real one never does."""
    made: list[Worker] = []

    def make(program: str, **settings: Any) -> Worker:
        folder = tmp_path / f"fake{len(made)}" / "AnomalyDetectionLib" / "worker"
        folder.mkdir(parents=True)
        (folder.parent / "__init__.py").touch()
        (folder / "__init__.py").touch()
        text = FAKE.replace("SOFTWARE", repr(__version__)) + program
        (folder / "__main__.py").write_text(text, encoding="utf-8")
        made.append(Worker(environment={"PYTHONPATH": str(folder.parents[1])}, **settings))
        return made[-1]

    yield make
    for worker in made:
        worker.close()


def wait_until(condition: Callable[[], Any], seconds: float = 10.0) -> bool:
    """Poll; False if it does not come true in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.01)
    return bool(condition())


def assert_same(first: Any, second: Any) -> None:
    """Two results are the same to the last bit, but for the time they took."""
    assert first.rarity.array.std() > 0.05, "a constant map proves nothing"
    for one, other in ((first.rarity.array, second.rarity.array), (first.labels, second.labels)):
        assert one.dtype == other.dtype and np.array_equal(one, other)
    assert second.foreground.dtype == bool and np.array_equal(first.foreground, second.foreground)
    assert np.array_equal(first.rarity.ijk_to_ras, second.rarity.ijk_to_ras)
    for name in ("modality", "units", "name", "source", "notes", "spacing_known", "orientation_known"):
        assert getattr(first.rarity, name) == getattr(second.rarity, name)
    plain = ("volume_score", "p_value", "calibration_n", "threshold", "false_findings_per_normal", "findings")
    for name in (*plain, "quality", "model", "device", "notes", "case", "decision"):
        assert getattr(first, name) == getattr(second, name), name
    assert first.thresholds.to_json() == second.thresholds.to_json()
    assert first.timings.keys() == second.timings.keys()
    assert (first.midline is None) == (second.midline is None)
    if first.midline is not None:
        assert np.array_equal(first.midline.point, second.midline.point)
        assert np.array_equal(first.midline.right, second.midline.right)
