"""Numbers on the command line that several verbs take."""

from __future__ import annotations

from AnomalyDetectionLib.errors import InputError


def check_seed(seed: int) -> None:
    """Refuse a negative seed.

    Raises
    ------
    InputError
        If it is one.
    """
    if seed < 0:
        raise InputError(f"--seed is a whole number from 0, not {seed}.")
