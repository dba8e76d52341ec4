"""Time of phantoms: 200 volumes of 2 mm should take 5 minutes at most on two cores, so 3 s of processor time each.

    python Testing/benchmarks/bench_phantom.py [LABEL_MAP] [MASKS]

Prints seconds of processor time (of one process with one thread, so that what runs beside does not count) per volume,
its files written, for normals and for each kind of lesion: of the template icbm152, and of a label map of a head, whole
and stripped.  MASKS are lesion masks that give plaques their shapes.  What is loaded once per process and anatomy comes
first, with the memory it took at most.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("AnomalyDetection", "AnomalyTraining")]

if TYPE_CHECKING:
    from AnomalyTrainingLib.synthesis.anatomy import Anatomy

SPACING = (2.0, 2.0, 2.0)
REPEATS = 3


def main() -> None:
    """Print one line a kind."""
    from AnomalyTrainingLib.synthesis.anatomy import icbm152
    from AnomalyTrainingLib.synthesis.heads import head

    torch.set_num_threads(1)
    options = {"shapes": sys.argv[2]} if len(sys.argv) > 2 else {}
    measure("icbm152", icbm152, options, stripped=True)
    if len(sys.argv) > 1:
        path = Path(sys.argv[1])
        measure(path.name, lambda: head(path), options, stripped=True)
        measure(f"{path.name}, whole", lambda: head(path), options, stripped=False)


def measure(name: str, load: Callable[[], Anatomy], plaques: Mapping[str, str], *, stripped: bool) -> None:
    """Print what loading and each kind of volume takes."""
    from AnomalyTrainingLib.synthesis import LESION_NAMES
    from AnomalyTrainingLib.synthesis.lesions import LesionRequest

    start = time.process_time()
    anatomy = load()
    anatomy.at_resolution(SPACING)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name}: loaded in {time.process_time() - start:.2f} s, {peak:.0f} MB at most")
    for kind in (None, *LESION_NAMES):
        lesion = LesionRequest(kind, plaques if kind == "plaques" else {}) if kind else None
        seconds = [seconds_of(anatomy, subject, lesion, stripped) for subject in range(1, REPEATS + 1)]
        print(f"  {kind or 'normal'}: {np.median(seconds):.2f} s a volume (slowest {max(seconds):.2f})")


def seconds_of(anatomy: Anatomy, subject: int, lesion: object, stripped: bool) -> float:
    """Processor time of one volume and its files."""
    from AnomalyDetectionLib.imaging.write import write_labels, write_volume
    from AnomalyTrainingLib.synthesis.phantom import synthesise

    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        phantom = synthesise(
            anatomy,
            subject,
            contrast="flair",
            spacing=SPACING,
            lesion=lesion,  # type: ignore[arg-type]
            stripped=stripped,
        )
        write_volume(phantom.volume, Path(folder) / "image.nii.gz")
        if phantom.mask is not None:
            write_labels(phantom.mask.astype(np.uint8), phantom.volume.grid, Path(folder) / "mask.nii.gz")
    return time.process_time() - start


if __name__ == "__main__":
    main()
