"""`classical` and `classical_normals`: hand-made features of an image, and the learning machines from before networks.

Histograms of oriented gradients, properties of grey-level co-occurrence and wavelet energies describe an image.  By
labelled ones `classical` learns a support vector machine or nearest neighbours, whose answers become log-odds by a
curve that is fitted to patients who were left out; `classical_normals` knows normals alone: their nearest neighbours, a
one-class support vector machine, or the Mahalanobis distance from their mean.  Both judge whole images.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from AnomalyDetectionLib.errors import InputError
from AnomalyDetectionLib.scoring.contract import Batch, Detector, InputSpec, Scores

from . import classical_fitting as fitting
from .classical_models import OF_NORMALS, SUPERVISED, Decide, Fitted
from .features import evenly
from .reservoir import Reservoir
from .slice_scores import Slices, check_slices, pooled
from .texture import Family, Texture

Model = Literal["svm", "knn"]
NormalsModel = Literal["mahalanobis", "ocsvm", "knn"]
Curve = Literal["platt", "isotonic"]

FAMILIES: tuple[Family, ...] = ("hog", "glcm", "wavelet")
SINGLE, DOUBLE = torch.float32, torch.float64
STATE = {"centre": SINGLE, "scale": SINGLE, "vectors": SINGLE, "coefficients": DOUBLE, "constants": DOUBLE}
"""The fitted buffers and their types; the axes of the Mahalanobis distance are in double precision as well."""


class _Classical(Detector):
    """What both have in common: features that are gathered, standardised, and compared on the processor.

    Features have mean 0 among those that are learnt from, and each family the same sum of variances, 1: many numbers do
    not count more than few.

    Parameters
    ----------
    options
        Those that `config` answers; `features`, `cell` and `regions` as `texture.Texture` takes them.
    fitted
        Shapes of the fitted buffers of a detector that is rebuilt.
    """

    passes = 1
    makes_map = False

    centre: Tensor
    scale: Tensor
    vectors: Tensor
    coefficients: Tensor
    constants: Tensor

    def __init__(self, spec: InputSpec, options: Mapping[str, Any], fitted: Mapping[str, Sequence[int]] | None) -> None:
        super().__init__(spec)
        self.options = dict(options)
        name = type(self).name
        if spec.kind != "slices" or spec.size is None or len(spec.size) != 2:
            raise InputError(f"{name}: the input must be `kind: slices` with a `size: [rows, columns]`.")
        check_slices(options["slices"], name)
        for key in ("slices_per_case", "most"):
            if options[key] < 1:
                raise InputError(f"{name}: {key} is {options[key]} and must be at least 1.")
        try:
            self.texture = Texture(
                (spec.size[0], spec.size[1]),
                len(spec.channels),
                options["features"],
                options["cell"],
                options["regions"],
            )
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        for key, kind in self._kinds().items():
            self.register_buffer(key, torch.zeros(tuple((fitted or {}).get(key, (0,))), dtype=kind))
        self._reservoir: Reservoir | None = None
        self._labels: list[int] = []
        self._patients: list[int] = []
        self._found: dict[str, Any] = {}

    name = "classical"

    def _kinds(self) -> dict[str, torch.dtype]:
        return STATE

    @property
    @abstractmethod
    def _decide(self) -> Decide:
        """What gives a vector its raw score."""

    @abstractmethod
    def _fit(self, vectors: NDArray[np.float32], cases: NDArray[np.int32]) -> Fitted:
        """The model of standardised vectors (n, F), each of the case with that number."""

    def config(self) -> dict[str, Any]:
        if not self.vectors.numel():
            return self.options
        return {**self.options, "fitted": {key: list(self.get_buffer(key).shape) for key in self._kinds()}}

    def facts(self) -> dict[str, Any]:
        counts = ", ".join(f"{family} {count}" for family, count in self.texture.counts.items())
        return {"features": counts, **self._found}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _Classical:
        """Nothing moves to a device: features are made on the processor, and not all have double precision."""
        return self

    def absorb(self, batch: Batch) -> None:
        """Take in a case: the features of some of its slices, evenly spaced, its label and patient."""
        chosen = evenly(batch.image.shape[0], self.options["slices_per_case"])
        values = self._features(batch.image[chosen], batch.foreground[chosen])
        if self._reservoir is None:
            options = self.options
            self._reservoir = Reservoir(1, options["most"], values.shape[1], options["seed"], np.float32)
        number = len(self._labels)
        self._reservoir.offer_anywhere(values, number)
        self._labels.append(0 if batch.label is None else int(batch.label[0]))
        self._patients.append(number if batch.patient is None else int(batch.patient[0]))

    def _features(self, image: Tensor, foreground: Tensor) -> NDArray[np.float32]:
        if not image.isfinite().all():
            raise InputError(
                f"{type(self).name}: an image holds values that are no numbers; are its intensities usable?"
            )
        return self.texture(image.cpu().numpy(), foreground.cpu().numpy())

    def finish(self) -> None:
        reservoir, self._reservoir = self._reservoir, None
        if reservoir is None:
            raise InputError(f"{type(self).name}: there is no image to learn from.")
        held = slice(0, int(reservoir.filled[0]))
        self._standardise(reservoir.values[0, held])
        fitted = self._fit(self._standardised(reservoir.values[0, held]), reservoir.cases[0, held])
        for key in ("vectors", "coefficients", "constants"):
            self._keep(key, getattr(fitted, key))
        self._labels, self._patients = [], []

    def _keep(self, key: str, values: NDArray) -> None:
        setattr(self, key, torch.from_numpy(np.ascontiguousarray(values)).to(self._kinds()[key]))

    def _standardise(self, values: NDArray[np.float32]) -> None:
        centre, spread = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
        differs = spread > 1e-6 * np.maximum(1.0, np.abs(centre))
        if not differs.any():
            raise InputError(f"{type(self).name}: all images have the same features; are they copies of one?")
        scale, start = np.zeros_like(spread), 0
        for count in self.texture.counts.values():
            family = slice(start, start + count)
            scale[family][differs[family]] = 1 / (spread[family] * np.sqrt(differs[family].sum()))[differs[family]]
            start += count
        self._keep("centre", centre)
        self._keep("scale", scale)

    def _standardised(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        return (values - self.centre.numpy()) * self.scale.numpy()

    def raw(self, batch: Batch) -> NDArray[np.float64]:
        """What the model answers to every item, float64 (N,), before it is made log-odds where there are labels."""
        values = self._features(batch.image, batch.foreground)
        fitted = Fitted(self.vectors.numpy(), self.coefficients.numpy(), self.constants.numpy())
        return self._decide(self._standardised(values), fitted)

    def pooled(self, scores: Tensor) -> Tensor:
        return pooled(scores, self.options["slices"])

    def memory_bytes(self, voxels: int) -> int:
        """A few copies of the images, and of what was learnt in double precision."""
        return 64 * voxels + 16 * self.vectors.numel()


class Classical(_Classical):
    """Support vector machine or nearest neighbours on hand-made features, learnt from labels.

    Settings of which several are given are tried on training patients who were left out (by AUROC, `inner_folds` folds
    by patient); on these the curve is fitted, too, that makes log-odds of the model's answers.

    Parameters
    ----------
    model
        "svm": with a Gaussian kernel; "knn": share of abnormal ones among the nearest, weighed by distance.
    features
        Families that describe an image: histograms of oriented gradients, grey-level co-occurrence, wavelets.
    cell
        Pixels along the side of a cell of gradients.
    regions
        Co-occurrence and wavelets are of the whole image, and of each of so many times so many regions.
    C
        For svm: cost of errors.
    gamma
        For svm: of the kernel, for vectors whose variances add up to 1.
    neighbours
        For knn: how many.
    probability
        "platt" fits a logistic curve; "isotonic" a rising staircase, on whose steps scores are alike.
    inner_folds
        Of the training patients.
    slices
        What a volume's score is of its slices' scores: their mean, their largest, or the mean of the highest tenth.
    slices_per_case
        Slices of a volume that are learnt from, evenly spaced.
    most
        Slices kept of all cases' (a uniform sample): time and memory of the fit grow with its square.
    seed
        Of the sample and the folds.
    fitted
        Shapes of the fitted buffers: of a fitted detector that is rebuilt.

    Raises
    ------
    InputError
        For settings that do not go together.
    """

    name = "classical"
    supervision = "labels"
    gives_log_odds = True

    curve: Tensor

    def __init__(
        self,
        spec: InputSpec,
        *,
        model: Model = "svm",
        features: Sequence[Family] = FAMILIES,
        cell: int = 16,
        regions: int = 4,
        C: Sequence[float] = (0.25, 1.0, 4.0, 16.0),
        gamma: Sequence[float] = (0.25, 0.5, 1.0, 2.0),
        neighbours: Sequence[int] = (5, 10, 20, 40),
        probability: Curve = "platt",
        inner_folds: int = 5,
        slices: Slices = "mean",
        slices_per_case: int = 16,
        most: int = 4000,
        seed: int = 0,
        fitted: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        options: dict[str, Any] = {
            "model": model,
            "features": list(features),
            "cell": cell,
            "regions": regions,
            "C": list(C),
            "gamma": list(gamma),
            "neighbours": list(neighbours),
            "probability": probability,
            "inner_folds": inner_folds,
            "slices": slices,
            "slices_per_case": slices_per_case,
            "most": most,
            "seed": seed,
        }
        _check_choice("classical", "model", model, get_args(Model))
        _check_choice("classical", "probability", probability, get_args(Curve))
        for key in ("C", "gamma", "neighbours"):
            if not options[key] or not min(options[key]) > 0:
                raise InputError(f"classical: {key} is {options[key]}; give one or more numbers above 0.")
        if inner_folds < 2:
            raise InputError(f"classical: inner_folds is {inner_folds} and must be at least 2.")
        super().__init__(spec, options, fitted)

    def _kinds(self) -> dict[str, torch.dtype]:
        return {**STATE, "curve": DOUBLE}

    @property
    def _decide(self) -> Decide:
        return SUPERVISED[self.options["model"]]

    def _fit(self, vectors: NDArray[np.float32], cases: NDArray[np.int32]) -> Fitted:
        options, families = self.options, len(self.texture.families)
        labels, patients = np.array(self._labels)[cases], np.array(self._patients)[cases]
        data = fitting.Labelled(vectors, labels, patients)
        common = (options["inner_folds"], options["seed"])
        if options["model"] == "svm":
            gammas = [gamma / families for gamma in options["gamma"]]
            fitted, chosen = fitting.fit_svm(data, options["C"], gammas, *common)
        else:
            fitted, chosen = fitting.fit_neighbours(data, options["neighbours"], *common)
        make = fitting.platt if options["probability"] == "platt" else fitting.isotonic
        self._keep("curve", make(chosen.decisions, labels))
        self._found = {
            "settings chosen": ", ".join(f"{key} {value:.3g}" for key, value in chosen.settings.items()),
            "AUROC of left-out training images": round(chosen.auroc, 3),
        }
        if chosen.auroc <= 0.5:
            self._found["warning"] = "It tells left-out training images apart no better than chance."
        return fitted

    def score(self, batch: Batch) -> Scores:
        """Log-odds that items are abnormal, where abnormal cases are as frequent as in training."""
        raw, curve = self.raw(batch), self.curve.numpy()
        if self.options["probability"] == "platt":
            log_odds = curve[0, 0] * raw + curve[1, 0]
        else:
            log_odds = np.interp(raw, curve[0], curve[1])
        return Scores(image=torch.from_numpy(log_odds).float())


class ClassicalNormals(_Classical):
    """How far hand-made features of an image lie from those of normals.

    Parameters
    ----------
    model
        "mahalanobis": distance from the normals' mean by their covariance, shrunk after Ledoit & Wolf; "ocsvm": a
        one-class support vector machine with a Gaussian kernel; "knn": mean distance to the nearest normals.
    features, cell, regions, slices, slices_per_case, most, seed, fitted
        As of `Classical`.
    nu
        For ocsvm: share of the normals that may lie outside.
    gamma
        For ocsvm: of the kernel, for vectors whose variances add up to 1.
    neighbours
        For knn: how many.

    Raises
    ------
    InputError
        For settings that do not go together.
    """

    name = "classical_normals"

    def __init__(
        self,
        spec: InputSpec,
        *,
        model: NormalsModel = "mahalanobis",
        features: Sequence[Family] = FAMILIES,
        cell: int = 16,
        regions: int = 4,
        nu: float = 0.1,
        gamma: float = 1.0,
        neighbours: int = 5,
        slices: Slices = "mean",
        slices_per_case: int = 16,
        most: int = 4000,
        seed: int = 0,
        fitted: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        options: dict[str, Any] = {
            "model": model,
            "features": list(features),
            "cell": cell,
            "regions": regions,
            "nu": nu,
            "gamma": gamma,
            "neighbours": neighbours,
            "slices": slices,
            "slices_per_case": slices_per_case,
            "most": most,
            "seed": seed,
        }
        _check_choice("classical_normals", "model", model, get_args(NormalsModel))
        if not (0 < nu <= 1 and gamma > 0 and neighbours >= 1):
            raise InputError("classical_normals: nu lies in 0 < nu <= 1, gamma above 0, neighbours is 1 or more.")
        super().__init__(spec, options, fitted)

    def _kinds(self) -> dict[str, torch.dtype]:
        return {**STATE, "vectors": DOUBLE} if self.options["model"] == "mahalanobis" else STATE

    @property
    def _decide(self) -> Decide:
        return OF_NORMALS[self.options["model"]]

    def _fit(self, vectors: NDArray[np.float32], cases: NDArray[np.int32]) -> Fitted:
        options = self.options
        if len(vectors) <= options["neighbours"]:
            raise InputError(f"classical_normals: {len(vectors)} images are too few to compare with.")
        if options["model"] == "mahalanobis":
            return fitting.fit_mahalanobis(vectors)
        if options["model"] == "ocsvm":
            return fitting.fit_one_class_svm(vectors, options["nu"], options["gamma"] / len(self.texture.families))
        return Fitted(vectors, np.zeros(0), np.array([float(options["neighbours"])]))

    def score(self, batch: Batch) -> Scores:
        """Distance of items from the normals; for ocsvm from the surface around them, below 0 inside it."""
        return Scores(image=torch.from_numpy(self.raw(batch)).float())


def _check_choice(detector: str, key: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InputError(f"{detector}: {key} {value!r} is none of {', '.join(known)}.")
