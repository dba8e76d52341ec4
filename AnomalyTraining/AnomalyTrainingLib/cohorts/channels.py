"""Which of several channels a case has (T1, FLAIR) is the one that is used: never taken silently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from AnomalyDetectionLib.errors import InputError

from .manifest import DEFAULT_CHANNEL, Cohort


def with_channel(cohort: Cohort, wanted: Sequence[str], *, who: str, mend: str) -> Cohort:
    """The cohort whose cases have the one channel that is used.

    Parameters
    ----------
    wanted
        The channel that a configuration or a model names, or nothing where it names none: then a cohort of a single
        channel is taken as it is, whatever that is called.
    who, mend
        Of the error's sentence: who names the channel, and what to do about it.

    Raises
    ------
    InputError
        If the cohort has no such channel, or several and none is named.
    """
    there = cohort.channels
    if not there or tuple(wanted) == there or (len(there) == 1 and not wanted):
        return cohort
    if not wanted:
        raise InputError(
            f"{cohort.path}: its cases have the channels {', '.join(there)}, and {who} names none; {mend}."
        )
    (channel,) = wanted
    if channel not in there:
        have = f"the channel{'s' * (len(there) > 1)} {', '.join(there)}"
        raise InputError(f"{cohort.path}: its cases have {have}, and {who} names {channel!r}; {mend}.")
    cases = tuple(replace(case, images={channel: case.images[channel]}) for case in cohort)
    return replace(cohort, cases=cases)


def channel_of_config(cohort: Cohort, channels: Sequence[str]) -> Cohort:
    """The cohort with the channel that a configuration (`input.channels`) chooses.

    Raises
    ------
    InputError
        If the cohort has several channels and none is chosen, or not the chosen one.
    """
    return with_channel(
        cohort, channels, who="`input.channels`", mend="choose one, as in `--set input.channels=[NAME]`"
    )


def channel_of_model(cohort: Cohort, channels: Sequence[str]) -> Cohort:
    """The cohort with the channel that a model was made for.

    A model of the plain channel fits a cohort of a single one, whatever that is called, and the other way round.

    Raises
    ------
    InputError
        If the cohort has several channels and none is the model's, or another one.
    """
    plain = DEFAULT_CHANNEL in (*cohort.channels, *channels) and len(cohort.channels) == 1
    columns = " or ".join(f"'image_{name}'" if name != DEFAULT_CHANNEL else "'image'" for name in channels)
    return with_channel(
        cohort, () if plain else channels, who="the model", mend=f"give a manifest with the column {columns}"
    )
