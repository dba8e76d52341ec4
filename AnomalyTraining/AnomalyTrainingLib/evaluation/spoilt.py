"""What artefacts did to the model on normal images, as a table and in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .metrics_file import UNSPOILT
from .plots import model_name
from .words import listed

Row = Mapping[str, Any]

_MORE = 1.5
"""False findings beyond this many times those of the unspoilt images, and one more in ten images, are worth a word."""


@dataclass(frozen=True)
class Battery:
    """The rows of one method.

    Attributes
    ----------
    unspoilt
        The row of the images as they are, or None.
    severities
        In the order of the table's columns.
    rows
        Artefact to its row for each severity; None where no image could be scored.
    """

    unspoilt: Row | None
    severities: tuple[float, ...]
    rows: Mapping[str, Sequence[Row | None]]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Battery | None:
        """That of the model of metrics.json; None where the evaluation tried no artefacts."""
        name = model_name(document)
        own = [row for row in document["artefacts"] if row["method"] == name]
        spoilt = {(row["artefact"], row["severity"]): row for row in own if row["artefact"] != UNSPOILT}
        if not spoilt:
            return None
        severities = tuple(sorted({severity for _, severity in spoilt}))
        kinds = dict.fromkeys(kind for kind, _ in spoilt)
        return cls(
            next((row for row in own if row["artefact"] == UNSPOILT), None),
            severities,
            {kind: [spoilt.get((kind, severity)) for severity in severities] for kind in kinds},
        )

    def sentences(self) -> list[str]:
        """What the images show unspoilt, and which artefacts are mistaken for lesions from which severity on."""
        if self.unspoilt is None or self.unspoilt["false_findings_per_case"] is None:
            return []
        before = self.unspoilt["false_findings_per_case"]
        images = self.unspoilt["cases"]
        said = [
            f"{images} normal image{'s' * (images != 1)} {'was' if images == 1 else 'were'} spoilt; as they are, they "
            f"have {before:.2f} false findings each."
        ]
        worse = {kind: row for kind in self.rows if (row := self._first_worse(kind, before))}
        named = [
            f"{kind} from severity {row['severity']:g} on" if len(self.severities) > 1 else kind
            for kind, row in worse.items()
        ]
        if named:
            said.append(f"Mistaken for lesions more often than that are {listed(named)}.")
        missed = [kind for kind, row in worse.items() if row["share_poor_quality"] == 0]
        if missed:
            said.append(f"The image quality check does not notice {listed(missed)} there.")
        if not named:
            said.append("No artefact raises that notably.")
        return said

    def _first_worse(self, kind: str, before: float) -> Row | None:
        for row in self.rows[kind]:
            if row is not None and (row["false_findings_per_case"] or 0) > max(_MORE * before, before + 0.1):
                return row
        return None
