"""Rows of a dataset chosen class by class: the first images of each class, or a random subset."""

import collections

import numpy as np


def first_of_each_class(labels, count):
    """Selects the first `count` images of each class, in their original order.

    Args:
        labels: int64 array `(n,)` of class numbers.
        count: Number of images to keep per class.

    Returns:
        Sorted int64 array of row numbers.

    Example:

    >>> first_of_each_class(np.array([0, 1, 1, 0, 1]), count=2).tolist()
    [0, 1, 2, 3]
    """
    counts = collections.Counter()
    rows = []
    for row, label in enumerate(np.asarray(labels).tolist()):
        counts[label] += 1
        if counts[label] <= count:
            rows.append(row)
    return np.array(rows, "int64")


def draw_per_class(labels, count_of, rng):
    """Draws random images of each class, without replacement.

    Args:
        labels: int64 array `(n,)` of class numbers.
        count_of: Function of a class number and the number of its images that returns how many to draw. It may raise
            an error if the class is too small.
        rng: `numpy.random.Generator`, or an integer seed.

    Returns:
        int64 array of row numbers, grouped by class in ascending order and in random order within each class.

    Example:

    >>> rows = draw_per_class(np.array([0, 0, 0, 1]), lambda label, size: min(2, size), rng=0)
    >>> len(rows), int(rows[-1])
    (3, 3)
    """
    rng = np.random.default_rng(rng)
    rows = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rows.append(rng.choice(members, count_of(label, len(members)), replace=False))
    return np.concatenate(rows)
