"""`autoencoder`: what a network that has only seen normal slices cannot rebuild.

Four convolutions with ReLU and max-pooling, a fully connected bottleneck, four transposed convolutions that mirror
them, mean squared error on slices in [0, 1]; a pixel's score is its reconstruction error.  Variants: structural
similarity as the loss (Bergmann et al., VISAPP 2019), a bottleneck that keeps place, and the variational autoencoder
(Kingma & Welling 2014, as compared by Baur et al., Medical Image Analysis 2021).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.scoring.contract import Batch, Detector, InputSpec, Scores

Loss = Literal["mse", "ssim"]
Bottleneck = Literal["dense", "spatial"]

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
"""Window and constants of Wang et al., IEEE TIP 2004, for intensities in [0, 1]."""

DARK = -2.0
"""First bias of the last layer, before the sigmoid (0.12).

Most of a slice is air: from a grey start Adam's first steps overshoot, the sigmoid saturates at black, the ReLUs before
it die, and every slice is rebuilt black ever after, so that the error is the image's brightness.  After 70 steps at a
learning rate of 0.001 that had happened in 3 of 6 trainings, and in none of 5 from this start.
"""

MOST_PARAMETERS = 500_000_000


class Autoencoder(Detector):
    """Convolutional autoencoder of slices.

    Parameters
    ----------
    widths
        Channels after each level of the encoder; every level halves the slice.
    latent
        Numbers in the bottleneck: of the whole slice (dense), or at each place (spatial).
    loss
        "mse", or "ssim": half of one minus the structural similarity, as the loss and as the pixels' score.
    bottleneck
        "dense": fully connected; "spatial": 1 x 1 convolutions.
    variational
        The bottleneck is a normal distribution, drawn from in training; the mean is used in scoring.
    kl_weight
        Weight of the Kullback-Leibler divergence (nats a slice, divided by its pixels) beside the mean squared error:
        twice the variance of the residuals that the model takes for noise (0.01: a standard deviation of 0.07).
    kl_warmup_epochs
        Epochs over which that weight rises linearly from 0.
    dropout
        Share of bottleneck numbers dropped in training.

    Raises
    ------
    InputError
        For settings that do not make a network, or do not fit the slices' size.
    """

    def __init__(
        self,
        spec: InputSpec,
        *,
        widths: Sequence[int] = (16, 32, 64, 128),
        latent: int = 128,
        loss: Loss = "mse",
        bottleneck: Bottleneck = "dense",
        variational: bool = False,
        kl_weight: float = 0.01,
        kl_warmup_epochs: int = 10,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec)
        _check(spec, widths, latent, loss, bottleneck, kl_weight, kl_warmup_epochs, dropout)
        self.widths, self.latent = tuple(widths), latent
        self.loss_name, self.bottleneck, self.variational = loss, bottleneck, bool(variational)
        self.kl_weight, self.kl_warmup_epochs, self.dropout = float(kl_weight), kl_warmup_epochs, float(dropout)
        self.warmup_epochs = kl_warmup_epochs if variational else 0
        assert spec.size is not None
        small = (self.widths[-1], *(n >> len(self.widths) for n in spec.size))
        self.encoder = _encoder(len(spec.channels), self.widths)
        self.to_latent, self.from_latent = _bottleneck(small, latent * (2 if variational else 1), latent, bottleneck)
        self.drop = nn.Dropout(self.dropout)
        self.decoder = _decoder(len(spec.channels), self.widths)
        kernel = torch.exp(-0.5 * ((torch.arange(SSIM_WINDOW) - SSIM_WINDOW // 2) / SSIM_SIGMA) ** 2)
        self.register_buffer("window", kernel / kernel.sum(), persistent=False)
        # Channels beside each other: training and scoring at 224 x 224 on two cores take 0.6 to 0.7 of the time.
        convert_conv2d_weight_memory_format(self, torch.channels_last)

    window: Tensor

    def config(self) -> dict[str, Any]:
        return {
            "widths": list(self.widths),
            "latent": self.latent,
            "loss": self.loss_name,
            "bottleneck": self.bottleneck,
            "variational": self.variational,
            "kl_weight": self.kl_weight,
            "kl_warmup_epochs": self.kl_warmup_epochs,
            "dropout": self.dropout,
        }

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Bottleneck of slices (N, C, H, W): its mean, and its log variance if variational."""
        code = self.to_latent(self.encoder(image))
        if not self.variational:
            return code, None
        mean, log_variance = code.chunk(2, dim=1)
        return mean, log_variance.clamp(-20, 10)  # exp() of more overflows in half precision

    def decode(self, code: Tensor) -> Tensor:
        """Slices in [0, 1] from their bottleneck."""
        return self.decoder(self.from_latent(self.drop(code)))

    def forward(self, image: Tensor) -> Tensor:
        """Reconstruction of slices (N, C, H, W)."""
        return self.decode(self.encode(image)[0])

    def loss(self, batch: Batch) -> Tensor:
        target = batch.image if batch.target is None else batch.target
        mean, log_variance = self.encode(batch.image)
        code = mean
        if log_variance is not None and self.training:
            code = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        loss = self._error(self.decode(code), target).mean()
        if log_variance is None:
            return loss
        mean, log_variance = mean.float(), log_variance.float()
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(dim=1).mean()
        return loss + self._kl_weight(batch.epoch) * divergence / math.prod(batch.image.shape[2:])

    def _kl_weight(self, epoch: int | None) -> float:
        if epoch is None or epoch >= self.kl_warmup_epochs:
            return self.kl_weight
        return self.kl_weight * epoch / self.kl_warmup_epochs

    def _error(self, rebuilt: Tensor, target: Tensor) -> Tensor:
        """Error per pixel that training lessens, (N, C, H, W)."""
        rebuilt, target = rebuilt.float(), target.float()
        if self.loss_name == "ssim":
            return (1 - ssim_map(rebuilt, target, self.window)) / 2
        return (rebuilt - target).square()

    def score(self, batch: Batch) -> Scores:
        """Root of the squared error (its ranking, in the image's own units), or half of one minus the similarity."""
        error = self._error(self(batch.image), batch.image).mean(dim=1, keepdim=True)
        if self.loss_name == "mse":
            error = error.sqrt()
        return Scores(map=torch.where(batch.foreground, error, 0.0))

    def memory_bytes(self, voxels: int) -> int:
        """Activations of the first level, before and after each step, are most of it; and the weights."""
        weights = sum(parameter.numel() for parameter in self.parameters())
        return 4 * (voxels * (3 * self.widths[0] + 8 * len(self.spec.channels)) + weights)


