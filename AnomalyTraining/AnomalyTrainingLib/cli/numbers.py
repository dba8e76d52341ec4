"""Numbers on the command line that several verbs take."""

from __future__ import annotations

import argparse

from AnomalyDetectionLib.errors import InputError


def add_skip_unreadable_argument(parser: argparse.ArgumentParser) -> None:
    """--skip-unreadable."""
    parser.add_argument(
        "--skip-unreadable",
        type=int,
        default=0,
        metavar="N",
        help="leave out up to N cases whose image or mask cannot be read, and name them (default: 0, any ends the run)",
    )


def check_seed(seed: int) -> None:
    """Refuse a negative seed.

    Raises
    ------
    InputError
        If it is one.
    """
    if seed < 0:
        raise InputError(f"--seed is a whole number from 0, not {seed}.")
