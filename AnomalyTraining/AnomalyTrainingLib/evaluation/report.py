"""report.html: the evaluation for people, in one file; and the whole folder that `evaluate` writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from AnomalyDetectionLib.imaging.write import atomically

from .failures import failures
from .gallery import Shown
from .intervals import LEAST_CLUSTERS
from .metrics_file import METRICS_NAME, SCORES_NAME, write_metrics, write_scores
from .pages import render
from .plots import make_plots, model_name, write_plots
from .plotting import Plot
from .spoilt import Battery
from .words import METRIC_NAMES, against_baselines, calibration_sentence, threshold_cost, warnings

REPORT_NAME = "report.html"

_DETECTION = [
    ("auroc", "AUROC"),
    ("average_precision", "average precision"),
    ("sensitivity_at_95_specificity", "sensitivity at 95 % specificity"),
    ("accuracy", "accuracy"),
    ("sensitivity", "sensitivity"),
    ("specificity", "specificity"),
    ("precision", "precision"),
    ("f1", "F1"),
]
_TABLES: list[dict[str, Any]] = [
    {
        "level": "volume",
        "columns": _DETECTION,
        "caption": "Whole cases",
        "note": "Accuracy and what follows are of the decision at the method's fixed threshold of cases.",
    },
    {
        "level": "slice",
        "columns": _DETECTION,
        "caption": "Slices",
        "note": "Slices of volumes whose lesions are known.",
    },
    {
        "level": "voxel",
        "columns": [
            ("average_precision", "average precision"),
            ("dice", "Dice at the fixed threshold"),
            ("iou", "IoU at the fixed threshold"),
            ("dice_oracle", "best Dice (oracle)"),
        ],
        "caption": "Voxels",
        "note": "Average precision and the oracle over all voxels together; Dice and IoU are means over cases.",
    },
    {
        "level": "lesion",
        "columns": [
            ("froc_mean", "mean of FROC"),
            *((f"froc_{rate}", f"found at {rate} false positives") for rate in ("0.125", "0.5", "1", "2", "8")),
            ("recall", "found at the threshold"),
            ("false_findings_per_normal", "false findings per normal"),
        ],
        "caption": "Lesions",
        "note": "Share of lesions found at a number of false positives per image, and at the method's fixed threshold.",
    },
]


def report_html(document: Mapping[str, Any], plots: Sequence[Plot], gallery: Sequence[Shown] = ()) -> str:
    """The text of report.html.

    Parameters
    ----------
    document
        metrics.json.
    plots
        From `make_plots`.
    gallery
        From `make_gallery`.
    """
    ours = model_name(document)
    model = document["model"]
    differences: dict[str, dict[tuple[str, str], Any]] = {}
    for row in document["comparisons"]:
        differences.setdefault(row["baseline"], {})[row["level"], row["metric"]] = row
    return render(
        "report.html.j2",
        title=f"{model['id']} {model['version']}" if model else ours,
        document=document,
        ours=ours,
        level=f"{100 * document['bootstrap']['level']:g} %",
        against=against_baselines(document),
        cost=threshold_cost(document),
        calibration=calibration_sentence(document),
        warnings=warnings(document),
        compared=[key for key in METRIC_NAMES if any(key in rows for rows in differences.values())],
        metric_names=METRIC_NAMES,
        differences=differences,
        tables=_TABLES,
        plots=plots,
        subgroups=_not_shown_yet(document, document["methods"][ours]["subgroups"]),
        battery=Battery.of(document),
        failures=failures(document["cases"].get(ours, [])),
        gallery=gallery,
        decided=all(one.row["called"] is not None for one in gallery),
        least_clusters=LEAST_CLUSTERS,
    )


def _not_shown_yet(document: Mapping[str, Any], subgroups: Mapping[str, Any]) -> dict[str, Any]:
    """Subgroups by columns that the shift report has not told of."""
    told = {row["column"] for row in document["shift"]["groups"]} if "shift" in document else set()
    return {name: rows for name, rows in subgroups.items() if name not in told}


def write_evaluation(document: Mapping[str, Any], folder: str | Path, gallery: Sequence[Shown] = ()) -> list[Path]:
    """Write scores.csv (of the model), the plots, report.html and, last, metrics.json.

    Parameters
    ----------
    document
        From `judge`.
    gallery
        From `make_gallery`.

    Returns
    -------
    The files, metrics.json the last: where it is, all of them are.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    folder = Path(folder)
    ours = model_name(document)
    plots = make_plots(document)
    page = report_html(document, plots, gallery)
    written = [write_scores(document["cases"][ours], folder / SCORES_NAME), *write_plots(plots, folder)]
    written.append(atomically(folder / REPORT_NAME, lambda path: _write(path, page)))
    written.append(write_metrics(document, folder / METRICS_NAME))
    return written


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
