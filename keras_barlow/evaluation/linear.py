"""Linear probes: logistic regression on standardized, frozen features."""

import numpy as np
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from keras_barlow.data.per_class import draw_per_class
from keras_barlow.evaluation.input_checks import check_trainable_targets, checked_feature_pair, checked_feature_sets
from keras_barlow.labels import checked_features, checked_labels, checked_targets, checked_test_labels


def linear_scores(train_features, train_labels, test_features, inverse_penalty=1.0):
    """Class probabilities of a logistic regression trained on all labels.

    Args:
        train_features: Float array `(n, features)`.
        train_labels: Integer array `(n,)` of class numbers from 0.
        test_features: Float array `(m, features)`.
        inverse_penalty: Inverse strength of the L2 penalty, `C` of scikit-learn.

    Returns:
        Float array `(m, classes)`.

    Raises:
        ValueError: If features or labels are invalid or do not match, or there is only one class.

    Example:

    >>> linear_scores([[-1.0], [-2.0], [1.0], [2.0]], [0, 0, 1, 1], [[-3.0], [3.0]]).argmax(axis=1).tolist()
    [0, 1]
    """
    checked = checked_feature_sets(train_features, train_labels, test_features)
    return _scores(*checked, inverse_penalty)


def _scores(train_features, train_labels, test_features, inverse_penalty):
    kernel, bias = linear_classifier(train_features, train_labels, inverse_penalty)
    return softmax(np.asarray(test_features, "float32") @ kernel + bias, axis=1)


def linear_classifier(features, labels, inverse_penalty=1.0):
    """Fits the logistic regression of `linear_scores` and returns it as one layer, `softmax(features @ kernel + bias)`.

    Args:
        features: Float array `(n, features)`.
        labels: Integer array `(n,)` of class numbers from 0.
        inverse_penalty: Inverse strength of the L2 penalty, `C` of scikit-learn.

    Returns:
        The pair `(kernel, bias)` of float64 arrays `(features, classes)` and `(classes,)`. They include the
        standardization of the features. Classes without training images have bias -1e9.

    Raises:
        ValueError: If features or labels are invalid or do not match, or there is only one class.

    Example:

    >>> kernel, bias = linear_classifier([[-1.0], [-2.0], [1.0], [2.0]], [0, 0, 1, 1])
    >>> (np.array([[3.0]]) @ kernel + bias).argmax()
    np.int64(1)
    """
    features = checked_features(features)
    labels = checked_labels(labels, len(features), least_classes=2)
    scaler, regression = _probe(inverse_penalty).fit(np.asarray(features, "float32"), labels).named_steps.values()
    coefficients, intercepts = regression.coef_.astype("float64"), regression.intercept_.astype("float64")
    if len(regression.classes_) == 2:
        # For two classes, scikit-learn keeps only the difference of their scores.
        coefficients = np.concatenate([np.zeros_like(coefficients), coefficients])
        intercepts = np.concatenate([np.zeros_like(intercepts), intercepts])
    count = int(np.max(labels)) + 1
    kernel, bias = np.zeros((coefficients.shape[1], count)), np.full(count, -1e9)
    kernel[:, regression.classes_] = (coefficients / scaler.scale_).T
    bias[regression.classes_] = intercepts - coefficients @ (scaler.mean_ / scaler.scale_)
    return kernel, bias


def linear_accuracy(train_features, train_labels, test_features, test_labels, inverse_penalty=1.0):
    """Top-1 accuracy of a logistic regression trained on all labels.

    Args:
        train_features: Float array `(n, features)`.
        train_labels: Integer array `(n,)` of class numbers from 0.
        test_features: Float array `(m, features)`.
        test_labels: Integer array `(m,)` of true class numbers.
        inverse_penalty: Inverse strength of the L2 penalty, `C` of scikit-learn.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: If features or labels are invalid or do not match, there is only one class, or training lacks a test
            class.

    Example:

    >>> linear_accuracy([[-1.0], [-2.0], [1.0], [2.0]], [0, 0, 1, 1], [[-3.0], [3.0]], [0, 1])
    1.0
    """
    checked = checked_feature_sets(train_features, train_labels, test_features)
    test_labels = checked_test_labels(test_labels, checked[1], len(checked[2]))
    return float(np.mean(_scores(*checked, inverse_penalty).argmax(axis=1) == test_labels))


