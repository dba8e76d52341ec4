"""Splits by a column such as `anatomy` or `site`: all cases with one value of it share a split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from AnomalyDetectionLib.errors import InputError

from .manifest import SPLITS, Case
from .splits import NORMAL_SHARES, dealt, hashed

NORMALS_ONLY = ("train", "calibrate")
"""Splits from which abnormal cases are left out: they stay in the manifest without a split."""

NORMALS_ONLY_SUPERVISED = ("calibrate",)
"""The same for detectors that learn from abnormal cases."""


def assign_groups(cases: Iterable[Case], column: str, *, seed: int = 0) -> list[Case]:
    """The same cases, each value of a column in one split, in the shares of `splits.NORMAL_SHARES`.

    Raises
    ------
    InputError
        If there are fewer values than splits, or a case has none.
    """
    cases = list(cases)
    groups = _groups(cases, column)
    if len(groups) < len(NORMAL_SHARES):
        raise InputError(
            f"{len(groups)} different values of {column!r} are too few to split by it: each of "
            f"{', '.join(NORMAL_SHARES)} needs one."
        )
    order = sorted(groups, key=lambda name: hashed(name, seed))
    return _assigned(cases, column, dealt(order, NORMAL_SHARES))


def assign_named_groups(
    cases: Iterable[Case], column: str, named: Mapping[str, Sequence[str]], *, supervised: bool = False
) -> list[Case]:
    """The same cases, split as said; those whose value is not named have no split.

    Parameters
    ----------
    named
        Split to values of the column, or patterns of them: ``{"train": ["head_0[1-7]"], "test": ["head_1*"]}``.
    supervised
        Abnormal cases are learnt from too: those of a value in train go to train.

    Raises
    ------
    InputError
        If a split is unknown, a pattern fits no value, or a value would be in two splits.
    """
    cases = list(cases)
    groups = _groups(cases, column)
    chosen: dict[str, str] = {}
    for split, patterns in named.items():
        if split not in SPLITS:
            raise InputError(f"There is no split {split!r}; known are {', '.join(SPLITS)}.")
        for pattern in patterns:
            fitting = [name for name in groups if fnmatchcase(name, pattern)]
            if not fitting:
                raise InputError(f"No {column} fits {pattern!r}; there are {', '.join(groups)}.")
            for name in fitting:
                if chosen.setdefault(name, split) != split:
                    raise InputError(f"The {column} {name!r} cannot be in both {chosen[name]} and {split}.")
    return _assigned(cases, column, chosen, NORMALS_ONLY_SUPERVISED if supervised else NORMALS_ONLY)


def _groups(cases: Sequence[Case], column: str) -> list[str]:
    if without := [case.case for case in cases if column not in case.covariates]:
        raise InputError(f"The case {without[0]!r} has no {column!r} to split by.")
    return sorted({case.covariates[column] for case in cases})


def _assigned(
    cases: Sequence[Case], column: str, chosen: Mapping[str, str], normals_only: Sequence[str] = NORMALS_ONLY
) -> list[Case]:
    def split_of(case: Case) -> str:
        split = chosen.get(case.covariates[column], "")
        return "" if case.label and split in normals_only else split

    return [replace(case, split=split_of(case)) for case in cases]
