"""Several evaluated models against each other, case by case, from their metrics.json."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from AnomalyDetectionLib import __version__
from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.imaging.write import atomically
from AnomalyDetectionLib.scoring.thresholds import LEVELS

from .comparison_plot import forest_plot
from .curves import Rows, Weights, decision_metrics, ranking_metrics
from .froc import lesion_metrics
from .intervals import LEAST_CLUSTERS, LEVEL, RESAMPLES, Bootstrap, verdict
from .metrics_file import read_metrics
from .pages import render
from .plots import model_name
from .records import CaseRecord, LesionRecord
from .summary import LOWER_IS_BETTER, clusters_behind
from .words import listed

SCHEMA = "slicer-anomaly/comparison/1"
"""Of comparison.json; see `schemas/comparison.schema.json`."""

FILES = ("comparison.json", "comparison.csv", "comparison.html")

COMPARED = {
    ("volume", "auroc"): "AUROC of cases",
    ("volume", "average_precision"): "average precision of cases",
    ("volume", "sensitivity"): "sensitivity at the fixed threshold",
    ("volume", "specificity"): "specificity at the fixed threshold",
    ("voxel", "average_precision"): "average precision of voxels (mean over cases)",
    ("voxel", "dice"): "Dice at the fixed threshold",
    ("lesion", "froc_mean"): "lesions found (mean of FROC)",
    ("lesion", "recall"): "lesions found at the threshold",
    ("lesion", "false_findings_per_normal"): "false findings per normal",
}
"""The figures that models are compared in: those that follow from single cases."""


@dataclass(frozen=True, eq=False)
class Evaluated:
    """The model of one evaluation.

    Attributes
    ----------
    name
        Unique among those that are compared.
    rows
        Case name to its row of `cases` in metrics.json.
    """

    name: str
    document: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, Any]]


def read_evaluations(folders: Sequence[Path]) -> list[Evaluated]:
    """Read what `evaluate` wrote into each folder.

    Raises
    ------
    InputError
        If one cannot be read or is given twice, or there are fewer than two.
    """
    if len(folders) < 2:
        raise InputError("A comparison needs at least two evaluations; give a second folder.")
    places = [folder.resolve() for folder in folders]
    if twice := [str(folder) for folder, place in zip(folders, places, strict=True) if places.count(place) > 1]:
        raise InputError(f"{twice[0]}: the same evaluation is given twice; give another one to compare it with.")
    documents = [read_metrics(folder) for folder in folders]
    names = _names(folders, documents)
    return [
        Evaluated(name, document, {row["case"]: row for row in document["cases"].get(model_name(document), [])})
        for name, document in zip(names, documents, strict=True)
    ]


def _names(folders: Sequence[Path], documents: Sequence[Mapping[str, Any]]) -> list[str]:
    """The models' names; with the folder's where two are alike, and a number where those are too."""
    models = [document["model"] for document in documents]
    names = [
        f"{model['id']} {model['version']}" if model else model_name(document)
        for model, document in zip(models, documents, strict=True)
    ]
    if len(set(names)) < len(names):
        names = [f"{name} ({folder.resolve().name})" for name, folder in zip(names, folders, strict=True)]
    if len(set(names)) < len(names):
        names = [f"{name} #{number}" for number, name in enumerate(names, start=1)]
    return names


def compare_evaluations(
    models: Sequence[Evaluated], *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> dict[str, Any]:
    """Figures of every model and paired differences of every two, on the cases that all have.

    Returns
    -------
    comparison.json as plain values.

    Raises
    ------
    InputError
        If the models were not judged on the same cases, or a case has another label, patient or cluster in one
        evaluation than in another.
    """
    common, notes = _common_cases(models)
    first = models[0].rows
    bootstrap = Bootstrap.of(
        [first[case]["cluster"] for case in common],
        [first[case]["label"] for case in common],
        resamples=resamples,
        level=level,
        seed=seed,
    )
    weights = bootstrap.weights([first[case]["cluster"] for case in common])
    samples = {model.name: _samples([model.rows[case] for case in common], weights) for model in models}
    behind = {key: _clusters([first[case] for case in common], *key) for key in COMPARED}
    return {
        "schema": SCHEMA,
        "software": {"name": "slicer-anomaly", "version": __version__},
        "cases": len(common),
        "normal": sum(first[case]["label"] == 0 for case in common),
        "abnormal": sum(first[case]["label"] == 1 for case in common),
        "clusters": len({first[case]["cluster"] for case in common}),
        "bootstrap": {"resamples": resamples, "level": level, "seed": seed},
        "notes": notes,
        "models": {
            model.name: {
                "model": model.document["model"],
                "cohort": model.document["cohort"],
                "figures": [_figure_row(key, samples[model.name][key], behind[key], bootstrap) for key in COMPARED],
            }
            for model in models
        },
        "differences": [
            row
            for one, other in itertools.combinations(models, 2)
            for row in _differences(one.name, other.name, samples, behind, bootstrap)
        ],
    }


def _common_cases(models: Sequence[Evaluated]) -> tuple[list[str], list[str]]:
    """Names of the cases that all models were judged on, and what a reader must know of them."""
    common = sorted(set.intersection(*(set(model.rows) for model in models)))
    if not common:
        raise InputError(
            "The evaluations have no case in common, so their models cannot be compared; evaluate them on one cohort."
        )
    for case in common:
        if len({(model.rows[case]["label"], model.rows[case]["patient"]) for model in models}) > 1:
            raise InputError(
                f"The case {case} has another label or patient in one evaluation than in another: these are different "
                "cohorts; evaluate the models on one cohort."
            )
        of_cluster = {model.rows[case]["cluster"]: model for model in models}
        if len(of_cluster) > 1:  # draws of the one are not those of the other, and the order would decide
            said = [
                f"{name!r} in {model.name} (by {model.document['bootstrap']['cluster']})"
                for name, model in of_cluster.items()
            ]
            raise InputError(
                f"The case {case} is of the cluster {listed(said)}: what is drawn as a whole must be the same; "
                "evaluate the models with the same --cluster."
            )
    notes = []
    if len({model.document["cohort"]["sha256"] for model in models}) > 1:
        notes.append(
            f"The evaluations used different manifests; the {len(common)} cases they have in common are compared, and "
            "taken to be the same images because name, patient and label agree."
        )
    if left := sum(len(model.rows) for model in models) - len(common) * len(models):
        notes.append(f"{left} cases that not all evaluations have are left out.")
    for word, label in (("normal", 0), ("abnormal", 1)):
        rows = [models[0].rows[case] for case in common]
        if 0 < (clusters := len({row["cluster"] for row in rows if row["label"] == label})) < LEAST_CLUSTERS:
            notes.append(
                f"The {word} cases are of {clusters} cluster{'s' * (clusters != 1)} only: too few to show a difference "
                "in what needs them."
            )
    return common, notes


def _samples(rows: Sequence[Mapping[str, Any]], weights: Weights) -> dict[tuple[str, str], Rows]:
    """Every figure of `COMPARED`, resampled; (resamples + 1,) each."""
    labels, scores = np.array([row["label"] for row in rows]), np.array([row["score"] for row in rows], dtype=float)
    found = {("volume", name): sample for name, sample in ranking_metrics(labels, scores, weights).items()}
    decisions = decision_metrics(labels, np.array([bool(row["called"]) for row in rows]), weights)
    if any(row["called"] is None for row in rows):
        decisions = dict.fromkeys(decisions, np.full(weights.shape[0], np.nan))
    found |= {("volume", name): sample for name, sample in decisions.items()}
    found |= {("voxel", name): _mean(rows, name, weights) for name in ("average_precision", "dice")}
    known = [n for n, row in enumerate(rows) if row["false_findings_at"] is not None]
    lesions = lesion_metrics([record_of_row(rows[n]) for n in known], weights[:, known])
    return found | {("lesion", name): sample for name, sample in lesions.items()}


def _mean(rows: Sequence[Mapping[str, Any]], name: str, weights: Weights) -> Rows:
    """Mean over the cases that have the figure."""
    known = [n for n, row in enumerate(rows) if row[name] is not None]
    values = np.array([rows[n][name] for n in known], dtype=np.float64)
    drawn = weights[:, known].astype(np.float64)
    with np.errstate(invalid="ignore"):
        return drawn @ values / drawn.sum(axis=1)


def record_of_row(row: Mapping[str, Any]) -> CaseRecord:
    """The record of a row of `cases` in metrics.json, without voxels and slices."""
    false_at = row["false_findings_at"]
    counts = None
    if false_at is not None:
        counts = np.zeros(LEVELS.size, dtype=np.int32)
        counts[: len(false_at)] = false_at
    return CaseRecord(
        case=row["case"],
        patient=row["patient"],
        cluster=row["cluster"],
        label=row["label"],
        volume_score=row["score"],
        p_value=row["p_value"],
        called=row["called"],
        findings=row["findings"],
        false_findings=row["false_findings"],
        false_findings_at=counts,
        lesions=tuple(LesionRecord(x["size"], x["hit"], x["highest_level"], x["unit"]) for x in row["lesions"]),
        quality=row["quality"],
    )


def _clusters(rows: Sequence[Mapping[str, Any]], level: str, metric: str) -> int:
    """As `clusters_behind`; a row keeps figures of voxels in place of the voxels."""
    if level == "voxel":
        return len({row["cluster"] for row in rows if row[metric] is not None})
    return clusters_behind([record_of_row(row) for row in rows], level, metric)


def _figure_row(key: tuple[str, str], sample: Rows, clusters: int, bootstrap: Bootstrap) -> dict[str, Any]:
    figure = bootstrap.figure(sample, clusters=clusters, undefined="the evaluation has nothing to compute it from")
    return {"level": key[0], "metric": key[1], "figure": figure.to_json()}


def _differences(
    one: str,
    other: str,
    samples: Mapping[str, Mapping[tuple[str, str], Rows]],
    behind: Mapping[tuple[str, str], int],
    bootstrap: Bootstrap,
) -> list[dict[str, Any]]:
    rows = []
    for level, metric in COMPARED:
        difference = samples[one][level, metric] - samples[other][level, metric]
        if np.isfinite(difference[0]):
            clusters = behind[level, metric]
            figure = bootstrap.figure(difference, clusters=clusters, undefined="")
            said = verdict(figure, clusters=clusters, higher_is_better=metric not in LOWER_IS_BETTER)
            rows.append(
                {
                    "model": one,
                    "other": other,
                    "level": level,
                    "metric": metric,
                    "difference": figure.to_json(),
                    "verdict": said,
                }
            )
    return rows


def write_comparison(comparison: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write comparison.json, comparison.csv and comparison.html.

    Raises
    ------
    OutputError
        If one cannot be written.
    """
    texts = (
        json.dumps(comparison, indent=1, allow_nan=False, ensure_ascii=False) + "\n",
        _csv(comparison),
        comparison_html(comparison),
    )
    return [
        atomically(folder / name, lambda path, text=text: _write(path, text))  # type: ignore[misc]
        for name, text in zip(FILES, texts, strict=True)
    ]


