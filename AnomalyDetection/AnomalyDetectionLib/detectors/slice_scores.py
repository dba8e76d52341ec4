"""One score of a volume from those of its slices."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from AnomalyDetectionLib.errors import InputError

Slices = Literal["mean", "max", "top"]

TOP_SHARE = 0.1
"""Share of a volume's slices whose mean is its score with `slices: top`."""


def pooled(scores: Tensor, slices: Slices) -> Tensor:
    """The mean of the slices' scores (N,), their largest, or the mean of the highest tenth; shape ()."""
    if slices == "mean":
        return scores.mean()
    count = 1 if slices == "max" else max(1, round(TOP_SHARE * scores.numel()))
    return scores.topk(count).values.mean()


def check_slices(slices: str, detector: str) -> None:
    """Refuse an unknown way of pooling.

    Raises
    ------
    InputError
        Naming the detector and the ways there are.
    """
    if slices not in get_args(Slices):
        raise InputError(f"{detector}: slices {slices!r} is none of {', '.join(get_args(Slices))}.")
