"""Synthetic lesions for self-supervision: normals altered in random places, and where and how strongly they were.

A detector that learns to undo or to mark alterations of every kind has never seen a disease and is bound to none.  The
idea is that of CutPaste (Li et al., CVPR 2021) and Foreign Patch Interpolation (Tan et al., MELBA 2022), whose
interpolation factor is the severity here; Poisson Image Interpolation (Tan et al., MICCAI 2021) and Natural Synthetic
Anomalies (Schlueter et al., ECCV 2022) let the patch's edge fade; Disyre (Naval Marimont et al., ISBI 2024) adds random
smooth shapes, bias and texture; the winners of the Medical Out-of-Distribution challenge (Zimmerer et al., IEEE TMI
2022) learnt from random shapes with smoothed edges.

Self-supervision overfits to its own task, and the best epoch is then not the last: it is chosen on lesions of another
family, "choose", that shares neither a shape (`synthetic_shapes`) nor an alteration (`synthetic_alterations`) with the
family that is trained on, "train".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from AnomalyDetectionLib.scoring.contract import Batch

from . import synthetic_alterations as alterations
from . import synthetic_shapes as shapes
from .synthetic_alterations import Alteration, Patch
from .synthetic_shapes import Room, ShapeGenerator

Family = Literal["train", "choose"]

NONE, SECOND, COMPOUND = 0.2, 0.35, 0.35
"""Shares: of items that stay as they are, of those with lesions that get a second group of them, and of groups that are
altered in two ways at once (a mass that is also bright)."""

LEAST_CHANGE = 0.02
"""Change of intensity (of [0, 1]) below which a voxel does not count as altered, or the image's noise if that is more.
"""


@dataclass(frozen=True)
class Generators:
    """What the lesions of a family are made by.

    Attributes
    ----------
    common
        Alterations that are drawn `COMMON` times as often as the others: most diseases show by another brightness.
    """

    shapes: Mapping[str, ShapeGenerator]
    alterations: Mapping[str, Alteration]
    common: tuple[str, ...]

    COMMON = 3

    def shape(self, rng: np.random.Generator) -> ShapeGenerator:
        """One of the shapes, each as often as the others."""
        return list(self.shapes.values())[int(rng.integers(len(self.shapes)))]

    def alteration(self, rng: np.random.Generator) -> Alteration:
        """One of the alterations."""
        names = [name for name in self.alterations for _ in range(self.COMMON if name in self.common else 1)]
        return self.alterations[names[int(rng.integers(len(names)))]]


FAMILIES: Mapping[Family, Generators] = {
    "train": Generators(
        {"ellipsoids": shapes.ellipsoids, "clouds": shapes.clouds},
        {
            "shift": alterations.shift,
            "swap": alterations.swap,
            "mass": alterations.mass,
            "oedema": alterations.oedema,
            "grain": alterations.grain,
            "blur": alterations.blur,
        },
        common=("shift", "oedema"),
    ),
    "choose": Generators(
        {"stars": shapes.stars, "tubes": shapes.tubes, "blocks": shapes.blocks},
        {
            "level": alterations.level,
            "gain": alterations.gain,
            "elsewhere": alterations.elsewhere,
            "twist": alterations.twist,
            "invert": alterations.invert,
            "coarse": alterations.coarse,
        },
        common=("level", "gain"),
    ),
}


def put_in(batch: Batch, seeds: Sequence[int], family: Family, slices: int = 1) -> Batch:
    """A batch of normals with synthetic lesions in them, on the batch's device.

    Parameters
    ----------
    batch
        Normals; `image` (N, C, H, W), (N, C, D, H, W), or with neighbours (N, C * slices, H, W), in [0, 1].
    seeds
        One an item: its lesions are a function of it, of the item, and of the item after it in the batch, from which
        texture is borrowed.
    slices
        Slices an item consists of (`2 * InputSpec.neighbours + 1`): lesions go through all of them.

    Returns
    -------
    Batch
        `image` altered inside the foreground; `target` the untouched item (its middle slice, where there are several);
        `mask` float 0 or 1, where `image` differs by more than `LEAST_CHANGE` and than noise; `severity` the factor by
        which lesions were faded in, which items without a lesion have as well, so that it does not tell them apart.
    """
    thick = _as_volumes(batch.image, slices)
    rooms = _as_volumes(batch.foreground, 1) & (thick != 0).any(dim=1, keepdim=True)
    middle = slice(slices // 2, slices // 2 + 1) if slices > 1 else slice(None)
    rooms[:, :, middle] = _as_volumes(batch.foreground, 1)  # a dark voxel of the item's own slice is inside
    altered, severities, masks = torch.empty_like(thick), [], []
    for place, seed in enumerate(seeds):
        rng = np.random.default_rng(seed)
        severity = float(rng.beta(2, 1))  # more strong ones than faint ones
        patch = Patch(thick[place], thick[(place + 1) % len(seeds)], rooms[place, 0], severity)
        altered[place], inside = _with_lesions(patch, batch.image.dim() == 4, FAMILIES[family], rng)
        masks.append(changed(thick[place], altered[place], rooms[place, 0])[None] * inside)
        severities.append(severity)
    return replace(
        batch,
        image=altered.transpose(1, 2).reshape(batch.image.shape) if slices > 1 else altered.view(batch.image.shape),
        target=thick[:, :, middle].reshape(len(seeds), -1, *batch.image.shape[2:]).clone(),
        mask=torch.stack(masks)[:, :, middle].reshape(batch.foreground.shape),
        severity=torch.tensor(severities, dtype=torch.float32, device=batch.image.device),
    )


def changed(before: Tensor, after: Tensor, foreground: Tensor) -> Tensor:
    """Where an image (C, D, H, W) was altered by more than noise: float 0 or 1 (D, H, W).

    The difference is averaged over 3 x 3 pixels, for a new texture agrees with the old one in single pixels.
    """
    difference = _local_mean((after - before).abs().amax(dim=0))
    return ((difference > max(LEAST_CHANGE, _noise(before, foreground))) & foreground).float()


def _with_lesions(patch: Patch, flat: bool, family: Generators, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """The altered item (C, D, H, W), and float (D, H, W) where lesions reach."""
    reach = torch.zeros_like(patch.foreground, dtype=torch.float32)
    if rng.random() < NONE or not patch.foreground[patch.foreground.shape[0] // 2 if flat else slice(None)].any():
        return patch.image, reach
    room = Room.of(patch.foreground, flat)
    for _ in range(2 if rng.random() < SECOND else 1):
        shape = shapes.drawn(family.shape(rng), room, rng)
        for _ in range(2 if rng.random() < COMPOUND else 1):
            image, around = family.alteration(rng)(patch, shape, rng)
            patch = replace(patch, image=torch.where(patch.foreground, image.clamp(0, 1), patch.image))
            reach = torch.maximum(reach, (around > 0).float())
    return patch.image, reach


def _as_volumes(items: Tensor, slices: int) -> Tensor:
    """(N, C, D, H, W) of slices (D = 1), slices with neighbours (D = slices) and volumes."""
    if items.dim() == 5:
        return items
    return items.reshape(items.shape[0], slices, -1, *items.shape[2:]).transpose(1, 2)


def _local_mean(image: Tensor) -> Tensor:
    """Mean over 3 x 3 pixels of each slice of (D, H, W)."""
    return F.avg_pool2d(image[:, None], 3, stride=1, padding=1)[:, 0]


def _noise(image: Tensor, foreground: Tensor) -> float:
    """Robust standard deviation of how far a voxel lies from the mean of those around it."""
    residual = (image[0] - _local_mean(image[0]))[foreground]
    return float(1.4826 * residual.abs().median()) if residual.numel() else 0.0
