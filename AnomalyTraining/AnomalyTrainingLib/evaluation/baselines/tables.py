"""Logistic regression on a few numbers of a case, fitted with scikit-learn and kept as plain arrays."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.scoring.calibration import conformal_p_value
from AnomalyDetectionLib.scoring.contract import InputSpec
from AnomalyDetectionLib.scoring.covariates import as_number
from AnomalyDetectionLib.scoring.prepare import as_normal

Row = Mapping[str, float | str]
"""Values of a case by column; a column that is missing is left out."""

MOST_CATEGORIES = 20
LEAST_CASES = 2
"""A category that fewer cases have counts as "another"."""

_IDENTIFIER = re.compile(
    r"(^|[^a-z])(id|ids|uid|guid|uuid|mrn|name|names|accession|filename|file|files|path|paths|url|hash|key)([^a-z]|$)|id$"
)
_TELLS_THE_LABEL = re.compile(
    r"label|lesion|diagnos|finding|patholog|disease|abnormal|anomal|tumou?r|report|outcome|target|class|impression"
)
_PERCENTILES = (1, 5, 25, 50, 75, 95, 99)


@dataclass(frozen=True)
class Column:
    """How one column becomes numbers.

    Attributes
    ----------
    categories
        Of a text column, one number each; () for a column of numbers.
    centre, scale
        Of a column of numbers; a missing one takes the centre.
    """

    name: str
    categories: tuple[str, ...] = ()
    centre: float = 0.0
    scale: float = 1.0

    def encode(self, value: float | str | None) -> list[float]:
        """The value's numbers, the last of them 1 where it is missing."""
        if self.categories:
            text = "" if value is None else str(value)
            return [*(float(text == category) for category in self.categories), float(value is None)]
        number = as_number(value)
        return [0.0, 1.0] if number is None else [(number - self.centre) / self.scale, 0.0]


@dataclass(frozen=True, eq=False)
class CaseClassifier:
    """A fitted logistic regression and what it says of the calibration normals.

    Attributes
    ----------
    weights
        float64, one per number that the columns make, in their order.
    normal_scores
        float64 (n,), scores of calibration normals, sorted; () where there were none.
    fitted_on
        Number of normal and abnormal cases.
    """

    columns: tuple[Column, ...]
    weights: NDArray[np.float64]
    intercept: float
    normal_scores: NDArray[np.float64]
    fitted_on: tuple[int, int]

    @classmethod
    def fit(cls, rows: Sequence[Row], labels: Sequence[int], normals: Sequence[Row] = ()) -> CaseClassifier:
        """Fit on cases of both classes (balanced, L2 penalty of 1 on standardised numbers).

        Raises
        ------
        ValueError
            If there is one class only, or no column to go by.
        """
        from sklearn.linear_model import LogisticRegression

        columns = columns_of(rows)
        if len(set(labels)) < 2:
            raise ValueError("there are cases of one class only")
        if not columns:
            raise ValueError("there is no column to go by")
        numbers = np.array([_encoded(columns, row) for row in rows])
        regression = LogisticRegression(class_weight="balanced", max_iter=1000).fit(numbers, labels)
        weights, intercept = regression.coef_[0].astype(np.float64), float(regression.intercept_[0])
        fitted = cls(columns, weights, intercept, np.zeros(0), (labels.count(0), labels.count(1)))
        return cls(columns, weights, intercept, np.sort([fitted.score(row) for row in normals]), fitted.fitted_on)

    def score(self, row: Row) -> float:
        """Log-odds that a case is abnormal, as far as balanced classes go."""
        return float(np.dot(self.weights, _encoded(self.columns, row)) + self.intercept)

    def p_value(self, score: float) -> float | None:
        """Conformal p-value, or None without calibration normals."""
        return conformal_p_value(score, self.normal_scores) if self.normal_scores.size else None

    def describe(self) -> str:
        """What it goes by and was fitted to, in a phrase."""
        names = ", ".join(column.name for column in self.columns)
        return f"{names}; fitted to {self.fitted_on[0]} normal and {self.fitted_on[1]} abnormal cases"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "columns": [asdict(column) for column in self.columns],
            "weights": self.weights.tolist(),
            "intercept": self.intercept,
            "normal_scores": self.normal_scores.tolist(),
            "fitted_on": list(self.fitted_on),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CaseClassifier:
        """The inverse of `to_json`; raises ValueError, KeyError or TypeError for what is none."""
        columns = tuple(Column(**{**column, "categories": tuple(column["categories"])}) for column in data["columns"])
        weights = np.asarray(data["weights"], dtype=np.float64)
        if weights.shape != (len(_encoded(columns, {})),) or not np.isfinite(weights).all():
            raise ValueError("the weights do not fit the columns")
        normals = np.asarray(data["normal_scores"], dtype=np.float64)
        healthy, ill = data["fitted_on"]
        return cls(columns, weights, float(data["intercept"]), normals, (int(healthy), int(ill)))


