"""Methods of attribution, on a network that answers images with one number each.

Grad-CAM (Selvaraju et al., ICCV 2017) and Grad-CAM++ (Chattopadhay et al., WACV 2018) are written out here: they need
torch alone, so that they work wherever scoring does, and they read transformers' tokens as maps, which captum's
`LayerGradCam` does not (on maps the two agree; a test holds them to it).  Integrated gradients (Sundararajan et al.,
ICML 2017), saliency (Simonyan et al., ICLR workshop 2014) and occlusion (Zeiler & Fergus, ECCV 2014) are captum's.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from AnomalyDetectionLib.errors import InputError

from .layers import Layer

Answer = Callable[[Tensor], Tensor]
"""Images (N, C, *spatial) to numbers (N,), differentiable."""

STEPS = 32
"""Of integrated gradients between black and the image (Gauss-Legendre): what the parts add up to misses the difference
of the scores by a few per cent with EfficientNet-Lite0."""

AT_ONCE = {2: 8, 3: 1}
"""Images that are answered in one go by integrated gradients and occlusion, by axes of space: a volume fills the memory
by itself."""

WINDOWS = {2: 7, 3: 4}
"""An occluded place's side is that part of the image's, by axes of space (32 of 224 pixels); it moves by its half."""

_UPSAMPLING = {2: "bilinear", 3: "trilinear"}


def class_activation(answer: Answer, image: Tensor, network: nn.Module, layer: Layer, *, plus_plus: bool) -> Tensor:
    """Grad-CAM or Grad-CAM++ of one image.

    Channels of the layer are weighed by their gradients' mean (Grad-CAM), or by its weighted sum of positive gradients
    alone, in which the score's exponential stands for it, as the paper has it (Grad-CAM++), and added up; what is
    negative is left out.

    Parameters
    ----------
    image
        (1, C, *spatial).
    network
        The part of what answers that has the layer; it is run once an answer.

    Returns
    -------
    float (1, 1, *spatial), 0 or more.
    """
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: object, output: Tensor) -> Tensor:
        kept.append(output)
        return output.clone()  # what comes after may work in place

    hook = network.get_submodule(layer.name).register_forward_hook(keep)
    try:
        with torch.enable_grad():
            score = answer(image.detach().requires_grad_(True)).sum()
            gradient = torch.autograd.grad(score, kept[0])[0]
    finally:
        hook.remove()
    maps, slopes = layer.maps(kept[0].detach()), layer.maps(gradient)
    space = tuple(range(2, maps.dim()))
    if plus_plus:
        # Equation 19 of the paper, with the derivatives of exp(score): its own factor exp(score) scales the whole map.
        # It is made for maps behind an activation; before one the divisor may be 0 or less, and has no meaning there.
        below = 2 * slopes**2 + maps.sum(dim=space, keepdim=True) * slopes**3
        shares = torch.where(below > 0, slopes**2 / below.clamp(min=torch.finfo(below.dtype).tiny), 0.0)
        weights = (shares * F.relu(slopes)).sum(dim=space, keepdim=True)
    else:
        weights = slopes.mean(dim=space, keepdim=True)
    found = F.relu((weights * maps).sum(dim=1, keepdim=True))
    return F.interpolate(found, image.shape[2:], mode=_UPSAMPLING[len(space)], align_corners=False)


def integrated_gradients(answer: Answer, image: Tensor) -> Tensor:
    """What each pixel adds to the answer on the way from black to the image, (1, C, *spatial), signed.

    The sum over all pixels is the answer for the image less that for black.
    """
    attribution = _captum("integrated-gradients").IntegratedGradients(answer)
    with torch.enable_grad():
        found = attribution.attribute(
            image.detach().requires_grad_(True),
            baselines=0.0,
            n_steps=STEPS,
            internal_batch_size=AT_ONCE[image.dim() - 2],
        )
    return found.detach().to(image.dtype)


def slopes(answer: Answer, image: Tensor) -> Tensor:
    """The answer's gradient, (1, C, *spatial), signed: saliency is its size."""
    with torch.enable_grad():
        return _captum("saliency").Saliency(answer).attribute(image.detach().requires_grad_(True), abs=False).detach()


def occlusion(answer: Answer, image: Tensor, covered_with: float) -> Tensor:
    """By how much the answer falls when a window is covered, (1, 1, *spatial), signed; the mean where windows overlap.

    Parameters
    ----------
    covered_with
        The intensity that takes the window's place.
    """
    channels, sides = image.shape[1], image.shape[2:]
    windows = [max(1, math.ceil(side / WINDOWS[len(sides)])) for side in sides]
    with torch.no_grad():
        found = (
            _captum("occlusion")
            .Occlusion(answer)
            .attribute(
                image,
                sliding_window_shapes=(channels, *windows),
                strides=(channels, *(max(1, window // 2) for window in windows)),
                baselines=covered_with,
                perturbations_per_eval=AT_ONCE[len(sides)],
            )
        )
    return found[:, :1].to(image.dtype)  # all channels are covered together and have the same number


def occlusions(sides: tuple[int, ...]) -> int:
    """How many windows `occlusion` covers, one after the other."""
    count = 1
    for side in sides:
        window = max(1, math.ceil(side / WINDOWS[len(sides)]))
        count *= 1 + math.ceil((side - window) / max(1, window // 2))
    return count


def check_installed(method: str) -> None:
    """Refuse a method whose package is missing.

    Raises
    ------
    InputError
        Naming the package.
    """
    _captum(method)


def _captum(method: str) -> Any:
    try:
        return importlib.import_module("captum.attr")
    except ModuleNotFoundError as error:
        raise InputError(
            f"the explanation by {method!r} needs the Python package {error.name!r}; install it (pip install captum), "
            "or choose grad-cam, which needs none."
        ) from error
