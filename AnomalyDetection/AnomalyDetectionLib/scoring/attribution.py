"""What moved a detector's score of a case: attribution on the detector's grid, brought back into the image's geometry.

It takes the road of scoring: the same prepared batch, the same log-odds, the same way back.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.models.devices import choose_device

from . import attribution_methods as methods
from .contract import Batch, Detector
from .covariates import encode
from .explaining import EXPLAINABLE, METHODS, NEEDS_CAPTUM, OF_A_LAYER, Attribution, Explanation
from .layers import Layer, layer_named, layers_of
from .prepare import neighbours_of
from .raw import Ready

Told = Callable[[float], None]


def check_explainable(detector: Detector, explanation: Explanation, name: str = "") -> None:
    """Refuse what cannot be explained before any work is done.

    Parameters
    ----------
    name
        The registered detector's, for the message.

    Raises
    ------
    InputError
        If the detector makes a map of its own or has no network that can be explained, or a package is missing.
    """
    if not detector.explainable:
        kind = name or type(detector).__name__.lower()
        raise InputError(
            f"the detector {kind!r} cannot be explained by {explanation.method!r}: only {' and '.join(EXPLAINABLE)} "
            "can; a detector with a map shows in it where it finds something."
        )
    if explanation.method in NEEDS_CAPTUM:
        methods.check_installed(explanation.method)


def attribute(
    detector: Detector,
    ready: Ready,
    explanation: Explanation,
    device: str = "auto",
    progress: Told = lambda share: None,
) -> tuple[Attribution, tuple[str, ...]]:
    """The attribution of a prepared case, and what whoever reads it must know.

    A volume that is judged slice by slice is explained slice by slice, each weighed by how much the case's score
    depends on that of the slice (`Detector.pooled`); where neighbours come with a slice, what they add is counted for
    them.  Where images are judged with their mirror image, so are they explained.

    Parameters
    ----------
    progress
        Called with the share that is done; may raise to stop.

    Raises
    ------
    InputError
        If the detector cannot be explained so, there is no such layer, or the memory does not suffice.
    """
    check_explainable(detector, explanation)
    # What is computed on the way is kept for the gradients: twice the memory.
    choice = choose_device(device, 2 * detector.memory_bytes(_voxels_at_once(ready, explanation.method)))
    detector.eval().to(choice.device)
    case = _Case(detector, ready, explanation, choice.device)
    weights = case.weights(lambda share: progress(0.1 * share))
    found = case.explained(weights, lambda share: progress(0.1 + 0.9 * share))
    array = ready.prepared.to_input(ready.prepared.whole(found))
    attribution = Attribution(
        ready.volume.with_array(np.ascontiguousarray(array, dtype=np.float32), units="attribution"),
        explanation.method,
        case.layer.name if case.layer is not None else None,
    )
    nothing = f"By {METHODS[explanation.method]} no part of the image speaks for abnormal."
    return attribution, tuple(filter(None, (choice.note, nothing if attribution.peak == 0 else None)))


def _voxels_at_once(ready: Ready, method: str) -> int:
    """On the detector's grid, in one answer."""
    item = ready.prepared.batch.image[0, 0]
    images = 1 if method in (*OF_A_LAYER, "saliency") else methods.AT_ONCE[item.dim()]
    return images * item.numel()


