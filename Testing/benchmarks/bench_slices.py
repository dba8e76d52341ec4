"""Time and memory of a recipe's network on a 240 x 240 x 155 head (BraTS's size).

    python Testing/benchmarks/bench_slices.py RECIPE [--threads 2]

`autoencoder_brain` and `brain_denoising` are allowed 10 s on two cores.

Prints the best of three warm scores and its stages, the processor time it took (what it would take on a quiet machine
with one thread), and the peak memory above the idle process in multiples of the float32 volume.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from bench_zscore import Peak, big_head, resident

if TYPE_CHECKING:
    from AnomalyDetectionLib.scoring.model import Model

REPEATS = 3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="of a detector of slices, such as autoencoder_brain")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    import simulated
    import torch

    from AnomalyDetectionLib.scoring.scorer import Scorer

    torch.set_num_threads(options.threads)
    scorer, volume = Scorer(untrained(options.recipe), "cpu"), big_head(3)
    scorer.score(simulated.head(4))  # imports and thread pools are there now
    idle = resident()
    with Peak() as peak:
        scorer.score(volume)
    figures = []
    for _ in range(REPEATS):
        start, work = time.perf_counter(), time.process_time()
        result = scorer.score(volume)
        figures.append((time.perf_counter() - start, time.process_time() - work, result.timings))
    assert result.rarity.array.std() > 0, "a constant map is no result"
    seconds, work, timings = min(figures, key=lambda figure: figure[0])
    stages = ", ".join(f"{stage} {spent:.2f}" for stage, spent in timings.items())
    print(f"{options.recipe}: {seconds:.2f} s ({stages}); {work:.2f} s of processor time")
    # The volume itself was there before: it counts as one of the copies that scoring needs.
    print(f"    peak memory above idle: {1 + (peak.bytes - idle) / volume.array.nbytes:.2f} x the float32 volume")


def untrained(recipe: str) -> Model:
    """A model with the recipe's network as it is before training, which takes as long to score with."""
    import simulated

    from AnomalyDetectionLib.scoring.calibrate import calibrate
    from AnomalyDetectionLib.scoring.model import Model
    from AnomalyDetectionLib.scoring.registry import build
    from AnomalyDetectionLib.scoring.result import ModelIdentity
    from AnomalyTrainingLib.training.config import read_config

    config = read_config(recipe)
    detector = build(config.detector, config.input.spec(), config.options)
    calibration = calibrate(detector, None, [simulated.head(20), simulated.head(21)], device="cpu")
    return Model(ModelIdentity("bench", "1.0.0", "", config.detector), detector, calibration)


if __name__ == "__main__":
    main()
