"""Forest plot of the differences between models."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from .plotting import LeftOutError, Plot, error_ends, plot, shortened

_COLOURS = {"better": "#0072B2", "worse": "#D55E00", "not shown": "#555555"}
_MARKERS = {"better": "^", "worse": "v", "not shown": "o"}
_PER_ROW = 3


def forest_plot(comparison: Mapping[str, Any], names: Mapping[tuple[str, str], str]) -> Plot:
    """One panel a figure, one line a pair of models: the difference with its interval, and where 0 is."""
    rows = comparison["differences"]
    keys = [key for key in names if any((row["level"], row["metric"]) == key for row in rows)]
    pairs = list(dict.fromkeys((row["model"], row["other"]) for row in rows))
    lines = -(-len(keys) // _PER_ROW)

    def draw(figure: Figure) -> str:
        if not rows:
            raise LeftOutError("no figure is defined for two of the models")
        panels = figure.subplots(lines, _PER_ROW, squeeze=False, sharey=True)
        for number, axes in enumerate(panels.ravel()):
            if number >= len(keys):
                axes.set_visible(False)
                continue
            key = keys[number]
            axes.axvline(0, color="#000000", linewidth=1)
            for row in rows:
                if (row["level"], row["metric"]) == key:
                    _line(axes, len(pairs) - 1 - pairs.index((row["model"], row["other"])), row)
            axes.set_title(textwrap.fill(names[key], 30), fontsize="medium")
            axes.set_yticks(range(len(pairs)), [f"{shortened(a, 24)} − {shortened(b, 24)}" for a, b in reversed(pairs)])
            axes.set_ylim(-0.6, len(pairs) - 0.4)
            axes.margins(x=0.15)
        return (
            "Differences between every two models, with intervals; triangles mark those whose interval leaves out 0, "
            "upwards where the first is better."
        )

    return plot("forest", "Differences between the models", (11.0, lines * (1.3 + 0.36 * len(pairs))), draw)


def _line(axes: Any, place: int, row: Mapping[str, Any]) -> None:
    figure = row["difference"]
    low, high = (figure["value"] if figure[end] is None else figure[end] for end in ("low", "high"))
    axes.errorbar(
        [figure["value"]],
        [place],
        xerr=error_ends([figure["value"]], [low], [high]),
        fmt=_MARKERS[row["verdict"]],
        color=_COLOURS[row["verdict"]],
        capsize=3,
        markersize=7,
    )
