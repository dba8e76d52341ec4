"""The baselines that make a map, as detectors: higher is more abnormal, fitted state lives in buffers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from AnomalyDetectionLib.detectors.zscore import ZScore, smooth_within
from AnomalyDetectionLib.scoring.contract import Batch, Detector, InputSpec, Scores
from AnomalyDetectionLib.scoring.registry import build

BLUR_SIGMA_VOXELS = 3.0
QUANTILES = 2001


class RandomScores(Detector):
    """Noise; its generator is seeded from the item, so that an image always gets the same."""

    def score(self, batch: Batch) -> Scores:
        maps = [_noise_for(image) for image in batch.image.cpu().numpy()]
        return Scores(map=_inside(torch.from_numpy(np.stack(maps)).to(batch.image.device), batch))


class Prevalence(Detector):
    """The same score everywhere: its average precision is the share of abnormal voxels."""

    def score(self, batch: Batch) -> Scores:
        # Outside the foreground as well: brought back to the image's grid it shall be the same at the rim.
        return Scores(map=torch.ones_like(batch.foreground, dtype=torch.float32))


class IntensityTails(Detector):
    """How far out in either tail of the normals' intensities a voxel lies, wherever it is in the body.

    0 at the median, 1 at the end of what normal voxels have; beyond, the distance goes on, so that the ranking does not
    saturate.  Every normal counts alike whatever its size: the quantiles are those of the pooled quantiles of the
    cases.
    """

    passes = 1

    quantiles: Tensor

    def __init__(self, spec: InputSpec) -> None:
        super().__init__(spec)
        self.register_buffer("quantiles", torch.linspace(0, 1, QUANTILES))
        self._absorbed: list[NDArray[np.float64]] = []

    def absorb(self, batch: Batch) -> None:
        values = batch.image[batch.foreground.expand_as(batch.image)].cpu().numpy()
        self._absorbed.append(np.quantile(values, np.linspace(0, 1, QUANTILES)))

    def finish(self) -> None:
        pooled = np.quantile(np.concatenate(self._absorbed), np.linspace(0, 1, QUANTILES))
        self.quantiles = torch.from_numpy(pooled.astype(np.float32))
        self._absorbed = []

    def score(self, batch: Batch) -> Scores:
        distinct, first = np.unique(self.quantiles.cpu().numpy(), return_index=True)
        image = batch.image.cpu().numpy()
        rank = np.interp(image, distinct, np.linspace(0, 1, QUANTILES)[first], left=0, right=1)
        beyond = np.maximum(image - distinct[-1], 0) + np.maximum(distinct[0] - image, 0)
        score = (np.abs(2 * rank - 1) + beyond).astype(np.float32)
        return Scores(map=_inside(torch.from_numpy(score).to(batch.image.device), batch))


class BlurResidual(Detector):
    """Absolute difference from the image's own version blurred inside its foreground; slices within themselves."""

    def score(self, batch: Batch) -> Scores:
        image, foreground = batch.image, batch.foreground.expand_as(batch.image)
        whole = image.dim() == 5
        flat = image.flatten(0, 1).unsqueeze(1) if whole else image.flatten(0, 1)[:, None, None]
        mask = foreground.flatten(0, 1).unsqueeze(1) if whole else foreground.flatten(0, 1)[:, None, None]
        blurred = smooth_within(flat, mask, BLUR_SIGMA_VOXELS).reshape(image.shape)
        return Scores(map=_inside((image - blurred).abs(), batch))


class MeanImageResidual(Detector):
    """Absolute difference from the mean of the training normals, on a template's grid.

    A voxel's mean is over the normals whose foreground covers it, as that of a template.

    Parameters
    ----------
    shape
        (D, H, W) of the template.
    """

    passes = 1

    mean: Tensor

    def __init__(self, spec: InputSpec, *, shape: Sequence[int]) -> None:
        super().__init__(spec)
        self.register_buffer("mean", torch.zeros(tuple(int(n) for n in shape)))
        self._total = torch.zeros_like(self.mean)
        self._covered = torch.zeros_like(self.mean)

    def config(self) -> dict[str, Any]:
        return {"shape": list(self.mean.shape)}

    def absorb(self, batch: Batch) -> None:
        self._total += batch.image.mean(dim=1).sum(dim=0)
        self._covered += batch.foreground[:, 0].sum(dim=0)

    def finish(self) -> None:
        self.mean = self._total / self._covered.clamp(min=1)
        self._total, self._covered = torch.zeros_like(self.mean), torch.zeros_like(self.mean)

    def score(self, batch: Batch) -> Scores:
        return Scores(map=_inside((batch.image - self.mean).abs(), batch))


CLASSES: dict[str, type[Detector]] = {
    "random": RandomScores,
    "prevalence": Prevalence,
    "voxel_intensity": IntensityTails,
    "blur_residual": BlurResidual,
    "mean_image_residual": MeanImageResidual,
    "zscore": ZScore,
}
"""All but `untrained`, whose class is the model's."""


def untrained(model: Detector, name: str, seed: int) -> Detector:
    """A detector of the same registered kind and settings, with random weights that are a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(name, model.spec, model.config()).eval().requires_grad_(False)


def weights_hash(detector: Detector) -> str:
    """SHA-256 of the state: says whether a seed made the same weights again."""
    digest = hashlib.sha256()
    for key, value in sorted(detector.state_dict().items()):
        digest.update(key.encode() + np.ascontiguousarray(value.cpu().numpy()).tobytes())
    return digest.hexdigest()


def _noise_for(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Uniform noise (1, *spatial) for an item (C, *spatial)."""
    seed = int.from_bytes(hashlib.sha256(np.ascontiguousarray(image).data).digest()[:8], "little")
    return np.random.default_rng(seed).random((1, *image.shape[1:]), dtype=np.float32)


def _inside(score: Tensor, batch: Batch) -> Tensor:
    """Mean over channels, 0 outside the foreground."""
    return torch.where(batch.foreground, score.mean(dim=1, keepdim=True), 0.0)
