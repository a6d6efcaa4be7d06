"""Measures of collapse: to a single point, to few directions, or to copies of one feature.

The embeddings of a collapsed model still differ by rounding errors. Differences below the rounding of the dtype count
as zero, so the measures do not depend on the last bits.
"""

import numpy as np

from keras_barlow.labels import checked_features

# Computing the same row in a different order changes it by a few rounding errors.
_ROUNDINGS = 8


def embedding_deviation(embeddings):
    """Mean standard deviation of the features of normalized embeddings, times `sqrt(D)`.

    It is close to 1 if the embeddings cover the unit sphere, and 0 if they are all equal.

    Args:
        embeddings: Float array `(n, D)`.

    Returns:
        A nonnegative float.

    Raises:
        ValueError: If the embeddings are not a finite array of rank 2.

    Example:

    >>> embedding_deviation(np.ones((5, 3)))
    0.0

    References:
        Chen, He: Exploring Simple Siamese Representation Learning, https://arxiv.org/abs/2011.10566, section 4.1
    """
    embeddings, rounding = _checked(embeddings)
    rows = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    deviation = float(_centered(rows).std(axis=0).mean() * np.sqrt(rows.shape[1]))
    return deviation if deviation > rounding * np.sqrt(rows.shape[1]) else 0.0


def effective_rank(embeddings):
    """Effective number of directions that the embeddings use: the exponential of the entropy of their singular values.

        exp(-sum_k p_k log p_k),   p_k = sigma_k / sum sigma,   for the centered embeddings

    Args:
        embeddings: Float array `(n, D)`.

    Returns:
        A float between 1 and `min(n - 1, D)`; 0 if all rows are equal up to rounding.

    Raises:
        ValueError: If the embeddings are not a finite array of rank 2.

    Example:

    >>> round(effective_rank([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), 3)
    2.0
    >>> effective_rank(np.full((7, 3), 0.1))
    0.0

    References:
        Roy, Vetterli: The effective rank, EUSIPCO 2007; Garrido et al.: RankMe, https://arxiv.org/abs/2210.02885
    """
    embeddings, rounding = _checked(embeddings)
    singular = np.linalg.svd(_centered(embeddings), compute_uv=False)
    # About the largest singular value of independent errors of this size.
    if singular[0] <= rounding * np.abs(embeddings).max() * sum(np.sqrt(embeddings.shape)):
        return 0.0
    shares = singular / singular.sum()
    shares = shares[shares > 0]
    return float(np.exp(-np.sum(shares * np.log(shares))))


def mean_correlation(embeddings):
    """Mean absolute correlation between different features: 0 without redundancy, 1 if all features are copies.

    Args:
        embeddings: Float array `(n, D)`, D at least 2.

    Returns:
        A float in [0, 1]. The correlation with a feature that is constant up to rounding counts as 0.

    Raises:
        ValueError: If the embeddings are not a finite array of rank 2, or have only one feature.

    Example:

    >>> mean_correlation([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]])
    1.0
    """
    embeddings, rounding = _checked(embeddings)
    features = embeddings.shape[1]
    if features < 2:
        raise ValueError(
            "A correlation needs at least 2 features. "
            f"Received: embeddings of shape {embeddings.shape}. Pass embeddings (n, D) with D >= 2."
        )
    centered = _centered(embeddings)
    norms = np.linalg.norm(centered, axis=0)
    constant = norms <= rounding * np.abs(embeddings).max(axis=0) * np.sqrt(len(embeddings))
    unit = np.where(constant, 0.0, centered / np.where(constant, 1.0, norms))
    correlation = np.abs(unit.T @ unit)
    return float(np.round((correlation.sum() - np.trace(correlation)) / (features * (features - 1)), 12))


def _checked(embeddings):
    """Returns the embeddings as float64, and the rounding error of their original dtype."""
    embeddings = checked_features(embeddings, "embeddings")
    dtype = embeddings.dtype if embeddings.dtype.kind == "f" else np.dtype("float64")
    return np.asarray(embeddings, "float64"), _ROUNDINGS * float(np.finfo(dtype).eps)


def _centered(rows):
    """Subtracts the mean. Equal rows become exactly zero, despite the rounding of the mean."""
    rows = rows - rows[0]
    return rows - rows.mean(axis=0)
