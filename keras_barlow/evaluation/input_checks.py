"""Checks of images, labels and features, shared by every function that evaluates an encoder."""

import copy

import numpy as np
import tensorflow as tf

from keras_barlow import data, labels


def check_images(images, model=None, name="images"):
    """Checks that an encoder can process images, without reading them.

    Args:
        images: Array, batched `tf.data.Dataset` or `data.Images`, see `extract_features`.
        model: `keras.Model` that processes the images; None checks only their rank.
        name: Argument name for error messages.

    Raises:
        ValueError: For `data.Batches`, for an infinite dataset, and for images of the wrong rank or size.
    """
    if isinstance(images, data.Batches):
        raise ValueError(
            "Feature extraction needs images in a fixed order. "
            f"Received: data.Batches for `{name}`, whose order is random and which has no labels. Pass the "
            "data.Images that you made the batches from."
        )
    if hasattr(images, "cardinality") and images.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            f"Feature extraction needs a finite dataset. Received: an infinite dataset for `{name}`. Remove .repeat()."
        )
    shape = shape_of(images)
    if shape is None:
        return
    if len(shape) != 4:
        raise ValueError(
            "Images must have the shape (batch, height, width, channels). "
            f"Received: `{name}` of shape {tuple(shape)}. Use .batch(256) for a dataset of single images, images[None] "
            "for one image, and images[..., None] for grayscale images without a channel axis."
        )
    expected = (None, None, None) if model is None else input_shape(model)
    cropped = isinstance(images, data.Images) and tuple(shape[1:3]) != expected[:2]
    if cropped and expected[0] != expected[1]:
        raise ValueError(
            "Center crops of data.Images are square. "
            f"Received: `{name}` for an encoder with an input size of {expected[0]} x {expected[1]}. Pass an array of "
            "that size."
        )
    for axis, (size, wanted) in enumerate(zip(shape[1:], expected, strict=True)):
        if None in (size, wanted) or size == wanted or (cropped and axis < 2 and size > wanted):
            continue
        raise ValueError(
            f"The encoder takes images of {' x '.join(str(side or 'any') for side in expected)}. "
            f"Received: `{name}` of {' x '.join(str(side or 'any') for side in shape[1:])}. Pass larger images as "
            "data.ArrayImages(images, labels), which are center-cropped; reload smaller images at a larger size."
        )


def checked_images(train, test, encoder=None, several=False):
    """Checks the labels, classes and sizes of training and test images.

    Args:
        train: `data.Images` with labels to train on.
        test: `data.Images` with labels to test on.
        encoder: `keras.Model` that processes the images; None skips the check of their size.
        several: Whether multi-label targets, rows of 1, 0 and -1, are accepted.

    Returns:
        The pair `(train, test)` of `data.Images` with int64 labels.

    Raises:
        ValueError: If labels are missing or invalid, the classes differ, or the encoder expects a different image size.
    """
    train, test = (_with_checked_labels(images, name, several) for name, images in (("train", train), ("test", test)))
    if train.labels.ndim != test.labels.ndim:
        raise ValueError(
            "Training and test must have labels of one kind. "
            f"Received: labels of shape {train.labels.shape} for training and {test.labels.shape} for testing. Use "
            "class numbers (n,) or targets (n, classes) for both."
        )
    differ = train.labels.ndim == 2 and train.labels.shape[1] != test.labels.shape[1]
    if differ or (train.class_names and test.class_names and tuple(train.class_names) != tuple(test.class_names)):
        classes = [images.class_names or images.labels.shape[1:] for images in (test, train)]
        raise ValueError(
            "Training and test must have the same classes. "
            f"Received: {classes[0]} for testing, {classes[1]} for training. Load both from the same collection."
        )
    if train.labels.ndim == 2:
        check_trainable_targets(train.labels)
    else:
        # With a single class, every prediction would be correct.
        labels.checked_labels(train.labels, name="train", least_classes=2)
        labels.checked_test_labels(test.labels, train.labels, name="test.labels")
    # Training images may be smaller, because random crops are resized.
    check_images(test, encoder, "test")
    return train, test


