"""How every plot of a report looks: one style, colours that the colour-blind can tell apart, PNG."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import seaborn
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

MODEL_COLOUR = "#0072B2"
NORMAL_COLOUR, ABNORMAL_COLOUR = "#0072B2", "#D55E00"
TEXT_COLOUR = "#222222"

_OTHERS = ("#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#8C6D1F")  # Okabe & Ito
_DASHES: tuple[Any, ...] = ((0, ()), (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
_DPI = 110


@dataclass(frozen=True)
class Plot:
    """A plot of a report, or why it is left out.

    Attributes
    ----------
    name
        Of its file, without the ending.
    title
        Its heading.
    alt
        What it shows, in words, for those who cannot see it.
    png
        The picture; None where it is left out.
    reason
        Why it is left out, else "".
    """

    name: str
    title: str
    alt: str
    png: bytes | None
    reason: str = ""


class LeftOutError(Exception):
    """A plot cannot be made of this evaluation; the text says why."""


Draw = Callable[[Figure], str]
"""Draws into a figure and returns what it shows, in words."""


def plot(name: str, title: str, size: tuple[float, float], draw: Draw) -> Plot:
    """Draw one plot, `size` in inches."""
    with _style():
        figure = Figure(figsize=size, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        try:
            alt = draw(figure)
        except LeftOutError as reason:
            return Plot(name, title, "", None, str(reason))
        picture = io.BytesIO()
        canvas.print_png(picture, metadata={"Software": None})
    return Plot(name, title, alt, picture.getvalue())


@contextmanager
def _style() -> Iterator[None]:
    colours = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), TEXT_COLOUR)
    style: dict[str, Any] = {
        **seaborn.axes_style("whitegrid"),
        **seaborn.plotting_context("notebook", font_scale=0.9),
        **colours,
    }
    extra: dict[str, Any] = {
        "figure.dpi": _DPI,
        "savefig.dpi": _DPI,
        "axes.edgecolor": "#888888",
        "grid.color": "#E3E3E3",
    }
    with matplotlib.rc_context(style | extra | {"text.parse_math": False}):  # type: ignore[arg-type]
        yield


def line_style(number: int, is_model: bool) -> dict[str, Any]:
    """Colour, dashes and width of a method's curve; `number` counts those that are not the model."""
    if is_model:
        return {"color": MODEL_COLOUR, "linewidth": 3.0, "zorder": 5}
    dashes = _DASHES[(number + 2 * (number // len(_OTHERS))) % len(_DASHES)]  # 28 methods before two look alike
    return {"color": _OTHERS[number % len(_OTHERS)], "linestyle": dashes, "linewidth": 1.5, "zorder": 3}


def interval_text(figure: dict[str, Any], digits: int = 2) -> str:
    """ "0.87 (0.80–0.93)"."""
    if figure["value"] is None:
        return "not defined"
    if figure["low"] is None:
        return f"{figure['value']:.{digits}f}"
    return f"{figure['value']:.{digits}f} ({figure['low']:.{digits}f}–{figure['high']:.{digits}f})"


def plain(value: Any) -> str:
    """A number with three significant digits, a text as it is, "–" for None."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3g}".replace("-", "−")
    return str(value)


def shortened(name: str, most: int = 28) -> str:
    """A name that fits into a legend, on one line."""
    name = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    return name if len(name) <= most else name[: most - 1] + "…"


def error_ends(values: Sequence[float], lows: Sequence[float], highs: Sequence[float]) -> list[list[float]]:
    """Lengths below and above, as matplotlib's error bars take them."""
    return [
        [max(0.0, value - low) for value, low in zip(values, lows, strict=True)],
        [max(0.0, high - value) for value, high in zip(values, highs, strict=True)],
    ]
