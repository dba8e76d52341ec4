"""Whether a map of attribution points at what readers have boxed: the pointing game and the overlap, beside priors.

A map that knows nothing of the image can do well where lesions have their usual places; so each figure stands beside
that of the middle of the image, of other people's maps, and of other people's boxes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib.errors import InputError

from .intervals import Bootstrap, Figure, clustered_share

OVERLAPS = 0.25
"""IoU from which a box counts as covered (one of the levels that ChestX-ray8's authors count by; Wang et al. 2017)."""


@dataclass(frozen=True)
class Pointed:
    """One map against the boxes of its image.

    Attributes
    ----------
    hit
        Whether its highest pixel lies in a box (pointing game: Zhang et al., IJCV 2018; here without tolerance).
    iou
        Intersection over union of the boxes with as many of its highest pixels as the boxes have.
    inside
        Share of its positive values that lies in the boxes.
    boxed
        Share of the image that is boxed: what a random pixel hits, and what `inside` is of a flat map.
    """

    hit: bool
    iou: float
    inside: float
    boxed: float


def point(found: NDArray[np.floating], boxes: NDArray[np.bool_]) -> Pointed:
    """Compare a map with the boxes of its image.

    Where several pixels are the highest, more than half of them must be boxed for a hit, and of those at the cut of the
    IoU each counts with its share.  A map that is the same everywhere points nowhere.

    Parameters
    ----------
    found
        (rows, columns), higher where more speaks for abnormal.
    boxes
        bool (rows, columns), with at least one pixel.

    Raises
    ------
    ValueError
        If the shapes differ, or nothing is boxed.
    """
    if found.shape != boxes.shape or not boxes.any():
        raise ValueError(f"a map of shape {found.shape} cannot be compared with boxes of shape {boxes.shape}")
    count = int(boxes.sum())
    positive = np.clip(found, 0, None)
    total = float(positive.sum())
    if found.max() == found.min():
        return Pointed(False, 0.0, count / boxes.size, count / boxes.size)
    peaks = found == found.max()
    cut = np.partition(found, found.size - count, axis=None)[found.size - count]
    above, level = found > cut, found == cut
    share = (count - above.sum()) / level.sum()  # of the pixels at the cut
    common = float((above & boxes).sum() + share * (level & boxes).sum())
    return Pointed(
        hit=bool((peaks & boxes).sum() * 2 > peaks.sum()),
        iou=common / (2 * count - common),
        inside=float(positive[boxes].sum()) / total if total > 0 else count / boxes.size,
        boxed=count / boxes.size,
    )


@dataclass(frozen=True)
class Pointing:
    """The maps of one method against the boxes of all images.

    Attributes
    ----------
    hits, covered
        Images whose highest pixel is in a box, and whose IoU is at least `OVERLAPS`; of `images`.
    hit_rate, covered_rate
        Their shares, with exact intervals of as many independent images as those of the patients are worth.
    iou, inside
        Means over the images, with intervals that draw patients.
    """

    images: int
    hits: int
    covered: int
    hit_rate: Figure
    covered_rate: Figure
    iou: Figure
    inside: Figure

    @classmethod
    def of(cls, pointed: Sequence[Pointed], patients: Sequence[str], *, seed: int = 0) -> Pointing:
        """Sum up images, with the patient of each; raises ValueError without any."""
        bootstrap = Bootstrap.of(patients, [1] * len(pointed), seed=seed)
        weights = bootstrap.weights(patients).astype(np.float64)

        def mean(values: list[float]) -> Figure:
            sample = weights @ np.array(values) / weights.sum(axis=1)
            return bootstrap.figure(sample, clusters=len(set(patients)), undefined="there is no image")

        hits = np.array([one.hit for one in pointed])
        covered = np.array([one.iou >= OVERLAPS for one in pointed])
        return cls(
            images=len(pointed),
            hits=int(hits.sum()),
            covered=int(covered.sum()),
            hit_rate=clustered_share(hits, patients),
            covered_rate=clustered_share(covered, patients),
            iou=mean([one.iou for one in pointed]),
            inside=mean([one.inside for one in pointed]),
        )

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        figures = {name: getattr(self, name).to_json() for name in ("hit_rate", "covered_rate", "iou", "inside")}
        return {"images": self.images, "hits": self.hits, "covered": self.covered, **figures}


def boxes_mask(text: str, shape: tuple[int, int], grid: float) -> NDArray[np.bool_]:
    """Where boxes are, bool (rows, columns): the pixels whose middle lies in one.

    Parameters
    ----------
    text
        As the column `boxes` of a manifest has them: "x y width height", several with semicolons between.
    grid
        Pixels of the image's side in which the boxes are counted.

    Raises
    ------
    InputError
        If it is none.
    """
    mask = np.zeros(shape, dtype=bool)
    for box in filter(None, text.split(";")):
        try:
            x, y, width, height = (float(number) for number in box.split())
        except ValueError:
            raise InputError(f"{box.strip()!r} is no box: x, y, width and height, with spaces between.") from None
        mask[_span(y, height, shape[0], grid), _span(x, width, shape[1], grid)] = True
    if not mask.any():
        raise InputError(f"the boxes {text!r} lie outside the image; in which grid are they counted?")
    return mask


def _span(start: float, length: float, pixels: int, grid: float) -> slice:
    first, last = (math.ceil(edge * pixels / grid - 0.5) for edge in (start, start + length))
    return slice(max(0, first), max(0, last))


# -- what knows nothing of the image's own abnormality


def centre_prior(shape: tuple[int, int]) -> NDArray[np.float32]:
    """Highest in the middle of the image, falling to its corners (rows, columns)."""
    rows, columns = (np.linspace(-1, 1, count) for count in shape)
    return np.exp(-(rows[:, None] ** 2 + columns[None] ** 2)).astype(np.float32)


def mean_of_others(maps: Sequence[NDArray[np.floating]], patients: Sequence[str], number: int) -> NDArray[np.floating]:
    """The mean of the maps of other patients' images, each counted by its share of its own sum.

    Parameters
    ----------
    maps
        (rows, columns) each, 0 or more where they count.
    number
        Of the image that is left out, with all others of its patient.

    Raises
    ------
    ValueError
        If there is no other patient.
    """
    others = [one for one, patient in zip(maps, patients, strict=True) if patient != patients[number]]
    if not others:
        raise ValueError("there is no other patient")
    shares = [np.clip(one, 0, None) / max(float(np.clip(one, 0, None).sum()), 1e-12) for one in others]
    return np.mean(shares, axis=0)
