"""What the answers of a reading say, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..plotting import interval_text

_SCALE = ((0.8, "almost perfect"), (0.6, "substantial"), (0.4, "moderate"), (0.2, "fair"), (0.0, "slight"))


def strength(kappa: float) -> str:
    """A word for an agreement beyond chance (Landis & Koch, Biometrics 1977: a custom, not a law)."""
    return next((word for least, word in _SCALE if kappa > least), "no better than chance")


def sentences(review: Mapping[str, Any]) -> list[str]:
    """The analysis in words."""
    return [*_readers(review), *_agreement(review), *_model(review), *_findings(review)]


def _readers(review: Mapping[str, Any]) -> list[str]:
    said = []
    for name, row in review["readers"].items():
        if not row["read"]:
            said.append(f"{name} has judged findings only, no case as a whole.")
            continue
        open_ones = review["cases"] - row["read"]
        rest = f" {open_ones} cases have no verdict." if open_ones else ""
        doubt = f" {row['uncertain']} of them with doubt, which count for the AUROC alone," if row["uncertain"] else ""
        said.append(
            f"{name} has read {row['read']} cases,{doubt} with a sensitivity of {interval_text(row['sensitivity'])}, a "
            f"specificity of {interval_text(row['specificity'])} and an AUROC of {interval_text(row['auroc'])}.{rest}"
        )
    return said


def _agreement(review: Mapping[str, Any]) -> list[str]:
    table = review["agreement"]
    if table is None:
        return ["With fewer than two readers of cases there is no agreement to speak of."]
    if table["readers"] == 2:
        pair = (
            next(row for row in review["pairs"] if row["cases"]) if any(r["cases"] for r in review["pairs"]) else None
        )
        if pair is None:
            return ["The two readers have read no case in common."]
        one, other = pair["readers"]
        return [_said(f"{one} and {other} agree on {pair['cases']} cases with Cohen's kappa", pair["kappa"])]
    said = [
        _said(
            f"On {table['read_by_two']} cases that two or more have read, Krippendorff's alpha is",
            table["krippendorff_alpha"],
        )
    ]
    if table["read_by_all"]:
        said.append(
            _said(f"On {table['read_by_all']} cases that all have read, Fleiss' kappa is", table["fleiss_kappa"])
        )
    return said


def _said(what: str, figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return f"{what} undefined: {figure['reason']}."
    return f"{what} {interval_text(dict(figure))}: {strength(figure['value'])}."


def _model(review: Mapping[str, Any]) -> list[str]:
    table = review["model_reading"]
    if table is None:
        return []
    truth, consensus = table["against_truth"], table["consensus_against_truth"]
    said = [
        f"Against the truth the model's sensitivity is {interval_text(truth['sensitivity'])} and its specificity "
        f"{interval_text(truth['specificity'])}; what most readers say reaches "
        f"{interval_text(consensus['sensitivity'])} and {interval_text(consensus['specificity'])} on the "
        f"{table['consensus']} cases on which it is clear."
    ]
    if table["consensus"]:
        said.append(_said("The model agrees with what most readers say with a kappa of", table["kappa"]))
    if table["no_consensus"]:
        said.append(f"On {table['no_consensus']} cases as many readers say normal as abnormal.")
    return said


def _findings(review: Mapping[str, Any]) -> list[str]:
    table = review["findings"]
    if table is None:
        return []
    said = []
    for name, row in table["readers"].items():
        judged = row["true"] + row["false"]
        if judged:
            doubt = f" and leaves {row['unsure']} open" if row["unsure"] else ""
            said.append(
                f"{name} takes {row['true']} of {judged} findings of the model for true, "
                f"{interval_text(row['taken_for_true'])}{doubt}."
            )
    if table["judged_by_two"]:
        said.append(_said(f"On {table['judged_by_two']} findings Krippendorff's alpha is", table["alpha"]))
    return said
