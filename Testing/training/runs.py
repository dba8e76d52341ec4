"""Training runs by the command line: in this process, or in one that is stopped in the middle of its work."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import simulated
import torch

from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.imaging.write import write_volume

STOPPED = """
import os, sys, torch
from AnomalyDetectionLib.cli.main import main
from AnomalyDetectionLib.cli.progress import Progress

stage, step, sent = sys.argv.pop(1), int(sys.argv.pop(1)), int(sys.argv.pop(1))
report, steps = Progress.__call__, []

def report_and_stop(self, at, fraction):
    report(self, at, fraction)
    steps.append(at)
    if steps.count(stage) == step:
        os.kill(os.getpid(), sent)

Progress.__call__ = report_and_stop
torch.set_num_threads(1)
raise SystemExit(main())
"""


def write_cohort(folder: Path, config: str) -> Path:
    """A manifest of three heads to train on, one to validate on and three to calibrate on, beside `config.yaml`."""
    lines = ["case,patient,image,label,split"]
    for n, split in enumerate(["train"] * 3 + ["validate"] + ["calibrate"] * 3):
        write_volume(simulated.head(n), folder / f"head{n}.nii.gz")
        lines.append(f"n{n},p{n},head{n}.nii.gz,0,{split}")
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n")
    (folder / "config.yaml").write_text(config)
    return folder / "cohort.csv"


def train_arguments(cohort: Path, out: Path) -> list[str]:
    """`train` with the configuration that lies beside a manifest, on the CPU."""
    config = cohort.with_name("config.yaml")
    return ["train", str(config), "--cohort", str(cohort), "--out", str(out), "--device", "cpu"]


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    """The state of the detector that a run made."""
    return torch.load(run / "model" / "models" / "model.pt", weights_only=True)


def run_here(arguments: Sequence[str]) -> list[dict]:
    """Run the command line to its end, on one thread as in `run_stopped`, and return its events."""
    said, threads = io.StringIO(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with contextlib.redirect_stdout(said):
            assert main([*arguments, "--progress", "json"]) == 0
    finally:
        torch.set_num_threads(threads)
    return [json.loads(line) for line in said.getvalue().splitlines()]


def run_stopped(arguments: Sequence[str], stage: str, sent: signal.Signals, step: int = 3) -> int:
    """Run the command line in a process that gets a signal at that step of the stage, and return its exit code.

    It sends the signal itself: on a busy machine a signal from here would come too late.
    """
    command = [sys.executable, "-c", STOPPED, stage, str(step), str(int(sent)), *arguments, "--progress", "none"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.run(command, stderr=subprocess.DEVNULL, env=environment, check=False).returncode