class _Case:
    """A prepared case and the detector that is asked about it."""

    def __init__(self, detector: Detector, ready: Ready, explanation: Explanation, device: torch.device) -> None:
        self._detector, self._prepared, self._device = detector, ready.prepared, device
        self._method = explanation.method
        self._clinical: Tensor | None = None
        if detector.columns:
            self._clinical = torch.from_numpy(encode(detector.columns, ready.volume.covariates)[0]).to(device)
        self.layer: Layer | None = None
        if self._method in OF_A_LAYER:
            self.layer = self._layer(explanation.layer)

    @property
    def count(self) -> int:
        """Items of the case."""
        return int(self._prepared.batch.image.shape[0])

    def _layer(self, name: str | None) -> Layer:
        batch = self._item(0)

        def run() -> None:
            with torch.enable_grad():
                self._answer(batch.image.detach().requires_grad_(True))

        network = self._detector.explained_network()
        return layer_named(name, network, layers_of(network, run, batch.image.dim() - 2))

    def _item(self, number: int) -> Batch:
        return self._prepared.items(number, number + 1).to(self._device)

    def _answer(self, image: Tensor, told: Callable[[], None] = lambda: None) -> Tensor:
        """Scores (N,) of images (N, C, *spatial) of this patient."""
        told()
        everywhere = torch.ones_like(image[:, :1], dtype=torch.bool)
        told_of_patient = None if self._clinical is None else self._clinical.expand(image.shape[0], -1)
        return self._detector.explained(Batch(image, everywhere, covariates=told_of_patient))

    def weights(self, progress: Told) -> Tensor:
        """How much the case's score depends on that of each item, float (N,)."""
        scores = []
        with torch.no_grad():
            for number in range(self.count):
                progress(number / self.count)
                image = self._item(number).image
                views = [image, image.flip(-1)] if self._detector.mirrored else [image]
                scores.append(torch.stack([self._answer(view) for view in views]).mean(dim=0))
        together = torch.cat(scores).detach().requires_grad_(True)
        return torch.autograd.grad(self._detector.pooled(together), together)[0]

    def explained(self, weights: Tensor, progress: Told) -> np.ndarray:
        """The attribution of every item, float32 (N, 1, *spatial)."""
        image = self._prepared.batch.image
        channels = image.shape[1] if self._method in ("integrated-gradients", "saliency") else 1
        total = torch.zeros(image.shape[0], channels, *image.shape[2:])
        wanted = [number for number, weight in enumerate(weights.tolist()) if weight]
        for done, number in enumerate(wanted):
            found = self._of_item(number, partial(_within, progress, done, len(wanted))) * weights[number]
            # With neighbours (2.5d) an item's channels are those of several slices: each slice gets its own.
            around = neighbours_of(np.array([number]), self.count, self._prepared.neighbours)[0]
            if found.shape[1] != channels * len(around):
                around = np.array([number])
            total.index_add_(0, torch.from_numpy(around), found[0].cpu().unflatten(0, (len(around), channels)))
        if self._method == "saliency":
            total = total.abs().amax(dim=1, keepdim=True)
        return total.sum(dim=1, keepdim=True).numpy()

    def _of_item(self, number: int, progress: Told) -> Tensor:
        """The attribution of one item's own score, (1, C, *spatial) or (1, 1, *spatial)."""
        batch = self._item(number)
        if not self._detector.mirrored:
            return self._of_view(batch, batch.image, progress)
        straight = self._of_view(batch, batch.image, lambda share: progress(share / 2))
        mirrored = self._of_view(batch, batch.image.flip(-1), lambda share: progress((1 + share) / 2))
        return (straight + mirrored.flip(-1)) / 2

    def _of_view(self, batch: Batch, image: Tensor, progress: Told) -> Tensor:
        if self.layer is not None:
            progress(0.0)
            network = self._detector.explained_network()
            plus_plus = self._method == "grad-cam++"
            return methods.class_activation(self._answer, image, network, self.layer, plus_plus=plus_plus)
        answer = partial(self._answer, told=_Ticks(self._answers(image), progress))
        if self._method == "integrated-gradients":
            return methods.integrated_gradients(answer, image)
        if self._method == "saliency":
            return methods.slopes(answer, image)
        covered_with = float(batch.image[batch.foreground.expand_as(batch.image)].mean())
        return methods.occlusion(answer, image, covered_with)

    def _answers(self, image: Tensor) -> int:
        """How often a method asks for an answer, about."""
        images = {"integrated-gradients": methods.STEPS, "saliency": 1}
        if self._method in images:
            return max(1, images[self._method] // methods.AT_ONCE[image.dim() - 2])
        return max(1, methods.occlusions(tuple(image.shape[2:])) // methods.AT_ONCE[image.dim() - 2])


class _Ticks:
    """Tells the share of so many answers that have been asked for."""

    def __init__(self, expected: int, progress: Told) -> None:
        self._expected, self._progress, self._count = expected, progress, 0

    def __call__(self) -> None:
        self._progress(min(1.0, self._count / self._expected))
        self._count += 1


def _within(progress: Told, done: int, count: int, share: float) -> None:
    """Pass on the share of one item as the share of all."""
    progress((done + share) / count)