def comparison_html(comparison: Mapping[str, Any]) -> str:
    """The text of comparison.html."""
    figures = {
        name: {(row["level"], row["metric"]): row["figure"] for row in entry["figures"]}
        for name, entry in comparison["models"].items()
    }
    pairs: dict[tuple[str, str], dict[tuple[str, str], Any]] = {}
    for row in comparison["differences"]:
        pairs.setdefault((row["model"], row["other"]), {})[row["level"], row["metric"]] = row
    return render(
        "comparison.html.j2",
        comparison=comparison,
        level=f"{100 * comparison['bootstrap']['level']:g} %",
        names=COMPARED,
        shown=[key for key in COMPARED if any(figure[key]["value"] is not None for figure in figures.values())],
        figures=figures,
        pairs=pairs,
        sentences=[_sentence(one, other, rows) for (one, other), rows in pairs.items()],
        plot=forest_plot(comparison, COMPARED),
        least_clusters=LEAST_CLUSTERS,
    )


def _sentence(one: str, other: str, rows: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    """Which of two models is better in what."""
    said = []
    for found, words in (("better", "is better than"), ("worse", "is worse than")):
        names = [COMPARED[key] for key, row in rows.items() if row["verdict"] == found]
        if names:
            said.append(f"{words} {other} in {', '.join(names)}")
    if not said:
        return f"No difference is shown between {one} and {other}."
    return f"{one} {', and '.join(said)}."


def _csv(comparison: Mapping[str, Any]) -> str:
    columns = (
        "level",
        "metric",
        "model",
        "other",
        "model_value",
        "other_value",
        "difference",
        "low",
        "high",
        "verdict",
    )
    values = {
        (name, row["level"], row["metric"]): row["figure"]["value"]
        for name, entry in comparison["models"].items()
        for row in entry["figures"]
    }
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in comparison["differences"]:
        key = row["level"], row["metric"]
        figure = row["difference"]
        writer.writerow(
            {
                "level": row["level"],
                "metric": row["metric"],
                "model": row["model"],
                "other": row["other"],
                "model_value": values[row["model"], *key],
                "other_value": values[row["other"], *key],
                "difference": figure["value"],
                "low": figure["low"],
                "high": figure["high"],
                "verdict": row["verdict"],
            }
        )
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="")
