"""What is said of a scored volume as a whole."""

from __future__ import annotations

from dataclasses import dataclass

from slicer.i18n import tr as _


@dataclass(frozen=True)
class Verdict:
    """What is said of a volume as a whole.

    Attributes
    ----------
    abnormal
        Whether the model calls the case abnormal; None where it decides nothing.
    quality
        "good", "check" or "poor"; `reasons` says why it is not good.
    false_findings_per_normal
        What the threshold costs on the calibration normals, or None where that is unknown.
    mapped
        False for a model that judges whole images: there is nothing to find.
    probability
        That the case is abnormal, by a supervised model; None for any other.
    """

    findings: int
    threshold: float
    volume_score: float
    p_value: float
    calibration_n: int
    abnormal: bool | None
    quality: str
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    false_findings_per_normal: float | None
    mapped: bool = True
    probability: float | None = None

    def text(self) -> str:
        """One line for the panel."""
        if not self.mapped:
            found = _("Whole image judged, no map")
        elif self.findings == 0:
            found = _("No finding above rarity {threshold:.1f}")
        elif self.findings == 1:
            found = _("1 finding above rarity {threshold:.1f}")
        else:
            found = _("{count} findings above rarity {threshold:.1f}")
        called = {True: [_("called abnormal")], False: [_("called normal")], None: []}[self.abnormal]
        parts = [
            *called,
            found.format(count=self.findings, threshold=self.threshold),
            _("volume score {score:.2f}").format(score=self.volume_score),
            *([] if self.probability is None else [_("probability {p:.2f}").format(p=self.probability)]),
            _("p = {p:.3f} (n = {n})").format(p=self.p_value, n=self.calibration_n),
            _("image quality {quality}").format(
                quality={"good": _("good"), "check": _("to be checked"), "poor": _("poor")}[self.quality]
            ),
        ]
        return " · ".join(parts)
