"""`synthlesion`: segmentation of lesions that were put into normals.

A U-Net of volumes learns to outline synthetic lesions with fading edges, so that it may mark whatever looks unlike its
surroundings: the idea of Foreign Patch Interpolation (Tan et al., MELBA 2022), Poisson Image Interpolation (Tan et
al., MICCAI 2021) and Natural Synthetic Anomalies (Schlueter et al., ECCV 2022), and of the winners of the Medical
Out-of-Distribution challenge (Zimmerer et al., IEEE TMI 2022).  It is trained on normals only, and its best epoch is
that which outlines lesions of another family best.

What is known of a voxel besides its surroundings is shown to the network: where in the head it lies, and what the other
side of the head looks like there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.scoring.contract import Batch, InputSpec, Scores

from .networks.unet import Norm
from .segmentation import Segmenter, segmentation_loss

HEAVIEST = 1000.0


class SynthLesion(Segmenter):
    """U-Net of patches, trained on normals with synthetic lesions.

    Parameters
    ----------
    widths
        Channels at each level, the finest first; every further level halves the size.
    norm, residual
        Of the network, as `networks.unet.UNet` takes them.
    mirror
        The other side of the body, in the same place, is shown to the network.
    position
        So is where in the box around the body each voxel lies: from below to above, from back to front, and how far
        from the middle, each in [-1, 1].
    lesion_weight
        Of altered voxels in the cross-entropy, where others weigh 1: most synthetic lesions are small or faint, and
        without it a network of few steps stays with the guess that there is none.
    overlap
        Least share of a patch that its neighbour covers too when a volume is scored.

    Raises
    ------
    InputError
        For settings that do not make a network, or inputs that are no patches.
    """

    supervision = "synthetic"

    def __init__(
        self,
        spec: InputSpec,
        *,
        widths: Sequence[int] = (16, 32, 64, 128),
        norm: Norm = "instance",
        residual: bool = False,
        mirror: bool = True,
        position: bool = True,
        lesion_weight: float = 10.0,
        overlap: float = 0.25,
    ) -> None:
        if spec.kind != "patches":
            raise InputError(f"synthlesion: the input must be `kind: patches`, not {spec.kind!r}.")
        if not 1 <= lesion_weight <= HEAVIEST:
            raise InputError(f"synthlesion: lesion_weight {lesion_weight} must lie in 1 to {HEAVIEST:g}.")
        context = (len(spec.channels) if mirror else 0) + (3 if position else 0)
        super().__init__(
            spec, "synthlesion", context, widths=widths, norm=norm, residual=residual, dropout=0.0, overlap=overlap
        )
        self.mirror, self.position, self.context_channels = bool(mirror), bool(position), context
        self.context_images = len(spec.channels) if self.mirror else 0
        self.lesion_weight = float(lesion_weight)

    def config(self) -> dict[str, Any]:
        own = {"mirror": self.mirror, "position": self.position, "lesion_weight": self.lesion_weight}
        return super().config() | own

    def context(self, batch: Batch) -> Tensor | None:
        """The other side, and the place, of every voxel of whole volumes: float32 (N, context_channels, D, H, W)."""
        parts: list[Tensor] = []
        for image, foreground in zip(batch.image, batch.foreground, strict=True):
            box = body_box(foreground[0])
            channels = [mirrored(image, box)] if self.mirror else []
            if self.position:
                channels.append(places(box, image.shape[1:]).to(image))
            parts.append(torch.cat(channels) if channels else image[:0])
        return torch.stack(parts) if self.context_channels else None

    def loss(self, batch: Batch) -> Tensor:
        assert batch.mask is not None
        logit = self.network(self._inputs(batch.image, batch.context))
        return segmentation_loss(logit, batch.mask, batch.foreground, self.lesion_weight)

    def score(self, batch: Batch) -> Scores:
        return self.score_of(self._inputs(batch.image, self.context(batch)), batch)

    def _inputs(self, image: Tensor, context: Tensor | None) -> Tensor:
        return image if context is None else torch.cat([image, context], dim=1)


Box = tuple[tuple[int, int], ...]
"""First and last voxel along each axis."""


def body_box(foreground: Tensor) -> Box:
    """The box around the foreground (bool, (D, H, W)); the whole array where there is none."""
    box = []
    for axis in range(3):
        found = foreground.any(dim=tuple(a for a in range(3) if a != axis)).nonzero()
        box.append((int(found[0]), int(found[-1])) if len(found) else (0, foreground.shape[axis] - 1))
    return tuple(box)


def mirrored(image: Tensor, box: Box) -> Tensor:
    """An image (C, D, H, W) reflected about the middle of the box along its last axis; 0 from outside the image."""
    n = image.shape[-1]
    other = sum(box[2]) - torch.arange(n, device=image.device)
    inside = (other >= 0) & (other < n)
    return image[..., other.clamp(0, n - 1)] * inside


def places(box: Box, shape: Sequence[int]) -> Tensor:
    """Place in the box, -1 to 1 from end to end, as channels (3, D, H, W); of the last axis only the distance from its
    middle, so that both sides are alike."""
    axes = [
        (2 * torch.arange(n, dtype=torch.float32) - (low + high)) / max(high - low, 1)
        for n, (low, high) in zip(shape, box, strict=True)
    ]
    axes[2] = axes[2].abs()
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).clamp(-1.5, 1.5)
