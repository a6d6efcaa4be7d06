"""Linear probes: logistic regression on standardised, frozen features."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def linear_accuracy(train_features, train_labels, test_features, test_labels, inverse_penalty=1.0):
    """Top-1 accuracy of logistic regression trained on all labels.

    Args:
        train_features: Float array `(n, features)`.
        train_labels: Integer array `(n,)`.
        test_features: Float array `(m, features)`.
        test_labels: Integer array `(m,)`.
        inverse_penalty: scikit-learn's `C`.

    Returns:
        A float in [0, 1].

    Example:

    >>> linear_accuracy([[-1.0], [-2.0], [1.0], [2.0]], [0, 0, 1, 1], [[-3.0], [3.0]], [0, 1])
    1.0
    """
    # Single precision and this tolerance are four times faster on raw pixels; the accuracy differs by noise.
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=inverse_penalty, max_iter=1000, tol=1e-3))
    probe.fit(np.asarray(train_features, "float32"), train_labels)
    return float(probe.score(np.asarray(test_features, "float32"), test_labels))


def few_label_accuracy(
    train_features, train_labels, test_features, test_labels, labels_per_class=10, draws=5, inverse_penalty=0.1, seed=0
):
    """Mean top-1 accuracy of logistic regression trained on a few labels of each class.

    Args:
        train_features: Float array `(n, features)`.
        train_labels: Integer array `(n,)`.
        test_features: Float array `(m, features)`.
        test_labels: Integer array `(m,)`.
        labels_per_class: Images of each class in the labelled set.
        draws: Number of labelled sets, over which the accuracy is averaged.
        inverse_penalty: scikit-learn's `C`.
        seed: Of the draws: the same sets for every encoder that is compared.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: If a class has fewer images than `labels_per_class`.

    Example:

    >>> features = [[-1.0], [-2.0], [1.0], [2.0]]
    >>> few_label_accuracy(features, [0, 0, 1, 1], [[-3.0], [3.0]], [0, 1], labels_per_class=1)
    1.0
    """
    train_features, train_labels = np.asarray(train_features), np.asarray(train_labels)
    rng = np.random.default_rng(seed)
    accuracies = []
    for _ in range(draws):
        rows = _rows_per_class(train_labels, labels_per_class, rng)
        accuracies.append(
            linear_accuracy(train_features[rows], train_labels[rows], test_features, test_labels, inverse_penalty)
        )
    return float(np.mean(accuracies))


def _rows_per_class(labels, count, rng):
    rows = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < count:
            raise ValueError(
                f"Every class needs at least labels_per_class={count} images. Received: {len(members)} of class {label}"
            )
        rows.append(rng.choice(members, count, replace=False))
    return np.concatenate(rows)
