"""What the detectors that segment share: network, loss, and a score that keeps the order of their logits.

The loss is soft Dice (Milletari et al., 3DV 2016) and cross-entropy together, as Isensee et al. (Nature Methods 2021)
train U-Nets (Ronneberger et al., MICCAI 2015).
"""

from __future__ import annotations

import math
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


class Segmenter(Detector):
    """Base class of U-Nets that answer with the logit of a lesion.

    Parameters
    ----------
    name
        Of the detector, for messages.
    more_channels
        Those the network is shown beside the image's.
    widths, norm, residual, dropout
        Of the network, as `networks.unet.UNet` takes them.
    overlap
        Least share of a patch that its neighbour covers too when a volume is scored.

    Raises
    ------
    InputError
        For settings that do not make a network, or whole volumes.
    """

    def __init__(
        self,
        spec: InputSpec,
        name: str,
        more_channels: int,
        *,
        widths: Sequence[int],
        norm: Norm,
        residual: bool,
        dropout: float,
        overlap: float,
    ) -> None:
        super().__init__(spec)
        _check(name, spec, overlap)
        self.norm, self.residual, self.overlap = norm, bool(residual), float(overlap)
        self.shown_channels = spec.image_channels + more_channels
        dimensions = 3 if spec.kind == "patches" else 2
        self.network = UNet(
            self.shown_channels, 1, widths, dimensions=dimensions, norm=norm, residual=self.residual, dropout=dropout
        )
        bias = self.network.head.bias
        assert isinstance(bias, Tensor)
        torch.nn.init.constant_(bias, RARE)  # so that training need not learn first that lesions are rare

    def config(self) -> dict[str, Any]:
        return {
            "widths": list(self.network.widths),
            "norm": self.norm,
            "residual": self.residual,
            "overlap": self.overlap,
        }

    def score_of(self, shown: Tensor, batch: Batch) -> Scores:
        """Softplus of the lesion's logit plus `OFFSET`: of the logit's order, without a probability's saturation.

        Parameters
        ----------
        shown
            (N, shown_channels, *spatial), what the network is shown of the batch.
        """
        if self.spec.kind == "patches":
            assert self.spec.size is not None
            size = self.spec.size
            logit = score_by_tiles(
                self.network, shown, batch.foreground, size, overlap=self.overlap, progress=batch.progress
            )
        else:
            logit = self.network(shown).float()
        return Scores(map=score_of_logit(logit, batch.foreground))

    def memory_bytes(self, voxels: int) -> int:
        """Working memory of scoring so many voxels: of one tile and the whole volume, or of all slices together."""
        if self.spec.kind != "patches":
            return self.network.memory_bytes(voxels) + 4 * voxels * (self.spec.image_channels + 2)
        assert self.spec.size is not None
        # What is shown beside the image is first worked out, then put beside it: there are two copies of it all.
        copies = 1 if self.shown_channels == self.spec.image_channels else 2
        tile = math.prod(self.spec.size)
        return self.network.memory_bytes(tile) + tile_memory_bytes(voxels, copies * self.shown_channels, 1)


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


def _check(name: str, spec: InputSpec, overlap: float) -> None:
    if spec.kind not in ("slices", "2.5d", "patches"):
        raise InputError(f"{name}: the input must be `kind: slices`, `2.5d` or `patches`, not {spec.kind!r}.")
    if spec.kind == "patches" and (spec.size is None or len(spec.size) != 3):
        raise InputError(f"{name}: `kind: patches` needs `size: [slices, rows, columns]`.")
    if not 0 <= overlap < 1:
        raise InputError(f"{name}: overlap {overlap} must lie in 0 <= overlap < 1.")
