"""Checks of images, labels and features, shared by every function that evaluates an encoder."""

import copy

import numpy as np
import tensorflow as tf

from keras_barlow import data, labels


def check_images(images, model=None, name="images"):
    """Refuses images that an encoder does not take, as far as it is known before they are read.

    Args:
        images: As for `extract_features`.
        model: As for `extract_features`; None where there is none yet.
        name: Name of the argument, for the error.

    Raises:
        ValueError: For `data.Batches` and for images of another rank or size.
    """
    if isinstance(images, data.Batches):
        raise ValueError(
            "Features are taken of images in a fixed order. "
            f"Received: data.Batches for `{name}`, whose order is random and which holds no labels. Pass the "
            "data.Images that the batches are of."
        )
    if hasattr(images, "cardinality") and images.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            f"Features are taken of all images. Received: a dataset without an end for `{name}`. Take .repeat() out."
        )
    shape = shape_of(images)
    if shape is None:
        return
    if len(shape) != 4:
        raise ValueError(
            "Images must have the shape (batch, height, width, channels). "
            f"Received: `{name}` of shape {tuple(shape)}. Use .batch(256) for a dataset of single images, images[None] "
            "for one image, and images[..., None] for gray ones without channels."
        )
    taken = (None, None, None) if model is None else input_shape(model)
    cropped = isinstance(images, data.Images) and tuple(shape[1:3]) != taken[:2]
    if cropped and taken[0] != taken[1]:
        raise ValueError(
            f"The centers of data.Images are square. Received: `{name}`, and an encoder of images of "
            f"{taken[0]} x {taken[1]}. Pass an array of that size."
        )
    for axis, (got, wanted) in enumerate(zip(shape[1:], taken, strict=True)):
        if None in (got, wanted) or got == wanted or (cropped and axis < 2 and got > wanted):
            continue
        raise ValueError(
            f"The encoder takes images of {' x '.join(str(side or 'any') for side in taken)}. "
            f"Received: `{name}` of {' x '.join(str(side or 'any') for side in shape[1:])}. Pass larger images as "
            "data.ArrayImages(images, labels), whose centers are taken; load smaller ones again in a larger size."
        )


def checked_images(train, test, encoder=None, several=False):
    """Images to train and to test on, with labels that `keras_barlow.labels` has checked, of the same classes.

    Args:
        train: `data.Images`.
        test: `data.Images`.
        encoder: `keras.Model` that takes them; None where there is none yet.
        several: Whether an image may have any number of labels, rows of 1, 0 and -1.

    Returns:
        The pair of `data.Images`, whose labels are int64.

    Raises:
        ValueError: If labels are missing or wrong, the classes differ, or the images are of another size than the
            encoder's.
    """
    train, test = (_with_labels(one, name, several) for name, one in (("train", train), ("test", test)))
    if train.labels.ndim != test.labels.ndim:
        raise ValueError(
            "Training and test must have labels of one kind. "
            f"Received: {train.labels.shape} for training, {test.labels.shape} for testing."
        )
    differ = train.labels.ndim == 2 and train.labels.shape[1] != test.labels.shape[1]
    if differ or (train.class_names and test.class_names and tuple(train.class_names) != tuple(test.class_names)):
        classes = [one.class_names or one.labels.shape[1:] for one in (test, train)]
        raise ValueError(
            "Training and test must have the same classes. "
            f"Received: {classes[0]} for testing, {classes[1]} for training. Load both from one collection."
        )
    if train.labels.ndim == 2:
        check_trainable_targets(train.labels)
    else:
        # A classifier of one class is always right.
        labels.checked_labels(train.labels, name="train", least_classes=2)
        labels.checked_test_labels(test.labels, train.labels, name="test.labels")
    # Training images may be smaller: random crops are resized.
    check_images(test, encoder, "test")
    return train, test


def checked_feature_sets(train_features, train_labels, test_features, finite=True):
    """Features to train and to test on, with the labels of the former, each checked by `labels`.

    Args:
        train_features: Float array `(n, features)`.
        train_labels: Integer array `(n,)`.
        test_features: Float array `(m, features)`.
        finite: Whether to check the values of the training features. `nearest_neighbors` does that as it reads them.

    Returns:
        The three as arrays, labels as int64.

    Raises:
        ValueError: If one of them is wrong, they do not fit each other, or there is one class only: every answer would
            be right.
    """
    train_features, test_features = checked_feature_pair(train_features, test_features, finite)
    train_labels = labels.checked_labels(train_labels, len(train_features), "train_labels", least_classes=2)
    return train_features, train_labels, test_features


def checked_feature_pair(train_features, test_features, finite=True, names=("train_features", "test_features")):
    """Features of two sets of images from one encoder.

    Args:
        train_features: Float array `(n, features)`.
        test_features: Float array `(m, features)`.
        finite: Whether to check the values of the first.
        names: Names of the arguments, for the error.

    Returns:
        The two as arrays.

    Raises:
        ValueError: If they are wrong, or of different encoders.
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
    """Raises ValueError unless there are k rows in the bank, and the temperature of the votes is positive.

    Args:
        k: Number of neighbours.
        count: Number of rows in the bank.
        temperature: Float.
    """
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= count:
        raise ValueError(f"`k` must be between 1 and the number of rows in the bank, {count}. Received: k={k}")
    if not 0 < temperature < np.inf:
        raise ValueError(
            f"`temperature` must be positive and finite. Received: temperature={temperature}. For the label of the "
            "nearest row alone use k=1."
        )


def check_trainable_targets(targets):
    """Raises ValueError unless every class is on some images and not on others."""
    for number, column in enumerate(np.asarray(targets).T):
        labels = column[column >= 0]
        if len(np.unique(labels)) < 2:
            raise ValueError(
                "Every class must be on some training images and not on others. Received: class "
                f"{number}, which is on {int(labels.sum())} of {len(labels)}. Leave out its column, of the test images "
                "too."
            )


def _with_labels(images, name, several):
    """The images with labels of int64; they themselves where they have such."""
    if images is not None and not isinstance(images, data.Images):
        raise ValueError(
            f"This takes data.Images. Received: {type(images).__name__} for `{name}`. Wrap arrays as "
            "data.ArrayImages(images, labels)."
        )
    known = None if images is None else images.labels
    checked = labels.checked_labels(known, None if images is None else len(images), name, several)
    if checked is known:
        return images
    images = copy.copy(images)
    images.labels = checked
    return images


def input_shape(model):
    """Height, width and channels that a model takes, None where they are free or unknown."""
    encoder = getattr(model, "encoder", model)
    try:
        shape = encoder.input_shape
    # A subclassed model has none.
    except AttributeError:
        return (None, None, None)
    return tuple(shape[1:]) if isinstance(shape, tuple) and len(shape) == 4 else (None, None, None)


def shape_of(images):
    """The shape of images as far as it is known, or None."""
    if isinstance(images, data.Images):
        return (len(images), *getattr(images, "image_shape", (images.image_size, images.image_size, None)))
    if hasattr(images, "shape"):
        return tuple(images.shape)
    specification = getattr(images, "element_spec", None)
    if isinstance(specification, (tuple, list)):
        specification = specification[0]
    shape = getattr(specification, "shape", None)
    return None if shape is None or shape.rank is None else tuple(shape)
