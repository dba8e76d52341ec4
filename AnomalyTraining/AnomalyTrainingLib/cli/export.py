"""Make the bundle of a training run that has ended.

The bundle is one folder that the command line, Slicer and Python score with; it can be copied to another machine.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `slicer-anomaly export`."""
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="folder of a training run")
    parser.add_argument("--out", metavar="BUNDLE", type=Path, required=True, help="the bundle's folder; must not exist")


def run(args: argparse.Namespace) -> int:
    """Export; returns the exit code."""
    from AnomalyTrainingLib.training.run import export

    model = export(args.run_folder, args.out)
    print(f"{model.identity.id} {model.identity.version} (SHA-256 {model.identity.sha256[:16]}…) is in {args.out}")
    return 0
