"""Fitting of the classical models, by scikit-learn: needed to train, not to score.

What comes out are plain arrays, which `classical_models` evaluates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from AnomalyDetectionLib.errors import InputError

from .classical_models import Fitted, share_of_neighbours, squared_distances
from .texture import on_demand

LEAST_PATIENTS = 4
"""Of either class: with fewer no setting can be chosen, and no probability fitted, on patients that were left out."""

LEAST_SLOPE = 1e-3
"""Of log-odds by a model that tells nothing, whose scores would else turn round or become one."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Labelled:
    """Vectors of both classes.

    Attributes
    ----------
    vectors
        float32 (n, F), standardised.
    labels
        (n,): 0 normal, 1 abnormal.
    patients
        (n,): the same number for vectors of one patient.
    """

    vectors: NDArray[np.float32]
    labels: NDArray[np.int64]
    patients: NDArray[np.int64]

    def folds(self, most: int, seed: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Those to fit to and those left out of each fold: patients stay whole, and classes as frequent as may be.

        Raises
        ------
        InputError
            If a class is absent or has too few patients.
        """
        with on_demand():
            from sklearn.model_selection import StratifiedGroupKFold
        for label, word in ((0, "normal"), (1, "abnormal")):
            count = np.unique(self.patients[self.labels == label]).size
            if count < LEAST_PATIENTS:
                raise InputError(
                    f"classical learns from {word} images of at least {LEAST_PATIENTS} patients, and there are "
                    f"{'none' if count == 0 else f'those of {count}'}; add more to the split 'train'."
                )
            most = min(most, count)
        splitter = StratifiedGroupKFold(most, shuffle=True, random_state=seed)
        made = list(splitter.split(self.labels, self.labels, self.patients))
        if any(np.unique(self.labels[rest]).size < 2 for rest, _ in made):
            raise InputError(
                "classical: a fold of the training patients leaves images of one class only; add patients to the "
                "split 'train'."
            )
        return made


@dataclass(frozen=True)
class Chosen:
    """A model's settings, and how well it told left-out patients apart.

    Attributes
    ----------
    settings
        By their names.
    decisions
        float64 (n,): of every vector by the model that was fitted without its patient.
    auroc
        Of these.
    """

    settings: dict[str, float]
    decisions: Array
    auroc: float


def fit_svm(
    data: Labelled, costs: Sequence[float], gammas: Sequence[float], folds: int, seed: int
) -> tuple[Fitted, Chosen]:
    """A support vector machine (Cortes & Vapnik, Machine Learning 1995) with the best of these settings.

    Both classes weigh alike, however many vectors they have.
    """
    with on_demand():
        from sklearn.svm import SVC
    parts = data.folds(folds, seed)
    squared = squared_distances(data.vectors, data.vectors)

    def tried() -> Iterator[Chosen]:
        for gamma in gammas:
            kernel = np.exp(-gamma * squared)
            for cost in costs:
                decisions = np.empty(len(data.labels))
                for rest, held in parts:
                    svm = SVC(C=cost, kernel="precomputed", class_weight="balanced")
                    svm.fit(kernel[np.ix_(rest, rest)], data.labels[rest])
                    decisions[held] = svm.decision_function(kernel[np.ix_(held, rest)])
                yield _judged({"C": cost, "gamma": gamma}, decisions, data)

    chosen = max(tried(), key=lambda one: one.auroc)  # of equals the first: the smoothest
    svm = SVC(C=chosen.settings["C"], gamma=chosen.settings["gamma"], class_weight="balanced")
    svm.fit(data.vectors, data.labels)
    return _of_support_vectors(svm, data.vectors, chosen.settings["gamma"], 1.0), chosen


def fit_neighbours(data: Labelled, neighbours: Sequence[int], folds: int, seed: int) -> tuple[Fitted, Chosen]:
    """k nearest neighbours, weighed by their distance, with the best number of them."""
    parts = data.folds(folds, seed)
    distances = np.sqrt(squared_distances(data.vectors, data.vectors))
    least = min(len(rest) for rest, _ in parts)
    if max(neighbours) > least:
        raise InputError(f"classical: neighbours is {max(neighbours)}, and a fold has {least} images; take fewer.")

    def tried() -> Iterator[Chosen]:
        for count in neighbours:
            decisions = np.empty(len(data.labels))
            for rest, held in parts:
                decisions[held] = share_of_neighbours(distances[np.ix_(held, rest)], data.labels[rest], count)
            yield _judged({"neighbours": count}, decisions, data)

    chosen = max(tried(), key=lambda one: one.auroc)
    constants = np.array([float(chosen.settings["neighbours"])])
    return Fitted(data.vectors, data.labels.astype(np.float64), constants), chosen


def _judged(settings: dict[str, float], decisions: Array, data: Labelled) -> Chosen:
    from sklearn.metrics import roc_auc_score

    return Chosen(settings, decisions, float(roc_auc_score(data.labels, decisions)))


def fit_one_class_svm(vectors: NDArray[np.float32], nu: float, gamma: float) -> Fitted:
    """A one-class support vector machine (Schölkopf et al., Neural Computation 2001) of normals."""
    with on_demand():
        from sklearn.svm import OneClassSVM
    svm = OneClassSVM(nu=nu, gamma=gamma).fit(vectors)
    return _of_support_vectors(svm, vectors, gamma, -1.0)


def _of_support_vectors(svm: Any, vectors: NDArray[np.float32], gamma: float, sign: float) -> Fitted:
    coefficients = sign * svm.dual_coef_[0]
    return Fitted(vectors[svm.support_], coefficients, np.array([gamma, sign * svm.intercept_[0]]))


def fit_mahalanobis(vectors: NDArray[np.float32]) -> Fitted:
    """Distance from the mean of normals by their covariance, shrunk after Ledoit & Wolf (JMVA 2004).

    The shrunk covariance has the axes of the plain one, and one and the same variance across the directions in which
    these vectors do not differ: so the distance needs the axes in which they do, and what is left of a vector.
    """
    with on_demand():
        from sklearn.covariance import ledoit_wolf_shrinkage
    mean = vectors.astype(np.float64).mean(axis=0)
    values = vectors - mean
    share = float(ledoit_wolf_shrinkage(values, assume_centered=True))
    _, lengths, axes = np.linalg.svd(values, full_matrices=False)
    variances = np.square(lengths) / len(values)
    held = variances > 1e-10 * variances[0]
    variances, axes = variances[held], axes[held]
    common = share * variances.sum() / vectors.shape[1]
    if common <= 0:
        raise InputError("classical_normals: the normals do not differ; are they copies of one image?")
    return Fitted(np.vstack([axes, mean]), 1 / ((1 - share) * variances + common), np.array([1 / common]))


def platt(decisions: Array, labels: NDArray[np.int64]) -> Array:
    """Slope and intercept of the log-odds by a decision value (Platt 1999), float64 (2, 1)."""
    with on_demand():
        from sklearn.linear_model import LogisticRegression
    ill = int(labels.sum())
    well = labels.size - ill
    target = np.where(labels == 1, (ill + 1) / (ill + 2), 1 / (well + 2))
    spread = max(float(decisions.std()), 1e-12)
    values = np.concatenate([decisions, decisions])[:, None] / spread
    kinds = np.repeat([1, 0], labels.size)
    line = LogisticRegression(C=1e6).fit(values, kinds, sample_weight=np.concatenate([target, 1 - target]))
    return np.array([[max(float(line.coef_[0, 0]), LEAST_SLOPE) / spread], [float(line.intercept_[0])]])


def isotonic(decisions: Array, labels: NDArray[np.int64]) -> Array:
    """Decision values and the log-odds at each, between which they are interpolated (Zadrozny & Elkan 2002), (2, m)."""
    with on_demand():
        from sklearn.isotonic import IsotonicRegression
    least = 1 / (labels.size + 2)
    curve = IsotonicRegression(y_min=least, y_max=1 - least).fit(decisions, labels)
    share = np.asarray(curve.y_thresholds_)
    return np.stack([np.asarray(curve.X_thresholds_, dtype=np.float64), np.log(share / (1 - share))])
