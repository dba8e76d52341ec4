"""A Gaussian at every place, with a covariance that few normals can bear (PaDiM, Defard et al., ICPR 2021)."""

from __future__ import annotations

import torch
from torch import Tensor

PLACES_AT_ONCE = 64

LEAST_VECTORS = 2
"""Vectors of a place that have a covariance."""


def fit_gaussians(vectors: Tensor, filled: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and whitening matrix of every place.

    The covariance is shrunk towards a multiple of the identity as far as its own error demands (Ledoit & Wolf, Journal
    of Multivariate Analysis 2004).

    Parameters
    ----------
    vectors
        (places, n, width).
    filled
        int64 (places,): vectors of each place that count.

    Returns
    -------
    float32 (places, width) and (places, width, width): a vector's Mahalanobis distance is the norm of the matrix times
    its difference from the mean.  Places with fewer than `LEAST_VECTORS` have both zero.
    """
    places, _, width = vectors.shape
    mean, whitening = torch.zeros(places, width), torch.zeros(places, width, width)
    for place in range(places):
        count = int(filled[place])
        if count < LEAST_VECTORS:
            continue
        values = vectors[place, :count].double()
        mean[place] = values.mean(dim=0)
        covariance = shrunk_covariance(values - values.mean(dim=0))
        factor = torch.linalg.cholesky(covariance)
        whitening[place] = torch.linalg.solve_triangular(factor, torch.eye(width, dtype=torch.float64), upper=False)
    return mean, whitening


def shrunk_covariance(centred: Tensor) -> Tensor:
    """Ledoit-Wolf covariance (width, width) of centred vectors (n, width); positive definite unless all are alike."""
    count, width = centred.shape
    sample = centred.mT @ centred / count
    variance = sample.diagonal().mean()
    identity = torch.eye(width, dtype=centred.dtype)
    distance = (sample - variance * identity).square().sum() / width
    squares = centred.square()
    error = ((squares.mT @ squares).sum() / count - sample.square().sum()) / (width * count)
    share = 1.0 if distance <= 0 else float((error / distance).clamp(0, 1))
    return (1 - share) * sample + (share * variance + 1e-9 + 1e-6 * variance) * identity


def mahalanobis(queries: Tensor, mean: Tensor, whitening: Tensor) -> Tensor:
    """Distances (places, m) of queries (places, m, width), divided by the root of the width: 1 is ordinary."""
    parts = []
    for start in range(0, queries.shape[0], PLACES_AT_ONCE):
        end = start + PLACES_AT_ONCE
        difference = queries[start:end] - mean[start:end, None]
        parts.append((difference @ whitening[start:end].float().mT).square().mean(dim=2).sqrt())
    return torch.cat(parts)
