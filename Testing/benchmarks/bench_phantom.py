"""Time of phantoms: 200 volumes of 2 mm should take 5 minutes at most on two cores, so 3 s each per process.

    python Testing/benchmarks/bench_phantom.py

Prints seconds per volume in one process with one thread, for normals and for each kind of lesion, after the template
was loaded once; and what that load took.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("AnomalyDetection", "AnomalyTraining")]

SPACING = (2.0, 2.0, 2.0)
REPEATS = 3


def main() -> None:
    """Print one line a kind."""
    from AnomalyTrainingLib.synthesis import LESION_NAMES
    from AnomalyTrainingLib.synthesis.anatomy import icbm152
    from AnomalyTrainingLib.synthesis.lesions import LesionRequest
    from AnomalyTrainingLib.synthesis.phantom import synthesise

    torch.set_num_threads(1)
    start = time.perf_counter()
    anatomy = icbm152()
    anatomy.at_resolution(SPACING)
    print(f"template: {time.perf_counter() - start:.2f} s once a process")
    for kind in (None, *LESION_NAMES):
        seconds = []
        for subject in range(1, REPEATS + 1):
            start = time.perf_counter()
            lesion = LesionRequest(kind) if kind else None
            synthesise(anatomy, subject, contrast="flair", spacing=SPACING, lesion=lesion)
            seconds.append(time.perf_counter() - start)
        print(f"{kind or 'normal'}: {min(seconds):.2f} s a volume (slowest {max(seconds):.2f})")


if __name__ == "__main__":
    main()