def ssim_map(first: Tensor, second: Tensor, window: Tensor) -> Tensor:
    """Structural similarity per pixel of images in [0, 1] (Wang et al. 2004), differentiable.

    Parameters
    ----------
    first, second
        (N, C, H, W).
    window
        (n,), the Gaussian's weights along one axis; borders are mirrored.
    """
    channels, radius = first.shape[1], window.numel() // 2
    rows = window.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    columns = window.view(1, 1, 1, -1).expand(channels, 1, 1, -1)

    def local(image: Tensor) -> Tensor:
        padded = F.pad(image, (radius, radius, radius, radius), mode="reflect")
        return F.conv2d(F.conv2d(padded, rows, groups=channels), columns, groups=channels)

    mean_1, mean_2 = local(first), local(second)
    variance_1 = local(first * first) - mean_1**2
    variance_2 = local(second * second) - mean_2**2
    covariance = local(first * second) - mean_1 * mean_2
    luminance = (2 * mean_1 * mean_2 + SSIM_C1) / (mean_1**2 + mean_2**2 + SSIM_C1)
    return luminance * (2 * covariance + SSIM_C2) / (variance_1 + variance_2 + SSIM_C2)


def _encoder(channels: int, widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in zip((channels, *widths), widths, strict=False):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers)


def _decoder(channels: int, widths: tuple[int, ...]) -> nn.Sequential:
    """Each transposed convolution doubles the slice; a kernel of twice the stride leaves no checkerboard."""
    layers: list[nn.Module] = []
    for before, after in zip(widths[::-1], (*widths[-2::-1], channels), strict=True):
        layers += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), nn.ReLU()]
    last = layers[-2]
    assert isinstance(last, nn.ConvTranspose2d) and last.bias is not None
    nn.init.constant_(last.bias, DARK)
    return nn.Sequential(*layers[:-1], nn.Sigmoid())


def _bottleneck(small: tuple[int, ...], out: int, latent: int, kind: Bottleneck) -> tuple[nn.Sequential, nn.Sequential]:
    if kind == "spatial":
        back = nn.Sequential(nn.Conv2d(latent, small[0], 1), nn.ReLU())
        return nn.Sequential(nn.Conv2d(small[0], out, 1)), back
    numbers = math.prod(small)
    forth = nn.Sequential(nn.Flatten(), nn.Linear(numbers, out))
    return forth, nn.Sequential(nn.Linear(latent, numbers), nn.ReLU(), nn.Unflatten(1, small))


def _check(
    spec: InputSpec,
    widths: Sequence[int],
    latent: int,
    loss: str,
    bottleneck: str,
    kl_weight: float,
    kl_warmup_epochs: int,
    dropout: float,
) -> None:
    for name, value, known in (("loss", loss, get_args(Loss)), ("bottleneck", bottleneck, get_args(Bottleneck))):
        if value not in known:
            raise InputError(f"autoencoder: {name} {value!r} is none of {', '.join(known)}.")
    if spec.kind != "slices" or spec.size is None or len(spec.size) != 2:
        raise InputError("autoencoder: the input must be `kind: slices` with `size: [rows, columns]`.")
    for name, numbers in (("widths", widths), ("latent", [latent]), ("kl_warmup_epochs", [kl_warmup_epochs + 1])):
        whole = isinstance(numbers, Sequence) and all(isinstance(n, int) and 0 < n <= 65536 for n in numbers)
        if not whole or not 1 <= len(numbers) <= 8:
            raise InputError(f"autoencoder: {name} {numbers!r} must be whole numbers above 0, for at most 8 levels.")
    step = 2 ** len(widths)
    if any(n % step or n < max(step, SSIM_WINDOW) for n in spec.size):
        raise InputError(f"autoencoder: size {list(spec.size)} must be multiples of {step} ({len(widths)} levels).")
    if not (math.isfinite(kl_weight) and kl_weight >= 0 and 0 <= dropout < 1):
        raise InputError("autoencoder: kl_weight cannot be negative, and dropout lies in 0 <= dropout < 1.")
    numbers_at_bottom = widths[-1] * math.prod(n // step for n in spec.size)
    if bottleneck == "dense" and 3 * latent * numbers_at_bottom > MOST_PARAMETERS:
        raise InputError(f"autoencoder: latent {latent} for size {list(spec.size)} makes too large a network.")
