"""Is this an image the model can be trusted on?  What a radiologist would remark on before reading it.

Each check is a function (volume, foreground, sample) -> `Remark` or None; `CHECKS` lists them.  The thresholds were set
on real images (ICBM152 with artefacts added, clinical T1, FLAIR and chest CT) and are tested on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib.imaging.geometry import Canonical
from AnomalyDetectionLib.imaging.volume import RADIOGRAPHY, Volume

from .result import Quality

SLICES_SAMPLED = 16
MAGNITUDE = ("MR", "", "OT", "SC")
FRAMES = ("US", "XA", "RF", *RADIOGRAPHY)
"""Modalities whose third axis is time or nothing, and whose image rightly fills the field of view."""

CONTRAST_TO_NOISE_CHECK, CONTRAST_TO_NOISE_POOR = 10.0, 5.0
"""Range of the tissues (5th to 95th percentile) in noise SDs.  ICBM152 has 170, clinical 3D scans 19 (FLAIR) to 53
(T1); at 10, grey and white matter (a third of the range) differ by three SDs, at 5 by less than two."""
CT_NOISE_CHECK, CT_NOISE_POOR = 40.0, 100.0
"""Noise SD in HU; diagnostic body CT has 8 to 25, an ultra-low-dose lung screen up to 40."""
LEVELS_CHECK, LEVELS_POOR = 48, 12
CLIPPED_CHECK, CLIPPED_POOR = 0.03, 0.15
"""Share of the patient at the single highest value."""
SLICE_MM_CHECK, SLICE_MM_POOR = 5.0, 10.0
ANISOTROPY_CHECK = 8.0
CUT_CHECK = 0.2
"""Share of the patient's largest cross-section that lies on a lateral face of the image."""
SHARE_CHECK, SHARE_POOR = 0.02, 0.004
GHOST_CHECK, GHOST_POOR = 0.03, 0.10
"""Ghost-to-signal ratio; the ACR phantom test (Phantom Test Guidance, 2018) allows 0.03."""


@dataclass(frozen=True)
class Remark:
    """A reason for doubt in one full sentence, and whether it makes the image poor rather than one to check."""

    sentence: str
    poor: bool


@dataclass(frozen=True)
class Sample:
    """What several checks share: some slices and their foreground (n, J, I), and values of the foreground (1D)."""

    slices: NDArray[np.float32]
    inside: NDArray[np.bool_]
    values: NDArray[np.float32]

    @classmethod
    def of(cls, volume: Volume, foreground: NDArray[np.bool_]) -> Sample:
        """Evenly spaced slices from the middle four fifths of those that show the patient."""
        counts = np.count_nonzero(foreground, axis=(1, 2))
        shown = np.flatnonzero(counts)
        margin = shown.size // 10
        middle = shown[margin : shown.size - margin]
        picked = middle[np.linspace(0, middle.size - 1, min(SLICES_SAMPLED, middle.size)).astype(int)]
        slices, inside = volume.array[picked], foreground[picked]
        return cls(slices, inside, slices[inside])


def noise_sd(sample: Sample) -> float | None:
    """Noise SD inside the foreground; None where too little of it is in one piece.

    Immerkaer, "Fast noise variance estimation", CVIU 64 (1996): the difference of two Laplacians, blind to ramps and
    edges along the axes; by the median of its magnitude, blind to what structure remains.
    """
    a = sample.slices
    across = a[:, :, 2:] - 2 * a[:, :, 1:-1] + a[:, :, :-2]
    response = across[:, 2:] - 2 * across[:, 1:-1] + across[:, :-2]
    m = sample.inside
    wide = m[:, :, 2:] & m[:, :, 1:-1] & m[:, :, :-2]
    whole = wide[:, 2:] & wide[:, 1:-1] & wide[:, :-2]
    values = np.abs(response[whole])
    return None if values.size < 200 else float(np.median(values)) * 1.4826 / 6


def _noise(volume: Volume, foreground: NDArray[np.bool_], sample: Sample) -> Remark | None:
    sd = noise_sd(sample)
    if sd is None or sd == 0:
        return None
    if volume.units == "HU":
        if sd <= CT_NOISE_CHECK:
            return None
        return Remark(
            f"The image is noisy: {sd:.0f} HU where up to {CT_NOISE_CHECK:.0f} are usual.", sd > CT_NOISE_POOR
        )
    if volume.modality not in MAGNITUDE:
        return None  # speckle and counting noise belong to ultrasound, PET and SPECT
    low, high = np.percentile(sample.values, (5, 95))
    ratio = float(high - low) / sd
    if ratio >= CONTRAST_TO_NOISE_CHECK:
        return None
    return Remark(
        f"Tissues can hardly be told apart: their grey values span only {ratio:.1f} times the noise.",
        ratio < CONTRAST_TO_NOISE_POOR,
    )


