"""Weighted k-nearest-neighbor classification on frozen features.

Ties are broken by row number, so similarities must not depend on how the bank is split into chunks. A sum of floats
depends on its order, which a matrix product chooses by the shape of its operands. Unit vectors are therefore rounded to
multiples of 2^-26. Products and all partial sums are then multiples of 2^-52 of magnitude about 1 at most, which
float64 represents exactly. The rounding changes a cosine by about 1e-8, less than float32 does.
"""

import numpy as np

from keras_barlow import labels
from keras_barlow.evaluation.input_checks import check_votes, checked_feature_pair, checked_feature_sets

_CHUNK_ROWS = 1024
_BANK_ROWS = 32_768
# Rows per chunk when computing norms.
_NORM_ROWS = 4096
_GRID = 2.0**26


def nearest_neighbors(queries, bank, k):
    """Finds the k rows of a bank with the highest cosine similarity to each query.

    Ties go to the row that comes first in the bank. A row of zeros has similarity 0 to every other row.

    Args:
        queries: Float array `(m, features)`.
        bank: Float array `(n, features)`. It is read in chunks, so a bank larger than memory can be passed as
            `np.load(path, mmap_mode="r")`.
        k: Number of neighbors, at most `n`.

    Returns:
        The pair `(indices, similarities)` of arrays `(m, k)`, most similar first.

    Raises:
        ValueError: If `k` is not in 1..n, or the features differ in width or are not finite.

    Example:

    >>> indices, _ = nearest_neighbors([[1.0, 0.1]], [[0.0, 1.0], [2.0, 0.0]], k=2)
    >>> indices.tolist()
    [[1, 0]]
    """
    bank, queries = checked_feature_pair(bank, queries, finite=False, names=("bank", "queries"))
    check_votes(k, len(bank))
    indices = np.empty((len(queries), 0), "int64")
    similarities = np.empty((len(queries), 0))
    for first in range(0, len(bank), _BANK_ROWS):
        chunk = bank[first : first + _BANK_ROWS]
        labels.check_finite(chunk, "bank", first)
        chunk = _rounded_directions(chunk)
        nearest = [
            _nearest(_rounded_directions(queries[row : row + _CHUNK_ROWS]), chunk, k)
            for row in range(0, len(queries), _CHUNK_ROWS)
        ]
        indices = np.concatenate([indices, first + np.concatenate([rows for rows, _ in nearest])], axis=1)
        similarities = np.concatenate([similarities, np.concatenate([cosines for _, cosines in nearest])], axis=1)
        # Keep the k nearest so far. A stable sort puts the first row of the bank first among ties.
        order = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
        indices = np.take_along_axis(indices, order, axis=1)
        similarities = np.take_along_axis(similarities, order, axis=1)
    return indices, (similarities / _GRID**2).astype("float32")


def _nearest(queries, bank, k):
    """Returns the nearest rows of a chunk of the bank, sorted, at most k. The first rows win ties."""
    similarity = queries @ bank.T
    k = min(k, len(bank))
    nearest = np.argpartition(similarity, len(bank) - k, axis=1)[:, -k:]
    highest = np.take_along_axis(similarity, nearest, axis=1)
    # `argpartition` picks arbitrary rows among those that tie for the last place.
    least = highest.min(axis=1, keepdims=True)
    tied = (similarity == least).sum(axis=1) > (highest == least).sum(axis=1)
    for row in np.flatnonzero(tied):
        above = np.flatnonzero(similarity[row] > least[row])
        nearest[row] = np.append(above, np.flatnonzero(similarity[row] == least[row])[: k - len(above)])
    nearest.sort(axis=1)
    highest = np.take_along_axis(similarity, nearest, axis=1)
    order = np.argsort(-highest, axis=1, kind="stable")
    return np.take_along_axis(nearest, order, axis=1), np.take_along_axis(highest, order, axis=1)


def knn_scores(train_features, train_labels, test_features, k=200, temperature=0.1):
    """Class scores of the k nearest training rows, each weighted by `exp(cosine / temperature)`.

    Args:
        train_features: Float array `(n, features)`, the bank of `nearest_neighbors`.
        train_labels: Integer array `(n,)` of class numbers from 0.
        test_features: Float array `(m, features)`.
        k: Number of neighbors.
        temperature: Positive float, the softmax temperature of the votes.

    Returns:
        Float array `(m, classes)`. Scores are comparable within a row only.

    Raises:
        ValueError: If features or labels are invalid or do not match, `k` is not in 1..n, or the temperature is not
            positive.

    Example:

    >>> knn_scores([[1.0, 0.0], [0.0, 1.0]], [0, 1], [[0.9, 0.2]], k=1).tolist()
    [[1.0, 0.0]]
    """
    checked = checked_feature_sets(train_features, train_labels, test_features, finite=False)
    votes, classes = _votes(*checked, k, temperature)
    scores = np.zeros((len(votes), int(classes[-1]) + 1))
    scores[:, classes] = votes
    return scores


