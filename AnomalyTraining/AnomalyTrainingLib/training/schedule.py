"""Learning rates of the parts of a detector: what starts from weights learnt elsewhere is kept still at first.

The new layers are fitted to the old features before these may change (Kumar et al., "Fine-tuning can distort pretrained
features and underperform out-of-distribution", ICLR 2022), and then change at a lower rate.  Each part's rate rises in
a straight line from 0 over its first epochs.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.scoring.contract import Detector

from .config import TrainingSection


class Schedule:
    """Adam over the parts of a detector, and what becomes of their rates before the validation loss decides.

    Raises
    ------
    InputError
        If something is to be kept still and nothing starts from weights learnt elsewhere, or the frozen epochs or those
        of the warm-up leave none to learn in.
    """

    def __init__(self, detector: Detector, settings: TrainingSection) -> None:
        self._settings = settings
        self._pretrained = detector.pretrained()
        if self._pretrained is None and settings.frozen_epochs:
            raise InputError(
                f"training.frozen_epochs is {settings.frozen_epochs}, and no part of this detector starts from weights "
                "learnt elsewhere: leave it out."
            )
        if settings.frozen_epochs >= settings.epochs and settings.frozen_epochs:
            raise InputError(
                f"training.epochs is {settings.epochs}; it must exceed the {settings.frozen_epochs} frozen ones."
            )
        learning = settings.epochs - (0 if self._pretrained is None else settings.frozen_epochs)
        if settings.warmup_epochs >= learning:
            raise InputError(
                f"training.warmup_epochs is {settings.warmup_epochs}, and there are {learning} epochs to learn in: the "
                "full learning rate would never be reached; take more epochs or a shorter warm-up."
            )
        old = [] if self._pretrained is None else list(self._pretrained.parameters())
        known = {id(parameter) for parameter in old}
        new = [parameter for parameter in detector.parameters() if id(parameter) not in known]
        rate = settings.learning_rate
        parts = [(new, rate, 0), (old, rate * settings.pretrained_rate, settings.frozen_epochs)]
        parts = [part for part in parts if part[0]]
        self.optimiser = torch.optim.Adam([{"params": part, "lr": own} for part, own, _ in parts], lr=rate)
        self._rates, self._begins = [own for _, own, _ in parts], [begin for _, _, begin in parts]

    @property
    def by_cosine(self) -> bool:
        """Whether the rates fall along a cosine, whatever the validation loss does."""
        return self._settings.schedule == "cosine"

    @property
    def settled(self) -> int:
        """The first epoch in which every part learns at its full rate."""
        begin = max(self._begins)
        return begin + self._settings.warmup_epochs if begin or self._settings.warmup_epochs else 0

    def before_epoch(self, epoch: int) -> None:
        """Keep what was learnt elsewhere still, or let it go."""
        if self._pretrained is not None:
            _hold(self._pretrained, still=epoch < self._settings.frozen_epochs)

    def before_step(self, epoch: int, step: int, steps: int) -> None:
        """Set the rates of parts that are still warming up, or of all by the cosine; the plateau has what is left."""
        warmup, last = self._settings.warmup_epochs, self._settings.epochs
        for group, begin, rate in zip(self.optimiser.param_groups, self._begins, self._rates, strict=True):
            done = epoch - begin + (step + 1) / steps
            share = min(1.0, max(0.0, done / warmup)) if warmup else 1.0
            if self.by_cosine:
                group["lr"] = rate * share * (1 + math.cos(math.pi * max(0.0, done) / (last - begin))) / 2
            elif begin <= epoch < begin + warmup:
                group["lr"] = rate * share


def _hold(module: nn.Module, *, still: bool) -> None:
    for parameter in module.parameters():
        parameter.requires_grad_(not still)
