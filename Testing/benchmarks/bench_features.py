"""Time and memory of `features` on heads of 240 x 240 x 155 voxels (BraTS's size): fitting to many, scoring one.

    python Testing/benchmarks/bench_features.py [--volumes 200] [--reach 1] [--threads 2]

Scoring is allowed 60 s on two cores, fitting to 200 volumes 4 GB, and no more for 200 than for 50.  For each number of
volumes a process of its own is fitted to them and says what it needed, with what it had needed up to some of them; then
it scores one more, through the whole of `Scorer.score`.  Beyond 10 % of other programs' work the seconds are marked as
doubtful.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING

from bench_training import QUIET, clocks, machine_seconds, since
from bench_zscore import big_head

if TYPE_CHECKING:
    from AnomalyDetectionLib.scoring.contract import Batch, Detector

HEADS = 4
"""Different heads; further volumes are these with another gain."""


def main() -> None:
    """Measure each number of volumes and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=int, nargs="+", default=[200], help="that a detector is fitted to")
    parser.add_argument("--reach", type=int, default=1, help="as the detector takes it; -1 searches a coreset")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    for count in options.volumes:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            pool.submit(measure, count, options.reach, options.threads).result()


def measure(count: int, reach: int, threads: int) -> None:
    """Fit and score in this process, and print the figures."""
    import torch

    from AnomalyDetectionLib.scoring.contract import InputSpec
    from AnomalyDetectionLib.scoring.registry import build

    torch.set_num_threads(threads)
    spec = InputSpec("slices", ("MR",), "mr-robust", spacing=(1.0, 1.0, 1.0), size=(240, 240))
    detector = build("features", spec, {"reach": reach}).eval()
    print(f"before: {peak():.2f} GB", flush=True)
    begun = time.process_time()
    for number in range(count):
        detector.absorb(volume(number, detector))
        if number + 1 in (10, 25, 50, 100):
            print(f"    {number + 1} volumes absorbed: {peak():.2f} GB at most", flush=True)
    detector.finish()
    work = time.process_time() - begun
    print(f"fitted to {count} volumes: {peak():.2f} GB at most, {work:.0f} s of processor time", flush=True)
    score(detector.requires_grad_(False))


def score(detector: Detector) -> None:
    """Score one head, warm, and print what it took."""
    import simulated

    from AnomalyDetectionLib.scoring.calibrate import calibrate
    from AnomalyDetectionLib.scoring.model import Model
    from AnomalyDetectionLib.scoring.result import ModelIdentity
    from AnomalyDetectionLib.scoring.scorer import Scorer

    calibration = calibrate(detector, None, [simulated.head(20), simulated.head(21)], device="cpu")
    scorer = Scorer(Model(ModelIdentity("bench", "1.0.0", "", "features"), detector, calibration), "cpu")
    head = big_head(HEADS)
    begun, busy = clocks(), machine_seconds()
    result = scorer.score(head)
    wall, own = since(begun)
    others = max(0.0, (machine_seconds() - busy - own) / (wall * (os.cpu_count() or 1)))
    assert result.rarity.array.std() > 0, "a constant map is no result"
    stages = ", ".join(f"{stage} {spent:.1f}" for stage, spent in result.timings.items())
    print(f"scored one in {wall:.1f} s ({stages}); {own:.1f} s of processor time; {peak():.2f} GB at most")
    doubtful = "" if others <= QUIET else ": the seconds on the clock are doubtful"
    print(f"other programs took {others:.0%} of the machine meanwhile{doubtful}", flush=True)


def volume(number: int, detector: Detector) -> Batch:
    """One of the heads as the detector is given it, with a gain of its own."""
    import torch

    from AnomalyDetectionLib.scoring.contract import Batch
    from AnomalyDetectionLib.scoring.prepare import prepare

    if number % HEADS not in _prepared:
        _prepared[number % HEADS] = prepare(big_head(number % HEADS), detector.spec, None).items()
    batch = _prepared[number % HEADS]
    gain = 0.9 + 0.2 * torch.rand(1, generator=torch.Generator().manual_seed(number))
    return Batch((batch.image * gain).clamp_(0, 1), batch.foreground)


_prepared: dict[int, Batch] = {}


def peak() -> float:
    """Most memory that this process has held so far, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


if __name__ == "__main__":
    main()
