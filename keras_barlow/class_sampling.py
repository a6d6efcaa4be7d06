"""Random rows of every class."""

import numpy as np


def draw_per_class(labels, count_of, rng):
    """Draws rows of each class without replacement.

    Args:
        labels: int64 array `(n,)` of class numbers.
        count_of: Function from a class number and the number of its rows to the number of rows to draw.
        rng: `np.random.Generator`.

    Returns:
        Integer array of rows, grouped by class.

    Example:

    >>> draw_per_class(np.array([1, 0, 1]), lambda label, size: size - label, np.random.default_rng(0)).shape
    (2,)
    """
    drawn = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        drawn.append(rng.choice(members, count_of(label, len(members)), replace=False))
    return np.concatenate(drawn)
