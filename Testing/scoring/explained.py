"""Small detectors whose explanation is known, and prepared cases for them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from AnomalyDetectionLib.imaging.volume import Volume
from AnomalyDetectionLib.scoring.contract import Batch, Detector, InputSpec, Scores
from AnomalyDetectionLib.scoring.raw import Preparations, Ready

SIDE = 48
BLOB = 10


class Explained(Detector):
    """A detector of whole images that is asked through `explained` alone."""

    supervision = "labels"
    gives_log_odds = True
    explainable = True

    def __init__(self, spec: InputSpec, network: nn.Module, *, mirrored: bool = False, worst: bool = False) -> None:
        super().__init__(spec)
        self.network, self.mirrored, self.worst = network, mirrored, worst

    def explained(self, batch: Batch) -> Tensor:
        return self.network(batch.image).flatten(1).sum(dim=1)

    def explained_network(self) -> nn.Module:
        return self.network

    def score(self, batch: Batch) -> Scores:
        score = self.explained(batch)
        if self.mirrored:
            score = (score + self.explained(Batch(batch.image.flip(-1), batch.foreground.flip(-1)))) / 2
        return Scores(image=score)

    def pooled(self, scores: Tensor) -> Tensor:
        return scores.max() if self.worst else scores.mean()


class Weighed(nn.Module):
    """Each pixel times its own weight: every attribution of it can be written down."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, image: Tensor) -> Tensor:
        return self.weight * image


def small_network(dimensions: int = 2) -> nn.Sequential:
    """Three convolutions, the mean of the last maps, and one number of it: what class activation was made for."""
    conv, pool = (nn.Conv2d, nn.AdaptiveAvgPool2d) if dimensions == 2 else (nn.Conv3d, nn.AdaptiveAvgPool3d)
    return nn.Sequential(
        *(conv(1, 8, 3, padding=1), nn.ReLU()),
        *(conv(8, 16, 3, stride=2, padding=1), nn.ReLU()),
        *(conv(16, 16, 3, stride=2, padding=1), nn.ReLU()),
        *(pool(1), nn.Flatten(), nn.Linear(16, 1)),
    )


def blobs(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Noise (count, 1, SIDE, SIDE), the second half with a brighter square; its labels, and each square's corner."""
    image = 0.4 * torch.rand(count, 1, SIDE, SIDE, generator=generator)
    corner = torch.randint(0, SIDE - BLOB, (count, 2), generator=generator)
    for number in range(count // 2, count):
        row, column = corner[number].tolist()
        image[number, 0, row : row + BLOB, column : column + BLOB] += 0.5
    return image, (torch.arange(count) >= count // 2).float(), corner


def trained(seed: int) -> nn.Sequential:
    """The small network after it has learnt to tell images with a blob."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = small_network()
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(60):
        image, label, _ = blobs(16, generator)
        optimiser.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(network(image).squeeze(1), label).backward()
        optimiser.step()
    return network.eval()


def spec(kind: str, size: tuple[int, ...] | None = (SIDE, SIDE), neighbours: int = 0) -> InputSpec:
    return InputSpec(kind, ("MR",), "mr-robust", size=size, neighbours=neighbours)  # type: ignore[arg-type]


def ready(detector: Detector, volume: Volume) -> Ready:
    return Preparations(volume).ready(detector.spec, None)


def volume_of(array: np.ndarray, affine: np.ndarray | None = None) -> Volume:
    """A volume of that array (K, J, I)."""
    return Volume(array.astype(np.float32), np.eye(4) if affine is None else affine, modality="MR", name="case")
