"""Vision transformer ViT-B/16 (Dosovitskiy et al., ICLR 2021) under torchvision's key names."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Backbone
from .imagenet import DEVIATION, MEAN

PATCH, WIDTH, HEADS, LAYERS = 16, 768, 12, 12
GRID = 14
"""Patches along each side of the 224 x 224 pixels that the published weights were trained with."""
EPSILON = 1e-6
OLD_KEY = re.compile(r"(\.mlp)\.linear_([12])\.")


class VisionTransformer(Backbone):
    """ViT-B/16; the levels are the maps after 3, 6, 9 and 12 layers, all of stride 16.

    The embedding of places is interpolated to the size of the image, whose sides are multiples of 16.
    """

    strides = (PATCH,) * 4
    channels = (WIDTH,) * 4
    width = WIDTH
    classifier = ("heads.",)
    stem = "conv_proj.weight"
    explained_layer = "encoder.layers.encoder_layer_11.ln_1"
    """The last one at which the patches still move the answer: after it only the class token does."""

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__(in_channels, MEAN, DEVIATION)
        self.class_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.conv_proj = nn.Conv2d(in_channels, WIDTH, PATCH, PATCH)
        self.encoder = _Encoder()

    def maps(self, image: Tensor) -> Iterator[Tensor]:
        rows = image.shape[2] // PATCH
        for tokens in self._tokens(image):
            yield tokens[:, 1:].mT.unflatten(2, (rows, -1))

    def _tokens(self, image: Tensor) -> Iterator[Tensor]:
        """Class token and patches (N, 1 + rows x columns, WIDTH), level by level."""
        patches = self.conv_proj(image)
        tokens = torch.cat([self.class_token.expand(len(image), -1, -1), patches.flatten(2).mT], dim=1)
        tokens = tokens + self._places(patches.shape[2], patches.shape[3])
        for number, layer in enumerate(self.encoder.layers, 1):
            tokens = layer(tokens)
            if number % 3 == 0:
                yield tokens

    def _places(self, rows: int, columns: int) -> Tensor:
        places = self.encoder.pos_embedding
        if (rows, columns) == (GRID, GRID):
            return places
        grid = places[:, 1:].mT.unflatten(2, (GRID, GRID))
        grid = F.interpolate(grid, (rows, columns), mode="bicubic", align_corners=False)
        return torch.cat([places[:, :1], grid.flatten(2).mT], dim=1)

    def forward(self, image: Tensor) -> Tensor:
        *_, deepest = self._tokens(self.normalised(image))
        return self.encoder.ln(deepest)[:, 0]

    def trim(self, level: int) -> None:
        self.encoder.layers = nn.Sequential(OrderedDict(list(self.encoder.layers.named_children())[: 3 * level]))
        self.encoder.ln = nn.Identity()


def with_new_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a published file, in which the layers of the perceptrons had names."""
    return {OLD_KEY.sub(lambda found: f"{found[1]}.{3 * (int(found[2]) - 1)}.", k): v for k, v in state.items()}


class _Encoder(nn.Module):
    ln: nn.Module

    def __init__(self) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.empty(1, GRID * GRID + 1, WIDTH).normal_(std=0.02))
        layers: OrderedDict[str, nn.Module] = OrderedDict((f"encoder_layer_{n}", _Layer()) for n in range(LAYERS))
        self.layers = nn.Sequential(layers)
        self.ln = nn.LayerNorm(WIDTH, eps=EPSILON)


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(WIDTH, eps=EPSILON)
        self.self_attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.ln_2 = nn.LayerNorm(WIDTH, eps=EPSILON)
        # The empty places are torchvision's dropouts, which have no weights: the second linear layer is number 3.
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Identity(), nn.Linear(4 * WIDTH, WIDTH), nn.Identity()
        )

    def forward(self, tokens: Tensor) -> Tensor:
        inner = self.ln_1(tokens)
        tokens = tokens + self.self_attention(inner, inner, inner, need_weights=False)[0]
        return tokens + self.mlp(self.ln_2(tokens))
