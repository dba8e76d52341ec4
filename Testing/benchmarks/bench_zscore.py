"""Time and memory of `zscore` on a 240 x 240 x 155 head (BraTS's size), and the start of the command line.

    python Testing/benchmarks/bench_zscore.py

Prints seconds per stage, with and without registration, beside the physical floor (one copy of the volume through
memory), and the peak memory above the idle process in multiples of the float32 volume.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from AnomalyDetectionLib.imaging.volume import Volume
    from AnomalyDetectionLib.scoring.model import Model

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("AnomalyDetection", "AnomalyTraining", "Testing")]

SHAPE = (155, 240, 240)


def main() -> None:
    """Run each measurement in a process of its own and print one line a figure."""
    if len(sys.argv) > 1:
        measure(sys.argv[1])
        return
    for grid in ("own", "template"):
        command = [sys.executable, __file__, grid]
        figures = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        name = "with registration" if grid == "template" else "without registration"
        stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in figures["timings"].items())
        print(f"zscore {name}: {figures['seconds']:.2f} s ({stages}); {figures['copies']:.0f} x one copy of the volume")
        print(f"    peak memory above idle: {figures['peak']:.2f} x the float32 volume")
    command = [sys.executable, "-m", "AnomalyDetectionLib.cli", "--help"]
    times = []
    for _ in range(6):
        start = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True, cwd=ROOT / "AnomalyDetection")
        times.append(time.perf_counter() - start)
    bare = [_seconds([sys.executable, "-c", "pass"]) for _ in range(6)]
    print(
        f"slicer-anomaly --help: {min(times):.2f} s (median {sorted(times)[3]:.2f}); bare interpreter {min(bare):.2f} s"
    )


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - start


def measure(grid: str) -> None:
    """One warm-up, then the best of three scores; prints JSON."""
    from AnomalyDetectionLib.scoring.scorer import Scorer

    model = model_on(grid)
    volume = big_head(3)
    scorer = Scorer(model, device="cpu")
    scorer.score(simulated_small(grid))  # imports and thread pools are there now
    idle = resident()
    with Peak() as peak:
        scorer.score(volume)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        result = scorer.score(volume)
        times.append(time.perf_counter() - start)
    start = time.perf_counter()
    for _ in range(10):
        volume.array.copy()
    copy = (time.perf_counter() - start) / 10
    assert result.rarity.array.std() > 0, "a constant map is no result"
    print(
        json.dumps(
            {
                "seconds": min(times),
                "timings": result.timings,
                "copies": min(times) / copy,
                # The volume itself was there before: it counts as one of the copies that scoring needs.
                "peak": 1 + (peak.bytes - idle) / volume.array.nbytes,
            }
        )
    )


def big_head(subject: int) -> Volume:
    """A simulated head resampled to 240 x 240 x 155 voxels of 0.95 x 0.95 x 1.15 mm."""
    import numpy as np
    import simulated

    from AnomalyDetectionLib.imaging.geometry import Grid, resample
    from AnomalyDetectionLib.imaging.volume import Volume

    small = simulated.head(subject)
    affine = np.diag([0.95, 0.95, 1.15, 1.0])
    affine[:3, 3] = small.grid.to_ras((np.array(small.shape[::-1]) - 1) / 2) - np.diag(affine)[:3] * (
        (np.array(SHAPE[::-1]) - 1) / 2
    )
    grid = Grid(SHAPE, affine)
    array = resample(small.array, small.grid, grid)
    noise = np.random.default_rng(subject).normal(0, 2, SHAPE).astype(np.float32)
    return Volume(np.where(array > 20, array + noise, 0), affine, modality="MR", name="big")


def simulated_small(grid: str) -> Volume:
    """What warms the scorer up: a small head where it is aligned, a big one where grids must agree."""
    import simulated

    return simulated.head(4) if grid == "template" else big_head(4)


def model_on(grid: str) -> Model:
    """zscore on a 2 mm template, or on the image's own grid resampled to 2 mm (no registration)."""
    import simulated

    from AnomalyDetectionLib.imaging.template import build_template
    from AnomalyDetectionLib.scoring.calibrate import calibrate
    from AnomalyDetectionLib.scoring.contract import InputSpec
    from AnomalyDetectionLib.scoring.model import Model
    from AnomalyDetectionLib.scoring.prepare import as_normal, prepare
    from AnomalyDetectionLib.scoring.registry import build
    from AnomalyDetectionLib.scoring.result import ModelIdentity

    spec = InputSpec("volume", ("MR",), "mr-robust", grid=grid, spacing=(2.0, 2.0, 2.0))  # type: ignore[arg-type]
    make = simulated.head if grid == "template" else big_head
    normals = [make(subject) for subject in range(10, 15)]
    template = None
    if grid == "template":
        template = build_template(lambda: (as_normal(volume, spec) for volume in normals), (2.0, 2.0, 2.0))
    detector = build("zscore", spec, {})
    for volume in normals:
        detector.absorb(prepare(volume, spec, template).batch)
    detector.finish()
    calibration = calibrate(detector, template, [make(20), make(21)])
    return Model(ModelIdentity("bench", "1.0.0", "", "zscore"), detector, calibration, template)


def resident() -> int:
    """Resident memory of this process in bytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


class Peak:
    """The highest resident memory while the block runs, sampled every 2 ms."""

    def __enter__(self) -> Peak:
        self.bytes, self._done = resident(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            self.bytes = max(self.bytes, resident())

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()


if __name__ == "__main__":
    main()
