"""The image scale of the package, 0 to 255, and warnings about images on another scale."""

import numpy as np
import tensorflow as tf
from absl import logging

from keras_barlow import engine, keras_internals

# Standardized images stay below 2.7, and a batch on 0..255 without any value above 4 would be black. Bicubic resizing
# overshoots 0..255 by less than the margin.
_DARKEST = 4.0
_MARGIN = 64.0
_SAMPLE = 64
_warned = set()


def check_image_dtype(images):
    """Raises an error unless images have a dtype that can hold 0..255.

    Args:
        images: Array or tensor of images; may be symbolic.

    Raises:
        ValueError: If the dtype is not uint8, a wider signed integer or a float.

    Example:

    >>> check_image_dtype(np.zeros((1, 8, 8, 3), "uint8"))
    """
    name = np.dtype(getattr(images.dtype, "as_numpy_dtype", images.dtype)).name if hasattr(images, "dtype") else "uint8"
    remedies = {
        "bool": 'images.astype("uint8") * 255',
        "uint16": '(images / 257).round().astype("uint8"), or rescale from the range of your sensor',
        "int8": 'images.view("uint8"), if the data are bytes',
    }
    if name in remedies or not name.startswith(("uint8", "int", "float", "bfloat")):
        raise ValueError(
            f"Images must be uint8 or float on 0 to 255. Received: images of dtype {name}. "
            f"Use {remedies.get(name, 'uint8, or float32 on 0 to 255')}."
        )


def warn_about_scale(images):
    """Warns, once per process, about images that do not look like 0..255.

    Typical cases are images on [0, 1], on [-1, 1], on 0..65535, or already standardized. Every entry point calls this
    function: `fit`, `evaluate`, `predict`, encoders, views, probes and evaluation. Images on [0, 1] would reach the
    encoder as nearly constant gray.

    Args:
        images: Array or eager tensor of images, `(batch, height, width, channels)`. Only the dtype of symbolic tensors
            is checked.

    Raises:
        ValueError: If the dtype cannot hold 0..255 (see `check_image_dtype`).

    Example:

    >>> warn_about_scale(np.full((2, 8, 8, 3), 200.0))
    """
    if not hasattr(images, "shape") or not hasattr(images, "dtype"):
        return
    check_image_dtype(images)
    has_values = isinstance(images, np.ndarray) or engine.has_value(images) or hasattr(images, "numpy")
    if "scale" in _warned or not has_values:
        return
    sample = np.asarray(images[:_SAMPLE])
    if not sample.size:
        return
    lowest, highest = float(sample.min()), float(sample.max())
    on_scale = max(-lowest, highest) > _DARKEST and lowest >= -_MARGIN and highest <= 255 + _MARGIN
    if on_scale or lowest == highest == 0.0:
        return
    _warned.add("scale")
    logging.warning(
        "Images must be on 0 to 255. Received: a batch with values from %g to %g, which look like another scale. "
        "Multiply images on [0, 1] by 255, divide 16-bit images by 257, and undo standardization, which the encoder "
        "does itself. (Shown once.)",
        lowest,
        highest,
    )


def with_scale_check_in_predict(model):
    """Makes `predict` of an encoder call `warn_about_scale`, because layers see no values in a compiled `predict`.

    Args:
        model: `keras.Model` from images to features. Its copies and saved files have the `predict` of Keras.

    Returns:
        `model`.
    """

    def prepared(x):
        if isinstance(x, tf.data.Dataset):
            return with_scale_check(x)
        warn_about_scale(first_images(x))
        return x

    return keras_internals.prepare_inputs_of_predict(model, prepared)


def with_scale_check(dataset):
    """Returns the dataset with `warn_about_scale` called on its first batch.

    Args:
        dataset: `tf.data.Dataset` of images, or of tuples or dictionaries that contain them (see `first_images`).

    Returns:
        A `tf.data.Dataset` with the same elements.
    """
    spec = dataset.element_spec
    if not isinstance(first_images(spec), tf.TensorSpec):
        return dataset

    def check(images):
        warn_about_scale(images)
        return np.int64(0)

    def checked(index, element):
        done = tf.cond(
            tf.equal(index, 0),
            lambda: tf.numpy_function(check, [first_images(element)[:_SAMPLE]], tf.int64),
            lambda: tf.constant(0, tf.int64),
        )
        with tf.control_dependencies([done]):
            return tf.nest.map_structure(tf.identity, element)

    return dataset.enumerate().map(checked)


def first_images(element):
    """Returns the images in a dataset element: the first tensor of a tuple, or the entry `image` of a dictionary.

    Args:
        element: Nested structure of tensors or specs.

    Returns:
        A tensor or a spec, or None if there is none.
    """
    while isinstance(element, (tuple, list, dict)):
        element = element.get("image") if isinstance(element, dict) else next(iter(element), None)
    return element
