"""Standardised uptake values of PET by body weight (QIBA's vendor-neutral pseudo-code; PS3.3 C.8.9)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from AnomalyDetectionLib.errors import InputError

from .frame import Frame
from .values import items, number, word, words

_DOSE_BQ = (1e5, 1e11)
_WEIGHT_KG = (0.5, 400.0)
_DAY = timedelta(days=1)


def standardise(array: NDArray[np.float32], frames: Sequence[Frame], notes: list[str]) -> str:
    """Turn activity concentration into SUV, in place, where the file says all that this takes.

    Parameters
    ----------
    array
        (K, J, I) in the unit of the files, rescaled.
    frames
        The slices, in any order.
    notes
        Takes what was computed from what, or why it could not be.

    Returns
    -------
    units
        "SUVbw", or the unit of the files ("BQML", "CNTS", ...) if SUV cannot be computed.

    Raises
    ------
    InputError
        If slices are in different units, or in counts that no factor makes comparable.
    """
    units = {word(frame.header.dataset, "Units").upper() for frame in frames}
    if len(units) > 1:
        raise InputError(
            f"{frames[0].name}: the slices of this PET are in different units ({', '.join(sorted(units))})."
        )
    header, unit = frames[0].header, units.pop()
    if unit == "GML":
        kind = word(header.dataset, "SUVType").upper() or "BW"
        return f"SUV{kind.lower()}"
    if unit == "CNTS":
        return _from_counts(array, frames, notes)
    if unit != "BQML":
        notes.append(f"SUV cannot be computed: the unit of the PET is '{unit or 'not stated'}', not Bq/mL.")
        return unit
    factor, reason = _factor(frames)
    if factor is None:
        notes.append(f"SUV cannot be computed ({reason}); the values stay in Bq/mL.")
        return "BQML"
    array *= np.float32(factor)
    notes.append(f"SUV by body weight: {reason}.")
    return "SUVbw"


def _from_counts(array: NDArray[np.float32], frames: Sequence[Frame], notes: list[str]) -> str:
    """Philips stores counts and, privately, the factor that makes them SUV: (7053,xx00)."""
    factors = {_philips_factor(frame.header.dataset) for frame in frames}
    factor = factors.pop() if len(factors) == 1 else None
    if not factor:
        raise InputError(
            f"{frames[0].name}: this PET is in counts (CNTS), which no detector can compare; export it in Bq/mL."
        )
    array *= np.float32(factor)
    notes.append(f"SUV by body weight: counts times the Philips factor {factor:.6g}.")
    return "SUVbw"


def _philips_factor(dataset: Dataset) -> float | None:
    try:
        value = float(str(dataset.private_block(0x7053, "Philips PET Private Group")[0x00].value))
    except (KeyError, ValueError, TypeError):
        return None
    return value if np.isfinite(value) and value > 0 else None


def _factor(frames: Sequence[Frame]) -> tuple[float | None, str]:
    """Factor from Bq/mL to g/mL and how it came about, or None and what is missing."""
    dataset = frames[0].header.dataset
    weight = number(dataset, "PatientWeight") or 0.0
    if not _WEIGHT_KG[0] <= weight <= _WEIGHT_KG[1]:
        return None, f"the patient's weight is {'missing' if not weight else f'{weight:g} kg'}"
    drugs = items(dataset, "RadiopharmaceuticalInformationSequence")
    if len(drugs) != 1:
        return None, "the injection is not described" if not drugs else "several injections are described"
    dose = number(drugs[0], "RadionuclideTotalDose") or 0.0
    if not _DOSE_BQ[0] <= dose <= _DOSE_BQ[1]:
        return None, f"the injected activity is {'missing' if not dose else f'{dose:g}, not in Bq'}"
    corrected = words(dataset, "CorrectedImage")
    if not {"ATTN", "DECY"} <= set(corrected):
        return None, "the image is not corrected for attenuation and decay"
    correction = word(dataset, "DecayCorrection").upper()
    said = f"{weight:g} kg, {dose / 1e6:.4g} MBq"
    if correction == "ADMIN":
        return weight * 1000 / dose, f"{said}, decay corrected to the injection"
    if correction != "START":
        return None, f"decay correction '{correction or 'not stated'}'"
    half_life = number(drugs[0], "RadionuclideHalfLife") or 0.0
    if half_life <= 0:
        return None, "the half-life is missing"
    elapsed = _seconds_since_injection(frames, drugs[0])
    if elapsed is None:
        return None, "the times of injection and scan are missing or contradict each other"
    decayed = dose * 2 ** (-elapsed / half_life)
    return weight * 1000 / decayed, f"{said} decayed over {elapsed / 60:.1f} min with a half-life of {half_life:g} s"


def _seconds_since_injection(frames: Sequence[Frame], drug: Dataset) -> float | None:
    """Seconds from injection to the moment to which the images are decay corrected."""
    scan = _scan_start(frames)
    if scan is None:
        return None
    injection = _moment(word(drug, "RadiopharmaceuticalStartDateTime"))
    if injection is None:
        injection = _moment(scan.strftime("%Y%m%d") + word(drug, "RadiopharmaceuticalStartTime"), time_needed=True)
        if injection is not None and injection > scan:
            injection -= _DAY  # injected before midnight: the time alone carries no date
    if injection is None or not timedelta(0) <= scan - injection < _DAY:
        return None
    return (scan - injection).total_seconds()


def _scan_start(frames: Sequence[Frame]) -> datetime | None:
    """The series' time, unless set anew after the acquisition (QIBA): then GE's own, or the first acquisition's."""
    header = frames[0].header
    series = _moment(word(header.dataset, "SeriesDate") + word(header.dataset, "SeriesTime"), time_needed=True)
    acquired = [
        moment
        for frame in frames
        if (moment := _moment(frame_date(frame) + word(frame.header.dataset, "AcquisitionTime"), time_needed=True))
    ]
    first = min(acquired, default=None)
    if series is not None and (first is None or series <= first):
        return series
    try:
        private = header.dataset.private_block(0x0009, "GEMS_PETD_01")[0x0D].value
        if isinstance(private, bytes):
            private = private.decode("ascii", "replace")
        return _moment(str(private).strip(" \0")) or first
    except KeyError:
        return first


def frame_date(frame: Frame) -> str:
    """The date of a slice's acquisition, or of its series where it has none of its own."""
    return word(frame.header.dataset, "AcquisitionDate") or word(frame.header.dataset, "SeriesDate")


def _moment(text: str, *, time_needed: bool = False) -> datetime | None:
    """A DICOM date and time (YYYYMMDDHHMMSS.FFFFFF, the zone cut off); None if it is none."""
    digits, _, fraction = text.split("+")[0].split("-")[0].partition(".")
    if len(digits) < (12 if time_needed else 10) or not digits.isdigit():
        return None
    try:
        whole = datetime.strptime(digits[:14].ljust(14, "0"), "%Y%m%d%H%M%S")
    except ValueError:
        return None
    return whole + timedelta(seconds=float(f"0.{fraction}") if fraction.isdigit() else 0.0)
