"""`restore`: what a network would take away that was taught to undo synthetic lesions.

A 2.5D U-Net sees normals with synthetic lesions in them and learns to give back the untouched slice, knowing how
strongly they were faded in: restoration as in Disyre (Naval Marimont et al., ISBI 2024 and arXiv:2311.15453), whose
corruptions take the place of noise in cold diffusion (Bansal et al., NeurIPS 2023).

Two things are other than in Disyre.  The network answers with the change, not with the slice: outside of lesions there
is nothing to do, and a slice's noise and detail do not end in the score.  And a second output, trained beside, is the
probability that a pixel was altered.  It is the score by default: the change, which is Disyre's score, ranks faint
lesions below healthy detail that the network is unsure about (`score_by` takes it, or the product of both).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.scoring.contract import Batch, Detector, InputSpec, Scores

from .networks.unet import Norm, UNet
from .zscore import smooth_within

ALTERED_WEIGHT = 20.0
"""How much more an altered pixel counts in the restoration's loss: they are some 3 % of the foreground.

At 4 the network still changed next to nothing after 260 steps: it is what most pixels want of an absolute error.
"""

SPREAD = 4.0
"""Intensities are handed to the network as this times their distance from the middle of [0, 1]."""

RARELY = math.log(0.03 / 0.97)
"""First bias of the probability: that share of the foreground's pixels are altered."""

CONDITION = 16
"""Numbers in the layer that turns the severity into a scale and a shift of the last features."""

MOST_STEPS = 50

ScoreBy = Literal["probability", "change", "product"]
"""What a pixel's score is: see `Restore`."""


