"""How the panel words things: plain functions of values, no widgets."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _

from AnomalyDetectionLib.scoring.explaining import LABEL

if TYPE_CHECKING:
    from AnomalyDetectionLib.models.catalogue import Entry
    from AnomalyDetectionLib.scoring.result import Finding

    from .verdict import Verdict

MODEL_LETTERS = 26
"""Of a model's name in the closed list: what 310 pixels of panel leave room for beside the label and the arrow."""

ALARM, CALM, DOUBT = "#c0392b", "#2e7d32", "#b36b00"
"""Colours of words that are readable on light and dark panels."""


def coloured(text: str, colour: str) -> str:
    """Rich text, bold and in a colour."""
    return f'<b style="color:{colour}">{escape(text)}</b>'


def error_text(message: str) -> str:
    """Rich text for something that went wrong."""
    return f"{coloured('✗', ALARM)} {escape(message)}"


def warning_text(message: str) -> str:
    """Rich text for something to think of."""
    return f"{coloured('⚠', DOUBT)} {escape(message)}"


def one_in(rarity: float) -> str:
    """A rarity as a share of normal voxels: 2 is "1 in 100", two significant digits, thousands apart."""
    number = 10.0**rarity
    digits = max(0, len(str(int(number))) - 2)
    return _("1 in {number}").format(number=f"{round(number / 10**digits) * 10**digits:,}")


def cost_text(rarity: float, cost: float | None) -> str:
    """What a threshold means and costs, under the slider."""
    meaning = _("Rarer than {share} normal voxels:").format(share=one_in(rarity))
    if cost is None:
        return f"{meaning} {_('what it costs in false findings is not known.')}"
    return f"{meaning} {_('{cost} findings per normal scan.').format(cost=f'{cost:.2g}')}"


def no_map_text() -> str:
    """Why nothing can be set where a model judges whole images."""
    return _("This model judges the whole image: there is no map, so nothing to find in it or to show over it.")


def explained_text(method: str) -> str:
    """What the heat is where a classifier's score was explained."""
    return _("Heat by {method}: {label}. It shows what moved the model, so there is nothing to find in it.").format(
        method=method, label=LABEL
    )


def time_left_text(seconds: float | None) -> str:
    """ "12 s left", "3 min left", or "" while unknown."""
    if seconds is None:
        return ""
    if seconds < 100:
        return _("{seconds} s left").format(seconds=max(1, round(seconds)))
    return _("{minutes} min left").format(minutes=round(seconds / 60))


def verdict_html(verdict: Verdict) -> str:
    """The verdict on a volume: the call, what was found, the score with its p-value, and how far the image is fit."""
    call = {
        True: coloured(_("Abnormal"), ALARM),
        False: coloured(_("Not abnormal"), CALM),
        None: coloured(_("No call"), DOUBT),
    }[verdict.abnormal]
    if verdict.explained:
        found = _("whole image judged; heat: {method}").format(method=verdict.explained)
    elif not verdict.mapped:
        found = _("whole image judged, no map")
    elif verdict.findings == 0:
        found = _("no finding above rarity {threshold:.1f}")
    elif verdict.findings == 1:
        found = _("1 finding above rarity {threshold:.1f}")
    else:
        found = _("{count} findings above rarity {threshold:.1f}")
    lines = [
        f"{call} – {escape(found.format(count=verdict.findings, threshold=verdict.threshold))}",
        escape(
            _("Volume score {score:.2f}, p = {p:.3f} against {n} normal scans").format(
                score=verdict.volume_score, p=verdict.p_value, n=verdict.calibration_n
            )
        ),
        *([] if verdict.probability is None else [escape(_("Probability {p:.2f}").format(p=verdict.probability))]),
        f"{escape(_('Image quality:'))} {_quality(verdict.quality)}",
        *(f"• {escape(reason)}" for reason in (*verdict.reasons, *verdict.notes)),
    ]
    return "<br>".join(lines)


def _quality(verdict: str) -> str:
    words = {"good": (_("good"), CALM), "check": (_("to be checked"), DOUBT), "poor": (_("poor"), ALARM)}
    return coloured(*words[verdict])


def model_label(entry: Entry) -> str:
    """A line of the list of models, short enough for the narrow panel; the rest is in `model_tip` and below it."""
    return shortened(entry.title, MODEL_LETTERS)


def shortened(text: str, most: int) -> str:
    """A text of at most so many letters: what is too much is taken out of its middle, for names differ at the end."""
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def model_marks(entry: Entry) -> str:
    """Modality, contrast and marks of a model, such as "MR FLAIR, experimental"."""
    kind = " ".join(part for part in ("/".join(entry.modalities), entry.contrast) if part)
    experimental = _("experimental") if entry.experimental else ""
    unusable = "" if entry.usable else _("unusable")
    return ", ".join(part for part in (kind, experimental, unusable) if part)


def figure_lines(figures: Mapping[str, Any]) -> list[str]:
    """What was measured, a line each."""
    return [f"{name.replace('_', ' ')}: {value}" for name, value in figures.items()]


def model_tip(entry: Entry) -> str:
    """The tooltip of a model: its full name, then why it cannot be used, or what it is and what was measured."""
    marks = model_marks(entry)
    name = f"{entry.title} – {marks}" if marks else entry.title
    if entry.problem is not None:
        return tip_text(f"{name}\n{entry.problem}")
    return tip_text("\n".join([name, entry.description, "", *figure_lines(entry.figures)]).strip())


def tip_text(text: str) -> str:
    """A text of foreign origin for a tooltip or a question, shown as it stands: Qt takes tags for rich text."""
    return "<br>".join(map(escape, text.split("\n"))) if "<" in text else text


def fit_text(entry: Entry | None, modality: str) -> str:
    """What speaks against scoring an image of that modality with that model; "" where nothing does."""
    if entry is None:
        return _("There is no model that can be used; install one from a file.")
    if entry.problem is not None:
        return entry.problem
    if not entry.modalities or modality in entry.modalities:
        return ""
    made_for = _(" or ").join(entry.modalities)
    if not modality:
        return _("The file does not say the modality; the model was made for {made_for}. Choose it above.").format(
            made_for=made_for
        )
    return _("The image is {modality}, the model was made for {made_for}: choose a model for this modality.").format(
        modality=modality, made_for=made_for
    )


def place_text(ras: tuple[float, float, float]) -> str:
    """A place as radiologists write it, such as "L30 A12 S45" (mm from the scene's origin)."""
    letters = (("R", "L"), ("A", "P"), ("S", "I"))
    return " ".join(
        f"{letter[0] if value >= 0 else letter[1]}{abs(value):.0f}" for letter, value in zip(letters, ras, strict=True)
    )


def finding_cells(finding: Finding, size: str, side: str) -> tuple[str, ...]:
    """The cells of a finding's row: number, side, size, peak, place."""
    return (str(finding.label), side, size, f"{finding.peak:.1f}", place_text(finding.centroid_ras))
