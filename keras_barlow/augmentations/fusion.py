"""One kernel where TensorFlow would run one for each operation, and the layout in which they are fast."""

import functools

import keras
from keras import ops

from keras_barlow import keras_internals


def fused(function):
    """Has XLA make one kernel of a function of tensors.

    The arithmetic of a view is a hundred cheap operations per pixel. Run one by one, each reads and writes every image
    in main memory: 5 to 20 times as slow on a CPU. Inside a function that XLA compiles anyway, such as a whole training
    step, it changes nothing. Backends other than TensorFlow compile by themselves.

    Args:
        function: Pure function of tensors, and of hashable Python values given by keyword.

    Returns:
        A function with the same arguments and results.
    """
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    compiled = tf.function(function, jit_compile=True, autograph=False)
    return functools.wraps(function)(keras_internals.without_retracing_warning(compiled))


def to_planes(images):
    """Images `(batch, height, width, channels)` as rows of planes, `(batch, height, channels, width)`.

    A row of one colour then lies in one piece, which is what vector instructions want. uint8 stays uint8, four times as
    fast to read; all else becomes float32.
    """
    images = ops.convert_to_tensor(images)
    if keras.backend.standardize_dtype(images.dtype) != "uint8":
        images = ops.cast(images, "float32")
    return _transposed(images)


@fused
def _transposed(images):
    return ops.transpose(images, (0, 1, 3, 2))


@fused
def to_images(planes):
    """Planes `(batch, height, channels, width)` as float32 images `(batch, height, width, channels)`."""
    return ops.transpose(ops.cast(planes, "float32"), (0, 1, 3, 2))
