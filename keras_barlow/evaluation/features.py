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
