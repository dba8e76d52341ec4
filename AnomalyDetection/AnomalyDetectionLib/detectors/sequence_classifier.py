"""`sequence_classifier`: a network that has learnt normal from abnormal volumes by their labels, slice after slice.

A 2D backbone describes every slice, and recurrent layers read these descriptions in their order, both ways (CNN-RNN).
So it can start from a network of natural images, which those of volumes cannot, and still see what changes from slice
to slice, which the mean of slices that are judged one by one does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.scoring.contract import Batch, InputSpec

from .classifier import ACTIVATIONS, Classifier
from .networks.encoders import PUBLISHED
from .networks.sequence import Cell, SequenceReader, Summary

SLICES_AT_ONCE = 32
"""Slices that the backbone looks at in one go where nothing is learnt: bounds the memory of long volumes."""


class SequenceClassifier(Classifier):
    """Supervised classifier of volumes as sequences of slices.

    Parameters
    ----------
    network
        Of the slices: a 2D backbone's name, or "hybrid".
    recurrent
        "gru" or "lstm".
    memory
        Numbers that the recurrent layers keep in each direction.
    summary
        What is known of a volume: "attention" weighs what was known at each slice, "last" takes both ends.
    weights, weights_sha256, dropout, label_smoothing, balanced, clinical, hidden, test_time_flips, abnormal_share, \
started_from
        As of `Classifier`.

    Raises
    ------
    InputError
        For settings that do not make a network, or starting weights that are not there.
    """

    name = "sequence_classifier"
    kinds = ("sequence",)
    explainable = False  # attribution is of whole items, and the backbone sees slices

    def __init__(
        self,
        spec: InputSpec,
        *,
        network: str = "efficientnet-lite0",
        weights: str = PUBLISHED,
        weights_sha256: str | None = None,
        recurrent: Cell = "gru",
        memory: int = 64,
        summary: Summary = "attention",
        dropout: float = 0.2,
        label_smoothing: float = 0.0,
        balanced: bool = True,
        clinical: Sequence[str | Mapping[str, Any]] = (),
        hidden: int = 32,
        test_time_flips: bool = False,
        abnormal_share: float = 0.5,
        started_from: Mapping[str, Any] | None = None,
    ) -> None:
        for key, value, known in (("recurrent", recurrent, Cell), ("summary", summary, Summary)):
            if value not in get_args(known):
                raise InputError(f"{self.name}: {key} {value!r} is none of {', '.join(get_args(known))}.")
        if not 1 <= memory <= 4096:
            raise InputError(f"{self.name}: memory is {memory} and must lie from 1 to 4096.")
        self._reading: dict[str, Any] = {"recurrent": recurrent, "memory": memory, "summary": summary}
        super().__init__(
            spec,
            network=network,
            weights=weights,
            weights_sha256=weights_sha256,
            dropout=dropout,
            label_smoothing=label_smoothing,
            balanced=balanced,
            clinical=clinical,
            hidden=hidden,
            test_time_flips=test_time_flips,
            abnormal_share=abnormal_share,
            started_from=started_from,
        )

    def _make_head(self) -> nn.Module:
        reading = self._reading
        self.reader = SequenceReader(self.width, reading["memory"], reading["recurrent"], reading["summary"])
        self.width = self.reader.answered
        return super()._make_head()

    def config(self) -> dict[str, Any]:
        config = {**super().config(), **self._reading}
        del config["slices"]
        return config

    def features(self, batch: Batch) -> Tensor:
        """What the backbone makes of every slice, float32 (N, L, F); NaN of slices without foreground."""
        there = batch.foreground[:, 0].flatten(2).any(dim=2)  # (N, L)
        slices = batch.image.transpose(1, 2)[there]  # (all there are, C, H, W)
        parts = slices.split(len(slices) if torch.is_grad_enabled() else SLICES_AT_ONCE) if len(slices) else ()
        found = [self.encoder(part).float() for part in parts]
        made = torch.full((*there.shape, self.reader.width), torch.nan, device=batch.image.device)
        if found:
            made = made.masked_scatter(there[..., None], torch.cat(found))
        return made

    def _heads(self, features: Tensor, batch: Batch) -> Any:
        return super()._heads(self.reader(features), batch)

    def memory_bytes(self, voxels: int) -> int:
        """Activations of the slices that are looked at in one go, their numbers, and the weights."""
        size = self.spec.size
        assert size is not None
        at_once = min(voxels, SLICES_AT_ONCE * size[0] * size[1])
        return ACTIVATIONS * at_once + 8 * voxels + 4 * sum(parameter.numel() for parameter in self.parameters())
