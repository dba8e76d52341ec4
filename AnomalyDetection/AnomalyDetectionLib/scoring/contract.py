"""What every detector promises, and what it is given.

Higher score = more abnormal, always.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from AnomalyDetectionLib.errors import InputError

from .covariates import ClinicalColumn

Kind = Literal["slices", "2.5d", "patches", "volume", "sequence"]
GridChoice = Literal["own", "template", "frame"]
Supervision = Literal["normals", "synthetic", "masks", "labels"]


@dataclass(frozen=True)
class InputSpec:
    """The input a detector was made for; stored with the model, checked before scoring.

    Attributes
    ----------
    kind
        What one batch item is: a slice, a slice with its neighbours, a patch, the whole volume, or the sequence of its
        slices.  Detectors of patches are trained on crops of `size`; they score whole volumes (N = 1), which they cut
        into tiles themselves.  A sequence is (C, L, H, W): the L slices that hold foreground, upwards, each as it would
        be alone; where sequences of several lengths make a batch, slices without foreground fill up the shorter ones.
    modalities
        DICOM codes the model may score.  An image whose modality is unknown is scored with a warning.
    intensity
        Name of the rule in `imaging.intensity` that maps the image into [0, 1].
    foreground
        Name of the rule in `imaging.foreground` that tells patient from air, or "auto" (by modality).
    grid
        "own": the image's own axes, turned losslessly into canonical order; "template": affinely registered to the
        template stored with the model; "frame": the image's frame is stretched onto the template's (radiographs, which
        carry no position).
    spacing
        Voxel size in mm along (right, anterior, superior) the image is resampled to; None keeps its own.
    size
        Pixels or voxels of one batch item, (H, W) or (D, H, W), or of each slice of a sequence, (H, W); None for
        whatever comes.
    channels
        Names of the image channels of one case.
    neighbours
        For `kind: 2.5d`: how many slices on either side of an item's own come with it, as channels: from the lowest
        slice to the highest, all channels of a slice beside each other.  At the ends the last slice is repeated.
    """

    kind: Kind
    modalities: tuple[str, ...]
    intensity: str
    foreground: str = "auto"
    grid: GridChoice = "own"
    spacing: tuple[float, float, float] | None = None
    size: tuple[int, ...] | None = None
    channels: tuple[str, ...] = ("image",)
    neighbours: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"input spec: kind {self.kind!r} is none of {', '.join(get_args(Kind))}.")
        if self.grid not in get_args(GridChoice):
            raise InputError(f"input spec: grid {self.grid!r} is none of {', '.join(get_args(GridChoice))}.")
        if self.spacing is not None and (len(self.spacing) != 3 or min(self.spacing) <= 0):
            raise InputError(f"input spec: spacing {self.spacing} must be three positive numbers in mm.")
        if (self.kind == "2.5d") != (self.neighbours > 0) or self.neighbours < 0:
            raise InputError(
                f"input spec: neighbours is {self.neighbours}; kind '2.5d' needs at least 1, and no other kind has any."
            )
        if self.kind in ("2.5d", "sequence") and self.grid == "frame":
            raise InputError(
                f"input spec: grid 'frame' is for single images, which are no part of a {self.kind!r} item."
            )

    @property
    def is_slicewise(self) -> bool:
        """Whether an item is a slice, alone or with its neighbours."""
        return self.kind in ("slices", "2.5d")

    @property
    def has_slices(self) -> bool:
        """Whether volumes are cut into slices of `size`, whether these are items or make up one."""
        return self.is_slicewise or self.kind == "sequence"

    @property
    def image_channels(self) -> int:
        """Channels of `Batch.image`: those of a case, times the slices of an item."""
        return len(self.channels) * (2 * self.neighbours + 1)

    @property
    def own_channels(self) -> slice:
        """Which channels of `Batch.image` are the item's own slice; all of them where it has no neighbours."""
        first = self.neighbours * len(self.channels)
        return slice(first, first + len(self.channels))

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> InputSpec:
        """The inverse of `to_json`; unknown keys are refused."""
        known = {f.name for f in fields(cls)}
        if unknown := set(data) - known:
            raise InputError(f"input spec: unknown key {sorted(unknown)[0]!r}; known are {', '.join(sorted(known))}.")
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in data.items()}
        return cls(**values)


def _unwatched(share: float) -> None:
    """Progress that nobody watches."""


@dataclass
class Batch:
    """N items on the detector's grid.

    Attributes
    ----------
    image
        float32 (N, C, *spatial), in [0, 1] by the spec's intensity rule.  For `kind: 2.5d` it has C * (2 * neighbours
        + 1) channels, as `InputSpec.neighbours` says; everything else is of the middle slice only.
    foreground
        bool (N, 1, *spatial); nothing outside it is scored, absorbed or counted.
    target, mask, severity
        For training only (`Detector.supervision`): what `image` should be restored to, (N, C, *spatial); where it is
        abnormal or was altered, float (N, 1, *spatial) in [0, 1]; and how strongly, float (N,) in [0, 1].
    label
        For training only: float32 (N,), 0 normal, 1 abnormal.
    patient
        For training by statistics only: int64 (N,), a number that items of one patient share.
    covariates
        float32 (N, F), clinical columns as `scoring.covariates.encode` gives them, NaN where missing; None for a
        detector without `columns`.
    context
        For training only: the crop's part of what `Detector.context` says of the whole case, float (N, K, *spatial).
    epoch
        For training only: epochs before this one, for losses that are warmed up; None for the loss's final form, by
        which epochs are compared.
    progress
        For scoring only: to be called now and then with the share of the batch that is done, by detectors that take
        long over one; may raise to stop.
    """

    image: Tensor
    foreground: Tensor
    target: Tensor | None = None
    mask: Tensor | None = None
    severity: Tensor | None = None
    context: Tensor | None = None
    label: Tensor | None = None
    patient: Tensor | None = None
    covariates: Tensor | None = None
    epoch: int | None = None
    progress: Callable[[float], None] = field(default=_unwatched, repr=False)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        parts: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {n: part.to(device) if isinstance(part, Tensor) else part for n, part in parts.items()}
        return type(self)(**moved)


