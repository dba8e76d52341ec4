"""What tissues and lesions look like in a sequence, and how that differs between individuals and scanners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib.errors import InputError


@dataclass(frozen=True)
class Contrast:
    """Intensities relative to white matter.

    Attributes
    ----------
    tissue
        Of `gm`, `wm` and `csf`.
    lesion
        Of the compartments the lesions of `lesions.KINDS` are made of.
    texture
        How much of the template's T1 detail (deep grey nuclei, brainstem, myelination) shows, and with which sign.
    further
        More compartments of lesions.  Their variation is drawn last, so that a kind of lesion more leaves the images
        of the others as they were.
    outer
        Of the tissues around the brain, `anatomy.OUTER_CHANNELS`; drawn after all others for the same reason.
    """

    tissue: Mapping[str, float]
    lesion: Mapping[str, float]
    texture: float
    further: Mapping[str, float]
    outer: Mapping[str, float]


CONTRASTS: Mapping[str, Contrast] = {
    "t1": Contrast(
        tissue={"gm": 0.755, "wm": 1.0, "csf": 0.30},  # the template's own ratios
        lesion={"necrosis": 0.38, "solid": 1.25, "oedema": 0.76, "plaque": 0.70},  # the rim takes up contrast agent
        texture=1.0,
        further={"infarct": 0.62, "clot": 1.40, "rim": 0.55, "fluid": 0.30},  # a clot of some days: methaemoglobin
        outer={"muscle": 0.55, "fat": 1.40, "skin": 0.75, "mucosa": 0.65},
    ),
    "flair": Contrast(
        tissue={"gm": 1.22, "wm": 1.0, "csf": 0.22},  # fluid suppressed, cortex brighter than white matter
        lesion={"necrosis": 0.62, "solid": 1.45, "oedema": 1.75, "plaque": 1.80},
        texture=-0.35,
        further={"infarct": 1.70, "clot": 0.50, "rim": 1.70, "fluid": 0.22},
        outer={"muscle": 0.70, "fat": 1.55, "skin": 0.85, "mucosa": 1.50},  # fast spin echo: fat stays bright
    ),
    "t2": Contrast(
        tissue={"gm": 1.40, "wm": 1.0, "csf": 2.60},
        lesion={"necrosis": 2.30, "solid": 1.60, "oedema": 2.00, "plaque": 1.90},
        texture=-0.5,
        further={"infarct": 2.00, "clot": 0.40, "rim": 1.90, "fluid": 2.60},
        outer={"muscle": 0.60, "fat": 1.80, "skin": 0.90, "mucosa": 2.20},
    ),
}
"""Sequences by name.  Ratios are those of usual 1.5-3 T protocols; individuals vary around them."""

_TISSUE_SD = 0.03
_LESION_SD = 0.05
_OUTER_SD = 0.08  # fat saturation, coils and flow differ more than the brain does


@dataclass(frozen=True)
class IndividualContrast:
    """A contrast as one scan of one person shows it: every intensity varied, times the scanner's arbitrary gain."""

    tissue: Mapping[str, float]
    lesion: Mapping[str, float]
    texture: float
    gain: float
    outer: Mapping[str, float]

    @classmethod
    def draw(cls, contrast: Contrast, rng: np.random.Generator) -> IndividualContrast:
        """Vary each tissue by 3 %, each lesion compartment by 5 % (one standard deviation), the gain up to twofold."""

        def vary(values: Mapping[str, float], sd: float) -> dict[str, float]:
            return {
                name: value * float(np.clip(rng.normal(1, sd), 1 - 3 * sd, 1 + 3 * sd))
                for name, value in values.items()
            }

        tissue, lesion = vary(contrast.tissue, _TISSUE_SD), vary(contrast.lesion, _LESION_SD)
        texture = contrast.texture * float(rng.uniform(0.7, 1.2))
        gain = float(400 * 2 ** rng.uniform(-1, 1))
        lesion |= vary(contrast.further, _LESION_SD)
        return cls(tissue, lesion, texture, gain, vary(contrast.outer, _OUTER_SD))

    def render(
        self, tissue: Mapping[str, NDArray[np.float32]], lesion: Mapping[str, NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Noise-free intensities, float32 (K, J, I), of mixed voxels.

        Parameters
        ----------
        tissue
            Fractions of `gm`, `wm`, `csf`, and `texture`, of the anatomy without lesion; in a whole head those of the
            tissues around the brain too.
        lesion
            Fractions of lesion compartments; what they take is taken from all tissues alike.
        """
        image = self.texture * tissue["texture"]
        for name, level in self.tissue.items():
            image = image + level * tissue[name]
        for name in (name for name in self.outer if name in tissue):
            image = image + self.outer[name] * tissue[name]
        if lesion:
            taken = np.minimum(sum(lesion.values()), 1)
            image = image * (1 - taken)
            for name, fraction in lesion.items():
                image = image + self.lesion[name] * fraction
        return (self.gain * np.maximum(image, 0)).astype(np.float32)


def contrast_named(name: str) -> Contrast:
    """The contrast of that name.

    Raises
    ------
    InputError
        If there is none.
    """
    if name not in CONTRASTS:
        raise InputError(f"There is no contrast {name!r}; known are {', '.join(CONTRASTS)}.")
    return CONTRASTS[name]
