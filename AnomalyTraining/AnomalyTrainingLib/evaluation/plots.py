"""The plots of an evaluation, from what metrics.json says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from AnomalyDetectionLib.imaging.write import atomically

from .froc import FALSE_POSITIVES
from .metrics_file import UNSPOILT
from .plotting import (
    ABNORMAL_COLOUR,
    MODEL_COLOUR,
    NORMAL_COLOUR,
    LeftOutError,
    Plot,
    error_ends,
    interval_text,
    line_style,
    plot,
    shortened,
)

Document = Mapping[str, Any]

_WIDE, _SMALL = (8.4, 4.6), (5.6, 4.4)
_GREY = "#777777"


def make_plots(document: Document) -> list[Plot]:
    """All plots of an evaluation, those left out among them.

    Parameters
    ----------
    document
        metrics.json.
    """
    table: list[tuple[str, str, tuple[float, float], Callable[[Document, Figure], str]]] = [
        ("roc", "ROC of whole cases", _WIDE, _roc),
        ("precision_recall", "Precision and recall of whole cases", _WIDE, _precision_recall),
        ("froc", "FROC: lesions found at a number of false positives", _WIDE, _froc),
        ("confusion", "Decisions at the fixed threshold", _SMALL, _confusion),
        ("scores", "Scores of normal and abnormal cases", _WIDE, _scores),
        ("calibration", "Calibration of the p-values", _WIDE, _calibration),
        ("recall_by_size", "Lesions found by size", _WIDE, _recall_by_size),
        ("artefacts", "False findings that artefacts cause on normal images", _WIDE, _artefacts),
    ]

    if "probability" in document["methods"][model_name(document)]:
        table.insert(6, ("reliability", "Reliability of the probabilities", _SMALL, _reliability))

    def drawer(draw: Callable[[Document, Figure], str]) -> Callable[[Figure], str]:
        return lambda figure: draw(document, figure)

    return [plot(name, title, size, drawer(draw)) for name, title, size, draw in table]


def write_plots(plots: list[Plot], folder: Path) -> list[Path]:
    """Write the pictures as NAME.png.

    Raises
    ------
    OutputError
        If one cannot be written.
    """
    paths = []
    for made in plots:
        if (png := made.png) is not None:
            paths.append(atomically(folder / f"{made.name}.png", lambda path, png=png: _save(path, png)))  # type: ignore[misc]
    return paths


def _save(path: Path, png: bytes) -> None:
    path.write_bytes(png)


def model_name(document: Document) -> str:
    """The method that the report is about: the model, or the first one."""
    methods = document["methods"]
    return next((name for name, entry in methods.items() if entry["kind"] == "model"), next(iter(methods)))


def _curves(document: Document, level: str, curve: str) -> Iterator[tuple[str, Mapping[str, Any], dict[str, Any]]]:
    """Name, entry and line style of every method that has the curve, the model first; a method always looks alike."""
    ours = model_name(document)
    methods = sorted(document["methods"].items(), key=lambda item: item[0] != ours)
    for number, (name, entry) in enumerate(methods, start=-1):
        if entry[level][curve] is not None:
            yield name, entry, line_style(number, name == ours)


def _roc(document: Document, figure: Figure) -> str:
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle=(0, (2, 2)))
    said = []
    for name, entry, style in _curves(document, "volume", "roc"):
        points = entry["volume"]["roc"]
        label = f"{shortened(name)} {interval_text(entry['volume']['auroc'])}"
        axes.plot(points["false_positive_rate"], points["sensitivity"], label=label, **style)
        said.append(label)
    if not said:
        raise LeftOutError("it needs normal and abnormal cases")
    _unit_square(axes, "1 − specificity", "sensitivity")
    _legend_beside(axes, "AUROC (95 % interval)")
    return "ROC curves; area under the curve with its interval: " + "; ".join(said) + "."


def _precision_recall(document: Document, figure: Figure) -> str:
    axes = figure.add_subplot()
    said = []
    for name, entry, style in _curves(document, "volume", "precision_recall"):
        if entry["volume"]["normal"]:
            points = entry["volume"]["precision_recall"]
            label = f"{shortened(name)} {interval_text(entry['volume']['average_precision'])}"
            hits = np.array(points["recall"]) > 0  # before the first hit there is no recall to plot
            recall, precision = np.array(points["recall"])[hits], np.array(points["precision"])[hits]
            axes.step([0, *recall], [precision[0], *precision], where="pre", label=label, **style)
            said.append(label)
    if not said:
        raise LeftOutError("it needs normal and abnormal cases")
    volume = document["methods"][model_name(document)]["volume"]
    chance = volume["abnormal"] / max(1, volume["abnormal"] + volume["normal"])
    axes.axhline(chance, color=_GREY, linewidth=1, linestyle=(0, (2, 2)))
    _unit_square(axes, "recall (sensitivity)", "precision")
    _legend_beside(axes, "average precision (95 % interval)")
    return (
        f"Precision-recall curves; chance is {chance:.2f}; average precision with its interval: "
        + "; ".join(said)
        + "."
    )


def _unit_square(axes: Axes, across: str, up: str) -> None:
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), xlabel=across, ylabel=up)
    axes.set_aspect("equal")


def _legend_beside(axes: Axes, title: str) -> None:
    axes.legend(
        title=title,
        loc="upper left",
        bbox_to_anchor=(1.02, 1),
        frameon=False,
        fontsize="small",
        alignment="left",
    )


def _froc(document: Document, figure: Figure) -> str:
    axes = figure.add_subplot()
    said = []
    lowest, highest = FALSE_POSITIVES[0] / 2, FALSE_POSITIVES[-1] * 2
    for name, entry, style in _curves(document, "lesion", "froc"):
        points = entry["lesion"]["froc"]
        false, sensitivity = np.array(points["false_positives_per_image"]), np.array(points["sensitivity"])
        label = f"{shortened(name)} {interval_text(entry['lesion']['froc_mean'])}"
        axes.step(np.maximum(false, lowest), sensitivity, where="post", label=label, **style)
        said.append(label)
    if not said:
        raise LeftOutError("it needs cases with masks of their lesions, and a method that makes maps")
    axes.set_xscale("log", base=2)
    axes.set_xticks(FALSE_POSITIVES, ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    axes.set(xlim=(lowest, highest), ylim=(-0.01, 1.02), xlabel="false positives per image", ylabel="lesions found")
    _legend_beside(axes, "mean of 1/8 … 8 (95 % interval)")
    return "FROC curves; mean sensitivity at 1/8 to 8 false positives per image: " + "; ".join(said) + "."


def _confusion(document: Document, figure: Figure) -> str:
    name = model_name(document)
    counts = document["methods"][name]["volume"]["confusion"]
    if counts is None:
        raise LeftOutError("the method makes no decision about whole cases")
    table = np.array(
        [
            [counts["true_negatives"], counts["false_positives"]],
            [counts["false_negatives"], counts["true_positives"]],
        ]
    )
    totals = table.sum(axis=1, keepdims=True)
    shares = table / np.maximum(totals, 1)
    texts = [
        [f"{n}\n{s:.0%}" if t else f"{n}" for n, s in zip(*row, strict=True)]
        for *row, t in zip(table, shares, totals[:, 0], strict=True)
    ]
    axes = figure.add_subplot()
    seaborn.heatmap(
        shares,
        annot=np.array(texts),
        fmt="",
        vmin=0,
        vmax=1,
        cmap="Blues",
        cbar=False,
        square=True,
        linewidths=2,
        annot_kws={"fontsize": 15},
        xticklabels=["normal", "abnormal"],
        yticklabels=[f"normal\n({totals[0, 0]})", f"abnormal\n({totals[1, 0]})"],
        ax=axes,
    )
    axes.set(xlabel=f"called by {shortened(name)}", ylabel="truth")
    axes.tick_params(axis="y", rotation=0)
    return (
        f"Confusion matrix of {name}: of {totals[0, 0]} normal cases {table[0, 1]} are called abnormal; "
        f"of {totals[1, 0]} abnormal cases {table[1, 1]} are."
    )


def _scores(document: Document, figure: Figure) -> str:
    name = model_name(document)
    rows = document["cases"].get(name, [])
    if not rows:
        raise LeftOutError("there are no cases")
    groups = [[row["score"] for row in rows if row["label"] == label] for label in (0, 1)]
    axes = figure.add_subplot()
    pooled = np.concatenate([np.array(group, dtype=np.float64) for group in groups])
    edges = np.histogram_bin_edges(pooled, bins=min(40, max(8, round(2 * pooled.size**0.5))))
    for group, title, colour, hatch in (
        (groups[0], "normal", NORMAL_COLOUR, ""),
        (groups[1], "abnormal", ABNORMAL_COLOUR, "///"),
    ):
        if group:
            label = f"{title} ({len(group)})"
            seaborn.histplot(x=group, bins=edges, color=colour, alpha=0.45, label=label, ax=axes, hatch=hatch)
    threshold = document["methods"][name]["volume_threshold"]
    if threshold is not None:
        axes.axvline(
            threshold, color="#000000", linewidth=1.5, linestyle=(0, (4, 2)), label=f"threshold {threshold:.2f}"
        )
    axes.set(xlabel=f"score of a case by {shortened(name)}", ylabel="cases")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    medians = [f"{np.median(g):z.2f}" if g else "none" for g in groups]
    return f"Histogram of the scores by {name}; median of normal cases {medians[0]}, of abnormal cases {medians[1]}."


def _calibration(document: Document, figure: Figure) -> str:
    check = document["calibration"]
    rows = document["cases"].get(model_name(document), [])
    values = [row["p_value"] for row in rows if row["label"] == 0 and row["p_value"] is not None]
    if check is None or not values:
        raise LeftOutError("it needs a model with p-values and held-out normal cases")
    left, right = figure.subplots(1, 2)
    seaborn.histplot(x=values, bins=np.linspace(0, 1, 11), color=NORMAL_COLOUR, alpha=0.45, ax=left)
    left.axhline(len(values) / 10, color="#000000", linewidth=1.5, linestyle=(0, (4, 2)), label="as they should lie")
    left.set(xlim=(0, 1), xlabel=f"p-value of {len(values)} normal cases", ylabel="cases")
    left.legend(frameon=False, fontsize="small")
    rates = check["rates"]
    nominal = [rate["nominal"] for rate in rates]
    realised = [rate["realised"]["value"] for rate in rates]
    ends = error_ends(realised, *([rate["realised"][end] for rate in rates] for end in ("low", "high")))
    right.plot([0, 1], [0, 1], color="#000000", linewidth=1.5, linestyle=(0, (4, 2)), label="as it should be")
    right.errorbar(
        nominal, realised, yerr=ends, fmt="o", color=MODEL_COLOUR, capsize=4, label="realised, exact 95 % interval"
    )
    top = max(0.3, 1.35 * max(rate["realised"]["high"] for rate in rates))
    right.set(xlim=(0, 0.25), ylim=(-0.02 * top, top), xlabel="nominal rate", ylabel="normal cases at or below it")
    right.legend(frameon=False, fontsize="small", loc="upper left")
    return check["sentence"]


def _reliability(document: Document, figure: Figure) -> str:
    name = model_name(document)
    found = document["methods"][name]["probability"]
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="#000000", linewidth=1.5, linestyle=(0, (4, 2)), label="as they should lie")
    bins = found["bins"]
    said, came = [row["probability"] for row in bins], [row["share"] for row in bins]
    axes.plot(said, came, color=MODEL_COLOUR, marker="o", label=shortened(name))
    for row in bins:
        axes.annotate(str(row["cases"]), (row["probability"], row["share"]), (5, -11), textcoords="offset points")
    _unit_square(axes, "probability that was said", "share of cases that were abnormal")
    axes.legend(frameon=False, fontsize="small", loc="upper left")
    return (
        f"Reliability of {name}'s probabilities, with the cases of each bin: Brier score "
        f"{interval_text(found['brier'], 3)}, expected calibration error {interval_text(found['ece'], 3)}."
    )


def _recall_by_size(document: Document, figure: Figure) -> str:
    name = model_name(document)
    bins = document["methods"][name]["lesion"]["recall_by_size"]
    if not bins:
        raise LeftOutError("no lesion is known")
    axes = figure.add_subplot()
    recall = [row["recall"]["value"] for row in bins]
    ends = error_ends(recall, *([row["recall"][end] for row in bins] for end in ("low", "high")))
    places = np.arange(len(bins))
    axes.bar(places, recall, color=MODEL_COLOUR, alpha=0.45, edgecolor=MODEL_COLOUR, width=0.7)
    axes.errorbar(places, recall, yerr=ends, fmt="none", color="#000000", capsize=5)
    axes.set_xticks(places, [f"{size_text(row)}\n{row['found']} of {row['lesions']}" for row in bins])
    axes.set(ylim=(0, 1.03), ylabel=f"lesions found by {shortened(name)}", xlabel="size of the lesion; found of all")
    axes.grid(axis="x", visible=False)
    said = "; ".join(f"{size_text(row)}: {row['found']} of {row['lesions']}" for row in bins)
    return f"Lesions found by size with exact 95 % intervals, in which those of one patient count as fewer. {said}."


def size_text(row: Mapping[str, Any]) -> str:
    """ "0.5–2 mL", "under 0.1 mL", "50 mL or more"."""
    if row["to"] is None:
        return f"{row['from']:g} {row['unit']} or more"
    if row["from"] == 0:
        return f"under {row['to']:g} {row['unit']}"
    return f"{row['from']:g}–{row['to']:g} {row['unit']}"


def _artefacts(document: Document, figure: Figure) -> str:
    name = model_name(document)
    rows = [r for r in document["artefacts"] if r["method"] == name and r["false_findings_per_case"] is not None]
    if not rows:
        raise LeftOutError("the evaluation did not try artefacts")
    unspoilt = next((row for row in rows if row["artefact"] == UNSPOILT), None)
    rows = [row for row in rows if row is not unspoilt]
    if not rows:
        raise LeftOutError("no image could be spoilt and scored")
    kinds = list(dict.fromkeys(row["artefact"] for row in rows))
    severities = sorted({row["severity"] for row in rows})
    table = np.full((len(severities), len(kinds)), np.nan)
    for row in rows:
        table[severities.index(row["severity"]), kinds.index(row["artefact"])] = row["false_findings_per_case"]
    axes = figure.add_subplot()
    seaborn.heatmap(
        table,
        annot=True,
        fmt=".1f",
        cmap="cividis_r",
        vmin=0,
        mask=np.isnan(table),
        linewidths=1,
        xticklabels=[shortened(kind, 20) for kind in kinds],
        yticklabels=[f"{severity:g}" for severity in severities],
        cbar_kws={"label": "false findings per image"},
        ax=axes,
    )
    axes.grid(visible=False)
    axes.set(xlabel="", ylabel="severity")
    axes.tick_params(axis="x", rotation=35)
    axes.tick_params(axis="y", rotation=0)
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("right")
    worst = max(rows, key=lambda row: row["false_findings_per_case"])
    before = f"{unspoilt['false_findings_per_case']:.1f} as they are; " if unspoilt else ""
    return (
        f"False findings of {name} per normal image, by artefact and severity: {before}the most are "
        f"{worst['false_findings_per_case']:.1f} with {worst['artefact']} of severity {worst['severity']:g}."
    )
