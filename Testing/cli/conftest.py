"""A tiny real model and tiny real images for the command line's tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from cli.score_runs import score

SHAPE = (20, 26, 22)
SPACING = 6.0
TRAINING, CALIBRATION = 5, 2


def head(seed: int, *, lesion: bool = False) -> np.ndarray:
    """A smooth ellipsoid with an inner one, mild noise and, if asked, a bright ball in the patient's left half.

    float32 (K, J, I) of `SHAPE`; the array's i axis runs to the patient's left (LPS).
    """
    random = np.random.default_rng(seed)
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    a, b, c = random.uniform(0.72, 0.8, 3)
    outer = (k / a) ** 2 + (j / b) ** 2 + (i / c) ** 2
    inner = (k / 0.4) ** 2 + ((j - 0.1) / 0.45) ** 2 + (i / 0.35) ** 2
    image = np.where(outer < 1, 400.0, 0.0) + np.where(inner < 1, 200.0, 0.0)
    if lesion:
        image[(k**2 + j**2 + (i - 0.5) ** 2 < 0.2**2)] = 1000.0
    image = sitk.GetArrayFromImage(sitk.DiscreteGaussian(sitk.GetImageFromArray(image), 0.5))
    image += np.where(outer < 1, random.normal(0, 12, SHAPE), np.abs(random.normal(0, 2, SHAPE)))
    return image.astype(np.float32)


def save(array: np.ndarray, path: Path) -> Path:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([SPACING] * 3)
    image.SetOrigin([-SPACING * (n - 1) / 2 for n in array.shape[::-1]])
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


CONFIG = """
name: tiny
detector: zscore
options: {smooth: 1.0}
input: {kind: volume, modalities: [MR], intensity: mr-robust, grid: template, spacing: [6.0, 6.0, 6.0]}
findings: {least_ml: 1.0}
calibration: {method: split}
"""


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of small normal heads: some to train on, some to calibrate on."""
    folder = tmp_path_factory.mktemp("cohort")
    lines = ["case,patient,image,label,split"]
    for n in range(TRAINING + CALIBRATION):
        save(head(n), folder / f"head{n}.nii.gz")
        lines.append(f"n{n},p{n},head{n}.nii.gz,0,{'train' if n < TRAINING else 'calibrate'}")
    manifest = folder / "cohort.csv"
    manifest.write_text("\n".join(lines) + "\n")
    (folder / "config.yaml").write_text(CONFIG)
    return manifest


@pytest.fixture(scope="session")
def run_folder(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training run, made by the command line."""
    from AnomalyDetectionLib.cli.main import main

    out = tmp_path_factory.mktemp("run") / "run"
    arguments = ["train", str(cohort.with_name("config.yaml")), "--cohort", str(cohort), "--out", str(out)]
    assert main([*arguments, "--progress", "none"]) == 0
    return out


@pytest.fixture(scope="session")
def bundle(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of that run."""
    from AnomalyDetectionLib.cli.main import main

    out = tmp_path_factory.mktemp("bundle") / "tiny"
    assert main(["export", str(run_folder), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a normal head and one with a lesion, of nobody in the cohort."""
    folder = tmp_path_factory.mktemp("images")
    save(head(100), folder / "normal.nii.gz")
    save(head(101, lesion=True), folder / "lesion.nii.gz")
    return folder


@pytest.fixture(scope="module")
def scored(bundle: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of one run over both images."""
    out = tmp_path_factory.mktemp("scored") / "out"
    assert score(bundle, images / "normal.nii.gz", images / "lesion.nii.gz", "--out", out) == 0
    return out
