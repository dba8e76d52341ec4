"""A head that weighs an image's features against a patient's clinical columns (gated multimodal unit)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class LogOdds(NamedTuple):
    """Log-odds that each case is abnormal, float (N,), by the image alone, the clinical columns alone, and both."""

    image: Tensor
    clinical: Tensor
    both: Tensor


class GatedFusion(nn.Module):
    """Two views of a case, each squeezed into as many numbers, and a gate that says number by number which to believe.

    After Arevalo et al., "Gated multimodal units for information fusion" (ICLR workshop 2017), with a mask: what is
    missing of the clinical columns is 0 and said to be missing, and a case without any is judged by its image alone.
    Each view has a head of its own beside the fused one, so that what either is worth can be told.

    Parameters
    ----------
    image_width
        Numbers in an image's features.
    column_widths
        Numbers that each clinical column becomes.
    hidden
        Numbers in each view.
    """

    def __init__(
        self, image_width: int, column_widths: tuple[int, ...], hidden: int = 32, dropout: float = 0.0
    ) -> None:
        super().__init__()
        starts = torch.tensor([sum(column_widths[:n]) for n in range(len(column_widths))])
        self.register_buffer("starts", starts, persistent=False)
        told = sum(column_widths) + len(column_widths)
        self.image_view = nn.Sequential(nn.Dropout(dropout), nn.Linear(image_width, hidden), nn.Tanh())
        self.clinical_view = nn.Sequential(nn.Linear(told, hidden), nn.Tanh())
        self.gate = nn.Linear(image_width + told, hidden)
        self.image_head = nn.Sequential(nn.Dropout(dropout), nn.Linear(image_width, 1))
        self.clinical_head = nn.Linear(told, 1)
        self.fused_head = nn.Linear(hidden, 1)

    starts: Tensor

    def forward(self, features: Tensor, covariates: Tensor) -> LogOdds:
        """Log-odds of cases.

        Parameters
        ----------
        features
            (N, image_width).
        covariates
            (N, sum of column_widths), NaN where missing.
        """
        missing = torch.isnan(covariates[:, self.starts])  # (N, columns)
        told = torch.cat([torch.nan_to_num(covariates), missing.to(covariates.dtype)], dim=1)
        gate = torch.sigmoid(self.gate(torch.cat([features, told], dim=1)))
        gate = torch.where(missing.all(dim=1, keepdim=True), torch.ones_like(gate), gate)
        fused = gate * self.image_view(features) + (1 - gate) * self.clinical_view(told)
        return LogOdds(
            self.image_head(features).squeeze(1), self.clinical_head(told).squeeze(1), self.fused_head(fused).squeeze(1)
        )
