"""Classifiers that are exported together with the encoder."""

import numpy as np
import tensorflow as tf

from keras_barlow.evaluation.knn import check_votes, unit_rows
from keras_barlow.evaluation.linear import linear_classifier
from keras_barlow.labels import checked_features, checked_labels


class Classifier(tf.Module):
    """Maps features to class probabilities.

    Args:
        class_names: Name of each class.
        scores: Function from float32 features `(batch, features)` to probabilities `(batch, classes)`.
        state: List of the `tf.Variable`s that `scores` reads.

    Example:

    >>> head = linear_head([[-1.0], [-2.0], [1.0], [2.0]], [0, 0, 1, 1], class_names=("left", "right"))
    >>> [head.class_names[number] for number in head(tf.constant([[-3.0], [3.0]])).numpy().argmax(axis=1)]
    ['left', 'right']
    """

    def __init__(self, class_names, scores, state):
        super().__init__()
        self.class_names = tuple(class_names)
        self.state = state
        self._scores = scores

    def __call__(self, features):
        return self._scores(features)


def check_classifier(classifier, features):
    """Raises ValueError unless the classifier fits the encoder and has one name per class.

    Args:
        classifier: `Classifier`, or None.
        features: Number of features of the encoder.
    """
    if classifier is None:
        return
    if not callable(classifier) or not hasattr(classifier, "class_names"):
        raise ValueError(
            "`classifier` must be an export.Classifier, from linear_head or knn_head. "
            f"Received: classifier={classifier!r}."
        )
    inputs = tf.TensorSpec((None, features), tf.float32)
    try:
        scores = tf.function(lambda features: classifier(features)).get_concrete_function(inputs).output_shapes
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise ValueError(
            f"`classifier` must accept the features of the encoder, (batch, {features}). Received: an error, "
            f"{str(error).splitlines()[0]}. Fit the classifier to features of this encoder."
        ) from error
    count = len(classifier.class_names)
    if not isinstance(scores, tf.TensorShape) or scores.rank != 2 or scores[1] not in (None, count):
        raise ValueError(
            f"`classifier` must return a probability for each of its class names. Received: {count} names for scores "
            f"of shape {scores}. Pass one name per class."
        )


def linear_head(features, labels, class_names=None, inverse_penalty=1.0):
    """Creates the classifier of `evaluation.linear_scores`: logistic regression on standardized features.

    Args:
        features: Float array `(n, features)` of labeled images.
        labels: Integer array `(n,)` of class numbers from 0.
        class_names: Name of each class. None uses the class numbers.
        inverse_penalty: Inverse regularization strength, `C` in scikit-learn.

    Returns:
        `Classifier`, for `save_encoder(..., classifier=...)`.

    Raises:
        ValueError: If the labels do not match the features or the class names.
    """
    features, labels, class_names = _checked(features, labels, class_names)
    kernel, bias = linear_classifier(features, labels, inverse_penalty)
    kernel = tf.Variable(kernel.astype("float32"), trainable=False, name="kernel")
    bias = tf.Variable(bias.astype("float32"), trainable=False, name="bias")
    return Classifier(class_names, lambda features: tf.nn.softmax(tf.matmul(features, kernel) + bias), [kernel, bias])


def knn_head(features, labels, class_names=None, k=20, temperature=0.1):
    """Creates the classifier of `evaluation.knn_scores`: weighted votes of nearest neighbors, normalized to sum to 1.

    The export will contain the features.

    Args:
        features: Float array `(n, features)` of labeled images.
        labels: Integer array `(n,)` of class numbers from 0.
        class_names: Name of each class. None uses the class numbers.
        k: Number of neighbors, at most `n`.
        temperature: Softmax temperature of the votes, a positive float.

    Returns:
        `Classifier`, for `save_encoder(..., classifier=...)`.

    Raises:
        ValueError: If the labels do not match the features or the class names, or `k` is not in 1..n.

    Example:

    >>> head = knn_head([[1.0, 0.0], [0.0, 1.0]], [0, 1], k=1)
    >>> head(tf.constant([[0.9, 0.2]])).numpy().tolist()
    [[1.0, 0.0]]
    """
    features, labels, class_names = _checked(features, labels, class_names)
    check_votes(k, len(features), temperature)
    bank = tf.Variable(unit_rows(features).T, trainable=False, name="bank")
    one_hot = np.zeros((len(labels), len(class_names)), "float32")
    one_hot[np.arange(len(labels)), labels] = 1.0
    votes = tf.Variable(one_hot, trainable=False, name="votes")

    def scores(features):
        similarities, rows = tf.math.top_k(tf.matmul(tf.math.l2_normalize(features, axis=1, epsilon=1e-24), bank), k)
        # Softmax prevents overflow and normalizes the votes of each row.
        return tf.einsum("nk,nkc->nc", tf.nn.softmax(similarities / temperature), tf.gather(votes, rows))

    return Classifier(class_names, scores, [bank, votes])


def _checked(features, labels, class_names):
    features = checked_features(features)
    labels = checked_labels(labels, len(features), least_classes=2)
    count = int(labels.max()) + 1
    class_names = tuple(map(str, range(count))) if class_names is None else tuple(class_names)
    if len(class_names) != count:
        raise ValueError(
            f"Every class must have one name. Received: {len(class_names)} names for {count} classes. "
            "Name the classes from 0 to the largest label."
        )
    return features, labels, tuple(map(str, class_names))
