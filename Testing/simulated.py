"""Small simulated heads: enough anatomy to be aligned and compared, made in milliseconds."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import SimpleITK as sitk

from AnomalyDetectionLib.detectors.fusion import Fusion
from AnomalyDetectionLib.imaging.geometry import Grid
from AnomalyDetectionLib.imaging.template import build_template
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.scoring.calibrate import calibrate
from AnomalyDetectionLib.scoring.composite import Member
from AnomalyDetectionLib.scoring.contract import InputSpec
from AnomalyDetectionLib.scoring.model import Model
from AnomalyDetectionLib.scoring.prepare import as_normal, prepare
from AnomalyDetectionLib.scoring.registry import build
from AnomalyDetectionLib.scoring.result import ModelIdentity

SPACING = 4.0
_MIDDLE = np.array([2.0, -15.0, 20.0])


@cache
def _texture() -> np.ndarray:
    """Smooth structure all heads share, on a 4 mm grid over (-100, 100) mm, shape (50, 50, 50)."""
    noise = np.random.default_rng(7).normal(size=(50, 50, 50)).astype(np.float32)
    smooth = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(sitk.GetImageFromArray(noise), 2.5))
    return smooth / smooth.std()


def head(
    subject: int,
    *,
    lesion_ras: tuple[float, float, float] | None = None,
    lesion_mm: float = 12.0,
    lesion_gain: float = 1.6,
    spacing: tuple[float, float, float] = (SPACING, SPACING, SPACING),
    flips: tuple[int, int, int] = (1, 1, 1),
) -> Volume:
    """An ellipsoid with structure inside and air around, individually placed, lit and noisy.

    Parameters
    ----------
    lesion_ras
        Centre of a bright ball of radius `lesion_mm`, in mm from the middle of the head (right, anterior, superior).
    flips
        Signs of the voxel axes: (-1, 1, 1) is left-handed.
    """
    rng = np.random.default_rng(1000 + subject)
    shift = rng.uniform(-6, 6, 3)
    angle = rng.uniform(-0.12, 0.12)
    half = np.array([62.0, 80.0, 58.0]) * rng.uniform(0.95, 1.05, 3)
    extent = np.array([176.0, 208.0, 168.0])
    counts = np.round(extent / spacing).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = np.diag(np.array(flips) * np.array(spacing))
    affine[:3, 3] = _MIDDLE - affine[:3, :3] @ ((counts - 1) / 2)
    grid = Grid((int(counts[2]), int(counts[1]), int(counts[0])), affine)
    k, j, i = np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij")
    points = grid.to_ras(np.stack([i, j, k], axis=-1)) - _MIDDLE - shift
    cos, sin = np.cos(angle), np.sin(angle)
    points = points @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    # A head is longer than wide and flat below: otherwise its pose would be a matter of taste.
    inside = ((points / half) ** 2).sum(axis=-1) + 0.25 * np.clip(-points[..., 2] / half[2], 0, None) < 1
    index = np.clip((points / (half / (62.0, 80.0, 58.0)) + 100) / SPACING, 0, 48.999)
    texture = _texture()[tuple(np.round(index[..., axis]).astype(int) for axis in (2, 1, 0))]
    image = 100 + 18 * texture - 35 * (((points / half) ** 2).sum(axis=-1) < 0.12)
    if lesion_ras is not None:
        image = np.where(np.linalg.norm(points - lesion_ras, axis=-1) < lesion_mm, 100 * lesion_gain, image)
    image = image * rng.uniform(0.8, 1.2) * (1 + 0.1 * points[..., 1] / 100) + rng.normal(0, 2, grid.shape)
    array = np.where(inside, np.maximum(image, 1), 0).astype(np.float32)
    return Volume(array, affine, modality="MR", name=f"head-{subject}")


def tiny_autoencoder() -> Model:
    """An autoencoder of small canonical slices that has learnt next to nothing, calibrated on three heads."""
    import torch

    spec = InputSpec("slices", ("MR",), "mr-robust", size=(32, 32), spacing=(6.0, 6.0, 6.0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        detector = build("autoencoder", spec, {"widths": [4, 8, 8, 16], "latent": 16})
        slices = prepare(head(1), spec).batch
        optimiser = torch.optim.Adam(detector.parameters(), 3e-3)
        for _ in range(20):
            optimiser.zero_grad()
            detector.loss(slices).backward()
            optimiser.step()
    detector.eval().requires_grad_(False)
    calibration = calibrate(detector, None, (head(subject) for subject in range(20, 23)), device="cpu")
    return Model(ModelIdentity("tiny", "1.0.0", "", "autoencoder"), detector, calibration)


def fused_model(*models: Model, **options: Any) -> Model:
    """A fusion of models, calibrated on three heads that none of them has seen."""
    members = [Member(m.identity, m.detector, m.template, m.calibration.calibrator) for m in models]
    fusion = Fusion.of(members, **options)
    template = models[0].template
    calibration = calibrate(fusion, template, (head(subject) for subject in range(30, 33)), device="cpu")
    return Model(ModelIdentity("fused", "1.0.0", "", "fusion"), fusion, calibration, template)


def fitted_model() -> Model:
    """`zscore`, trained on six simulated heads and calibrated on five others."""
    spec = InputSpec("volume", ("MR",), "mr-robust", grid="template", spacing=(SPACING, SPACING, SPACING))
    normals = [head(subject) for subject in range(6)]
    template = build_template(lambda: (as_normal(volume, spec) for volume in normals), (SPACING, SPACING, SPACING))
    detector = build("zscore", spec, {})
    for volume in normals:
        detector.absorb(prepare(volume, spec, template).batch)
    detector.finish()
    calibration = calibrate(detector, template, (head(subject) for subject in range(20, 25)))
    identity = ModelIdentity("simulated-heads", "1.0.0", "", "zscore")
    return Model(identity, detector, calibration, template, {"training": {"normals": len(normals)}})
