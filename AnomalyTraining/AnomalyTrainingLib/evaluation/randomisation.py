"""The sanity check of attribution: does the map change when the model forgets what it has learnt?

Cascading randomisation of Adebayo et al., "Sanity checks for saliency maps" (NeurIPS 2018): from the answer down to the
image, layer by layer, the weights are made random, and each time the map is compared with that of the trained model.  A
map that stays as it was shows the image's edges, not what the model looks at.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity
from torch import nn

from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.scoring.attribution import attribute
from AnomalyDetectionLib.scoring.contract import Detector
from AnomalyDetectionLib.scoring.explaining import Explanation
from AnomalyDetectionLib.scoring.model import Model
from AnomalyDetectionLib.scoring.raw import Preparations

Map = NDArray[np.float32]


@dataclass(frozen=True)
class Likeness:
    """How alike two maps are: 1 for the same.

    Attributes
    ----------
    spearman
        Rank correlation of their sizes; NaN where one of them is the same everywhere.
    ssim
        Structural similarity (Wang et al., TIP 2004) of their sizes, each as a share of its largest.
    """

    spearman: float
    ssim: float

    @classmethod
    def of(cls, one: Map, other: Map) -> Likeness:
        """Of two maps (K, J, I) of the same shape; signs are left out, as the paper's second figure does."""
        first, second = (np.abs(np.squeeze(array)).astype(np.float64) for array in (one, other))
        constant = min(np.ptp(first), np.ptp(second)) == 0
        rank = float("nan") if constant else float(spearmanr(first.ravel(), second.ravel()).statistic)
        first, second = (array / max(float(array.max()), 1e-12) for array in (first, second))
        return cls(rank, float(structural_similarity(first, second, data_range=1.0)))


@dataclass(frozen=True)
class Stage:
    """The maps of a model whose last layers are random.

    Attributes
    ----------
    down_to
        The layer nearest to the image that is.
    share
        Of the model's weights that are.
    likeness
        Of each image's map to that of the trained model.
    """

    down_to: str
    share: float
    likeness: tuple[Likeness, ...]


def randomise(
    model: Model,
    volumes: Sequence[Volume],
    explanation: Explanation,
    *,
    stages: int = 6,
    seed: int = 0,
    device: str = "auto",
    progress: Callable[[float], None] = lambda share: None,
) -> list[Stage]:
    """Let a model forget its weights in so many steps, and compare the maps of images after each.

    The last stage has no weight that it was trained with.  Weights are made random by shuffling those of each tensor,
    so that their distribution stays and signals neither vanish nor explode on their way; what batch normalisation
    remembers of the training images stays.

    Raises
    ------
    InputError
        If the model cannot be explained so.
    """
    ready = [Preparations(volume).ready(model.detector.spec, model.template) for volume in volumes]

    def maps(detector: Detector) -> list[Map]:
        return [attribute(detector, one, explanation, device)[0].map.array for one in ready]

    trained = maps(model.detector)
    forgetting = copy.deepcopy(model.detector)
    total = sum(parameter.numel() for parameter in forgetting.parameters())
    generator = torch.Generator().manual_seed(seed)
    found, done = [], 0
    layers = list(reversed(list(weighted_layers(forgetting))))
    for step, part in enumerate(np.array_split(np.arange(len(layers)), min(stages, len(layers)))):
        for number in part.tolist():
            done += _shuffle(layers[number][1], generator)
        likeness = tuple(Likeness.of(*pair) for pair in zip(trained, maps(forgetting), strict=True))
        found.append(Stage(layers[int(part[-1])][0], done / total, likeness))
        progress((step + 1) / stages)
    return found


def mean_likeness(likenesses: Sequence[Likeness]) -> Likeness:
    """The mean of several; a rank correlation that is not defined, because a map has become flat, counts as 0."""
    ranks = np.nan_to_num([one.spearman for one in likenesses])
    return Likeness(float(np.mean(ranks)), float(np.mean([one.ssim for one in likenesses])))


def weighted_layers(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules that hold weights themselves, by name, in the order in which the network was put together."""
    for name, module in network.named_modules():
        if any(True for _ in module.parameters(recurse=False)):
            yield name, module


def _shuffle(module: nn.Module, generator: torch.Generator) -> int:
    """Shuffle the weights of one module; returns how many there are."""
    count = 0
    with torch.no_grad():
        for parameter in module.parameters(recurse=False):
            flat = parameter.detach().cpu().flatten()
            mixed = flat[torch.randperm(flat.numel(), generator=generator)].view(parameter.shape)
            parameter.copy_(mixed)
            count += parameter.numel()
    return count
