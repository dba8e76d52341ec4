"""What a shift report says, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..plotting import interval_text, plain
from ..subgroups import UNKNOWN
from ..words import difference_text, listed
from .mix import NOT_GIVEN

NOTABLE = 0.25
"""A standardised difference from which groups are no longer alike (Stuart, Statistical Science 2010)."""

_MOST = 4
_CERTAIN = 0.05

Row = Mapping[str, Any]


def sentences(shift: Mapping[str, Any]) -> list[str]:
    """The report in words, the most telling of each part."""
    groups = shift["groups"]
    said = [
        *_case_mix(shift),
        *_images(shift),
        _scores(groups[0]),
        *_cost(shift),
        *_worst(shift),
        *_probability(groups[0]),
    ]
    small = [_name(row) for row in groups[1:] if "fewer than" in row["auroc"].get("reason", "")]
    if small:
        said.append(f"Too small to be judged, with fewer than 10 cases of a class: {listed(small)}.")
    return said


def _case_mix(shift: Mapping[str, Any]) -> list[str]:
    reference = shift["reference"]
    if reference is None:
        return [
            "The model's bundle does not say how its own cohort was made up: case mix and images cannot be compared; "
            "name the manifest it was made from with --reference."
        ]
    said = [
        f"Of this cohort {shift['prevalence']['here']:.0%} of the cases are abnormal; of the cohort that the model was "
        f"made with (known from {reference['source']}) it was {shift['prevalence']['reference']:.0%}."
    ]
    for word in ("normal", "abnormal"):
        rows = [row for row in shift["mix"] if row["class"] == word]
        if rows:
            said.append(_differences(rows, f"{word.capitalize()} cases", "case mix"))
    return said


def _images(shift: Mapping[str, Any]) -> list[str]:
    rows = [row for row in shift["images"] if row["class"] == "normal"]
    return [_differences(rows, "Images of normal cases", "images")] if rows else []


def _differences(rows: Sequence[Row], whose: str, what: str) -> str:
    notable = [row for row in rows if is_notable(row["difference"])]
    if not notable:
        return f"{whose} differ from those the model was made with in nothing notable that is known of the {what}."
    ordered = sorted(notable, key=lambda row: -_size(row["difference"]))
    columns = list(dict.fromkeys(row["column"] for row in ordered))
    firsts = [next(row for row in ordered if row["column"] == column) for column in columns[:_MOST]]
    more = f", and in {len(columns) - _MOST} more columns" if len(columns) > _MOST else ""
    return f"{whose} differ from those the model was made with in {listed([_difference(row) for row in firsts])}{more}."


def is_notable(figure: Row) -> bool:
    """Whether a standardised difference is at least `NOTABLE` and its interval leaves out 0."""
    if figure["value"] is None:
        return "differs between" in figure.get("reason", "")
    return abs(figure["value"]) >= NOTABLE and figure["low"] is not None and figure["low"] * figure["high"] > 0


def _size(figure: Row) -> float:
    return float("inf") if figure["value"] is None else abs(float(figure["value"]))


def _difference(row: Row) -> str:
    figure = row["difference"]
    by = difference_text(figure) if figure["value"] is not None else figure["reason"]
    if row["value"] is None:
        return f"{row['column']} ({row['here']:.3g} against {row['reference']:.3g} on average; {by})"
    what = f"{row['column']} not given" if row["value"] == NOT_GIVEN else f"{row['column']} {row['value']}"
    return f"{what} ({_percent(row['here'])} against {_percent(row['reference'])}; {by})"


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.0%}"


def _scores(everyone: Row) -> str:
    shift = everyone["score_shift"]
    if shift["distance"] is None:
        return f"Whether the scores of normals have moved cannot be told: {shift['reason']}."
    differ = "are not shown to differ" if shift["p_value"] >= _CERTAIN else "differ"
    return (
        f"Scores of normals {differ} from those of the calibration normals: median {plain(shift['median'])} against "
        f"{plain(shift['reference_median'])} (Kolmogorov-Smirnov distance {shift['distance']:.2f}, p = "
        f"{shift['p_value']:.2g} on one image a patient)."
    )


def _cost(shift: Mapping[str, Any]) -> list[str]:
    everyone, expected = shift["groups"][0], shift["expected_false_positive_rate"]
    figure = everyone["false_positive_rate"]
    if figure["value"] is None:
        return [f"What the threshold of cases costs here cannot be told: {figure['reason']}."]
    meant = "" if expected is None else f", where {expected:.0%} were to be expected"
    said = [f"The fixed threshold calls {interval_text(figure)} of the normal cases abnormal{meant}."]
    tested = [row for row in shift["groups"] if row["false_positive_p_value"] is not None]
    above = [
        f"{_name(row)} {interval_text(row['false_positive_rate'])}"
        for row in tested
        if row["false_positive_p_value"] < _CERTAIN / 2 / len(tested)  # one side, and all groups are looked at
    ]
    if above:
        said.append(f"That is too many, beyond chance, of {listed(above)}.")
    return said


def _worst(shift: Mapping[str, Any]) -> list[str]:
    worst = shift["worst"]
    if worst is None:
        return ["No two groups are large enough to compare how well cases are told apart in them."]
    row = next(r for r in shift["groups"] if (r["column"], r["value"]) == (worst["column"], worst["value"]))
    difference = row["auroc_difference"]
    said = f"Cases are told apart least well where {_name(row)}: AUROC {interval_text(row['auroc'])}"
    if difference["value"] is None or difference["low"] is None:
        return [f"{said}."]
    shown = difference["high"] < 0
    ending = "" if shown else ", which may be chance: the interval holds 0"
    return [
        f"{said}, {difference_text(difference)} against all other cases{ending}. It is the lowest of {worst['of']}."
    ]


def _probability(everyone: Row) -> list[str]:
    table = everyone["calibration"]
    if table is None:
        return []
    said = (
        f"The probabilities say that {table['expected']:.0%} of the cases are abnormal, and {table['observed']:.0%} are"
    )
    figure = table["intercept"]
    if figure["value"] is None or figure["low"] is None:
        return [f"{said}."]
    wrong = figure["low"] > 0 or figure["high"] < 0
    verdict = "they are wrong on the whole" if wrong else "no error on the whole is shown"
    return [f"{said}: {verdict} (log-odds off by {difference_text(figure)})."]


def _name(row: Row) -> str:
    if row["column"] is None:
        return "all cases"
    return f"{row['column']} is {'not given' if row['value'] == UNKNOWN else row['value']}"
