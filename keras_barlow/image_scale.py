"""The one image scale of the package, 0 to 255, and what is said to those who pass another."""

import numpy as np
import tensorflow as tf
from absl import logging

from keras_barlow import keras_internals

# Standardized images reach 2.7. A batch on 0..255 without a single value above this would be black. On the other side,
# a bicubic filter overshoots by less than the margin.
_DARKEST = 4.0
_MARGIN = 64.0
_LOOKED_AT = 64
_said = set()


def check_image_dtype(images):
    """Refuses images whose type cannot hold the scale 0..255, or another scale of integers.

    Args:
        images: Array or tensor of images, also a symbolic one.

    Raises:
        ValueError: For anything but uint8, wider signed integers and floats.

    Example:

    >>> check_image_dtype(np.zeros((1, 8, 8, 3), "uint8"))
    """
    name = np.dtype(getattr(images.dtype, "as_numpy_dtype", images.dtype)).name if hasattr(images, "dtype") else "uint8"
    remedies = {
        "bool": 'images.astype("uint8") * 255',
        "uint16": '(images / 257).round().astype("uint8"), or divide by their own highest value',
        "int8": 'images.view("uint8"), if they are bytes',
    }
    if name in remedies or not name.startswith(("uint8", "int", "float", "bfloat")):
        raise ValueError(
            f"Images must be uint8, or floats on 0 to 255. Received: images of dtype {name}. "
            f"Use {remedies.get(name, 'numbers on 0 to 255')}."
        )


def tell_scale(images):
    """Warns, once in a process, where images do not look like 0..255: on [0, 1], [-1, 1], 0..65535, or standardized.

    Every entrance calls it: `fit`, `evaluate`, `predict`, encoders, views, probes, evaluation. A batch of images on
    [0, 1] would reach the encoder as a nearly constant gray.

    Args:
        images: Array or eager tensor of images, `(batch, height, width, channels)`. Symbolic tensors have no values
            yet and are passed over.

    Raises:
        ValueError: If their dtype cannot be on 0..255; see `check_image_dtype`.

    Example:

    >>> tell_scale(np.full((2, 8, 8, 3), 200.0))
    """
    if not hasattr(images, "shape") or not hasattr(images, "dtype"):
        return
    check_image_dtype(images)
    if "scale" in _said or not (isinstance(images, np.ndarray) or (tf.is_tensor(images) and hasattr(images, "numpy"))):
        return
    some = np.asarray(images[:_LOOKED_AT])
    if not some.size:
        return
    lowest, highest = float(some.min()), float(some.max())
    on_scale = max(-lowest, highest) > _DARKEST and lowest >= -_MARGIN and highest <= 255 + _MARGIN
    if on_scale or lowest == highest == 0.0:
        return
    _said.add("scale")
    logging.warning(
        "Images must be on 0 to 255. Received: a batch with values from %g to %g, which look like another scale. "
        "Multiply images on [0, 1] by 255, divide 16 bits by 257, and undo any standardization, which is built in. "
        "(Said once.)",
        lowest,
        highest,
    )


def telling_model(model):
    """Makes `predict` of an encoder call `tell_scale`: Keras compiles it with XLA, where nothing can be said.

    Args:
        model: `keras.Model` from images to features. Copies and saved files of it have Keras' own `predict`.

    Returns:
        `model`.
    """

    def prepared(x):
        if isinstance(x, tf.data.Dataset):
            return telling(x)
        tell_scale(first_images(x))
        return x

    return keras_internals.prepare_inputs_of_predict(model, prepared)


def telling(dataset):
    """The dataset, whose first batch is looked at when it comes by; see `tell_scale`.

    Args:
        dataset: `tf.data.Dataset` of images, or of tuples or dictionaries that begin with them.

    Returns:
        A `tf.data.Dataset` of the same elements.
    """
    spec = dataset.element_spec
    if not isinstance(first_images(spec), tf.TensorSpec):
        return dataset

    def look(images):
        tell_scale(images)
        return np.int64(0)

    def looked_at(index, element):
        seen = tf.cond(
            tf.equal(index, 0),
            lambda: tf.numpy_function(look, [first_images(element)[:_LOOKED_AT]], tf.int64),
            lambda: tf.constant(0, tf.int64),
        )
        with tf.control_dependencies([seen]):
            return tf.nest.map_structure(tf.identity, element)

    return dataset.enumerate().map(looked_at)


def first_images(element):
    """The images in an element of a dataset: its first tensor, or what a dictionary calls `image`.

    Args:
        element: Nest of tensors or of specs.

    Returns:
        A tensor or a spec; None if there is none.
    """
    while isinstance(element, (tuple, list, dict)):
        # Of a dictionary the images, of a tuple what comes first.
        element = element.get("image") if isinstance(element, dict) else next(iter(element), None)
    return element
