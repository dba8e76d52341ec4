"""`unet`: segmentation learnt from masks, the ceiling for detectors that have seen normals only.

A U-Net (Ronneberger et al., MICCAI 2015) on slices, slices with their neighbours, or patches of volumes, trained with
soft Dice and cross-entropy (`segmentation`).  It finds the kinds of lesion that it was shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from AnomalyDetectionLib.scoring.contract import Batch, Detector, InputSpec, Scores

from .networks.unet import Norm, UNet
from .segmentation import check_input, score_of_logit, segmentation_loss, segmentation_memory, start_rare
from .tiling import score_by_tiles


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
