"""What FreeSurfer's labels of a head mean to a scanner: which mixture of tissues each of them is."""

from __future__ import annotations

from collections.abc import Mapping

WHITE_MATTER = (2, 41)
"""Cerebral white matter, left and right; no label map goes without."""

VENTRICLES = (4, 43, 14, 31, 63, 72, 136, 163)
"""Lateral and third ventricles with their choroid plexus (136 and 163 in SynthSeg's maps)."""

SOFT = 507
"""Soft tissue of head and neck: fat and muscle under one label."""

OUTER = (502, 506, 507, 508, 509, 511, 512, 514, 515, 516, 530)
"""Tissue outside the brain, in the numbers of SimNIBS's CHARM atlas (Puonti et al., NeuroImage 2020)."""

_WHITE = {"wm": 1.0}
_GREY = {"gm": 1.0}
_FLUID = {"csf": 1.0}
_PLEXUS = {"csf": 0.6, "gm": 0.4}

_ONE_SIDED: Mapping[int, Mapping[str, float]] = {
    14: _FLUID,  # third and fourth ventricle, other fluid, fifth ventricle
    15: _FLUID,
    24: _FLUID,
    72: _FLUID,
    16: {"wm": 0.85, "gm": 0.15},  # brainstem
    77: _WHITE,  # white matter hypointensities: this head's anatomy, not a lesion to be found
    85: _WHITE,  # optic chiasm
    **dict.fromkeys(range(251, 256), _WHITE),  # corpus callosum
    502: {"muscle": 0.2},  # arteries, veins and dura: mostly flow void
    506: _FLUID,  # eyeballs
    508: {"muscle": 1.0},
    509: {"mucosa": 0.9},
    511: {"skin": 1.0},
    512: _WHITE,  # spinal cord
    514: {"muscle": 0.3, "csf": 0.4},
    515: {"muscle": 0.06},  # compact bone has next to no signal
    516: {"fat": 0.45, "muscle": 0.2},  # marrow
    530: {"wm": 0.7},  # optic nerve
}

# Deep grey nuclei hold as much white matter as their T1 signal tells.
_SIDED: Mapping[tuple[int, int], Mapping[str, float]] = {
    (2, 41): _WHITE,
    (3, 42): _GREY,
    (4, 43): _FLUID,
    (5, 44): _FLUID,
    (7, 46): _WHITE,
    (8, 47): _GREY,
    (10, 49): {"gm": 0.55, "wm": 0.45},  # thalamus
    (11, 50): {"gm": 0.95, "wm": 0.05},  # caudate
    (12, 51): {"gm": 0.80, "wm": 0.20},  # putamen
    (13, 52): {"gm": 0.25, "wm": 0.75, "texture": 0.03},  # pallidum; its iron darkens T2 and FLAIR
    (17, 53): _GREY,
    (18, 54): _GREY,
    (26, 58): {"gm": 0.95, "wm": 0.05},  # accumbens
    (28, 60): {"gm": 0.35, "wm": 0.65},  # ventral diencephalon
    (25, 57): _WHITE,  # lesions that FreeSurfer's raters found: as 77
    (30, 62): {"csf": 0.5, "wm": 0.5},  # vessels, perivascular spaces
    (31, 63): _PLEXUS,
    (136, 163): _PLEXUS,
    (137, 164): _PLEXUS,
    (78, 79): _WHITE,
}

MIXTURES: Mapping[int, Mapping[str, float]] = {
    **_ONE_SIDED,
    **{label: mixture for pair, mixture in _SIDED.items() for label in pair},
    **{label: _GREY for left in (1000, 2000) for label in range(left, left + 36)},  # parcels of the cortex (aparc)
    **{label: _WHITE for left in (3000, 4000) for label in range(left, left + 36)},  # and of the white matter
    5001: _WHITE,
    5002: _WHITE,
}
"""Share of each tissue by label, except for `SOFT`.  What is missing to 1 gives no signal; `texture` is added."""

BRAIN = frozenset(label for label in MIXTURES if label not in OUTER and label != 24)
"""Labels of the brain itself, ventricles included, the fluid around it not."""

CENTRES_MNI: Mapping[tuple[int, int], tuple[float, float, float]] = {
    (10, 49): (11.0, -19.0, 7.0),
    (11, 50): (13.0, 9.0, 10.0),
    (12, 51): (25.0, 1.0, 0.0),
    (13, 52): (20.0, -5.0, -1.0),
    (17, 53): (26.0, -22.0, -14.0),
    (18, 54): (23.0, -5.0, -18.0),
    (8, 47): (25.0, -62.0, -36.0),
}
"""Where thalami, caudates, putamina, pallida, hippocampi, amygdalae and cerebellar cortices lie in MNI space: centre of
mass (mm) of the right one, of the left one at -x."""
