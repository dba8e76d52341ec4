"""Judge what trains in minutes on every anatomy of the heads study, four folds of three, each unknown to its model.

    python3 training_scripts/study_heads_folds.py OUT [--page PAGE.md]

OUT is the folder of `study_heads.py`, which must have made its cohort.  Every step is a call of the command line, and
one that has ended is not done again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import _environment
from _study import anomaly, cross_validate, figure, metrics_of, table
from study_heads import COLUMNS, HEADINGS, PLAIN, SIZE, STATISTICS, VARIANTS, Variant, counts, row

FOLDS = 4
INTENSITY = f"baselines=[{PLAIN}]"
METHODS: Mapping[str, Variant] = {
    STATISTICS: Variant(STATISTICS, (), "zscore_brain", ()),
    "denoising": VARIANTS["denoising"],
}
"""What is judged; the baselines are fitted beside the first, and of the others only plain intensity is."""

INTRODUCTION = """\
The data of [heads.md](heads.md): simulated, skull-stripped brains of 2 mm from the label maps of twelve real people,
judged in four folds of three anatomies; every model has seen, in training and calibration, none of those it is judged
on. Settings are those of that page: `denoising` is small and trains for ten minutes. Dice, recall and false findings
are at the threshold fixed on the calibration normals; the best Dice is an oracle's. Intervals (95 %) draw whole
anatomies, and there are twelve.

This page is written by `training_scripts/study_heads_folds.py`."""

CALIBRATION = """\
Normals of few anatomies resemble each other more than those of another person do: calibration normals must be of many
people."""


def main() -> int:
    """Do what is not done yet, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of study_heads.py")
    parser.add_argument("--contrast", default="flair", choices=("t1", "flair", "t2"))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="(default: all)")
    parser.add_argument("--page", type=Path, help="Markdown page to write the tables to")
    arguments = parser.parse_args()
    _environment.run_inside(("train", "demo"))
    cohort, folds = (arguments.out / arguments.contrast / name for name in ("cohort.csv", "folds"))
    for name in arguments.methods:
        options = ("--folds", FOLDS, "--group", "anatomy")
        cross_validate(METHODS[name].recipe, settings_of(name), cohort, folds / name, *options)
    compared = folds / "compared"
    places = [folds / name for name in arguments.methods]
    if len(places) > 1 and not (compared / "comparison.json").exists():
        anomaly("compare", *places, "--out", compared)
    text = page(folds, arguments.contrast, arguments.methods)
    print(text)
    if arguments.page:
        arguments.page.write_text(text, encoding="utf-8")
    return 0


def settings_of(name: str) -> list[str]:
    """What is changed of a method's recipe."""
    variant = METHODS[name]
    settings = [*variant.size, *variant.changes, f"name=heads-{name}"]
    return [*settings, INTENSITY] if variant.size == SIZE else settings  # the last one counts: SIZE has no baselines


def page(folds: Path, contrast: str, names: list[str]) -> str:
    """The tables in Markdown."""
    judged = {name: metrics_of(folds / name) for name in names}
    first = judged[names[0]]
    lines = [
        f"# Heads phantom, {contrast.upper()}-like: every anatomy out of fold",
        "",
        *INTRODUCTION.splitlines(),
        "",
        f"## Every anatomy out of fold ({FOLDS} × 3): {counts(first)}",
        "",
        *table(["method", *HEADINGS], [row(name, method) for name, method in methods_of(judged).items()]),
        "",
        *differences(judged, comparison_of(folds)),
        "## Calibration",
        "",
        *(f"`{name}`: {found['calibration']['sentence']}\n" for name, found in judged.items() if found["calibration"]),
        *CALIBRATION.splitlines(),
        "",
    ]
    return "\n".join(lines)


def methods_of(judged: Mapping[str, dict]) -> dict[str, dict]:
    """The models by this study's names, then the baselines of the first."""
    first = next(iter(judged.values()))["methods"]
    models = {VARIANTS[name].title if name in VARIANTS else name: own(found)[1] for name, found in judged.items()}
    return models | {name: method for name, method in first.items() if method["kind"] != "model"}


def own(metrics: dict) -> tuple[str, dict]:
    """Name and figures of the model among an evaluation's methods."""
    return next((name, method) for name, method in metrics["methods"].items() if method["kind"] == "model")


def comparison_of(folds: Path) -> list[dict]:
    """The differences between the models; none where there is one model only."""
    path = folds / "compared" / "comparison.json"
    return json.loads(path.read_text(encoding="utf-8"))["differences"] if path.exists() else []


def differences(judged: Mapping[str, dict], compared: list[dict]) -> list[str]:
    """How far each learned model is above plain intensity and above `zscore`, case by case."""
    rows = []
    statistics = own(judged[STATISTICS])[0] if STATISTICS in judged else ""
    for name, found in judged.items():
        title = VARIANTS[name].title if name in VARIANTS else name
        plain = [row for row in found["comparisons"] if row["baseline"] == PLAIN]
        rows.append([f"{title} − {PLAIN}", *difference_cells(plain)])
        others = [
            turned(row, own(found)[0])
            for row in compared
            if {row["model"], row["other"]} == {statistics, own(found)[0]}
        ]
        if others:
            rows.append([f"{title} − {STATISTICS}", *difference_cells(others)])
    return [
        "## Differences, paired case by case",
        "",
        "An interval without 0 in it shows a difference.",
        "",
        *table(["difference", *HEADINGS], rows),
        "",
    ]


def turned(found: dict, model: str) -> dict:
    """A difference between two models, as that of `model` minus the other."""
    if found["model"] == model:
        return found
    difference, low, high = (found["difference"][key] for key in ("value", "low", "high"))
    value, low, high = (None if number is None else -number for number in (difference, high, low))
    return {**found, "difference": {**found["difference"], "value": value, "low": low, "high": high}}


def difference_cells(found: list[dict]) -> list[str]:
    by_metric = {(row["level"], row["metric"]): row["difference"] for row in found}
    return [figure(by_metric[level, metric]) if (level, metric) in by_metric else "–" for _, level, metric in COLUMNS]


if __name__ == "__main__":
    sys.exit(main())