def columns_of(rows: Sequence[Row]) -> tuple[Column, ...]:
    """The columns that can say anything: of two values at least, and no text that differs nearly everywhere (names)."""
    names = sorted({name for row in rows for name in row})
    made = (_column(name, [row[name] for row in rows if name in row], len(rows)) for name in names)
    return tuple(column for column in made if column is not None)


def _column(name: str, values: Sequence[float | str], rows: int) -> Column | None:
    numbers = [number for value in values if (number := as_number(value)) is not None]
    if len(numbers) >= 0.8 * len(values):
        centre, scale = float(np.mean(numbers)), float(np.std(numbers))
        if scale > 1e-9 * max(1.0, abs(centre)):
            return Column(name, centre=centre, scale=scale)
        return Column(name, centre=centre) if len(values) < rows else None  # whether it is there may say something
    counts = Counter(str(value) for value in values)
    common = sorted(text for text, count in counts.most_common(MOST_CATEGORIES) if count >= LEAST_CASES)
    if not common or len(counts) > 0.5 * len(values) + 1:
        return None
    constant = len(counts) == 1 and len(values) == rows
    return None if constant else Column(name, tuple(common))


def covariates_of(covariates: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The covariates the metadata baseline may use, and those it may not with the reason."""
    used, left_out = {}, {}
    for name, value in covariates.items():
        if _IDENTIFIER.search(name.lower()):
            left_out[name] = "it identifies people or files"
        elif _TELLS_THE_LABEL.search(name.lower()):
            left_out[name] = "it may tell the label"
        else:
            used[name] = value
    return used, left_out


def statistics_of(volume: Volume, spec: InputSpec) -> dict[str, float]:
    """Intensity statistics and size of an image: what a glance at the histogram tells.

    By the spec's intensity and foreground rules, on the image's own grid: no alignment is needed.
    """
    image, foreground, _ = as_normal(volume, spec)
    values = image[foreground].astype(np.float64)
    x, y, z = volume.spacing
    row = {"mean": float(values.mean()), "sd": float(values.std())}
    row |= {f"p{level}": float(q) for level, q in zip(_PERCENTILES, np.percentile(values, _PERCENTILES), strict=True)}
    row["skewness"] = float((((values - row["mean"]) / max(row["sd"], 1e-9)) ** 3).mean())
    row["size"] = float(values.size * x * y * z)
    row["share"] = values.size / foreground.size
    return row


def out_of_fold(
    rows: Sequence[Row], labels: Sequence[int], groups: Sequence[str], folds: int = 5
) -> list[float] | None:
    """Each case's score by a regression that saw nobody of its group; None where some fold would lack a class.

    For cases that the regression itself would be fitted on.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    members: dict[int, set[str]] = defaultdict(set)
    for label, group in zip(labels, groups, strict=True):
        members[label].add(group)
    count = min(folds, *(len(members[label]) for label in (0, 1)))
    if count < 2:
        return None
    scores = [0.0] * len(rows)
    split = StratifiedGroupKFold(count, shuffle=True, random_state=0)
    for train, test in split.split(np.zeros(len(rows)), labels, groups):
        if len({labels[n] for n in train}) < 2:
            return None
        fitted = CaseClassifier.fit([rows[n] for n in train], [labels[n] for n in train])
        for n in test:
            scores[n] = fitted.score(rows[n])
    return scores


def scores_as_new(
    rows: Sequence[Row], labels: Sequence[int], patients: Sequence[str], normals: Sequence[tuple[Row, str, int]]
) -> NDArray[np.float64]:
    """Scores of normals that the regression itself was fitted on, each by one that saw nobody of its fold.

    Parameters
    ----------
    rows, labels, patients
        What the regression is fitted on.
    normals
        Row, patient and fold of each.

    Returns
    -------
    Sorted, (n,).

    Raises
    ------
    ValueError
        If what is left without a fold is of one class only, or has no column to go by.
    """
    scores = []
    for fold in sorted({fold for *_, fold in normals}):
        held = {patient for _, patient, of in normals if of == fold}
        rest = [n for n, patient in enumerate(patients) if patient not in held]
        mine = [row for row, _, of in normals if of == fold]
        scores.append(CaseClassifier.fit([rows[n] for n in rest], [labels[n] for n in rest], mine).normal_scores)
    return np.sort(np.concatenate(scores))


def _encoded(columns: Sequence[Column], row: Row) -> list[float]:
    return [number for column in columns for number in column.encode(row.get(column.name))]
