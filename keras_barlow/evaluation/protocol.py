"""The three accuracies that every run reports."""

import numpy as np

from keras_barlow.evaluation.input_checks import check_votes, checked_feature_sets
from keras_barlow.evaluation.knn import knn_accuracy
from keras_barlow.evaluation.linear import few_label_accuracy, linear_accuracy
from keras_barlow.labels import checked_test_labels

LABELS_PER_CLASS = 10


def evaluate_features(train_features, train_labels, test_features, test_labels, k=200, temperature=0.1):
    """Top-1 accuracy of weighted k-NN, of a linear probe on all labels, and of one on 10 labels per class.

    Args:
        train_features: Float array `(n, features)`.
        train_labels: Integer array `(n,)` of class numbers from 0.
        test_features: Float array `(m, features)`.
        test_labels: Integer array `(m,)` of true class numbers.
        k: Number of neighbors of the k-NN.
        temperature: Softmax temperature of the k-NN votes.

    Returns:
        A dictionary of floats in [0, 1]: `knn_top1`, `linear_top1` and `few_label_top1`. The last is omitted if a class
        has fewer than 10 training images.

    Raises:
        ValueError: If features or labels are invalid or do not match, there is only one class, training lacks a test
            class, or `k` is not in 1..n.

    Example:

    >>> import numpy as np
    >>> labels = np.arange(40) % 2
    >>> features = np.stack([labels, np.sin(np.arange(40))], axis=1)
    >>> evaluate_features(features, labels, features, labels, k=5)
    {'knn_top1': 1.0, 'linear_top1': 1.0, 'few_label_top1': 1.0}
    """
    checked = checked_feature_sets(train_features, train_labels, test_features)
    data = (*checked, checked_test_labels(test_labels, checked[1], len(checked[2])))
    check_votes(k, len(checked[0]), temperature)
    results = {"knn_top1": knn_accuracy(*data, k=k, temperature=temperature), "linear_top1": linear_accuracy(*data)}
    if np.unique(data[1], return_counts=True)[1].min() >= LABELS_PER_CLASS:
        results["few_label_top1"] = few_label_accuracy(*data, labels_per_class=LABELS_PER_CLASS)
    return results
