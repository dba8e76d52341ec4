"""The configuration that a verb works by: a file or recipe, and what is changed of it on the command line."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importing it takes a second: only once there is something to read
    from ..training.config import TrainConfig


def add_configuration_arguments(parser: argparse.ArgumentParser) -> None:
    """CONFIG, --set and --loss."""
    parser.add_argument("config", metavar="CONFIG", help="a YAML file or a shipped recipe's name, such as zscore_brain")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="changes",
        help="change a setting of the configuration, such as training.epochs=3 or options.latent=64; may be repeated",
    )
    parser.add_argument("--loss", metavar="NAME", help="short for --set options.loss=NAME, such as ssim")


def chosen_configuration(args: argparse.Namespace) -> TrainConfig:
    """The configuration that the arguments of `add_configuration_arguments` name.

    Raises
    ------
    InputError
        Naming the file and every key that is wrong.
    """
    from ..training.config import read_config

    return read_config(args.config, [*args.changes, *([f"options.loss={args.loss}"] if args.loss else [])])
