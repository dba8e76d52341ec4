"""Training of a backbone on normals alone: telling images from those with a misplaced patch (CutPaste).

Li et al., CVPR 2021, three-way: untouched, a patch of the image pasted elsewhere, a thin turned patch ("scar").  No
class labels are needed, the features learned are those of local irregularities, and nothing can collapse.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .networks.backbones.base import Backbone

BATCH = 16
"""Images of a step, each in its three forms."""
LEARNING_RATE, MOMENTUM, DECAY = 0.03, 0.9, 3e-5
"""Of stochastic gradient descent with a cosine schedule, as in the paper."""
PATCH_SHARE, PATCH_ASPECT = (0.02, 0.15), (0.3, 3.3)
"""Area of a patch as a share of the image's, and its aspect ratio."""
SCAR_LENGTH, SCAR_WIDTH, SCAR_TURN = (0.04, 0.1), (0.01, 0.07), math.pi / 4
"""Length and width as shares of the image's side, and the largest turn."""
JITTER = 0.1
"""Largest change of the patch's brightness and contrast."""


def train_backbone(backbone: Backbone, images: Tensor, steps: int, seed: int) -> float:
    """Train a backbone in place on normals.

    Parameters
    ----------
    images
        uint8 (n, C, H, W), 255 for 1.
    steps
        Of the optimiser.

    Returns
    -------
    The share of forms it told apart in the last tenth of the steps (chance: 1/3).
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        head = nn.Sequential(nn.Linear(backbone.width, 128), nn.ReLU(), nn.Linear(128, 3))
        network = nn.Sequential(backbone, head)
        network.train().requires_grad_(True)
        optimiser = torch.optim.SGD(network.parameters(), LEARNING_RATE, MOMENTUM, weight_decay=DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1))
        right: list[float] = []
        for _ in range(steps):
            batch = images[torch.randint(len(images), (min(BATCH, len(images)),))].float() / 255
            forms = torch.cat(
                [batch, *(torch.stack([change(item) for item in batch]) for change in (patched, scarred))]
            )
            wanted = torch.arange(3).repeat_interleave(len(batch))
            answers = network(forms)
            optimiser.zero_grad()
            F.cross_entropy(answers, wanted).backward()
            optimiser.step()
            schedule.step()
            right.append(float((answers.argmax(dim=1) == wanted).float().mean()))
        backbone.eval().requires_grad_(False)
    last = right[-max(1, steps // 10) :]
    return sum(last) / max(1, len(last))


def patched(image: Tensor) -> Tensor:
    """The image (C, H, W) with a rectangle of it, slightly brighter or darker, pasted elsewhere."""
    height, width = image.shape[1:]
    area = height * width * _between(*PATCH_SHARE)
    aspect = math.exp(_between(math.log(PATCH_ASPECT[0]), math.log(PATCH_ASPECT[1])))
    rows = min(height - 1, max(2, round(math.sqrt(area * aspect))))
    columns = min(width - 1, max(2, round(math.sqrt(area / aspect))))
    top, left = _corner(height - rows, width - columns)
    patch = _jittered(image[:, top : top + rows, left : left + columns])
    changed = image.clone()
    top, left = _corner(height - rows, width - columns)
    changed[:, top : top + rows, left : left + columns] = patch
    return changed


def scarred(image: Tensor) -> Tensor:
    """The image (C, H, W) with a thin turned strip of it pasted elsewhere."""
    height, width = image.shape[1:]
    half = torch.tensor([_between(*SCAR_WIDTH) * width, _between(*SCAR_LENGTH) * height]) / 2
    turn = _between(-SCAR_TURN, SCAR_TURN)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    to = torch.tensor([_between(0.1, 0.9) * width, _between(0.1, 0.9) * height])
    along = (x - to[0]) * math.cos(turn) + (y - to[1]) * math.sin(turn)
    across = (y - to[1]) * math.cos(turn) - (x - to[0]) * math.sin(turn)
    strip = (along.abs() <= half[0].clamp(min=1)) & (across.abs() <= half[1].clamp(min=1))
    shift = (int(torch.randint(1, height, ())), int(torch.randint(1, width, ())))
    return torch.where(strip, _jittered(image.roll(shift, dims=(1, 2))), image)


def _jittered(patch: Tensor) -> Tensor:
    gain, offset = 1 + _between(-JITTER, JITTER), _between(-JITTER, JITTER)
    return (patch * gain + offset).clamp(0, 1)


def _between(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def _corner(most_down: int, most_right: int) -> tuple[int, int]:
    return int(torch.randint(most_down + 1, ())), int(torch.randint(most_right + 1, ()))
