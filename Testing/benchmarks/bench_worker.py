"""What the worker costs beside scoring, on a 240 x 240 x 155 head (BraTS's size), and how fast findings are made anew.

    python Testing/benchmarks/bench_worker.py

Prints the seconds from nothing to the greeting and to the first score, the warm round trip beside the direct call (the
same model and image, in this process), and relabelling at 256 x 256 x 256.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("AnomalyDetection", "AnomalyTraining", "Testing")]
sys.path.insert(0, str(Path(__file__).parent))

import bench_zscore  # noqa: E402

from AnomalyDetectionLib.worker.process import Worker  # noqa: E402

if TYPE_CHECKING:
    from AnomalyDetectionLib.scoring.result import ScoreResult

ROUNDS = 3


def main() -> None:
    """Print one line a figure."""
    from AnomalyDetectionLib.models.bundle import write_bundle
    from AnomalyDetectionLib.scoring.scorer import Scorer

    volume = bench_zscore.big_head(3)
    with tempfile.TemporaryDirectory() as folder:
        model = write_bundle(bench_zscore.model_on("own"), Path(folder) / "bundle")
        start = time.perf_counter()
        with Worker() as worker:
            worker.ping()
            print(f"start to greeting: {time.perf_counter() - start:.2f} s")
            worker.score(volume, Path(folder) / "bundle", device="cpu")
            print(f"start to first score: {time.perf_counter() - start:.2f} s")
            scorer = Scorer(model, "cpu")
            scorer.score(volume)
            pairs = []
            for _ in range(ROUNDS):  # by turns, so that a busy machine slows both alike
                direct = seconds(lambda: scorer.score(volume))
                pairs.append((direct, seconds(lambda: worker.score(volume, Path(folder) / "bundle", device="cpu"))))
        direct, through = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(
            f"warm: direct {direct:.3f} s, worker {through:.3f} s: {through - direct:+.3f} s, x {through / direct:.2f}"
        )
    relabel_benchmark(scorer.score(volume))


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def relabel_benchmark(result: ScoreResult) -> None:
    """Relabel the result's map, set into 256 x 256 x 256 voxels, at several thresholds."""
    from dataclasses import replace

    import numpy as np

    from AnomalyDetectionLib.imaging.volume import Volume
    from AnomalyDetectionLib.scoring.relabel import relabelled

    array = np.zeros((256, 256, 256), dtype=np.float32)
    k, j, i = result.rarity.shape
    array[:k, :j, :i] = result.rarity.array
    large = replace(result, rarity=Volume(array, result.rarity.ijk_to_ras, units="rarity"))
    for threshold in (2.0, 3.0, 4.0):
        best = min(seconds(lambda threshold=threshold: relabelled(large, threshold)) for _ in range(5))  # type: ignore[misc]
        found = len(relabelled(large, threshold).findings)
        print(f"relabel at rarity {threshold:g}: {1000 * best:.0f} ms ({found} findings)")


if __name__ == "__main__":
    main()
