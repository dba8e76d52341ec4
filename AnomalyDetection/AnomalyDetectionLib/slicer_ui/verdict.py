"""What is said of a scored volume as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slicer.i18n import tr as _

from AnomalyDetectionLib.scoring.explaining import LABEL


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
    explained
        Name of the method by which the score was explained; "" where it was not.
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
    explained: str = ""

    def sentences(self) -> list[str]:
        """In full sentences, for somebody who has not got the panel."""
        called = {
            True: _("The model calls the case abnormal."),
            False: _("The model does not call the case abnormal."),
            None: _("The model makes no call of normal or abnormal."),
        }[self.abnormal]
        quality = {
            "good": _("The image quality is good."),
            "check": _("The image quality is to be checked."),
            "poor": _("The image quality is poor."),
        }[self.quality]
        probability = _("Its probability of being abnormal is {p:.2f}.")
        return [
            called,
            self._found(),
            _("The volume score is {score:.2f}.").format(score=self.volume_score),
            *([] if self.probability is None else [probability.format(p=self.probability)]),
            _("Of {n} normal scans, together with this one, a share of p = {p:.3f} scores as high.").format(
                n=self.calibration_n, p=self.p_value
            ),
            quality,
            *self.reasons,
            *self.notes,
        ]

    def _found(self) -> str:
        if self.explained:
            return _("The whole image was judged; the heat ({method}) is {label}.").format(
                method=self.explained, label=LABEL
            )
        if not self.mapped:
            return _("The whole image was judged: there is no map, and no place to point at.")
        if self.findings == 0:
            found = _("There is no finding above rarity {threshold:.1f}.")
        elif self.findings == 1:
            found = _("There is 1 finding above rarity {threshold:.1f}.")
        else:
            found = _("There are {count} findings above rarity {threshold:.1f}.")
        return found.format(count=self.findings, threshold=self.threshold)


def verdict_document(name: str, verdict: Verdict, origin: Sequence[str]) -> str:
    """The verdict on a volume as plain text, a sentence a line.

    Parameters
    ----------
    name
        The volume's.
    origin
        Sentences that say which model made it.
    """
    heading = _("Anomaly Detection: {volume}").format(volume=name)
    warning = _("Research use only; not for diagnosis.")
    return "\n".join([heading, "", *verdict.sentences(), "", *origin, warning, ""])
