"""Options that say where a manifest goes and how its patients are split."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from AnomalyDetectionLib.cli.progress import add_progress_option
from AnomalyDetectionLib.errors import InputError

if TYPE_CHECKING:
    from ..cohorts.manifest import Case


_TOO_FEW_NORMALS = ("mood",)
"""Kinds whose own test set has too few normals to judge by: further ones join them."""


def add_out(parser: argparse.ArgumentParser) -> None:
    """`--out` and `--progress`."""
    parser.add_argument("--out", required=True, metavar="cohort.csv", help="the manifest to write")
    add_progress_option(parser)


def add_split(parser: argparse.ArgumentParser, *, published: str = "") -> None:
    """`--split` and what goes with it.

    Parameters
    ----------
    published
        What the data set calls its own test set, which `--split` then keeps.
    """
    kept = f"; {published} are the test" if published else ""
    parser.add_argument(
        "--split",
        action="store_true",
        help="assign splits by patient: normals 50 %% train, 20 %% calibrate, 15 %% validate, 15 %% test; patients "
        f"with an abnormal case half validate, half test{kept}",
    )
    parser.add_argument(
        "--supervised",
        action="store_true",
        help="with --split, for detectors that learn from labels or masks: patients with an abnormal case 70 %% train, "
        "15 %% validate, 15 %% test; normals 60 %% train, 10 %% calibrate, 15 %% validate, 15 %% test",
    )
    if published:
        parser.add_argument(
            "--own-test", action="store_true", help=f"with --split: {published} are split as all others are"
        )
    parser.add_argument(
        "--external",
        action="store_true",
        help="put all cases into the split external, for a cohort that models of other cohorts are judged on",
    )
    parser.add_argument(
        "--split-seed", type=int, default=0, metavar="N", help="another seed, another assignment (default 0)"
    )


def check_split(args: argparse.Namespace) -> None:
    """Refuse options that say how to split without --split.

    Raises
    ------
    InputError
        With what to add.
    """
    if args.external and args.split:
        raise InputError("--external puts all cases into one split: leave --split out.")
    for option in ("supervised", "own_test"):
        if getattr(args, option, False) and not args.split:
            raise InputError(f"--{option.replace('_', '-')} says how to split: add --split.")


def split(cases: Sequence[Case], args: argparse.Namespace) -> list[Case]:
    """The cases, split as the options say.

    Raises
    ------
    InputError
        If there are too few patients.
    """
    from ..cohorts.splits import assign_mixed, complete_splits

    if not args.split or getattr(args, "own_test", False):
        cases = [replace(case, split="external" if args.external else "") for case in cases]
    if not args.split:
        return list(cases)
    if getattr(args, "slices", False):
        return assign_mixed(cases, seed=args.split_seed)
    more = args.source_kind in _TOO_FEW_NORMALS
    return complete_splits(cases, seed=args.split_seed, supervised=args.supervised, more_normals=more)
