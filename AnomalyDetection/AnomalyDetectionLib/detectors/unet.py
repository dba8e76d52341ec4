"""`unet`: segmentation learnt from masks, the ceiling for detectors that have seen normals only.

A U-Net (Ronneberger et al., MICCAI 2015) on slices, slices with their neighbours, or patches of volumes, trained with
soft Dice and cross-entropy (`segmentation`).  It finds the kinds of lesion that it was shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from AnomalyDetectionLib.scoring.contract import Batch, InputSpec, Scores

from .networks.unet import Norm
from .segmentation import Segmenter, segmentation_loss


class SupervisedUNet(Segmenter):
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
        super().__init__(spec, "unet", 0, widths=widths, norm=norm, residual=residual, dropout=dropout, overlap=overlap)
        self.dropout = float(dropout)

    def config(self) -> dict[str, Any]:
        return super().config() | {"dropout": self.dropout}

    def loss(self, batch: Batch) -> Tensor:
        if batch.mask is None:
            raise ValueError("this detector learns from masks")
        return segmentation_loss(self.network(batch.image), batch.mask, batch.foreground)

    def score(self, batch: Batch) -> Scores:
        return self.score_of(batch.image, batch)
