"""How right scores are: top-k accuracy, and average precision for images with several labels."""

import numpy as np

from keras_barlow.labels import checked_labels, checked_targets

DEFINITIONS = ("area", "11-point")


def top_k_accuracy(scores, labels, k=1):
    """Share of rows whose label is among the k highest scores.

    Of equal scores the class with the lower number counts as the higher, as for `argmax`.

    Args:
        scores: Float array `(n, classes)`.
        labels: Integer array `(n,)`.
        k: At least 1; beyond the number of classes every row is right.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: If `k` is below 1, a label has no score, or scores or labels are wrong.

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
            f"Received: label {labels.max()}, and scores of {scores.shape[1]} classes. Drop these rows: "
            "`keep = labels < scores.shape[1]`."
        )
    highest = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float(np.mean((highest == labels[:, None]).any(axis=1)))


def average_precision(scores, relevant, definition="area"):
    """Precision averaged over the recall, of one class.

    Rows of equal score come together, at one threshold, so that the order of the rows changes nothing.

    Args:
        scores: Float array `(n,)`: the higher, the more likely relevant.
        relevant: Array `(n,)` of booleans, or of 1 and 0; at least one True.
        definition: `"area"`: the area under the steps of precision over recall, `sum (R_i - R_{i-1}) P_i` over distinct
            scores, as scikit-learn has it. `"11-point"`: VOC07's mean over the recalls 0, 0.1, ..., 1 of the highest
            precision at that recall or beyond.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: For an unknown definition, where nothing is relevant, for NaN scores, and if the shapes differ.

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
    scores, found = scores[order], np.cumsum(relevant[order])
    # Only the last row of a score is a threshold. (A difference of two infinite scores would be NaN.)
    last = np.append(scores[1:] != scores[:-1], True)
    precision = (found / np.arange(1, len(found) + 1))[last]
    recall = (found / found[-1])[last]
    if definition == "11-point":
        # A recall of 0.7 is reached by 7 of 10, whatever the last bit of the division says.
        reached = [precision[recall >= level - 1e-12] for level in np.linspace(0, 1, 11)]
        return float(np.mean([part.max() for part in reached]))
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def mean_average_precision(scores, targets, definition="area"):
    """Mean over the classes of `average_precision`, for images with any number of labels.

    Args:
        scores: Float array `(n, classes)`.
        targets: Array `(n, classes)`: 1 where the image has the label, 0 where it has not, and -1 where it does not
            count for the class (VOC's "difficult").
        definition: `"area"` or `"11-point"`, see `average_precision`.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: If the shapes differ, scores are NaN, targets are wrong, or a class is on no image.

    Example:

    >>> mean_average_precision([[0.9, 0.1], [0.2, 0.8]], [[1, 0], [0, 1]])
    1.0
    """
    scores = _checked_scores(scores, 2)
    targets = checked_targets(targets, len(scores))
    if scores.shape != targets.shape:
        raise ValueError(
            "Scores and targets must have one shape (n, classes). "
            f"Received: scores.shape={scores.shape}, targets.shape={targets.shape}. Give both the same columns."
        )
    empty = np.flatnonzero(~(targets == 1).any(axis=0))
    if len(empty):
        raise ValueError(
            f"Every class must be on at least one image. Received: none of class {empty[0]}. Leave out its column, of "
            "the scores too."
        )
    precisions = []
    for number in range(targets.shape[1]):
        counted = targets[:, number] >= 0
        precisions.append(average_precision(scores[counted, number], targets[counted, number] == 1, definition))
    return float(np.mean(precisions))


def _checked_scores(scores, rank):
    """Scores as float64, infinite ones included."""
    scores = np.asarray(scores, "float64")
    if scores.ndim != rank or not scores.size:
        wanted = "(n,)" if rank == 1 else "(n, classes)"
        raise ValueError(f"Scores must be {wanted}, at least one. Received: scores of shape {scores.shape}.")
    if np.isnan(scores).any():
        row = np.flatnonzero(np.isnan(scores).reshape(len(scores), -1).any(axis=1))[0]
        raise ValueError(
            f"Scores must be numbers, so that they can be ranked. Received: NaN, first in row {row}. Look for NaN in "
            "the features and in the weights of the classifier."
        )
    return scores


def _checked_relevant(relevant, count):
    relevant = np.asarray(relevant)
    if relevant.shape != (count,):
        raise ValueError(
            f"Every score must be relevant or not. Received: `relevant` of shape {relevant.shape} for {count} scores. "
            "Use mean_average_precision for several classes."
        )
    if not np.isin(relevant, (0, 1)).all():
        raise ValueError(
            "`relevant` must be booleans, or 1 and 0. "
            f"Received: other values, such as {relevant[~np.isin(relevant, (0, 1))][0]}. Drop the rows that do not "
            "count: `keep = relevant >= 0`."
        )
    if not relevant.any():
        raise ValueError(
            "Average precision needs at least one relevant row. Received: none. Leave this class out of the mean."
        )
    return relevant.astype(bool)
