"""What can be asked of an explanation, and what is said of it wherever it is shown; needs no torch."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from AnomalyDetectionLib.errors import InputError

if TYPE_CHECKING:
    from AnomalyDetectionLib.imaging.volume import Volume

LABEL = "attribution, not segmentation"
"""Stands beside every map of an explanation: it shows what moved the model, not where the disease is."""

METHODS = {
    "grad-cam": "Grad-CAM",
    "grad-cam++": "Grad-CAM++",
    "integrated-gradients": "Integrated gradients",
    "saliency": "Saliency",
    "occlusion": "Occlusion",
}
"""Names for people, by the name that is asked for."""

OF_A_LAYER = ("grad-cam", "grad-cam++")
"""Methods that look at one layer of the network, which can be chosen."""

NEEDS_CAPTUM = ("integrated-gradients", "saliency", "occlusion")
"""Methods that are taken from the Python package captum; the others need torch alone."""

EXPLAINABLE = ("classifier",)
"""Registered detectors that judge whole images by a network that can be explained, for those who may not import torch
to ask them (`Detector.explainable`)."""


@dataclass(frozen=True)
class Explanation:
    """What is asked for.

    Attributes
    ----------
    method
        One of `METHODS`.
    layer
        Name of a layer of the network, for Grad-CAM and Grad-CAM++; None for the last one that makes maps.

    Raises
    ------
    InputError
        For a method that there is not, or a layer beside a method that looks at none.
    """

    method: str
    layer: str | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            near = difflib.get_close_matches(self.method, METHODS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(METHODS)}"
            raise InputError(f"there is no explanation by {self.method!r} ({hint}).")
        if self.layer is not None and self.method not in OF_A_LAYER:
            raise InputError(
                f"the explanation by {self.method!r} looks at no layer; leave the layer out, or choose "
                f"{' or '.join(OF_A_LAYER)}."
            )

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"method": self.method, "layer": self.layer}


@dataclass(frozen=True)
class Attribution:
    """What moved the model's score of a case, place by place.  It is not thresholded, and no findings come of it.

    Attributes
    ----------
    map
        float32 in the input's geometry.  Of Grad-CAM and Grad-CAM++ (0 or more) in units of their own; of integrated
        gradients log-odds that each pixel of the model's grid adds (signed); of saliency by how much the log-odds move
        with the intensity (0 or more); of occlusion log-odds that are lost when the place is covered (signed).
        Positive speaks for abnormal.
    method
        One of `METHODS`.
    layer
        The layer that was looked at; None for methods that look at none.
    """

    map: Volume
    method: str
    layer: str | None = None

    @property
    def label(self) -> str:
        """What must stand beside it."""
        return LABEL

    @property
    def title(self) -> str:
        """The method's name for people."""
        return METHODS[self.method]

    @property
    def peak(self) -> float:
        """The largest value, at least 0: the hottest colour."""
        return max(0.0, float(self.map.array.max()))

    def facts(self) -> dict[str, Any]:
        """Everything but the map, as plain JSON values."""
        return {"method": self.method, "layer": self.layer, "label": self.label}
