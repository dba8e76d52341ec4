"""What a model's bundle keeps of the cohort it was made with: how its cases and images are distributed, nobody's row.

It lies among the bundle's attachments, which scoring neither reads nor needs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.models.manifest import ATTACHED, read_attachments
from AnomalyDetectionLib.scoring.contract import InputSpec
from AnomalyDetectionLib.scoring.covariates import as_number
from AnomalyDetectionLib.scoring.model import Model

from ...cohorts.manifest import Case, Cohort, load_case_volume
from ..baselines.tables import MOST_CATEGORIES, covariates_of, statistics_of
from ..schema import fault

SCHEMA = "slicer-anomaly/cohort-summary/1"
"""Of the attached file; see `schemas/cohort_summary.schema.json`."""

NAME = f"{ATTACHED}cohort.json"
BUNDLE = "the model's bundle"
WORDS = ("normal", "abnormal")
OTHER = "(others)"
LEAST_CASES = 2
"""A value that fewer cases have is not kept: it might tell who they are."""

SEEN = ("train", "calibrate", "validate")
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
_STORED = (5, 50, 95)

ImageRow = Mapping[str, float]
"""Numbers of one image: see `image_row`."""


def image_row(volume: Volume, spec: InputSpec, statistics: Mapping[str, float] | None = None) -> dict[str, float]:
    """Intensities as they are stored and as the model is given them, and the size of voxels and image.

    Parameters
    ----------
    statistics
        `statistics_of` this volume, where it has been worked out already.
    """
    made = statistics_of(volume, spec) if statistics is None else statistics
    given = {f"given {name}": made[name] for name in ("mean", "sd", "p5", "p50", "p95", "skewness")}
    stored = np.percentile(volume.array, _STORED)
    row = {f"stored p{level}": float(value) for level, value in zip(_STORED, stored, strict=True)} | given
    row["foreground share"] = made["share"]
    for axis, (count, size) in enumerate(zip(volume.shape[::-1], volume.spacing, strict=True)):
        if count > 1:
            row[f"voxels along {'ijk'[axis]}"] = float(count)
            if volume.spacing_known:
                row[f"voxel size along {'ijk'[axis]} (mm)"] = float(size)
    return row


@dataclass(frozen=True)
class Numbers:
    """How a column of numbers is distributed; `quantiles` at `LEVELS`."""

    known: int
    mean: float
    sd: float
    quantiles: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Numbers:
        """Of one value or more."""
        array = np.asarray(values, dtype=np.float64)
        sd = float(array.std(ddof=1)) if array.size > 1 else 0.0
        return cls(array.size, float(array.mean()), sd, tuple(float(q) for q in np.quantile(array, LEVELS)))


@dataclass(frozen=True)
class Group:
    """The normal or the abnormal cases of a cohort.

    Attributes
    ----------
    numbers
        Column to its distribution.
    counts
        Column of words to the number of cases with each word; rare ones are counted together.
    images
        Feature of `image_row` to its distribution, over the images that were read.
    """

    cases: int
    patients: int
    numbers: Mapping[str, Numbers] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    images: Mapping[str, Numbers] = field(default_factory=dict)

    @classmethod
    def of(cls, patients: Sequence[str], covariates: Sequence[Mapping[str, str]], images: Sequence[ImageRow]) -> Group:
        """Of cases with these patients and covariates, one of each a case, and the images that were read of them."""
        numbers, counts = {}, {}
        allowed = [covariates_of(row)[0] for row in covariates]
        for name in sorted({name for row in allowed for name in row}):
            values = [row[name] for row in allowed if name in row]
            found = [number for value in values if (number := as_number(value)) is not None]
            if len(found) >= 0.8 * len(values):
                numbers[name] = Numbers.of(found)
            elif len(set(values)) <= MOST_CATEGORIES:
                counts[name] = _without_rare(Counter(values))
        features = sorted({name for row in images for name in row})
        shown = {name: Numbers.of([row[name] for row in images if name in row]) for name in features}
        return cls(len(patients), len(set(patients)), numbers, counts, shown)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Group:
        """Of a checked entry of the file."""

        def numbers(table: Mapping[str, Any]) -> dict[str, Numbers]:
            return {name: Numbers(**{**row, "quantiles": tuple(row["quantiles"])}) for name, row in table.items()}

        return cls(
            data["cases"], data["patients"], numbers(data["numbers"]), dict(data["counts"]), numbers(data["images"])
        )

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""

        def plain(table: Mapping[str, Numbers]) -> dict[str, Any]:
            return {name: {**vars(row), "quantiles": list(row.quantiles)} for name, row in table.items()}

        counts = {name: dict(values) for name, values in self.counts.items()}
        return {
            "cases": self.cases,
            "patients": self.patients,
            "numbers": plain(self.numbers),
            "counts": counts,
            "images": plain(self.images),
        }


def _without_rare(counts: Counter[str]) -> dict[str, int]:
    kept = {value: count for value, count in sorted(counts.items()) if count >= LEAST_CASES}
    rare = counts.total() - sum(kept.values())
    return kept | ({OTHER: rare} if rare else {})


@dataclass(frozen=True)
class CohortSummary:
    """The cases a model was made with; `source` says in a phrase where that is known from."""

    normal: Group
    abnormal: Group
    source: str = BUNDLE

    @classmethod
    def of(cls, cases: Sequence[Case], images: Mapping[str, ImageRow], source: str = BUNDLE) -> CohortSummary:
        """Of cases and, by case name, their images as far as they were read."""
        groups = []
        for label in (0, 1):
            members = [case for case in cases if case.label == label]
            rows = [images[case.case] for case in members if case.case in images]
            groups.append(Group.of([c.patient for c in members], [c.covariates for c in members], rows))
        return cls(groups[0], groups[1], source)

    def to_bytes(self) -> bytes:
        """The attached file."""
        data = {"schema": SCHEMA, **{word: getattr(self, word).to_json() for word in WORDS}}
        if found := fault(data, "cohort_summary"):
            raise ValueError(f"the summary of the cohort would not agree with its schema: {found}")
        return (json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, content: bytes, place: str) -> CohortSummary:
        """The inverse of `to_bytes`; `place` is for messages.

        Raises
        ------
        InputError
            If it is not what this version writes.
        """
        try:
            data = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{place}: the summary of the training cohort is no JSON; make the model again."
            ) from error
        if found := fault(data, "cohort_summary"):
            raise InputError(
                f"{place}: the summary of the training cohort is not of this version ({found}); make the model again, "
                "or name its manifest with --reference."
            )
        return cls(Group.from_json(data["normal"]), Group.from_json(data["abnormal"]))


def stored_summary(model: Model) -> CohortSummary | None:
    """What the bundle of a model keeps of its cohort; None where it keeps nothing, as of earlier versions.

    Raises
    ------
    InputError
        If a file of the bundle was changed or is none of this version's.
    """
    files = dict(model.attachments) or (read_attachments(model.path) if model.path is not None else {})
    return CohortSummary.from_bytes(files[NAME], str(model.path or "the model")) if NAME in files else None


def summary_of_manifest(
    cohort: Cohort, spec: InputSpec, progress: Callable[[float], None] = lambda share: None
) -> CohortSummary:
    """The same from the manifest that a model was made from; its images are read.

    Raises
    ------
    InputError
        If no case is in a split that models are made with, or an image cannot be read.
    """
    cases = cohort.of(split=SEEN).cases
    if not cases:
        raise InputError(
            f"{cohort.path}: no case is in the splits {', '.join(SEEN)}; give the manifest the model was made from."
        )
    images = {}
    for done, case in enumerate(cases, 1):
        images[case.case] = image_row(load_case_volume(case), spec)
        progress(done / len(cases))
    return CohortSummary.of(cases, images, cohort.path.name)
