"""What an evaluation says, in sentences: does it beat the baselines, what does its threshold cost, what is to mind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .intervals import LEAST_CLUSTERS
from .plots import model_name
from .plotting import interval_text

Document = Mapping[str, Any]

HEADLINES = (("volume", "auroc"), ("voxel", "average_precision"), ("lesion", "froc_mean"))
"""The figures by which a model beats a baseline or not, in the order of importance to a reader."""

METRIC_NAMES = {
    ("volume", "auroc"): "AUROC of cases",
    ("volume", "average_precision"): "average precision of cases",
    ("slice", "auroc"): "AUROC of slices",
    ("slice", "average_precision"): "average precision of slices",
    ("voxel", "average_precision"): "average precision of voxels",
    ("voxel", "dice"): "Dice at the fixed threshold",
    ("lesion", "froc_mean"): "lesions found (mean of FROC)",
    ("lesion", "recall"): "lesions found at the threshold",
    ("lesion", "false_findings_per_normal"): "false findings per normal",
}

FEW_CASES = 20
"""Fewer cases of a class than this make every figure about it coarse."""


def difference_text(figure: Mapping[str, Any]) -> str:
    """ "+0.12 (+0.03 to +0.21)"."""
    if figure["low"] is None:
        return signed(figure["value"])
    return f"{signed(figure['value'])} ({signed(figure['low'])} to {signed(figure['high'])})"


def signed(value: float) -> str:
    """ "+0.12", with a true minus."""
    return f"{value:+z.2f}".replace("-", "−")


def against_baselines(document: Document) -> list[str]:
    """Whether the model beats each other method, one sentence each, after one that sums up."""
    if not any(entry["kind"] == "model" for entry in document["methods"].values()):
        return ["No method of this evaluation is a model, so there is nothing to compare."]
    others = [name for name, entry in document["methods"].items() if entry["kind"] != "model"]
    if not others:
        return ["There is no baseline in this evaluation: whether the model is worth its effort is not known."]
    sentences = [_sum_up(document)] if any(document["methods"][n]["kind"] == "baseline" for n in others) else []
    return sentences + [_against(document, name) for name in others]


def _rows(document: Document, other: str) -> dict[tuple[str, str], Mapping[str, Any]]:
    return {(row["level"], row["metric"]): row for row in document["comparisons"] if row["baseline"] == other}


def _sum_up(document: Document) -> str:
    """By the first headline figure that the model has."""
    baselines = [name for name, entry in document["methods"].items() if entry["kind"] == "baseline"]
    for key in HEADLINES:
        verdicts = {name: _rows(document, name)[key]["verdict"] for name in baselines if key in _rows(document, name)}
        if verdicts:
            break
    else:
        return "The model could not be compared with any baseline: no figure is defined for both."
    name, shown = METRIC_NAMES[key], [n for n, verdict in verdicts.items() if verdict == "better"]
    if len(shown) == len(verdicts):
        which = "the one baseline" if len(verdicts) == 1 else f"all {len(verdicts)} baselines"
        return f"The model beats {which} in {name}."
    worse = [n for n, verdict in verdicts.items() if verdict == "worse"]
    open_ones = [n for n, verdict in verdicts.items() if verdict == "not shown"]
    beaten = f"{len(shown)} of {len(verdicts)} baselines" if shown else "no baseline"
    parts = [f"The model beats {beaten} in {name}"]
    if worse:
        parts.append(f"is worse than {listed(worse)}")
    if open_ones:
        parts.append(f"is not shown to beat {listed(open_ones)}")
    ending = ", " if len(parts) > 2 else " and "
    tail = parts[0] + (ending + " and ".join(parts[1:]) if len(parts) > 1 else "") + "."
    return tail + (" A model that is worse than a baseline is not worth its computing time." if worse else "")


def _against(document: Document, other: str) -> str:
    rows = _rows(document, other)
    kind = document["methods"][other]["kind"]
    said = []
    for verdict, words in (("better", "better in"), ("worse", "worse in"), ("not shown", "no difference shown in")):
        keys = [key for key in HEADLINES if key in rows and rows[key]["verdict"] == verdict]
        if keys:
            figures = [f"{METRIC_NAMES[key]} {difference_text(rows[key]['difference'])}" for key in keys]
            said.append(f"{words} {listed(figures)}")
    said_of = {"ceiling": " (a ceiling: it has seen lesions)", "ablation": " (a part of the model itself)"}
    against = f"Against {other}{said_of.get(kind, '')}"
    return f"{against}: {'; '.join(said) or 'no figure is defined for both'}."


def listed(names: Sequence[str]) -> str:
    """ "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def threshold_cost(document: Document) -> list[str]:
    """What the fixed thresholds of the model cost and find."""
    entry = document["methods"][model_name(document)]
    lesion, volume, sentences = entry["lesion"], entry["volume"], []
    if entry["threshold"] is not None:
        false, recall = lesion["false_findings_per_normal"], lesion["recall"]
        said = f"At its threshold of rarity {entry['threshold']:.3g}"
        if false["value"] is not None:
            said += f" the model shows {interval_text(false)} false findings per normal image"
        if recall["value"] is not None:
            joined = " and finds" if false["value"] is not None else " the model finds"
            said += f"{joined} {lesion['found']} of {lesion['lesions']} lesions, {interval_text(recall)}"
        if false["value"] is None and recall["value"] is None:
            said += " neither false findings nor lesions could be counted"
        sentences.append(said + ".")
    if counts := volume["confusion"]:
        well, ill = (
            counts["true_negatives"] + counts["false_positives"],
            counts["true_positives"] + counts["false_negatives"],
        )
        parts = []
        if well:
            specificity = interval_text(volume["specificity"])
            parts.append(f"{counts['false_positives']} of {well} normal cases (specificity {specificity})")
        if ill:
            sensitivity = interval_text(volume["sensitivity"])
            parts.append(f"{counts['true_positives']} of {ill} abnormal cases (sensitivity {sensitivity})")
        cut = entry["volume_threshold"]  # None where every fold of a cross-validation has its own
        at = "each at its fold's own score" if cut is None else f"at the score {cut:.3g}"
        sentences.append(f"It calls abnormal {' and '.join(parts)}, {at}.")
    return sentences or ["The model has no fixed threshold."]