def few_label_accuracy(
    train_features, train_labels, test_features, test_labels, labels_per_class=10, draws=5, inverse_penalty=0.1, seed=0
):
    """Mean top-1 accuracy of logistic regressions trained on a few labels per class.

    Args:
        train_features: Float array `(n, features)`.
        train_labels: Integer array `(n,)` of class numbers from 0.
        test_features: Float array `(m, features)`.
        test_labels: Integer array `(m,)` of true class numbers.
        labels_per_class: Number of labeled images per class.
        draws: Number of random labeled sets to average over.
        inverse_penalty: Inverse strength of the L2 penalty, `C` of scikit-learn.
        seed: Integer seed of the labeled sets. Use one seed for all encoders that you compare.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: If features or labels are invalid or do not match, there is only one class, training lacks a test
            class, a class has fewer than `labels_per_class` images, or `labels_per_class` or `draws` is below 1.

    Example:

    >>> features = [[-1.0], [-2.0], [1.0], [2.0]]
    >>> few_label_accuracy(features, [0, 0, 1, 1], [[-3.0], [3.0]], [0, 1], labels_per_class=1)
    1.0
    """
    for name, value in (("labels_per_class", labels_per_class), ("draws", draws)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1. Received: {name}={value}")
    checked = checked_feature_sets(train_features, train_labels, test_features)
    train_features, train_labels, test_features = checked
    test_labels = checked_test_labels(test_labels, train_labels, len(test_features))
    rng = np.random.default_rng(seed)
    accuracies = []

    def enough(label, size):
        if size < labels_per_class:
            raise ValueError(
                f"Every class needs at least labels_per_class={labels_per_class} images. "
                f"Received: {size} of class {label}"
            )
        return labels_per_class

    for _ in range(draws):
        rows = draw_per_class(train_labels, enough, rng)
        scores = _scores(train_features[rows], train_labels[rows], test_features, inverse_penalty)
        accuracies.append(np.mean(scores.argmax(axis=1) == test_labels))
    return float(np.mean(accuracies))


def multi_label_scores(train_features, train_targets, test_features, inverse_penalty=1.0):
    """Scores of one logistic regression per class, for multi-label images.

    Args:
        train_features: Float array `(n, features)`.
        train_targets: Array `(n, classes)`: 1 for a label of the image, 0 for no label, -1 to ignore the image.
        test_features: Float array `(m, features)`.
        inverse_penalty: Inverse strength of the L2 penalty, `C` of scikit-learn.

    Returns:
        Float array `(m, classes)` for `mean_average_precision`. Positive scores predict the label.

    Raises:
        ValueError: If features or targets are invalid or do not match, or a class is on none or on all of the images
            that count for it.

    Example:

    >>> targets = [[1, 0], [1, 0], [0, 1], [0, 1]]
    >>> multi_label_scores([[-2.0], [-1.0], [1.0], [2.0]], targets, [[-3.0], [3.0]]) > 0
    array([[ True, False],
           [False,  True]])
    """
    pair = checked_feature_pair(train_features, test_features)
    train_features, test_features = (np.asarray(features, "float32") for features in pair)
    train_targets = checked_targets(train_targets, len(train_features), "train_targets")
    check_trainable_targets(train_targets)
    scores = np.empty((len(test_features), train_targets.shape[1]))
    for number in range(train_targets.shape[1]):
        counted = train_targets[:, number] >= 0
        probe = _probe(inverse_penalty).fit(train_features[counted], train_targets[counted, number])
        scores[:, number] = probe.decision_function(test_features)
    return scores


def _probe(inverse_penalty):
    # Float32 and this tolerance are four times faster on raw pixels. The change in accuracy is noise.
    return make_pipeline(StandardScaler(), LogisticRegression(C=inverse_penalty, max_iter=1000, tol=1e-3))
