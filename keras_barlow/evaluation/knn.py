"""Weighted k-nearest-neighbour classification on frozen features."""

import numpy as np

from keras_barlow.evaluation.features import check_features

_CHUNK_ROWS = 1024
_BANK_ROWS = 65_536


def nearest_neighbors(queries, bank, k):
    """The k most similar rows of a bank by cosine similarity.

    Args:
        queries: Float array `(m, features)`.
        bank: Float array `(n, features)`; `np.load(path, mmap_mode="r")` for one that is larger than the memory: it is
            read in portions.
        k: Number of neighbours, at most `n`.

    Returns:
        The pair `(indices, similarities)`, arrays `(m, k)`, the most similar first.

    Raises:
        ValueError: If `k` is not in 1..n.

    Example:

    >>> indices, _ = nearest_neighbors([[1.0, 0.1]], [[0.0, 1.0], [2.0, 0.0]], k=2)
    >>> indices.tolist()
    [[1, 0]]
    """
    check_features(bank, None, queries)
    queries = unit_rows(queries)
    bank = np.asanyarray(bank)
    if not 1 <= k <= len(bank):
        raise ValueError(f"`k` must be between 1 and the number of rows in the bank, {len(bank)}. Received: k={k}")
    indices = np.empty((len(queries), 0), "int64")
    similarities = np.empty((len(queries), 0), "float32")
    for first in range(0, len(bank), _BANK_ROWS):
        portion = unit_rows(bank[first : first + _BANK_ROWS])
        nearest = [
            _nearest(queries[row : row + _CHUNK_ROWS], portion, k) for row in range(0, len(queries), _CHUNK_ROWS)
        ]
        indices = np.concatenate([indices, first + np.concatenate([one for one, _ in nearest])], axis=1)
        similarities = np.concatenate([similarities, np.concatenate([one for _, one in nearest])], axis=1)
        # Of what has been seen the k nearest; of equals the one that stands first in the bank.
        order = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
        indices = np.take_along_axis(indices, order, axis=1)
        similarities = np.take_along_axis(similarities, order, axis=1)
    return indices, similarities


def _nearest(queries, bank, k):
    """The at most k nearest rows of a portion of the bank, sorted."""
    similarity = queries @ bank.T
    k = min(k, len(bank))
    nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(similarity, nearest, axis=1), axis=1, kind="stable")
    nearest = np.take_along_axis(nearest, order, axis=1)
    return nearest, np.take_along_axis(similarity, nearest, axis=1)


def knn_scores(train_features, train_labels, test_features, k=200, temperature=0.1):
    """The votes of the k nearest training rows for each class, weighted by `exp(cosine / temperature)`.

    Args:
        train_features: Float array `(n, features)`, see `nearest_neighbors`.
        train_labels: Integer array `(n,)`, 0 and up.
        test_features: Float array `(m, features)`.
        k: Number of neighbours.
        temperature: Positive float.

    Returns:
        Float array `(m, classes)`, each row up to a factor of its own.

    Example:

    >>> knn_scores([[1.0, 0.0], [0.0, 1.0]], [0, 1], [[0.9, 0.2]], k=1).tolist()
    [[1.0, 0.0]]
    """
    check_features(train_features, train_labels, test_features)
    train_labels = np.asarray(train_labels)
    indices, similarities = nearest_neighbors(test_features, train_features, k)
    # Relative to the nearest: the same votes up to a factor per row, and no overflow.
    weights = np.exp((similarities - similarities[:, :1]) / temperature)
    votes = np.zeros((len(indices), int(train_labels.max()) + 1))
    np.add.at(votes, (np.arange(len(indices))[:, None], train_labels[indices]), weights)
    return votes


def knn_predict(train_features, train_labels, test_features, k=200, temperature=0.1):
    """Classifies by the labels of the k nearest training rows, weighted by `exp(cosine / temperature)`.

    Args:
        train_features: Float array `(n, features)`.
        train_labels: Integer array `(n,)`, 0 and up.
        test_features: Float array `(m, features)`.
        k: Number of neighbours.
        temperature: Positive float.

    Returns:
        Integer array `(m,)`: the predicted labels.

    Example:

    >>> knn_predict([[1.0, 0.0], [0.0, 1.0]], [3, 5], [[0.9, 0.2]], k=1).tolist()
    [3]

    References:
        Wu, Xiong, Yu, Lin: Unsupervised Feature Learning via Non-Parametric Instance Discrimination,
        https://arxiv.org/abs/1805.01978, section 3.4
    """
    return knn_scores(train_features, train_labels, test_features, k, temperature).argmax(axis=1)


def knn_accuracy(train_features, train_labels, test_features, test_labels, k=200, temperature=0.1):
    """Top-1 accuracy of `knn_predict`, in [0, 1].

    Args:
        train_features: See `knn_predict`.
        train_labels: See `knn_predict`.
        test_features: See `knn_predict`.
        test_labels: Integer array `(m,)`.
        k: See `knn_predict`.
        temperature: See `knn_predict`.

    Returns:
        A float.

    Example:

    >>> knn_accuracy([[1.0, 0.0], [0.0, 1.0]], [0, 1], [[0.9, 0.2]], [0], k=2)
    1.0
    """
    predicted = knn_predict(train_features, train_labels, test_features, k, temperature)
    return float(np.mean(predicted == np.asarray(test_labels)))


def unit_rows(features):
    """Each row divided by its length; a row of zeros stays so.

    Args:
        features: Float array `(n, features)`.

    Returns:
        Float32 array `(n, features)`.

    Example:

    >>> unit_rows([[3.0, 0.0], [0.0, 0.0]]).tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """
    features = np.asarray(features, "float32")
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
