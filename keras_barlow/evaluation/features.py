"""Features of many images from a frozen encoder."""

import numpy as np
import tensorflow as tf

from keras_barlow import data, image_scale, labels


def extract_features(model, images, batch_size=256, verbose=0):
    """Runs a model in inference mode over images.

    Args:
        model: `keras.Model` from images on 0..255 to features; for `BarlowTwins` the encoder's
            representation.
        images: Array `(n, height, width, channels)`, a batched `tf.data.Dataset` of images, or `data.Images`, whose
            centers in the size of the encoder are taken.
        batch_size: Images at a time. A dataset has its own batches.
        verbose: As for `keras.Model.predict`.

    Returns:
        Float32 array `(n, features)`, in the order of the images.

    Raises:
        ValueError: For `data.Batches`, whose order is random, and for images of another size than the encoder's.

    Example:

    >>> import keras_barlow as kb
    >>> encoder = kb.encoders.resnet((1,), input_shape=(16, 16, 3), stem="small", width=8)
    >>> extract_features(encoder, np.zeros((3, 16, 16, 3), "uint8")).shape
    (3, 8)
    >>> extract_features(encoder, kb.data.ArrayImages(np.zeros((3, 20, 20, 3), "uint8"))).shape
    (3, 8)
    """
    check_images(images, model)
    if isinstance(images, data.Images):
        height, width, _ = _input_shape(model)
        whole = _shape_of(images)[1:3] == (height, width)
        images = images.in_order(batch_size, crop=None if whole else height)
    if isinstance(images, tf.data.Dataset):
        images = image_scale.telling(images)
    else:
        image_scale.tell_scale(images)
    sizes = {"batch_size": batch_size} if hasattr(images, "shape") else {}
    return np.asarray(model.predict(images, verbose=verbose, **sizes), "float32")


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
    shape = _shape_of(images)
    if shape is None:
        return
    if len(shape) != 4:
        raise ValueError(
            "Images must have the shape (batch, height, width, channels). "
            f"Received: `{name}` of shape {tuple(shape)}. Use .batch(256) for a dataset of single images, images[None] "
            "for one image, and images[..., None] for gray ones without channels."
        )
    taken = (None, None, None) if model is None else _input_shape(model)
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


def checked_features(train_features, train_labels, test_features, finite=True):
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
    train_features, test_features = checked_pair(train_features, test_features, finite)
    train_labels = labels.checked_labels(train_labels, len(train_features), "train_labels", least_classes=2)
    return train_features, train_labels, test_features


def checked_pair(train_features, test_features, finite=True, names=("train_features", "test_features")):
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


def _input_shape(model):
    """Height, width and channels that a model takes, None where they are free or unknown."""
    encoder = getattr(model, "encoder", model)
    try:
        shape = encoder.input_shape
    # A subclassed model has none.
    except AttributeError:
        return (None, None, None)
    return tuple(shape[1:]) if isinstance(shape, tuple) and len(shape) == 4 else (None, None, None)


def _shape_of(images):
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
