"""New layers fitted to what pretrained ones make of the images, before both are trained together.

The pretrained part sees every image once (and once mirrored) instead of once an epoch: hundreds of epochs of the new
layers then cost less than one of the whole network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.scoring.contract import Batch, Detector

from .config import TrainingSection
from .data import Batches
from .seeds import seed_of


class _Cached(NamedTuple):
    """Features (N, F) of all items of a data set, or (N, L, F) of sequences, and their batch without images."""

    features: Tensor
    rest: Batch

    def loss(self, detector: Detector, some: Tensor) -> Tensor:
        """Of some of the items."""
        label, told = self.rest.label, self.rest.covariates
        chosen = replace(
            self.rest, label=None if label is None else label[some], covariates=None if told is None else told[some]
        )
        return detector.loss_of_features(self.features[some], chosen)


def probe(
    detector: Detector,
    training: Batches,
    validation: Batches,
    settings: TrainingSection,
    *,
    device: torch.device,
    seed: int,
    progress: Callable[[str, float], None],
) -> None:
    """Fit the layers behind the pretrained ones for `settings.probe_epochs`, and keep those of the best epoch.

    Parameters
    ----------
    training, validation
        Items as they are, by their indices.

    Raises
    ------
    InputError
        If no part of the detector is pretrained.
    """
    pretrained = detector.pretrained()
    if pretrained is None:
        raise InputError(
            f"training.probe_epochs is {settings.probe_epochs}, and no part of this detector starts from weights "
            "learnt elsewhere: leave it out."
        )
    detector.to(device).eval()
    mirrors = (False, True) if settings.augment.on and settings.augment.flip > 0 else (False,)
    known = _cached(detector, training, mirrors, settings.batch, device, progress)
    judged = _cached(detector, validation, (False,), settings.batch, device, progress)
    held = {id(parameter) for parameter in pretrained.parameters()}
    new = [parameter for parameter in detector.parameters() if id(parameter) not in held]
    optimiser = torch.optim.Adam(new, lr=settings.probe_rate)
    best, state = float("inf"), {name: value.clone() for name, value in detector.state_dict().items()}
    for epoch in range(settings.probe_epochs):
        torch.manual_seed(seed_of("probe", seed, epoch))  # the order, and dropout
        detector.train()
        for some in torch.randperm(len(known.features)).split(settings.batch):
            optimiser.zero_grad()
            known.loss(detector, some.to(device)).backward()
            optimiser.step()
        detector.eval()
        with torch.inference_mode():
            loss = float(judged.loss(detector, torch.arange(len(judged.features), device=device)))
        if loss < best:
            best, state = loss, {name: value.clone() for name, value in detector.state_dict().items()}
        progress("fitting the new layers", (epoch + 1) / settings.probe_epochs)
    detector.load_state_dict(state, strict=True)


def _cached(
    detector: Detector,
    items: Batches,
    mirrors: tuple[bool, ...],
    size: int,
    device: torch.device,
    progress: Callable[[str, float], None],
) -> _Cached:
    features, batches, empty = [], [], torch.zeros(0, device=device)
    for start in range(0, len(items), size):
        batch = items.__getitems__(range(start, min(len(items), start + size))).to(device)
        for mirrored in mirrors:
            with torch.no_grad():
                features.append(detector.features(replace(batch, image=batch.image.flip(-1)) if mirrored else batch))
            batches.append(replace(batch, image=empty, foreground=empty))  # images of a whole data set fit nowhere
        progress("looking at the images once", min(1.0, (start + size) / len(items)))
    told: dict[str, Any] = {}
    for name in ("label", "covariates"):
        if parts := [part for batch in batches if (part := getattr(batch, name)) is not None]:
            told[name] = torch.cat(parts)
    longest = max(part.shape[1] for part in features)
    if features[0].dim() == 3:  # sequences of several lengths: NaN is what is not there
        features = [F.pad(part, (0, 0, 0, longest - part.shape[1]), value=torch.nan) for part in features]
    return _Cached(torch.cat(features), Batch(empty, empty, **told))
