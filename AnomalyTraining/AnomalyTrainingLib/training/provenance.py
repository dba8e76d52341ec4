"""What a bundle says of the run that made it: data, configuration, machine and software; no names of cases or files."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from AnomalyDetectionLib import __version__
from AnomalyDetectionLib.models.devices import choose_device
from AnomalyTrainingLib.cohorts.checks import inspect_cohort
from AnomalyTrainingLib.cohorts.manifest import Case, Cohort
from AnomalyTrainingLib.cohorts.summary import rows
from AnomalyTrainingLib.synthesis.cohort import is_phantom

from .config import TrainConfig

PACKAGES = ("torch", "numpy", "monai", "lightning", "SimpleITK", "scikit-learn", "nibabel", "pydicom")

OF_THE_MACHINE = ("processor", "threads", "seconds since the last start")
"""What `run_facts` tells of the machine and how busy it was; no other machine makes these again."""


def data_facts(cohort: Cohort, used: Sequence[Case]) -> dict[str, Any]:
    """What the images were that a run used; they are read unless a check has read them before.

    Parameters
    ----------
    used
        The cases of the cohort that the model was fitted to or calibrated on.
    """
    names = {case.case for case in used}
    part = Cohort(tuple(case for case in cohort if case.case in names), cohort.path)
    row = rows(inspect_cohort(part, needs=()))[-1]
    return {
        "cases": row["cases"],
        "patients": row["patients"],
        "modality": row["modality"],
        "voxel sizes (mm)": row["voxels (mm)"],
        "simulated cases": sum(is_phantom(case) for case in part),
        "manifest_sha256": hashlib.sha256(cohort.path.read_bytes()).hexdigest(),
    }


def run_facts(config: TrainConfig, seed: int, device: str, seconds: float) -> dict[str, Any]:
    """How the model was made, so that it can be made again.

    Parameters
    ----------
    seconds
        What the run took since it was last started.
    """
    chosen = choose_device(device, 0).device
    return {
        "config": config.model_dump(mode="json"),
        "seed": seed,
        "device": torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else str(chosen),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "seconds since the last start": round(seconds, 1),
        "software": {"slicer-anomaly": __version__, "python": platform.python_version(), **_versions()},
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    """Its name where the system tells, and how many of them."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{os.cpu_count()} x {name}"
