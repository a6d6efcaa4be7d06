"""Features of many images from a frozen encoder."""

import numpy as np


def extract_features(model, images, batch_size=256, verbose=0):
    """Runs a model in inference mode over an array or a dataset of images.

    Args:
        model: `keras.Model` from images on 0..255 to features; for `BarlowTwins` the encoder's
            representation.
        images: Array `(n, height, width, channels)`, or a batched `tf.data.Dataset` of images.
        batch_size: For arrays.
        verbose: As for `keras.Model.predict`.

    Returns:
        Float32 array `(n, features)`.

    Example:

    >>> import keras_barlow as kb
    >>> encoder = kb.encoders.resnet((1,), input_shape=(16, 16, 3), stem="small", width=8)
    >>> extract_features(encoder, np.zeros((3, 16, 16, 3), "uint8")).shape
    (3, 8)
    """
    sizes = {"batch_size": batch_size} if hasattr(images, "shape") else {}
    return np.asarray(model.predict(images, verbose=verbose, **sizes), "float32")


def check_features(train_features, train_labels, test_features):
    """Raises ValueError unless there is a label for each training row, and the test rows are of the same encoder.

    Args:
        train_features: Float array `(n, features)`.
        train_labels: Array of n rows, or None.
        test_features: Float array `(m, features)`.
    """
    train_shape, test_shape = np.shape(train_features), np.shape(test_features)
    if len(train_shape) != 2 or len(test_shape) != 2 or train_shape[1] != test_shape[1]:
        raise ValueError(
            "Features must be (n, features) and (m, features), of one encoder. "
            f"Received: shapes {train_shape} and {test_shape}."
        )
    if train_labels is not None and len(train_labels) != train_shape[0]:
        raise ValueError(
            f"Every row of features must have a label. Received: {len(train_labels)} labels for {train_shape[0]} rows."
        )
