"""Feature extraction with a frozen encoder."""

import numpy as np
import tensorflow as tf

from keras_barlow import data, image_scale
from keras_barlow.evaluation.input_checks import check_images, input_shape, shape_of


def extract_features(model, images, batch_size=256, verbose=0):
    """Extracts the features of images in inference mode.

    Args:
        model: `keras.Model` from images on 0..255 to features. `BarlowTwins` returns the features of its encoder.
        images: Array `(n, height, width, channels)`, a batched `tf.data.Dataset` of images, or `data.Images`, which
            are center-cropped to the input size of the encoder.
        batch_size: Images per batch. Ignored for a dataset, which is already batched.
        verbose: Verbosity of `keras.Model.predict`.

    Returns:
        Float32 array `(n, features)`, in the order of the images.

    Raises:
        ValueError: For `data.Batches`, whose order is random, and for images of the wrong size.

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
        height, width, _ = input_shape(model)
        whole = shape_of(images)[1:3] == (height, width)
        images = images.in_order(batch_size, crop=None if whole else height)
    if isinstance(images, tf.data.Dataset):
        images = image_scale.with_scale_check(images)
    else:
        image_scale.warn_about_scale(images)
    sizes = {"batch_size": batch_size} if hasattr(images, "shape") else {}
    return np.asarray(model.predict(images, verbose=verbose, **sizes), "float32")
