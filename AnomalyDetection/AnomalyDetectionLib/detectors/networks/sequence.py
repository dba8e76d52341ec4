"""Recurrent layers that read the slices of a volume in their order and make one vector of them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

Cell = Literal["gru", "lstm"]
Summary = Literal["attention", "last"]


class SequenceReader(nn.Module):
    """GRU (Cho et al., EMNLP 2014) or LSTM (Hochreiter & Schmidhuber 1997) in both directions over slices.

    Parameters
    ----------
    width
        Numbers that describe a slice.
    memory
        Numbers kept in each direction.
    cell
        "gru" or "lstm".
    summary
        "attention": the mean of what is known at every slice, weighed by learnt weights (Bahdanau et al., ICLR 2015);
        "last": what either direction knows at its end.

    Attributes
    ----------
    width
        Numbers that describe a slice.
    answered
        Numbers in the vector of a sequence.
    """

    def __init__(self, width: int, memory: int, cell: Cell, summary: Summary) -> None:
        super().__init__()
        self.width, self.summary, self.answered = width, summary, 2 * memory
        self.normalise = nn.LayerNorm(width)
        kind = nn.GRU if cell == "gru" else nn.LSTM
        self.recurrent = kind(width, memory, batch_first=True, bidirectional=True)
        self.attention = nn.Sequential(nn.Linear(2 * memory, memory), nn.Tanh(), nn.Linear(memory, 1))

    def forward(self, features: Tensor) -> Tensor:
        """One vector of each sequence, (N, answered); 0 of one without any slice.

        Parameters
        ----------
        features
            (N, L, width) in order; NaN where there is no slice, wherever that is: those that there are close up.
        """
        there = ~torch.isnan(features[..., 0])
        order = torch.argsort(there.to(torch.uint8), dim=1, descending=True, stable=True)
        lengths = there.sum(dim=1)
        closed = torch.nan_to_num(features.gather(1, order[..., None].expand_as(features)))
        # A sequence of nothing is read as one slice of zeros, and what comes of it is taken away below.
        packed = pack_padded_sequence(
            self.normalise(closed), lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False
        )
        known, _ = pad_packed_sequence(self.recurrent(packed)[0], batch_first=True)
        held = torch.arange(known.shape[1], device=known.device) < lengths[:, None]
        if self.summary == "attention":
            weights = self.attention(known).squeeze(2).masked_fill(~held, -torch.inf)
            weights = torch.where(held.any(dim=1, keepdim=True), weights, 0.0).softmax(dim=1)
            found = (weights[..., None] * known).sum(dim=1)
        else:
            forwards, backwards = known.chunk(2, dim=2)
            end = (lengths.clamp(min=1) - 1)[:, None, None].expand(-1, 1, forwards.shape[2])
            found = torch.cat([forwards.gather(1, end).squeeze(1), backwards[:, 0]], dim=1)
        return torch.where(lengths[:, None] > 0, found, 0.0)
