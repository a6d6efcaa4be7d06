"""Metrics of class scores: top-k accuracy, and average precision for multi-label images."""

import numpy as np

from keras_barlow.labels import checked_labels, checked_targets

DEFINITIONS = ("area", "11-point")


def top_k_accuracy(scores, labels, k=1):
    """Share of rows whose label is among the k highest scores.

    Among equal scores, the lower class number ranks first, as in `argmax`.

    Args:
        scores: Float array `(n, classes)`.
        labels: Integer array `(n,)` of true class numbers.
        k: Number of highest scores to consider, at least 1.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: If `k` is below 1, a label has no score, or scores or labels are invalid.

    Example:

    >>> scores = [[0.1, 0.5, 0.4], [0.6, 0.3, 0.1]]
    >>> top_k_accuracy(scores, [2, 0]), top_k_accuracy(scores, [2, 0], k=2)
    (0.5, 1.0)
    """
    if k < 1:
        raise ValueError(f"`k` must be at least 1. Received: k={k}")
    scores = _checked_scores(scores, 2)
    labels = checked_labels(labels, len(scores))
    if labels.max() >= scores.shape[1]:
        raise ValueError(
            "Every label must have a score: the classes of training and test must be the same. "
            f"Received: label {labels.max()}, and scores for {scores.shape[1]} classes. Drop these rows: "
            "`keep = labels < scores.shape[1]`."
        )
    highest = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float(np.mean((highest == labels[:, None]).any(axis=1)))


def average_precision(scores, relevant, definition="area"):
    """Average precision of one class.

    Rows with equal scores share one threshold, so their order does not matter.

    Args:
        scores: Float array `(n,)`. A higher score means more likely relevant.
        relevant: Array `(n,)` of booleans, or of 1 and 0, with at least one relevant row.
        definition: `"area"` for the area under the steps of precision over recall, `sum (R_i - R_{i-1}) P_i` over
            distinct scores, as in scikit-learn. `"11-point"` for the definition of VOC07: at each recall 0, 0.1, ..., 1
            take the highest precision at that recall or above, and average.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: If the definition is unknown, no row is relevant, a score is NaN, or the shapes differ.

    Example:

    >>> round(average_precision([0.9, 0.8, 0.7], [True, False, True]), 3)
    0.833
    >>> round(average_precision([0.9, 0.8, 0.7], [True, False, True], definition="11-point"), 3)
    0.848

    References:
        Everingham et al.: The PASCAL Visual Object Classes (VOC) Challenge, section 3.4.1 (11 points).
    """
    if definition not in DEFINITIONS:
        raise ValueError(f"`definition` must be one of {DEFINITIONS}. Received: definition={definition!r}")
    scores = _checked_scores(scores, 1)
    relevant = _checked_relevant(relevant, len(scores))
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(relevant[order])
    # Among equal scores, only the last row is a threshold. (The difference of two infinite scores would be NaN.)
    last = np.append(scores[1:] != scores[:-1], True)
    precision = (hits / np.arange(1, len(hits) + 1))[last]
    recall = (hits / hits[-1])[last]
    if definition == "11-point":
        # The tolerance makes 7 of 10 reach a recall of 0.7 despite rounding.
        reached = [precision[recall >= level - 1e-12] for level in np.linspace(0, 1, 11)]
        return float(np.mean([part.max() for part in reached]))
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def mean_average_precision(scores, targets, definition="area"):
    """Mean of `average_precision` over the classes, for multi-label images.

    Args:
        scores: Float array `(n, classes)`.
        targets: Array `(n, classes)`: 1 for a label of the image, 0 for no label, -1 to ignore the image for this class
            ("difficult" in VOC).
        definition: `"area"` or `"11-point"`, see `average_precision`.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: If the shapes differ, a score is NaN, targets are invalid, or a class is on no image.

    Example:

    >>> mean_average_precision([[0.9, 0.1], [0.2, 0.8]], [[1, 0], [0, 1]])
    1.0
    """
    scores = _checked_scores(scores, 2)
    targets = checked_targets(targets, len(scores))
    if scores.shape != targets.shape:
        raise ValueError(
            "Scores and targets must have the same shape (n, classes). "
            f"Received: scores.shape={scores.shape}, targets.shape={targets.shape}. Use the same classes for both."
        )
    empty = np.flatnonzero(~(targets == 1).any(axis=0))
    if len(empty):
        raise ValueError(
            f"Every class must be on at least one image. Received: none of class {empty[0]}. Drop its column from "
            "the targets and the scores."
        )
    precisions = []
    for number in range(targets.shape[1]):
        counted = targets[:, number] >= 0
        precisions.append(average_precision(scores[counted, number], targets[counted, number] == 1, definition))
    return float(np.mean(precisions))


def _checked_scores(scores, rank):
    """Returns the scores as float64. Infinite scores are allowed."""
    scores = np.asarray(scores, "float64")
    if scores.ndim != rank or not scores.size:
        wanted = "(n,)" if rank == 1 else "(n, classes)"
        raise ValueError(
            f"Scores must have the shape {wanted}, with at least one score. Received: scores of shape {scores.shape}. "
            "Pass one row per image."
        )
    if np.isnan(scores).any():
        row = np.flatnonzero(np.isnan(scores).reshape(len(scores), -1).any(axis=1))[0]
        raise ValueError(
            f"Scores must not be NaN, which has no rank. Received: NaN, first in row {row}. Look for NaN in the "
            "features and in the weights of the classifier."
        )
    return scores


def _checked_relevant(relevant, count):
    relevant = np.asarray(relevant)
    if relevant.shape != (count,):
        raise ValueError(
            f"`relevant` must have one value per score. Received: shape {relevant.shape} for {count} scores. "
            "Use mean_average_precision for several classes."
        )
    if not np.isin(relevant, (0, 1)).all():
        raise ValueError(
            "`relevant` must be booleans, or 1 and 0. "
            f"Received: other values, such as {relevant[~np.isin(relevant, (0, 1))][0]}. Drop the rows to ignore: "
            "`keep = relevant >= 0`."
        )
    if not relevant.any():
        raise ValueError(
            "Average precision needs at least one relevant row. Received: none. Leave this class out of the mean."
        )
    return relevant.astype(bool)
