"""What the classical models answer, from plain arrays: scikit-learn fits them, and is not needed to score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Fitted:
    """A fitted model.

    Attributes
    ----------
    vectors
        (n, F): support vectors or neighbours, float32; or the axes of the normals and their mean, float64.
    coefficients
        float64 (m,): of support vectors, labels of neighbours, or inverse variances along the axes.
    constants
        float64: gamma and intercept; number of neighbours; or the inverse variance off the axes.
    """

    vectors: NDArray[np.floating]
    coefficients: Array
    constants: Array


def squared_distances(first: NDArray[np.floating], second: NDArray[np.floating]) -> Array:
    """Squared Euclidean distances in double precision, (n, m)."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    squared = np.square(a).sum(axis=1)[:, None] - 2 * a @ b.T + np.square(b).sum(axis=1)
    return np.maximum(squared, 0.0)


def of_support_vectors(vectors: NDArray[np.floating], fitted: Fitted) -> Array:
    """Decision values of a support vector machine with a Gaussian kernel, (n,)."""
    gamma, intercept = fitted.constants
    return np.exp(-gamma * squared_distances(vectors, fitted.vectors)) @ fitted.coefficients + intercept


def of_neighbours(vectors: NDArray[np.floating], fitted: Fitted) -> Array:
    """Share of abnormal ones among the nearest labelled neighbours, (n,)."""
    distances = np.sqrt(squared_distances(vectors, fitted.vectors))
    return share_of_neighbours(distances, fitted.coefficients, int(fitted.constants[0]))


def share_of_neighbours(distances: Array, labels: NDArray, count: int) -> Array:
    """Share of label 1 among the `count` nearest, weighed by the inverse of their distance, (n,).

    Parameters
    ----------
    distances
        (n, m) to the neighbours.
    labels
        (m,) of these, 0 or 1.
    """
    nearest = np.argpartition(distances, count - 1, axis=1)[:, :count]
    near = np.take_along_axis(distances, nearest, axis=1)
    same = near.min(axis=1, keepdims=True) == 0  # a copy of an image that was learnt from says it alone
    weights = np.where(same, near == 0, 1 / np.where(near == 0, 1.0, near))
    return (weights * labels[nearest]).sum(axis=1) / weights.sum(axis=1)


def distance_to_neighbours(vectors: NDArray[np.floating], fitted: Fitted) -> Array:
    """Mean distance to the nearest normals, (n,)."""
    count = int(fitted.constants[0])
    distances = np.sqrt(squared_distances(vectors, fitted.vectors))
    return np.partition(distances, count - 1, axis=1)[:, :count].mean(axis=1)


def mahalanobis(vectors: NDArray[np.floating], fitted: Fitted) -> Array:
    """Mahalanobis distance from the normals' mean, (n,)."""
    axes, mean = fitted.vectors[:-1].astype(np.float64), fitted.vectors[-1]
    values = vectors.astype(np.float64) - mean
    along = values @ axes.T
    left = np.maximum(np.square(values).sum(axis=1) - np.square(along).sum(axis=1), 0.0)
    return np.sqrt(np.square(along) @ fitted.coefficients + fitted.constants[0] * left)


Decide = Callable[[NDArray[np.floating], Fitted], Array]

SUPERVISED: dict[str, Decide] = {"svm": of_support_vectors, "knn": of_neighbours}
OF_NORMALS: dict[str, Decide] = {
    "mahalanobis": mahalanobis,
    "ocsvm": of_support_vectors,
    "knn": distance_to_neighbours,
}
