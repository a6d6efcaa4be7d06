"""Whether embeddings have collapsed: to a point, to few directions, or to copies of each other."""

import numpy as np


def embedding_deviation(embeddings):
    """Mean deviation of the features of unit rows, times `sqrt(D)`: 1 where they fill the sphere, 0 at a point.

    Args:
        embeddings: Float array `(n, D)`.

    Returns:
        A float of 0 or more.

    Example:

    >>> embedding_deviation(np.ones((5, 3)))
    0.0

    References:
        Chen, He: Exploring Simple Siamese Representation Learning, https://arxiv.org/abs/2011.10566, section 4.1
    """
    embeddings = np.asarray(embeddings, "float64")
    rows = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    return float(rows.std(axis=0).mean() * np.sqrt(rows.shape[1]))


def effective_rank(embeddings):
    """How many directions the embeddings use: the exponential of the entropy of their singular values.

        exp(-sum_k p_k log p_k),   p_k = sigma_k / sum sigma,   of the centred embeddings

    Args:
        embeddings: Float array `(n, D)`.

    Returns:
        A float from 1 to `min(n - 1, D)`; 0 where all rows are equal.

    Example:

    >>> round(effective_rank([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), 3)
    2.0

    References:
        Roy, Vetterli: The effective rank, EUSIPCO 2007; Garrido et al.: RankMe, https://arxiv.org/abs/2210.02885
    """
    embeddings = np.asarray(embeddings, "float64")
    singular = np.linalg.svd(embeddings - embeddings.mean(axis=0), compute_uv=False)
    if singular.sum() == 0:
        return 0.0
    shares = singular / singular.sum()
    shares = shares[shares > 0]
    return float(np.exp(-np.sum(shares * np.log(shares))))


def mean_correlation(embeddings):
    """Mean absolute correlation of two different features: 0 without redundancy, 1 where all are copies.

    Args:
        embeddings: Float array `(n, D)`, D at least 2.

    Returns:
        A float in [0, 1]. Features that are constant correlate with nothing.

    Example:

    >>> mean_correlation([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]])
    1.0
    """
    embeddings = np.asarray(embeddings, "float64")
    centred = embeddings - embeddings.mean(axis=0)
    norms = np.linalg.norm(centred, axis=0)
    unit = centred / np.where(norms > 0, norms, 1.0)
    features = embeddings.shape[1]
    correlation = np.abs(unit.T @ unit)
    return float(np.round((correlation.sum() - np.trace(correlation)) / (features * (features - 1)), 12))
