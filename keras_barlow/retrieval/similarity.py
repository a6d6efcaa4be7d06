"""Which images of a gallery look like another one, or like each other."""

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from keras_barlow.evaluation import nearest_neighbors
from keras_barlow.evaluation.knn import unit_rows
from keras_barlow.labels import checked_features

# Rows whose similarities are computed at a time: 1,024 x 4,096 floats.
_ROWS, _COLUMNS = 1024, 4096
# What float32 loses of the similarity of two equal rows.
_ROUNDING = 1e-6
# Rows that differ from the mean of all by less, as a share of their length, are one picture.
_EQUAL = 1e-5


def duplicates(features, threshold=0.98):
    """Groups of rows that are nearly the same.

    Two rows belong together if their cosine similarity, after the mean of all rows is taken off, reaches the
    threshold, and with them whatever belongs to either. Equal rows always belong together. In a collection of hardly
    anything but copies of one picture the mean is that picture, so that only equal rows are found: add other images.

    Args:
        features: Float array `(n, features)`.
        threshold: In (0, 1]: the closer to 1, the more alike.

    Returns:
        A list of arrays of rows, the largest group first.

    Raises:
        ValueError: If the threshold is not in (0, 1], or the features are not finite.

    Example:

    >>> rows = np.array([[0.0, 1.0], [1.0, 0.0], [0.01, 1.0], [-1.0, -1.0]])
    >>> [group.tolist() for group in duplicates(rows)]
    [[0, 2]]
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"`threshold` must be in (0, 1]. Received: threshold={threshold}")
    features = np.asarray(checked_features(features), "float32")
    directions = (features - features.mean(axis=0, dtype="float64")).astype("float32")
    lengths, distances = (np.linalg.norm(one.astype("float64"), axis=1) for one in (features, directions))
    directions = unit_rows(directions)
    # Rounding alone is left of them, which has no direction.
    central = np.flatnonzero(distances <= _EQUAL * lengths)
    directions[central] = 0.0
    # The first row of each row's group.
    group_of = np.arange(len(features))
    group_of[central] = central[:1]
    for start in range(0, len(features), _ROWS):
        for other in range(start, len(features), _COLUMNS):
            rows, columns = slice(start, start + _ROWS), slice(other, other + _COLUMNS)
            alike = directions[rows] @ directions[columns].T >= threshold - _ROUNDING
            alike &= group_of[rows, None] != group_of[columns]
            if alike.any():
                group_of = _joined(group_of, group_of[rows], group_of[columns], alike)
    # Rows in the order of their groups, cut where a group ends.
    order = np.argsort(group_of, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(group_of[order])) + 1)
    return sorted((group for group in groups if len(group) > 1), key=len, reverse=True)


def _joined(group_of, rows, columns, alike):
    """The groups after some of them have been joined.

    Args:
        group_of: Integer array `(n,)`: the group of each row, the number of its first row.
        rows: The groups of some rows.
        columns: The groups of some other rows.
        alike: Boolean array `(rows, columns)`.

    Returns:
        Integer array `(n,)`.
    """
    groups, places = np.unique(np.concatenate([rows, columns]), return_inverse=True)
    one, other = np.nonzero(alike)
    links = coo_matrix(
        (np.ones(len(one), bool), (places[one], places[len(rows) + other])), shape=(len(groups), len(groups))
    )
    count, component_of = connected_components(links, directed=False)
    first = np.full(count, len(group_of))
    np.minimum.at(first, component_of, groups)
    renamed = np.arange(len(group_of))
    renamed[groups] = first[component_of]
    return renamed[group_of]


def search(gallery, queries, k=10):
    """The most similar images of a gallery.

    Args:
        gallery: `Gallery`.
        queries: Float array `(m, features)`.
        k: How many, at most all.

    Returns:
        The pair `(rows, similarities)`, arrays `(m, k)`, the most similar first; of equals the first in the gallery.

    Raises:
        ValueError: If the queries have another number of features, as those of another encoder have, or are not finite.

    Example:

    >>> from keras_barlow.gallery import Gallery
    >>> gallery = Gallery(np.array(["a.jpg", "b.jpg"]), np.array([[1.0, 0.0], [0.0, 1.0]]))
    >>> rows, _ = search(gallery, [[0.1, 1.0]], k=1)
    >>> gallery.names[rows[0]].tolist()
    ['b.jpg']
    """
    queries = checked_features(queries, "queries")
    if queries.shape[1] != gallery.features.shape[1]:
        raise ValueError(
            f"Queries must be (m, {gallery.features.shape[1]}), features of the encoder that the gallery is of. "
            f"Received: queries of shape {queries.shape}. Extract them with that encoder."
        )
    return nearest_neighbors(queries, gallery.features, min(k, len(gallery.features)))