@dataclass
class Scores:
    """What a detector answers.

    Attributes
    ----------
    map
        float32 (N, 1, *spatial) raw score per voxel, or None for detectors that judge whole images.
    image
        float32 (N,) raw score per item, or None for detectors whose map is reduced to one number.  Without a map it is
        the case's score (of several slices: what `Detector.pooled` makes of theirs), and there are no findings.
    scored
        bool (N, 1, *spatial) where the map holds a score, if that is less than the batch's foreground (an atlas ends
        somewhere); None for all of it.
    """

    map: Tensor | None = None
    image: Tensor | None = None
    scored: Tensor | None = None


class Detector(nn.Module):
    """Base class of all detectors.

    A detector trained by gradient has `loss`; one trained by statistics has `absorb` (called once per case and pass)
    and `finish` (after each pass).  All have `score`.  Fitted state lives in parameters and buffers only, so that
    `state_dict()` is the whole model.
    """

    supervision: ClassVar[Supervision] = "normals"
    """What a detector learns from: "normals" alone; "synthetic": normals that synthetic lesions
    were put into (`Batch.target`, `mask` and `severity`); "masks": normals, and abnormal cases with their true masks
    (`Batch.mask`); "labels": normal and abnormal cases told apart by their label only."""

    gives_log_odds: ClassVar[bool] = False
    """Whether `Scores.image` is the log-odds that a case is abnormal, as a supervised detector learns them."""

    explainable: ClassVar[bool] = False
    """Whether attribution can say what moved its score: it judges whole images, and has `explained`."""

    makes_map: ClassVar[bool] = True
    """Whether `Scores.map` is answered; a detector that makes none judges whole images."""

    passes: int = 0
    """Passes over the training cases that a statistics detector needs; 0 for one trained by gradient."""

    context_channels: int = 0
    """Channels of what `context` answers."""

    context_images: int = 0
    """How many of them, the first ones, show the image's own intensities, 0 outside the foreground: where training
    changes brightness and contrast, it changes them alike."""

    warmup_epochs: int = 0
    """Epochs until the loss has its final form; the best epoch is chosen among those after."""

    columns: tuple[ClinicalColumn, ...] = ()
    """Clinical columns that it is given beside the image."""

    mirrored: bool = False
    """Whether its score is the mean of the item's own and of that of its mirror image (left and right changed)."""

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.spec = spec

    def config(self) -> dict[str, Any]:
        """Keyword arguments (beside the spec) that rebuild this detector before its state is loaded."""
        return {}

    def facts(self) -> dict[str, Any]:
        """What the model card says of where parts of the detector come from, such as pretrained weights."""
        return {}

    def loss(self, batch: Batch) -> Tensor:
        """Scalar loss of a training batch (detectors trained by gradient)."""
        raise TypeError(f"{type(self).__name__} is trained by statistics: use absorb and finish")

    def context(self, batch: Batch) -> Tensor | None:
        """What a detector of patches is shown beside a crop and takes from the whole case, (N, K, *spatial).

        For training it is worked out once for every whole volume, and cropped with it (`Batch.context`); scoring is
        given whole volumes.  None where a crop by itself is enough.
        """
        return None

    def absorb(self, batch: Batch) -> None:
        """Take in one case's items (detectors trained by statistics): a normal's, or with its label whoever's."""
        raise TypeError(f"{type(self).__name__} is trained by gradient: use loss")

    def finish(self) -> None:
        """Turn what was absorbed into the fitted state."""
        raise TypeError(f"{type(self).__name__} is trained by gradient: use loss")

    def score(self, batch: Batch) -> Scores:
        """Raw scores of a batch; called under `torch.inference_mode`."""
        raise NotImplementedError(f"{type(self).__name__} does not score")

    def pretrained(self) -> nn.Module | None:
        """The part that starts from weights learnt elsewhere, for training that keeps it still at first; or None.

        A detector that has one can also be asked for what it makes of images, and learn from that alone.
        """
        return None

    def features(self, batch: Batch) -> Tensor:
        """What the pretrained part makes of a batch, float32 (N, F).

        Of sequences (N, L, F), where NaN stands for what is not there.
        """
        raise TypeError(f"{type(self).__name__} has no pretrained part")

    def loss_of_features(self, features: Tensor, batch: Batch) -> Tensor:
        """`loss` of a batch whose features are known; its image is not looked at."""
        raise TypeError(f"{type(self).__name__} has no pretrained part")

    def pooled(self, scores: Tensor) -> Tensor:
        """One raw score of a case, shape (), from those of its items, (N,), where the detector makes no map."""
        return scores.mean()

    def explained(self, batch: Batch) -> Tensor:
        """What attribution explains: raw scores (N,) of items as they are given, differentiable in `batch.image`."""
        raise TypeError(f"{type(self).__name__} cannot be explained")

    def explained_network(self) -> nn.Module:
        """The part of `explained` that looks at the image, whose layers Grad-CAM can be asked for by name."""
        raise TypeError(f"{type(self).__name__} cannot be explained")

    def memory_bytes(self, voxels: int) -> int:
        """Estimate of the working memory `score` needs for a case of that many voxels on the detector's grid."""
        return 16 * voxels * self.spec.image_channels
