"""Tiny simulated single images, stretched onto one frame: real files and real training in a second or two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

SIZE = 40

CONFIG = """
name: frames
detector: zscore
options: {smooth: 1.0, shading: 0.0}
input: {kind: volume, intensity: radiograph, grid: frame, size: [40, 40]}
findings: {least_mm2: 4.0, least_px: 4.0}
volume_score: {fraction: 0.02, least_voxels: 5}
calibration: {method: split}
"""


def frame(seed: int, *, lesion: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A bright shape on a gradient with noise, and the mask of its dark spot: float32 and uint8 (40, 40)."""
    random = np.random.default_rng(seed)
    j, i = np.meshgrid(*(np.linspace(-1, 1, SIZE),) * 2, indexing="ij")
    image = 300 + 120 * np.exp(-((i / 0.5) ** 2) - (j / 0.7) ** 2) + 40 * i + random.normal(0, 12, (SIZE, SIZE))
    mask = np.zeros((SIZE, SIZE), dtype=np.uint8)
    if lesion:
        y, x = random.uniform(-0.4, 0.4, 2)
        mask[((j - y) ** 2 + (i - x) ** 2) < 0.15**2] = 1
        image = image - 80 * mask  # no darker than the rim: what the intensity rule goes by stays as it is
    return image.astype(np.float32), mask


def save(array: np.ndarray, path: Path) -> Path:
    """As a single slice of 1 mm."""
    sitk.WriteImage(sitk.GetImageFromArray(array[None]), str(path))
    return path


def write_cohort(
    folder: Path,
    counts: Mapping[str, tuple[int, int]],
    *,
    first: int = 0,
    columns: Mapping[str, Sequence[str]] | None = None,
    masks: bool = True,
) -> Path:
    """A manifest with so many normal and abnormal cases a split, each of a patient of its own.

    Parameters
    ----------
    first
        Seed of the first image, and number of its patient.
    columns
        Further columns: name to values that repeat over the cases.
    """
    folder.mkdir(parents=True, exist_ok=True)
    columns = columns or {}
    lines = [",".join(["case", "patient", "image", "label", "mask", "split", *columns])]
    number = first
    for split, (normal, abnormal) in counts.items():
        for label in [0] * normal + [1] * abnormal:
            image, mask = frame(number, lesion=bool(label))
            save(image, folder / f"image{number}.nii.gz")
            if label and masks:
                save(mask, folder / f"mask{number}.nii.gz")
            name = f"mask{number}.nii.gz" if label and masks else ""
            more = [values[(number - first) % len(values)] for values in columns.values()]
            lines.append(
                ",".join([f"c{number}", f"p{number}", f"image{number}.nii.gz", str(label), name, split, *more])
            )
            number += 1
    manifest = folder / "cohort.csv"
    manifest.write_text("\n".join(lines) + "\n")
    (folder / "config.yaml").write_text(CONFIG)
    return manifest
