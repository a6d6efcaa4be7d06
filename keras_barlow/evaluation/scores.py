"""How right scores are: top-k accuracy, and average precision for images with several labels."""

import numpy as np

DEFINITIONS = ("area", "11-point")


def top_k_accuracy(scores, labels, k=1):
    """Share of rows whose label is among the k highest scores.

    Args:
        scores: Float array `(n, classes)`.
        labels: Integer array `(n,)`.
        k: At least 1; beyond the number of classes every row is right.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: If `k` is below 1, or a label has no score.

    Example:

    >>> scores = [[0.1, 0.5, 0.4], [0.6, 0.3, 0.1]]
    >>> top_k_accuracy(scores, [2, 0]), top_k_accuracy(scores, [2, 0], k=2)
    (0.5, 1.0)
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if k < 1:
        raise ValueError(f"`k` must be at least 1. Received: k={k}")
    if labels.max() >= scores.shape[1]:
        raise ValueError(
            "Every label must have a score: the classes of training and test must be the same. "
            f"Received: label {labels.max()}, and scores of {scores.shape[1]} classes."
        )
    # Of equal scores the first class counts as the higher, as for argmax.
    highest = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float(np.mean((highest == labels[:, None]).any(axis=1)))


def average_precision(scores, relevant, definition="area"):
    """Precision averaged over the recall, of one class.

    Args:
        scores: Float array `(n,)`: the higher, the more likely relevant.
        relevant: Boolean array `(n,)`, at least one True.
        definition: `"area"`: the area under the steps of precision over recall, `sum (R_i - R_{i-1}) P_i` over distinct
            scores, as scikit-learn has it. `"11-point"`: VOC07's mean over the recalls 0, 0.1, ..., 1 of the highest
            precision at that recall or beyond.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: For an unknown definition, or where nothing is relevant.

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
    scores, relevant = np.asarray(scores, "float64"), np.asarray(relevant, bool)
    if not relevant.any():
        raise ValueError("Average precision needs at least one relevant row. Received: none.")
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(relevant[order])
    precision = found / np.arange(1, len(found) + 1)
    recall = found / found[-1]
    if definition == "11-point":
        # A recall of 0.7 is reached by 7 of 10, whatever the last bit of the division says.
        reached = [precision[recall >= level - 1e-12] for level in np.linspace(0, 1, 11)]
        return float(np.mean([part.max() for part in reached]))
    # Rows of one score come together: only the last of them is a threshold.
    last = np.append(np.diff(scores[order]) != 0, True)
    return float(np.sum(np.diff(recall[last], prepend=0.0) * precision[last]))


def mean_average_precision(scores, targets, definition="area"):
    """Mean over the classes of `average_precision`, for images with any number of labels.

    Args:
        scores: Float array `(n, classes)`.
        targets: Array `(n, classes)`: 1 where the image has the label, 0 where it has not, and -1 where it does not
            count for the class (VOC's "difficult").
        definition: See `average_precision`.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: If the shapes differ, or a class is on no image.

    Example:

    >>> mean_average_precision([[0.9, 0.1], [0.2, 0.8]], [[1, 0], [0, 1]])
    1.0
    """
    scores, targets = np.asarray(scores), np.asarray(targets)
    if scores.shape != targets.shape:
        raise ValueError(
            "Scores and targets must have one shape (n, classes). "
            f"Received: scores.shape={scores.shape}, targets.shape={targets.shape}"
        )
    empty = np.flatnonzero(~(targets == 1).any(axis=0))
    if len(empty):
        raise ValueError(f"Every class must be on at least one image. Received: none of class {empty[0]}.")
    precisions = []
    for number in range(targets.shape[1]):
        counted = targets[:, number] >= 0
        precisions.append(average_precision(scores[counted, number], targets[counted, number] == 1, definition))
    return float(np.mean(precisions))
