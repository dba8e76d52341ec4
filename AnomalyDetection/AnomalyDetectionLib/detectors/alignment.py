"""Affine alignment of flat images with a reference, in torch and for whole batches.

Gauss-Newton on the squared difference of images of mean 0 and standard deviation 1 (Lucas & Kanade 1981; Baker &
Matthews, IJCV 2004), coarse to fine, with a prior that keeps transforms near the frame.  Brightness and contrast do not
matter, as with the correlation coefficient (Evangelidis & Psarakis, PAMI 2008).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SIZES = (16, 32, 64)
"""Pixels along the longer side, coarse to fine."""
STEPS = 12
"""Gauss-Newton steps at each size."""
PRIOR = 2.0
"""Weight of the squared change of the transform beside the mean squared difference: a standard deviation of about 0.06
(of the scale; of half the frame) where images agree as radiographs of two people do."""
ROUNDS = 3
"""Of aligning images with their mean and taking the mean anew: after the third it hardly changes."""
MOST_SHIFT, MOST_CHANGE = 0.4, 0.4
"""Largest shift, in half widths of the frame, and change of scale or shear of a transform that is believed."""


def align(image: Tensor, reference: Tensor) -> Tensor:
    """The transforms that lay images onto a reference.

    Parameters
    ----------
    image
        float32 (N, 1, H, W).
    reference
        float32 (H, W).

    Returns
    -------
    float32 (N, 2, 3), for `torch.nn.functional.affine_grid`: where in the image each place of the reference lies.  An
    image that cannot be aligned (its transform is not believed, or agrees less than the identity) keeps its frame.
    """
    identity = torch.eye(2, 3, device=image.device).expand(image.shape[0], 2, 3)
    found = identity
    for size in SIZES:
        small, target = _both(image, reference, size)
        for _ in range(STEPS):
            found = _step(small, target, found, identity)
    small, target = _both(image, reference, SIZES[-1])
    change = (found - identity).abs()
    believed = (change[:, :, :2].amax(dim=(1, 2)) <= MOST_CHANGE) & (change[:, :, 2].amax(dim=1) <= MOST_SHIFT)
    better = _difference(small, target, found) < _difference(small, target, identity)
    return torch.where((believed & better)[:, None, None], found, identity)


def mean_image(images: Tensor, size: int = SIZES[-1]) -> Tensor:
    """Mean (H, W) of images (N, C, H, W) that are aligned with it, their longer side `size` pixels."""
    small = _small(images.float().mean(dim=1, keepdim=True), size)
    mean = small.mean(dim=(0, 1))
    for _ in range(ROUNDS):
        mean = warp(small, align(small, mean)).mean(dim=(0, 1))
    return mean


def warp(image: Tensor, transform: Tensor) -> Tensor:
    """Images (N, C, H, W) resampled so that they lie as the reference; beyond their border they go on as it is."""
    grid = F.affine_grid(transform.to(image.dtype), list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)


def inverse(transform: Tensor) -> Tensor:
    """The transforms (N, 2, 3) back."""
    linear = torch.linalg.inv(transform[:, :, :2])
    return torch.cat([linear, -linear @ transform[:, :, 2:]], dim=2)


def _both(image: Tensor, reference: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Images and reference at one small size: the reference is small already, and its sides are rounded."""
    small = _small(image, longest)
    target = _resized(reference[None, None], list(small.shape[2:]))
    return _standard(small), _standard(target)


def _small(image: Tensor, longest: int) -> Tensor:
    height, width = image.shape[2:]
    scale = longest / max(height, width)
    return image if scale >= 1 else _resized(image, [max(8, round(height * scale)), max(8, round(width * scale))])


def _resized(image: Tensor, size: list[int]) -> Tensor:
    if list(image.shape[2:]) == size:
        return image
    return F.interpolate(image, size, mode="bilinear", antialias=True, align_corners=False)


def _standard(image: Tensor) -> Tensor:
    centred = image - image.mean(dim=(2, 3), keepdim=True)
    return centred / centred.square().mean(dim=(2, 3), keepdim=True).sqrt().clamp(min=1e-6)


def _difference(image: Tensor, target: Tensor, transform: Tensor) -> Tensor:
    return (_standard(warp(image, transform)) - target).square().mean(dim=(1, 2, 3))


def _step(image: Tensor, target: Tensor, transform: Tensor, identity: Tensor) -> Tensor:
    """One Gauss-Newton step towards the transform of least difference."""
    height, width = image.shape[2:]
    down, right = torch.gradient(image, dim=(2, 3))
    warped, right, down = warp(torch.cat([image, right * width / 2, down * height / 2], dim=1), transform).unbind(1)
    deviation = warped.std(dim=(1, 2), keepdim=True).clamp(min=1e-6)
    y = ((torch.arange(height, device=image.device) + 0.5) * 2 / height - 1)[:, None]  # a frame reaches from -1 to 1
    x = (torch.arange(width, device=image.device) + 0.5) * 2 / width - 1
    columns = [right * x, right * y, right, down * x, down * y, down]
    jacobian = (torch.stack(columns, dim=-1) / deviation[..., None]).flatten(1, 2)  # (N, pixels, 6)
    residual = (target[:, 0] - _standard(warped[:, None])[:, 0]).flatten(1).unsqueeze(2)
    pixels = height * width
    curvature = jacobian.mT @ jacobian / pixels + PRIOR * torch.eye(6, device=image.device)
    pull = PRIOR * (transform - identity).reshape(-1, 6, 1)
    change = torch.linalg.solve(curvature, jacobian.mT @ residual / pixels - pull)
    return transform + change.view(-1, 2, 3)
