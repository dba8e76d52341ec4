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

import torch

from AnomalyDetectionLib.cli.main import main

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