class Restore(Detector):
    """Restoration of slices from synthetic lesions.

    Parameters
    ----------
    widths
        Channels at each level of the U-Net, the finest first.
    norm
        Of the U-Net: "group", "instance" or "none".
    steps
        Restorations in scoring, from the severity 1 downwards in equal steps.  After each, as much of what it took away
        is left in the slice as the next lower severity would (the improved sampling of cold diffusion); the score is
        the mean over the steps.
    mirror
        The slice mirrored left to right is an input: the other side of a head tells what this side should look like.
    position
        Row and column, from -1 to 1, are inputs.
    score_by
        The score is the probability that the pixel was altered, or the absolute change that restores it, or the product
        of both.
    probability_weight
        Weight of the cross-entropy of that probability beside the restoration's absolute error.
    smooth
        Standard deviation in pixels of the Gaussian by which the score is smoothed within the foreground.

    Raises
    ------
    InputError
        For settings that do not make a network, or inputs that are no slices.
    """

    supervision = "synthetic"

    def __init__(
        self,
        spec: InputSpec,
        *,
        widths: Sequence[int] = (12, 24, 48, 96),
        norm: Norm = "group",
        steps: int = 1,
        mirror: bool = True,
        position: bool = True,
        score_by: ScoreBy = "probability",
        probability_weight: float = 0.3,
        smooth: float = 0.0,
    ) -> None:
        super().__init__(spec)
        _check(spec, widths, steps, score_by, probability_weight, smooth)
        self.steps, self.mirror, self.position = steps, bool(mirror), bool(position)
        self.score_by, self.probability_weight = score_by, float(probability_weight)
        self.smooth, self.norm = float(smooth), norm
        channels = len(spec.channels)
        inputs = spec.image_channels + (channels if self.mirror else 0) + (2 if self.position else 0)
        self.network = UNet(inputs, widths[0], widths, norm=norm)
        self.condition = nn.Sequential(nn.Linear(1, CONDITION), nn.SiLU(), nn.Linear(CONDITION, 2 * widths[0]))
        self.head = nn.Conv2d(widths[0], channels + 1, 1)
        nn.init.zeros_(self.head.weight)  # an untrained network changes nothing
        assert self.head.bias is not None
        with torch.no_grad():
            self.head.bias.copy_(torch.tensor([0.0] * channels + [RARELY]))

    def config(self) -> dict[str, Any]:
        return {
            "widths": list(self.network.widths),
            "norm": self.norm,
            "steps": self.steps,
            "mirror": self.mirror,
            "position": self.position,
            "score_by": self.score_by,
            "probability_weight": self.probability_weight,
            "smooth": self.smooth,
        }

    def forward(self, image: Tensor, severity: Tensor) -> tuple[Tensor, Tensor]:
        """What to add to the slice to restore it, and the logit of it having been altered.

        Parameters
        ----------
        image
            (N, C * (2 * neighbours + 1), H, W), as `InputSpec.neighbours` says.
        severity
            (N,) in [0, 1], how strongly lesions may have been faded in.

        Returns
        -------
        tuple
            (N, C, H, W) and (N, 1, H, W), of the middle slice.
        """
        features = self.network(self._inputs(image))
        scale, shift = self.condition(severity[:, None]).chunk(2, dim=1)
        features = F.silu(features * (1 + scale[:, :, None, None]) + shift[:, :, None, None])
        change, logit = self.head(features).split([len(self.spec.channels), 1], dim=1)
        return change, logit

    def loss(self, batch: Batch) -> Tensor:
        assert batch.target is not None and batch.mask is not None and batch.severity is not None
        change, logit = self(batch.image, batch.severity)
        inside, mask = batch.foreground.float(), batch.mask
        error = (self._middle(batch.image) + change.float() - batch.target).abs().mean(dim=1, keepdim=True)
        weight = inside * (1 + ALTERED_WEIGHT * mask)
        restoration = (error * weight).sum() / weight.sum().clamp_min(1)
        altered = F.binary_cross_entropy_with_logits(logit.float(), mask, weight=inside, reduction="sum")
        return restoration + self.probability_weight * altered / inside.sum().clamp_min(1)

    def score(self, batch: Batch) -> Scores:
        """Mean over the steps of what `score_by` names; 0 outside the foreground."""
        image, total = batch.image, torch.zeros_like(batch.foreground, dtype=torch.float32)
        for step in range(self.steps, 0, -1):
            severity = torch.full((len(image),), step / self.steps, device=image.device)
            change, logit = self(image, severity)
            total += self._found(change.float(), logit.float())
            if step > 1:  # of what is taken to be the lesion, leave what the next lower severity would have
                kept = batch.foreground * change / step  # what it says of the air was never trained
                image = self._with_middle(image, self._middle(image) + kept)
        total /= self.steps
        if self.smooth:
            total = smooth_within(total[:, :, None], batch.foreground[:, :, None], self.smooth)[:, :, 0]
        return Scores(map=torch.where(batch.foreground, total, 0.0))

    def memory_bytes(self, voxels: int) -> int:
        return self.network.memory_bytes(voxels) + 4 * voxels * (self.spec.image_channels + 6)

    def _found(self, change: Tensor, logit: Tensor) -> Tensor:
        """Scores of one step, (N, 1, H, W)."""
        probability, size = torch.sigmoid(logit), change.abs().mean(dim=1, keepdim=True)
        return {"probability": probability, "change": size, "product": probability * size}[self.score_by]

    def _inputs(self, image: Tensor) -> Tensor:
        centred = SPREAD * (image - 0.5)
        parts = [centred]
        if self.mirror:
            parts.append(self._middle(centred).flip(-1))
        if self.position:
            rows, columns = (torch.linspace(-1, 1, n, device=image.device, dtype=image.dtype) for n in image.shape[2:])
            both = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
            parts.append(both.expand(image.shape[0], -1, -1, -1))
        return torch.cat(parts, dim=1).contiguous(memory_format=torch.channels_last)

    def _middle(self, image: Tensor) -> Tensor:
        """The item's own slice, (N, C, H, W)."""
        return image[:, self.spec.own_channels]

    def _with_middle(self, image: Tensor, middle: Tensor) -> Tensor:
        changed = image.clone()
        changed[:, self.spec.own_channels] = middle.clamp(0, 1)
        return changed


def _check(
    spec: InputSpec, widths: Sequence[int], steps: int, score_by: str, probability_weight: float, smooth: float
) -> None:
    if not spec.is_slicewise:
        raise InputError("restore: the input must be `kind: 2.5d` with `neighbours`, or `kind: slices`.")
    if not widths or not isinstance(widths[0], int):
        raise InputError(f"restore: widths {list(widths)!r} must be whole numbers above 0, one a level.")
    if not isinstance(steps, int) or not 1 <= steps <= MOST_STEPS:
        raise InputError(f"restore: steps {steps!r} must be a whole number from 1 to {MOST_STEPS}.")
    if score_by not in get_args(ScoreBy):
        raise InputError(f"restore: score_by {score_by!r} must be one of {', '.join(get_args(ScoreBy))}.")
    if not (math.isfinite(probability_weight) and probability_weight >= 0 and 0 <= smooth <= 20):
        raise InputError("restore: probability_weight cannot be negative, and smooth lies in 0 to 20 pixels.")
