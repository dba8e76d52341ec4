"""What the detectors that segment share: their loss, and a score that keeps the order of their logits.

The loss is soft Dice (Milletari et al., 3DV 2016) and cross-entropy together, as Isensee et al. (Nature Methods 2021)
train U-Nets (Ronneberger et al., MICCAI 2015).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.scoring.contract import InputSpec

from .networks.unet import UNet
from .tiling import tile_memory_bytes

RARE = -4.0
"""First bias of the last layer: a lesion is expected in one voxel of fifty."""

OFFSET = 20.0
"""Added to the logit in scoring, so that scores are above the 0 that stands for air wherever the map is resampled."""


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


def segmentation_loss(logit: Tensor, mask: Tensor, foreground: Tensor, lesion_weight: float = 1.0) -> Tensor:
    """One minus the soft Dice of the batch, plus the mean cross-entropy; both within the foreground.

    Parameters
    ----------
    logit, mask
        (N, 1, *spatial); the mask in [0, 1].
    foreground
        bool (N, 1, *spatial).
    lesion_weight
        Of the voxels inside the mask in the cross-entropy, where those outside weigh 1.
    """
    logit, inside = logit.float(), foreground.float()
    mask = mask * inside
    weight = inside + (lesion_weight - 1) * mask
    entropy = F.binary_cross_entropy_with_logits(logit, mask, weight=weight, reduction="sum") / weight.sum().clamp(
        min=1
    )
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
