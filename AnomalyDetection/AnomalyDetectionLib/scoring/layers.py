"""The layers of a network whose output has places, by name: what Grad-CAM can look at."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from AnomalyDetectionLib.errors import InputError

NEAREST = 3


@dataclass(frozen=True)
class Layer:
    """A layer whose output can be laid out as maps.

    Attributes
    ----------
    grid
        Rows and columns (or planes, rows, columns) of its maps.
    extra
        Tokens before those of the places, such as the class token; None for a layer that makes maps, not tokens.
    """

    name: str
    grid: tuple[int, ...]
    extra: int | None = None

    def maps(self, output: Tensor) -> Tensor:
        """Its output as maps (N, C, *grid)."""
        if self.extra is None:
            return output
        return output[:, self.extra :].mT.unflatten(2, self.grid)


def layers_of(network: nn.Module, run: Callable[[], object], dimensions: int) -> dict[str, Layer]:
    """The layers with places, by name, in the order in which they finish.

    Parameters
    ----------
    run
        Lets the network answer for one image.  Under gradients: torch's transformers otherwise go past their layers.
    dimensions
        Axes of space of that image.
    """
    found: dict[str, Layer] = {}
    grids: list[tuple[int, ...]] = []

    def seen(name: str, output: object) -> None:
        if not isinstance(output, Tensor):
            return
        if output.dim() == dimensions + 2 and math.prod(output.shape[2:]) > 1:
            grids.append(tuple(output.shape[2:]))
            found[name] = Layer(name, grids[-1])
        elif output.dim() == 3:
            for grid in reversed(grids):
                if (extra := output.shape[1] - math.prod(grid)) in (0, 1):
                    found[name] = Layer(name, grid, extra)
                    return

    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: seen(name, output))
        for name, module in network.named_modules()
        if name
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return found


def default_layer(network: nn.Module, layers: dict[str, Layer]) -> Layer:
    """The layer that the network names itself (`explained_layer`), or the last one that makes maps.

    Raises
    ------
    InputError
        If there is none.
    """
    own = getattr(network, "explained_layer", None)
    if own in layers:
        return layers[own]
    maps = [layer for layer in layers.values() if layer.extra is None]
    if not maps:
        raise InputError("the network has no layer whose output has places; choose integrated-gradients or occlusion.")
    return maps[-1]


def layer_named(name: str | None, network: nn.Module, layers: dict[str, Layer]) -> Layer:
    """The layer of that name; None for the default.

    Raises
    ------
    InputError
        If there is none: the sentence names those that are nearest.
    """
    default = default_layer(network, layers)
    if name is None:
        return default
    if name not in layers:
        near = difflib.get_close_matches(name, layers, NEAREST, cutoff=0.3)
        nearest = f"; the nearest are {', '.join(near)}" if near else ""
        raise InputError(
            f"the network has no layer {name!r} with places{nearest}; without a name it is {default.name}."
        )
    return layers[name]