def calibration_sentence(document: Document) -> str:
    """Whether the p-values can be believed."""
    check = document["calibration"]
    said = check["sentence"] if check else "There are no p-values to check."
    found = document["methods"][model_name(document)].get("probability")
    if found is None:
        return said
    return (
        f"{said} Its probabilities have a Brier score of {interval_text(found['brier'], 3)} and an expected "
        f"calibration error of {interval_text(found['ece'], 3)}."
    )


def warnings(document: Document) -> list[str]:
    """What a reader must mind, in sentences; simulated cases and the notes of the evaluation first."""
    entry, cohort = document["methods"][model_name(document)], document["cohort"]
    found = list(document["notes"])
    simulated = cohort.get("simulated", 0)
    if simulated:
        which = "The" if simulated == cohort["cases"] else f"{simulated} of {cohort['cases']}"
        found.insert(0, f"{which} cases are simulated: figures of them say nothing about patients.")
    for name in ("normal", "abnormal"):
        count = cohort[name]
        if count == 0:
            found.append(f"There is no {name} case: whether normal and abnormal cases are told apart is not known.")
        elif count < FEW_CASES:
            few = "is one" if count == 1 else f"are {count}"
            found.append(f"There {few} {name} case{'s' * (count != 1)} only; figures about them are coarse.")
    if cohort["abnormal"] and not cohort["with_mask"]:
        found.append("No abnormal case has a mask: nothing is known of voxels and lesions.")
    elif missing := cohort["abnormal"] - cohort["with_mask"]:
        found.append(f"{missing} of {cohort['abnormal']} abnormal cases have no mask and count for whole cases only.")
    found += _few_clusters(document)
    poor = sum(row["quality"] == "poor" for row in document["cases"].get(model_name(document), []))
    if poor:
        found.append(f"{poor} cases have an image quality of 'poor': their maps mean little.")
    if entry["volume"]["auroc"]["value"] == 1.0:
        found.append("The cases are told apart without a mistake; look for something other than disease that does it.")
    return found


def _few_clusters(document: Document) -> list[str]:
    """Of the class that has fewer: what ranks the two, or is of that one, rests on those."""
    cluster = document["bootstrap"]["cluster"]
    of_label: dict[int, set[str]] = {}
    for row in (row for rows in document["cases"].values() for row in rows):
        of_label.setdefault(row["label"], set()).add(row["cluster"])
    label, found = min(of_label.items(), key=lambda item: len(item[1]))
    if len(found) >= FEW_CASES:
        return []
    word, plural = "abnormal" if label else "normal", "s" * (len(found) != 1)
    few = f"The {word} cases are of {len(found)} cluster{plural} ({cluster}) only"
    shows = "" if len(found) >= LEAST_CLUSTERS else f", and with fewer than {LEAST_CLUSTERS} none shows a difference"
    return [f"{few}: intervals that need them may be too narrow{shows}."]
