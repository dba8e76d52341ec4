"""How much of its time training spends on steps: the step rate of the whole loop against a bare one.

    python Testing/benchmarks/bench_training.py [RECIPE] [--steps 12] [--threads 2]

The loop is `training.engine.fit_by_gradient` with everything that belongs to it: slices read from disk, augmented, put
into batches, trained on, reported and logged.  The bare one is forward, backward and optimiser on the same network and
one batch that never changes.  Both run in one process and take turns, step by step, so that they meet the same machine;
the ratio is that of the medians, in time on the clock and in processor time.  Beyond 10 % of other programs' work the
figures are marked as doubtful.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("AnomalyDetection", "AnomalyTraining", "Testing")]

if TYPE_CHECKING:
    from AnomalyDetectionLib.scoring.contract import Detector, InputSpec
    from AnomalyTrainingLib.training.data import Batches, PreparedCases

WARM_UP, SLICES = 4, 256
QUIET = 0.1


def main() -> None:
    """Measure and print one line a figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="autoencoder_brain")
    parser.add_argument("--steps", type=int, default=12, help="steps of each kind that are counted")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    import torch

    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        loop, bare, others = measure(options.recipe, options.steps, Path(folder))
    for name, index in (("on the clock", 0), ("of processor time", 1)):
        ours, least = median(pair[index] for pair in loop), median(pair[index] for pair in bare)
        print(f"{name}: {ours:.3f} s a step of the loop, {least:.3f} s a bare one: ratio {least / ours:.2f}")
    quiet = others <= QUIET
    print(
        f"other programs took {others:.0%} of the machine meanwhile" + ("" if quiet else ": the figures are doubtful")
    )


def measure(recipe: str, steps: int, folder: Path) -> tuple[list, list, float]:
    """(seconds, processor seconds) of every step of the loop and of the bare one, and other programs' share."""
    import torch

    from AnomalyDetectionLib.scoring.registry import build
    from AnomalyTrainingLib.training.config import read_config
    from AnomalyTrainingLib.training.data import TrainingSlices, ValidationSlices
    from AnomalyTrainingLib.training.engine import fit_by_gradient

    config = read_config(recipe)
    spec = config.input.spec()
    settings = config.training.model_copy(update={"epochs": 1 + (WARM_UP + steps) * config.training.batch // SLICES})
    detector = build(config.detector, spec, config.options)
    kept, kept_for_validation = prepared(spec, folder, SLICES), prepared(spec, folder, settings.batch)
    training = taught(detector, TrainingSlices(kept, settings.augment, 0), kept)
    bare = Bare(build(config.detector, spec, config.options), training, settings)
    loop_times: list[tuple[float, float]] = []
    bare_times: list[tuple[float, float]] = []
    mark = [clocks()]
    step = [0, -1]

    def turn(stage: str, fraction: float) -> None:
        """Called by the loop after every step: note its time, and let the bare one have its turn."""
        step[0] += 1
        epoch = int(stage.rpartition(" ")[2])
        first_of_epoch = epoch != step[1]  # its time holds the validation and the checkpoint before it
        step[1] = epoch
        counted = step[0] > WARM_UP and not first_of_epoch
        if counted:
            loop_times.append(since(mark[0]))
        before = clocks()
        bare.step()
        if counted:
            bare_times.append(since(before))
        mark[0] = clocks()

    begun, busy = clocks(), machine_seconds()
    fit_by_gradient(
        detector,
        training,
        taught(detector, ValidationSlices(kept_for_validation), kept_for_validation),
        settings,
        folder / "run",
        device=torch.device("cpu"),
        seed=0,
        progress=turn,
    )
    wall, own = since(begun)
    others = (machine_seconds() - busy - own) / (wall * (os.cpu_count() or 1))
    return loop_times, bare_times, max(0.0, others)


def taught(detector: Detector, items: Batches, kept: PreparedCases) -> Batches:
    """The items with what the detector learns from beside them."""
    from AnomalyTrainingLib.training.labelled import WithLabels
    from AnomalyTrainingLib.training.synthetic_data import WithSyntheticLesions

    if detector.supervision == "labels":
        case = SimpleNamespace(label=1, covariates={})
        return WithLabels(items, kept, [case], detector.columns)  # type: ignore[list-item]
    if detector.supervision == "synthetic":
        return WithSyntheticLesions(items, 0, "train", detector.spec.neighbours, detector.context_images)
    return items


class Bare:
    """Forward, backward and optimiser, and nothing else."""

    def __init__(self, detector: Any, training: Any, settings: Any) -> None:
        import torch

        self.detector = detector.train()
        self.optimiser = torch.optim.Adam(detector.parameters(), lr=settings.learning_rate)
        self.batch = training.__getitems__([(0, index) for index in range(settings.batch)])

    def step(self) -> None:
        """One step on the batch that never changes."""
        self.optimiser.zero_grad()
        self.detector.loss(self.batch).backward()
        self.optimiser.step()


def prepared(spec: InputSpec, folder: Path, count: int) -> PreparedCases:
    """Slices of the recipe's size with a smooth body in them, on disk as `PreparedCases` keeps them."""
    import numpy as np

    from AnomalyTrainingLib.training.data import PreparedCases

    assert spec.size is not None
    rng = np.random.default_rng(0)
    rows, columns = (np.linspace(-1, 1, n) for n in spec.size)
    inside = (rows[:, None] / 0.8) ** 2 + (columns / 0.7) ** 2 < 1
    texture = rng.normal(0.5, 0.1, (count, len(spec.channels), *spec.size)).clip(0, 1)
    np.save(folder / f"{count}.image.npy", (texture * inside).astype(np.float16))
    np.save(folder / f"{count}.foreground.npy", np.broadcast_to(inside, (count, 1, *spec.size)))
    return PreparedCases([SimpleNamespace(case=str(count))], spec, None, folder)  # type: ignore[list-item]


def clocks() -> tuple[float, float]:
    """Time on the clock and processor time of this process, in seconds."""
    return time.perf_counter(), time.process_time()


def since(before: tuple[float, float]) -> tuple[float, float]:
    """What has passed on both clocks."""
    now = clocks()
    return now[0] - before[0], now[1] - before[1]


def machine_seconds() -> float:
    """Processor seconds that all programs of the machine have used; 0 where the system does not tell."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
    except OSError:
        return 0.0
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
