"""What a DICOM header says of the patient that a model may take beside the image."""

from __future__ import annotations

from .header import Header
from .values import word

_COLUMNS = {"age": "PatientAge", "sex": "PatientSex", "view": "ViewPosition"}
"""Manifest column to DICOM keyword; an age is text such as "063Y" (PS3.5 6.2)."""


def clinical_values(header: Header) -> dict[str, str]:
    """Age, sex and view position, as far as the header has them; nothing that tells who the patient is."""
    found = {column: word(header.dataset, keyword).strip() for column, keyword in _COLUMNS.items()}
    return {column: value for column, value in found.items() if value}
