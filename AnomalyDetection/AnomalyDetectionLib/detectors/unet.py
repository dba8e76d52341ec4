"""`unet`: segmentation learnt from masks, the ceiling for detectors that have seen normals only.

A U-Net (Ronneberger et al., MICCAI 2015) on slices, slices with their neighbours, or patches of volumes, trained with
soft Dice (Milletari et al., 3DV 2016) and cross-entropy together, as Isensee et al. (Nature Methods 2021) do.  It finds
the kinds of lesion that it was shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.scoring.contract import Batch, Detector, InputSpec, Scores

from .networks.unet import Norm, UNet
from .tiling import score_by_tiles, tile_memory_bytes

RARE = -4.0
"""First bias of the last layer: a lesion is expected in one voxel of fifty."""

OFFSET = 20.0
"""Added to the logit in scoring, so that scores are above the 0 that stands for air wherever the map is resampled."""


class SupervisedUNet(Detector):
    """U-Net trained on normals and on abnormal cases with masks.

    Parameters
    ----------
    widths
        Channels at each level, the finest first; every further level halves the size.
    norm, residual, dropout
        Of the network, as `networks.unet.UNet` takes them.
    overlap
        Least share of a patch that its neighbour covers too when a volume is scored.

    Raises
    ------
    InputError
        For settings that do not make a network, or whole volumes.
    """

    supervision = "masks"

    def __init__(
        self,
        spec: InputSpec,
        *,
        widths: Sequence[int] = (16, 32, 64, 128),
        norm: Norm = "instance",
        residual: bool = False,
        dropout: float = 0.0,
        overlap: float = 0.25,
    ) -> None:
        super().__init__(spec)
        check_input("unet", spec, overlap)
        self.norm, self.residual, self.dropout, self.overlap = norm, bool(residual), float(dropout), float(overlap)
        self.network = UNet(
            spec.image_channels,
            1,
            widths,
            dimensions=3 if spec.kind == "patches" else 2,
            norm=norm,
            residual=residual,
            dropout=dropout,
        )
        start_rare(self.network)

    def config(self) -> dict[str, Any]:
        return {
            "widths": list(self.network.widths),
            "norm": self.norm,
            "residual": self.residual,
            "dropout": self.dropout,
            "overlap": self.overlap,
        }

    def loss(self, batch: Batch) -> Tensor:
        if batch.mask is None:
            raise ValueError("this detector learns from masks")
        return segmentation_loss(self.network(batch.image), batch.mask, batch.foreground)

    def score(self, batch: Batch) -> Scores:
        """Softplus of the lesion's logit plus `OFFSET`: of the logit's order, without a probability's saturation."""
        if self.spec.kind == "patches":
            assert self.spec.size is not None
            size = self.spec.size
            logit = score_by_tiles(
                self.network, batch.image, batch.foreground, size, overlap=self.overlap, progress=batch.progress
            )
        else:
            logit = self.network(batch.image).float()
        return Scores(map=score_of_logit(logit, batch.foreground))

    def memory_bytes(self, voxels: int) -> int:
        return segmentation_memory(self.network, self.spec, voxels)


def check_input(name: str, spec: InputSpec, overlap: float) -> None:
    """Refuse what a network cannot be shown.

    Raises
    ------
    InputError
        Naming the detector.
    """
    if spec.kind == "volume":
        raise InputError(f"{name}: the input must be `kind: slices`, `2.5d` or `patches`, not 'volume'.")
    if spec.kind == "patches" and (spec.size is None or len(spec.size) != 3):
        raise InputError(f"{name}: `kind: patches` needs `size: [slices, rows, columns]`.")
    if not 0 <= overlap < 1:
        raise InputError(f"{name}: overlap {overlap} must lie in 0 <= overlap < 1.")


def start_rare(network: UNet) -> None:
    """Let a network begin with the guess that lesions are rare, so that training need not learn that first."""
    bias = network.head.bias
    assert isinstance(bias, Tensor)
    torch.nn.init.constant_(bias, RARE)


def segmentation_loss(logit: Tensor, mask: Tensor, foreground: Tensor) -> Tensor:
    """One minus the soft Dice of the batch, plus the mean cross-entropy; both within the foreground.

    Parameters
    ----------
    logit, mask
        (N, 1, *spatial); the mask in [0, 1].
    foreground
        bool (N, 1, *spatial).
    """
    logit, inside = logit.float(), foreground.float()
    mask, voxels = mask * inside, inside.sum().clamp(min=1)
    entropy = (F.binary_cross_entropy_with_logits(logit, mask, reduction="none") * inside).sum() / voxels
    found = torch.sigmoid(logit) * inside
    # One voxel more on either side of the fraction: where there is no lesion, what is found must still cost something.
    dice = (2 * (found * mask).sum() + 1) / (found.sum() + mask.sum() + 1)
    return 1 - dice + entropy


def score_of_logit(logit: Tensor, foreground: Tensor) -> Tensor:
    """Raw score (N, 1, *spatial) above 0 that rises strictly with the logit; 0 outside the foreground."""
    return torch.where(foreground, F.softplus(logit + OFFSET), 0.0)


def segmentation_memory(network: UNet, spec: InputSpec, voxels: int, channels: int | None = None) -> int:
    """Working memory of scoring so many voxels: of one tile and the whole volume, or of all slices together."""
    if spec.kind != "patches":
        return network.memory_bytes(voxels) + 4 * voxels * (spec.image_channels + 2)
    assert spec.size is not None
    tile = spec.size[0] * spec.size[1] * spec.size[2]
    return network.memory_bytes(tile) + tile_memory_bytes(voxels, channels or spec.image_channels, 1)
