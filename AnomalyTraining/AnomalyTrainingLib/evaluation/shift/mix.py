"""Differences between the cohort a model was made with and another one, column by column, class by class.

A standardised difference is that of the means in units of the spread within the cohorts, the root of the mean of their
variances (Austin, Statistics in Medicine 2009): it does not grow with the number of cases as a test statistic would.
Its interval is that of Hedges & Olkin (Statistical Methods for Meta-Analysis, 1985) and counts patients, not images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from scipy.stats import norm

from ..intervals import LEVEL, Figure
from .reference import OTHER, CohortSummary, Group, Numbers

NOT_GIVEN = "(not given)"

Row = dict[str, Any]


def standardised(here: tuple[float, float, int], there: tuple[float, float, int], level: float = LEVEL) -> Figure:
    """The standardised difference of two samples, each given by its mean, standard deviation and number of patients."""
    (mean, sd, n), (other, other_sd, m) = here, there
    if n < 1 or m < 1:
        return Figure.undefined("one of the cohorts has no such value")
    spread = math.sqrt((sd**2 + other_sd**2) / 2)
    if spread <= 1e-9 * max(1.0, abs(mean), abs(other)):
        if math.isclose(mean, other, rel_tol=1e-6, abs_tol=1e-9):
            return Figure(0.0, reason="the value is the same in all images of both")
        return Figure.undefined("the value does not vary within the cohorts, and differs between them")
    difference = (mean - other) / spread
    error = math.sqrt((n + m) / (n * m) + difference**2 / (2 * (n + m)))
    reach = float(norm.ppf((1 + level) / 2)) * error
    return Figure(difference, difference - reach, difference + reach)


def mix_rows(reference: CohortSummary, here: CohortSummary, level: float = LEVEL) -> list[Row]:
    """Rows on age, sex, view and the like, for each class that both cohorts have."""
    return [row for word, there, now in _classes(reference, here) for row in _mix(word, there, now, level)]


def image_rows(reference: CohortSummary, here: CohortSummary, level: float = LEVEL) -> list[Row]:
    """Rows on intensities and sizes of images, for each class that both cohorts have."""
    return [
        _number_row(word, name, there.images[name], now.images[name], there, now, level)
        for word, there, now in _classes(reference, here)
        for name in there.images
        if name in now.images
    ]


def _classes(reference: CohortSummary, here: CohortSummary) -> Iterator[tuple[str, Group, Group]]:
    for word, there, now in (
        ("normal", reference.normal, here.normal),
        ("abnormal", reference.abnormal, here.abnormal),
    ):
        if there.cases and now.cases:
            yield word, there, now


def _mix(word: str, there: Group, now: Group, level: float) -> Iterator[Row]:
    for name in sorted(there.numbers.keys() & now.numbers.keys()):
        yield _number_row(word, name, there.numbers[name], now.numbers[name], there, now, level)
    for name in sorted(there.counts.keys() & now.counts.keys()):
        for value in _values(there.counts[name], now.counts[name]):
            yield _share_row(word, name, value, there, now, level)
    for name in sorted(there.numbers.keys() | there.counts.keys() | now.numbers.keys() | now.counts.keys()):
        if any(_known(group, name) < group.cases for group in (there, now)):
            yield _share_row(word, name, NOT_GIVEN, there, now, level)


def _values(there: Mapping[str, int], now: Mapping[str, int]) -> list[str]:
    found = sorted({*there, *now} - {OTHER})
    return found + ([OTHER] if OTHER in there or OTHER in now else [])


def _known(group: Group, name: str) -> int:
    numbers = group.numbers.get(name)
    return numbers.known if numbers is not None else sum(group.counts.get(name, {}).values())


def _number_row(word: str, name: str, old: Numbers, new: Numbers, there: Group, now: Group, level: float) -> Row:
    figure = standardised(
        (new.mean, new.sd, _patients(now, new.known)), (old.mean, old.sd, _patients(there, old.known)), level
    )
    return {
        "class": word,
        "column": name,
        "value": None,
        "reference": round(old.mean, 6),
        "reference_sd": round(old.sd, 6),
        "here": round(new.mean, 6),
        "here_sd": round(new.sd, 6),
        "difference": figure.to_json(),
    }


def _share_row(word: str, name: str, value: str, there: Group, now: Group, level: float) -> Row:
    """Of the share of a value; half a case is added to each side, so that none at all has a spread too."""
    shares, sides = [], []
    for group in (now, there):
        if value == NOT_GIVEN:
            count, cases = group.cases - _known(group, name), group.cases
        else:
            count, cases = group.counts[name].get(value, 0), _known(group, name)
        smooth = (count + 0.5) / (cases + 1)
        shares.append(round(count / cases, 6) if cases else None)
        sides.append((smooth, math.sqrt(smooth * (1 - smooth)), _patients(group, cases)))
    return {
        "class": word,
        "column": name,
        "value": value,
        "reference": shares[1],
        "reference_sd": None,
        "here": shares[0],
        "here_sd": None,
        "difference": standardised(sides[0], sides[1], level).to_json(),
    }


def _patients(group: Group, known: int) -> int:
    """Patients behind so many cases, as far as the cases of all are spread alike."""
    return min(known, math.ceil(group.patients * known / group.cases)) if group.cases else 0
