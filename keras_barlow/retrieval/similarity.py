"""Search for similar images, and groups of near duplicates."""

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from keras_barlow.evaluation import nearest_neighbors
from keras_barlow.evaluation.knn import unit_rows
from keras_barlow.labels import checked_features

# Block of similarities computed at a time: 1,024 x 4,096 floats.
_ROWS, _COLUMNS = 1024, 4096
# Rounding error in the float32 similarity of two equal rows.
_ROUNDING = 1e-6
# Rows closer than this to the mean of all rows, relative to their norm, count as one picture.
_EQUAL = 1e-5


def duplicates(features, threshold=0.98):
    """Finds groups of nearly equal rows.

    Two rows are linked if their cosine similarity, after subtracting the mean of all rows, reaches the threshold. The
    groups are the connected components of these links. Equal rows always share a group. In a collection that consists
    almost entirely of copies of one picture, the mean is that picture, and only equal rows are found: add other images.

    Args:
        features: Float array `(n, features)`.
        threshold: Cosine similarity in (0, 1] from which rows are linked.

    Returns:
        A list of arrays of row numbers, largest group first.

    Raises:
        ValueError: If the threshold is not in (0, 1], or the features are not finite.

    Example:

    >>> rows = np.array([[0.0, 1.0], [1.0, 0.0], [0.01, 1.0], [-1.0, -1.0]])
    >>> [group.tolist() for group in duplicates(rows)]
    [[0, 2]]
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"`threshold` must be in (0, 1]. Received: threshold={threshold}. The default is 0.98.")
    features = np.asarray(checked_features(features), "float32")
    directions = (features - features.mean(axis=0, dtype="float64")).astype("float32")
    norms, distances = (np.linalg.norm(array.astype("float64"), axis=1) for array in (features, directions))
    directions = unit_rows(directions)
    # Only rounding errors are left of these rows, so they have no direction.
    central = np.flatnonzero(distances <= _EQUAL * norms)
    directions[central] = 0.0
    # A group is named by its first row.
    group_of = np.arange(len(features))
    group_of[central] = central[:1]
    for start in range(0, len(features), _ROWS):
        for other in range(start, len(features), _COLUMNS):
            rows, columns = slice(start, start + _ROWS), slice(other, other + _COLUMNS)
            alike = directions[rows] @ directions[columns].T >= threshold - _ROUNDING
            alike &= group_of[rows, None] != group_of[columns]
            if alike.any():
                group_of = _merged(group_of, group_of[rows], group_of[columns], alike)
    # Sort the rows by group, and split them where the group changes.
    order = np.argsort(group_of, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(group_of[order])) + 1)
    return sorted((group for group in groups if len(group) > 1), key=len, reverse=True)


def _merged(group_of, rows, columns, alike):
    """Merges groups that have similar rows.

    Args:
        group_of: Integer array `(n,)` with the group of each row.
        rows: Integer array with the groups of the rows of `alike`.
        columns: Integer array with the groups of the columns of `alike`.
        alike: Boolean array `(rows, columns)` that is true where groups must be merged.

    Returns:
        Integer array `(n,)` with the new group of each row.
    """
    groups, places = np.unique(np.concatenate([rows, columns]), return_inverse=True)
    first, second = np.nonzero(alike)
    links = coo_matrix(
        (np.ones(len(first), bool), (places[first], places[len(rows) + second])), shape=(len(groups), len(groups))
    )
    count, component_of = connected_components(links, directed=False)
    name_of = np.full(count, len(group_of))
    np.minimum.at(name_of, component_of, groups)
    renamed = np.arange(len(group_of))
    renamed[groups] = name_of[component_of]
    return renamed[group_of]


def search(gallery, queries, k=10):
    """Finds the most similar images in a gallery.

    Args:
        gallery: `Gallery`.
        queries: Float array `(m, features)`.
        k: Number of results per query, at most the size of the gallery.

    Returns:
        The pair `(rows, similarities)` of arrays `(m, k)`, most similar first. Ties are in the order of the gallery.

    Raises:
        ValueError: If the queries are not finite, or have another number of features than the gallery.

    Example:

    >>> from keras_barlow.retrieval import Gallery
    >>> gallery = Gallery(np.array(["a.jpg", "b.jpg"]), np.array([[1.0, 0.0], [0.0, 1.0]]))
    >>> rows, _ = search(gallery, [[0.1, 1.0]], k=1)
    >>> gallery.names[rows[0]].tolist()
    ['b.jpg']
    """
    queries = checked_features(queries, "queries")
    if queries.shape[1] != gallery.features.shape[1]:
        raise ValueError(
            f"Queries must be (m, {gallery.features.shape[1]}), features of the encoder that extracted the gallery. "
            f"Received: queries of shape {queries.shape}. Extract them with that encoder."
        )
    return nearest_neighbors(queries, gallery.features, min(k, len(gallery.features)))
