"""Whether embeddings have collapsed: to a point, to few directions, or to copies of each other.

Embeddings of a collapsed model differ by the rounding of their dtype. What is below that counts as zero, so that equal
rows have one value whatever the last bits are.
"""

import numpy as np

from keras_barlow.labels import checked_features

# The same row, computed in another order, differs by a few roundings.
_ROUNDINGS = 8


def embedding_deviation(embeddings):
    """Mean deviation of the features of unit rows, times `sqrt(D)`: 1 where they fill the sphere, 0 at a point.

    Args:
        embeddings: Float array `(n, D)`.

    Returns:
        A float of 0 or more.

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
    """How many directions the embeddings use: the exponential of the entropy of their singular values.

        exp(-sum_k p_k log p_k),   p_k = sigma_k / sum sigma,   of the centered embeddings

    Args:
        embeddings: Float array `(n, D)`.

    Returns:
        A float from 1 to `min(n - 1, D)`; 0 where all rows are equal up to the rounding of their dtype.

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
    # The largest singular value of independent errors of this size, about.
    if singular[0] <= rounding * np.abs(embeddings).max() * sum(np.sqrt(embeddings.shape)):
        return 0.0
    shares = singular / singular.sum()
    shares = shares[shares > 0]
    return float(np.exp(-np.sum(shares * np.log(shares))))


def mean_correlation(embeddings):
    """Mean absolute correlation of two different features: 0 without redundancy, 1 where all are copies.

    Args:
        embeddings: Float array `(n, D)`, D at least 2.

    Returns:
        A float in [0, 1]. Features that are constant, up to the rounding of their dtype, correlate with nothing.

    Raises:
        ValueError: If the embeddings are not a finite array of rank 2, or have one feature only.

    Example:

    >>> mean_correlation([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]])
    1.0
    """
    embeddings, rounding = _checked(embeddings)
    features = embeddings.shape[1]
    if features < 2:
        raise ValueError(f"A correlation needs at least 2 features. Received: embeddings of shape {embeddings.shape}.")
    centered = _centered(embeddings)
    norms = np.linalg.norm(centered, axis=0)
    constant = norms <= rounding * np.abs(embeddings).max(axis=0) * np.sqrt(len(embeddings))
    unit = np.where(constant, 0.0, centered / np.where(constant, 1.0, norms))
    correlation = np.abs(unit.T @ unit)
    return float(np.round((correlation.sum() - np.trace(correlation)) / (features * (features - 1)), 12))


def _checked(embeddings):
    """Embeddings in float64, and the relative error of the dtype that they came in."""
    embeddings = checked_features(embeddings, "embeddings")
    kind = embeddings.dtype if embeddings.dtype.kind == "f" else np.dtype("float64")
    return np.asarray(embeddings, "float64"), _ROUNDINGS * float(np.finfo(kind).eps)


def _centered(rows):
    """Rows without their mean. Equal rows become exactly zero, although their mean is rounded."""
    rows = rows - rows[0]
    return rows - rows.mean(axis=0)