def _grey_levels(volume: Volume, foreground: NDArray[np.bool_], sample: Sample) -> Remark | None:
    levels = np.unique(sample.values[:: max(1, sample.values.size // 100_000)]).size
    if levels >= LEVELS_CHECK or sample.values.size < 10 * LEVELS_CHECK:
        return None
    return Remark(f"The patient is shown in only {levels} grey levels.", levels < LEVELS_POOR)


def _clipping(volume: Volume, foreground: NDArray[np.bool_], sample: Sample) -> Remark | None:
    share = float(np.mean(sample.values == sample.values.max()))
    if share <= CLIPPED_CHECK:
        return None
    return Remark(f"Bright values are cut off: {share:.0%} of the patient has the highest value.", share > CLIPPED_POOR)


def _slices(volume: Volume, foreground: NDArray[np.bool_], sample: Sample) -> Remark | None:
    if volume.is_slice or not volume.spacing_known or volume.modality in FRAMES:
        return None
    coarse, fine = max(volume.spacing), min(volume.spacing)
    if coarse > SLICE_MM_CHECK:
        return Remark(f"The slices are thick ({coarse:.1f} mm): small lesions are missed.", coarse > SLICE_MM_POOR)
    if coarse / fine > ANISOTROPY_CHECK:
        return Remark(f"Voxels are {coarse / fine:.0f} times as long as they are wide: shapes are uncertain.", False)
    return None


def _field_of_view(volume: Volume, foreground: NDArray[np.bool_], sample: Sample) -> Remark | None:
    """A patient cut off at the side; scans rightly end within the body above and below."""
    if volume.modality in FRAMES or volume.modality in ("PT", "NM") or volume.is_slice:
        return None
    turned = Canonical.of(volume.grid).apply(foreground)
    cut = []
    for axis, names in ((2, ("left", "right")), (1, ("back", "front"))):
        sections = np.count_nonzero(turned, axis=tuple({0, 1, 2} - {axis}))
        cut += [name for name, end in zip(names, (0, -1), strict=True) if sections[end] > CUT_CHECK * sections.max()]
    if not cut:
        return None
    if not volume.orientation_known:
        return Remark("The patient is cut off at the side of the image.", False)
    sides = cut[0] if len(cut) == 1 else f"{', '.join(cut[:-1])} and {cut[-1]}"
    return Remark(f"The patient is cut off at the {sides} of the image.", False)


def _small(volume: Volume, foreground: NDArray[np.bool_], sample: Sample) -> Remark | None:
    share = float(np.count_nonzero(foreground)) / foreground.size
    if share >= SHARE_CHECK:
        return None
    return Remark(f"Only {share:.1%} of the image shows the patient.", share < SHARE_POOR)


def ghost_ratio(sample: Sample) -> float | None:
    """Ghost-to-signal ratio of a magnitude image; None where there is no air to measure it in.

    Motion and pulsation repeat the patient along the phase-encoding axis only: the air beside the patient along one
    in-plane axis is then brighter than along the other, which noise alone does not do (percent signal ghosting of the
    ACR Phantom Test Guidance).
    """
    ratios = []
    for image, inside in zip(sample.slices, sample.inside, strict=True):
        rows, columns = inside.any(axis=1), inside.any(axis=0)
        gap_rows, gap_columns = _widened(rows), _widened(columns)
        beside, above = image[rows][:, ~gap_columns], image[~gap_rows][:, columns]
        if min(beside.size, above.size) < 0.005 * image.size or beside.std() == 0 or above.std() == 0:
            continue  # cropped tightly, or air set to a constant
        signal = float(image[inside].mean())
        ratios.append(abs(float(beside.mean()) - float(above.mean())) / (2 * signal) if signal > 0 else 0.0)
    return float(np.median(ratios)) if len(ratios) > len(sample.slices) / 2 else None


def _widened(line: NDArray[np.bool_], margin: int = 4) -> NDArray[np.bool_]:
    """The span from first to last True, and a margin for the point spread at the skin."""
    shown = np.flatnonzero(line)
    result = np.zeros_like(line)
    result[max(0, shown[0] - margin) : shown[-1] + margin + 1] = True
    return result


def _ghosts(volume: Volume, foreground: NDArray[np.bool_], sample: Sample) -> Remark | None:
    if volume.modality != "MR":
        return None
    ratio = ghost_ratio(sample)
    if ratio is None or ratio <= GHOST_CHECK:
        return None
    return Remark(
        f"Ghosts stand in the air beside the patient ({ratio:.0%} of the signal): motion or pulsation.",
        ratio > GHOST_POOR,
    )


CHECKS: tuple[Callable[[Volume, NDArray[np.bool_], Sample], Remark | None], ...] = (
    _noise,
    _ghosts,
    _slices,
    _field_of_view,
    _small,
    _clipping,
    _grey_levels,
)


def assess(volume: Volume, foreground: NDArray[np.bool_]) -> Quality:
    """Verdict on the image, with reasons.

    Parameters
    ----------
    foreground
        bool (K, J, I), not empty: the patient (`imaging.foreground`).

    Returns
    -------
    `Quality`: "poor" if any remark says so, "check" if there is any remark, else "good".
    """
    sample = Sample.of(volume, foreground)
    remarks = [remark for check in CHECKS if (remark := check(volume, foreground, sample)) is not None]
    verdict = "poor" if any(remark.poor for remark in remarks) else "check" if remarks else "good"
    return Quality(verdict, tuple(remark.sentence for remark in remarks))