def _votes(train_features, train_labels, test_features, k, temperature):
    """Returns the votes `(m, present classes)` and the numbers of the classes that are present."""
    check_votes(k, len(train_features), temperature)
    classes, columns = np.unique(train_labels, return_inverse=True)
    indices, similarities = nearest_neighbors(test_features, train_features, k)
    # Subtracting the highest similarity scales each row's votes and prevents overflow.
    weights = np.exp((similarities - similarities[:, :1]) / temperature)
    votes = np.zeros((len(indices), len(classes)))
    np.add.at(votes, (np.arange(len(indices))[:, None], columns[indices]), weights)
    return votes, classes


def knn_predict(train_features, train_labels, test_features, k=200, temperature=0.1):
    """Predicts classes by a vote of the k nearest training rows, each weighted by `exp(cosine / temperature)`.

    Among equally similar rows, those that come first vote. Among classes with equal votes, the lowest number wins.

    Args:
        train_features: Float array `(n, features)`.
        train_labels: Integer array `(n,)` of class numbers from 0.
        test_features: Float array `(m, features)`.
        k: Number of neighbors.
        temperature: Positive float, the softmax temperature of the votes.

    Returns:
        Integer array `(m,)` of predicted labels.

    Raises:
        ValueError: If features or labels are invalid or do not match, `k` is not in 1..n, or the temperature is not
            positive.

    Example:

    >>> knn_predict([[1.0, 0.0], [0.0, 1.0]], [3, 5], [[0.9, 0.2]], k=1).tolist()
    [3]

    References:
        Wu, Xiong, Yu, Lin: Unsupervised Feature Learning via Non-Parametric Instance Discrimination,
        https://arxiv.org/abs/1805.01978, section 3.4
    """
    checked = checked_feature_sets(train_features, train_labels, test_features, finite=False)
    votes, classes = _votes(*checked, k, temperature)
    return classes[votes.argmax(axis=1)]


def knn_accuracy(train_features, train_labels, test_features, test_labels, k=200, temperature=0.1):
    """Top-1 accuracy of `knn_predict`.

    Args:
        train_features: Float array `(n, features)`.
        train_labels: Integer array `(n,)` of class numbers from 0.
        test_features: Float array `(m, features)`.
        test_labels: Integer array `(m,)` of true class numbers.
        k: Number of neighbors.
        temperature: Positive float, the softmax temperature of the votes.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: If features or labels are invalid or do not match, training lacks a test class, `k` is not in 1..n,
            or the temperature is not positive.

    Example:

    >>> knn_accuracy([[1.0, 0.0], [0.0, 1.0]], [0, 1], [[0.9, 0.2]], [0], k=2)
    1.0
    """
    checked = checked_feature_sets(train_features, train_labels, test_features, finite=False)
    test_labels = labels.checked_test_labels(test_labels, checked[1], len(checked[2]))
    return float(np.mean(knn_predict(*checked, k, temperature) == test_labels))


def unit_rows(features):
    """Divides each row by its L2 norm. Rows of zeros stay zero.

    Args:
        features: Float array `(n, features)`.

    Returns:
        Float32 array `(n, features)`.

    Example:

    >>> unit_rows([[3.0, 0.0], [0.0, 0.0]]).tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """
    features = np.asarray(features, "float32")
    return np.divide(features, _norms(features), out=np.empty_like(features), casting="same_kind")


def _rounded_directions(features):
    """Returns unit vectors times 2^26, rounded to integers, as float64."""
    features = np.asarray(features, "float32")
    directions = features / _norms(features)
    directions *= _GRID
    return np.rint(directions, out=directions)


def _norms(features):
    """Returns the L2 norm of each row, a float64 array `(n, 1)`, with 1 for rows of zeros.

    In float64, squares neither overflow nor underflow. Each row is summed independently of the others.
    """
    norms = np.ones((len(features), 1))
    for start in range(0, len(features), _NORM_ROWS):
        rows = slice(start, start + _NORM_ROWS)
        squares = np.square(features[rows], dtype="float64", order="C")
        norms[rows, 0] = np.sqrt(squares.sum(axis=1))
    return np.where(norms > 0, norms, 1.0)