def checked_feature_sets(train_features, train_labels, test_features, finite=True):
    """Checks training features, their labels, and test features.

    Args:
        train_features: Float array `(n, features)`.
        train_labels: Integer array `(n,)`.
        test_features: Float array `(m, features)`.
        finite: Whether to check that the training features are finite. `nearest_neighbors` checks them as it reads
            them.

    Returns:
        The triple `(train_features, train_labels, test_features)` of arrays, with int64 labels.

    Raises:
        ValueError: If an argument is invalid, the shapes do not match, or there is only one class.
    """
    train_features, test_features = checked_feature_pair(train_features, test_features, finite)
    train_labels = labels.checked_labels(train_labels, len(train_features), "train_labels", least_classes=2)
    return train_features, train_labels, test_features


def checked_feature_pair(train_features, test_features, finite=True, names=("train_features", "test_features")):
    """Checks that two sets of features can come from one encoder.

    Args:
        train_features: Float array `(n, features)`.
        test_features: Float array `(m, features)`.
        finite: Whether to check that the training features are finite.
        names: Argument names for error messages.

    Returns:
        The pair `(train_features, test_features)` of arrays.

    Raises:
        ValueError: If the features are invalid or differ in width.
    """
    train_features = labels.checked_features(train_features, names[0], finite)
    test_features = labels.checked_features(test_features, names[1])
    if train_features.shape[1] != test_features.shape[1]:
        raise ValueError(
            "Features must be (n, features) and (m, features), of one encoder. "
            f"Received: shapes {train_features.shape} and {test_features.shape} for `{names[0]}` and `{names[1]}`. "
            "Extract both with the same encoder."
        )
    return train_features, test_features


def check_votes(k, count, temperature=1.0):
    """Checks the settings of a k-NN vote.

    Args:
        k: Number of neighbors.
        count: Number of rows in the bank.
        temperature: Softmax temperature of the votes.

    Raises:
        ValueError: If `k` is not an integer in 1..count, or the temperature is not positive and finite.
    """
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= count:
        raise ValueError(f"`k` must be between 1 and the number of rows in the bank, {count}. Received: k={k}")
    if not 0 < temperature < np.inf:
        raise ValueError(
            f"`temperature` must be positive and finite. Received: temperature={temperature}. To use only the "
            "nearest row, use k=1."
        )


def check_trainable_targets(targets):
    """Checks that every class has both positive and negative images.

    Args:
        targets: Integer array `(n, classes)` of 1, 0 and -1.

    Raises:
        ValueError: If a class is on none or on all of the images that count for it.
    """
    for number, column in enumerate(np.asarray(targets).T):
        labels = column[column >= 0]
        if len(np.unique(labels)) < 2:
            raise ValueError(
                "Every class must be on some training images and not on others. Received: class "
                f"{number}, which is on {int(labels.sum())} of {len(labels)}. Drop its column from the training and "
                "test targets."
            )


def _with_checked_labels(images, name, several):
    """Returns images with int64 labels: a shallow copy, or the images themselves if the labels need no change."""
    if images is not None and not isinstance(images, data.Images):
        raise ValueError(
            f"Expected data.Images. Received: {type(images).__name__} for `{name}`. Wrap arrays in "
            "data.ArrayImages(images, labels)."
        )
    original = None if images is None else images.labels
    checked = labels.checked_labels(original, None if images is None else len(images), name, several)
    if checked is original:
        return images
    images = copy.copy(images)
    images.labels = checked
    return images


def input_shape(model):
    """Returns the height, width and channels that a model expects, None where they are free or unknown."""
    encoder = getattr(model, "encoder", model)
    try:
        shape = encoder.input_shape
    # Subclassed models have no `input_shape`.
    except AttributeError:
        return (None, None, None)
    return tuple(shape[1:]) if isinstance(shape, tuple) and len(shape) == 4 else (None, None, None)


def shape_of(images):
    """Returns the shape of images as far as it is known, or None."""
    if isinstance(images, data.Images):
        return (len(images), *getattr(images, "image_shape", (images.image_size, images.image_size, None)))
    if hasattr(images, "shape"):
        return tuple(images.shape)
    specification = getattr(images, "element_spec", None)
    if isinstance(specification, (tuple, list)):
        specification = specification[0]
    shape = getattr(specification, "shape", None)
    return None if shape is None or shape.rank is None else tuple(shape)
