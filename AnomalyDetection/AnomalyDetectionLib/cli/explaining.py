"""`score --explain`: a map of what moved a classifier's score, beside its other results."""

from __future__ import annotations

import argparse

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.scoring.explaining import LABEL, METHODS, OF_A_LAYER, Explanation


def add_explain_options(parser: argparse.ArgumentParser) -> None:
    """Add `--explain` and `--explain-layer`."""
    parser.add_argument(
        "--explain",
        metavar="METHOD",
        help=f"for classifiers: also write a map of what moved the score ({LABEL}), by {', '.join(METHODS)}",
    )
    parser.add_argument(
        "--explain-layer",
        metavar="NAME",
        help=f"which layer of the network {' and '.join(OF_A_LAYER)} look at (default: the last one that makes maps)",
    )


def explanation_of(args: argparse.Namespace) -> Explanation | None:
    """What is asked for; None without `--explain`.

    Raises
    ------
    InputError
        If there is no such method, or a layer is named where none is looked at.
    """
    if args.explain is not None:
        return Explanation(args.explain, args.explain_layer)
    if args.explain_layer is not None:
        raise InputError("--explain-layer says where --explain looks; add --explain grad-cam, or leave it out.")
    return None
