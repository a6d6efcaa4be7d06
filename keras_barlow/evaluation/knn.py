"""Weighted k-nearest-neighbour classification on frozen features.

Ties are decided by the row of the bank, so the same similarities must come out whatever portions are computed at a
time. Sums of floats depend on their order, which a matrix product chooses by the shape of the portion. Directions are
therefore rounded to multiples of 2^-26: products and all their partial sums are whole multiples of 2^-52 and at most
about 1, which float64 holds exactly, in any order. The rounding moves a cosine by about 1e-8, less than float32 does.
"""

import numpy as np

from keras_barlow import labels
from keras_barlow.evaluation.input_checks import check_votes, checked_feature_pair, checked_feature_sets

_CHUNK_ROWS = 1024
_BANK_ROWS = 32_768
# Rows whose lengths are computed at a time.
_LENGTH_ROWS = 4096
_GRID = 2.0**26


def nearest_neighbors(queries, bank, k):
    """The k most similar rows of a bank by cosine similarity; of equally similar rows, those that come first in it.

    Equal rows of the bank are equally similar, wherever they stand. A row of zeros has the similarity 0 to every other.

    Args:
        queries: Float array `(m, features)`.
        bank: Float array `(n, features)`; `np.load(path, mmap_mode="r")` for one that is larger than the memory: it is
            read in portions.
        k: Number of neighbours, at most `n`.

    Returns:
        The pair `(indices, similarities)`, arrays `(m, k)`, the most similar first.

    Raises:
        ValueError: If `k` is not in 1..n, the features are not of one encoder, or not finite.

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
        portion = bank[first : first + _BANK_ROWS]
        labels.check_finite(portion, "bank", first)
        portion = _whole_directions(portion)
        nearest = [
            _nearest(_whole_directions(queries[row : row + _CHUNK_ROWS]), portion, k)
            for row in range(0, len(queries), _CHUNK_ROWS)
        ]
        indices = np.concatenate([indices, first + np.concatenate([one for one, _ in nearest])], axis=1)
        similarities = np.concatenate([similarities, np.concatenate([one for _, one in nearest])], axis=1)
        # Of what has been seen the k nearest; of equals the one that stands first in the bank.
        order = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
        indices = np.take_along_axis(indices, order, axis=1)
        similarities = np.take_along_axis(similarities, order, axis=1)
    return indices, (similarities / _GRID**2).astype("float32")


def _nearest(queries, bank, k):
    """The at most k nearest rows of a portion of the bank, sorted; of equals the first ones."""
    similarity = queries @ bank.T
    k = min(k, len(bank))
    nearest = np.argpartition(similarity, len(bank) - k, axis=1)[:, -k:]
    found = np.take_along_axis(similarity, nearest, axis=1)
    # The partition takes any of the rows that tie for the last place.
    least = found.min(axis=1, keepdims=True)
    tied = (similarity == least).sum(axis=1) > (found == least).sum(axis=1)
    for row in np.flatnonzero(tied):
        above = np.flatnonzero(similarity[row] > least[row])
        nearest[row] = np.append(above, np.flatnonzero(similarity[row] == least[row])[: k - len(above)])
    nearest.sort(axis=1)
    found = np.take_along_axis(similarity, nearest, axis=1)
    order = np.argsort(-found, axis=1, kind="stable")
    return np.take_along_axis(nearest, order, axis=1), np.take_along_axis(found, order, axis=1)


def knn_scores(train_features, train_labels, test_features, k=200, temperature=0.1):
    """The votes of the k nearest training rows for each class, weighted by `exp(cosine / temperature)`.

    Args:
        train_features: Float array `(n, features)`, see `nearest_neighbors`, which also says what ties do.
        train_labels: Integer array `(n,)`, 0 and up.
        test_features: Float array `(m, features)`.
        k: Number of neighbours.
        temperature: Positive float.

    Returns:
        Float array `(m, classes)`, each row up to a factor of its own.

    Raises:
        ValueError: If features or labels are wrong or do not fit each other, `k` is not in 1..n, or the temperature is
            not positive.

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
    """The votes for the classes that there are, and the numbers of these classes."""
    check_votes(k, len(train_features), temperature)
    classes, places = np.unique(train_labels, return_inverse=True)
    indices, similarities = nearest_neighbors(test_features, train_features, k)
    # Relative to the nearest: the same votes up to a factor per row, and no overflow.
    weights = np.exp((similarities - similarities[:, :1]) / temperature)
    votes = np.zeros((len(indices), len(classes)))
    np.add.at(votes, (np.arange(len(indices))[:, None], places[indices]), weights)
    return votes, classes


def knn_predict(train_features, train_labels, test_features, k=200, temperature=0.1):
    """Classifies by the labels of the k nearest training rows, weighted by `exp(cosine / temperature)`.

    Of equally similar rows those that come first in the bank vote, of classes with equal votes the lowest number wins.

    Args:
        train_features: Float array `(n, features)`.
        train_labels: Integer array `(n,)`, 0 and up.
        test_features: Float array `(m, features)`.
        k: Number of neighbours.
        temperature: Positive float.

    Returns:
        Integer array `(m,)`: the predicted labels.

    Raises:
        ValueError: As for `knn_scores`.

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

    Raises:
        ValueError: As for `knn_scores`, and for test labels that are wrong or of classes that training does not have.

    Example:

    >>> knn_accuracy([[1.0, 0.0], [0.0, 1.0]], [0, 1], [[0.9, 0.2]], [0], k=2)
    1.0
    """
    checked = checked_feature_sets(train_features, train_labels, test_features, finite=False)
    test_labels = labels.checked_test_labels(test_labels, checked[1], len(checked[2]))
    return float(np.mean(knn_predict(*checked, k, temperature) == test_labels))


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
    return np.divide(features, _lengths(features), out=np.empty_like(features), casting="same_kind")


def _whole_directions(features):
    """Rows of length 2^26 of whole numbers, in float64."""
    features = np.asarray(features, "float32")
    directions = features / _lengths(features)
    directions *= _GRID
    return np.rint(directions, out=directions)


def _lengths(features):
    """The length of each row, a float64 array `(n, 1)`; 1 for a row of zeros.

    In float64 squares neither overflow nor vanish. Each row is summed independently of the others.
    """
    lengths = np.ones((len(features), 1))
    for start in range(0, len(features), _LENGTH_ROWS):
        rows = slice(start, start + _LENGTH_ROWS)
        squares = np.square(features[rows], dtype="float64", order="C")
        lengths[rows, 0] = np.sqrt(squares.sum(axis=1))
    return np.where(lengths > 0, lengths, 1.0)
