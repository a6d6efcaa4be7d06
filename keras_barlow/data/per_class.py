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
    seen = collections.Counter()
    rows = []
    for row, label in enumerate(np.asarray(labels).tolist()):
        seen[label] += 1
        if seen[label] <= count:
            rows.append(row)
    return np.array(rows, "int64")


def random_of_each_class(labels, count_for, seed=0):
    """Draws random images of each class, without replacement.

    Args:
        labels: int64 array `(n,)` of class numbers.
        count_for: Function of a class number and the number of its images that returns how many to draw. It may raise
            an error if the class is too small.
        seed: Integer, or a `numpy.random.Generator` to continue drawing from.

    Returns:
        int64 array of row numbers, grouped by class in ascending order and in random order within each class.

    Example:

    >>> rows = random_of_each_class(np.array([0, 0, 0, 1]), count_for=lambda label, size: min(2, size))
    >>> len(rows), int(rows[-1])
    (3, 3)
    """
    rng = np.random.default_rng(seed)
    rows = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rows.append(rng.choice(members, count_for(label, len(members)), replace=False))
    return np.concatenate(rows)
