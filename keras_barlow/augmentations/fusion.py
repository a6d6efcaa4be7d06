"""Fuses chains of operations into single kernels, and converts images to the layout in which they are fast."""

import functools

import keras
from keras import ops

from keras_barlow import tensorflow_internals


def fused(function):
    """Compiles a function of tensors with XLA into a single kernel.

    A view takes a hundred cheap operations per pixel. Without fusion, each of them reads and writes all images in main
    memory, which is 5 to 20 times slower on a CPU. Inside a function that XLA compiles anyway, such as a whole training
    step, the decorator has no effect. Backends other than TensorFlow have compilers of their own.

    Args:
        function: Pure function of tensors, with hashable Python values as keyword arguments.

    Returns:
        A function with the same arguments and results.
    """
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    compiled = tf.function(function, jit_compile=True, autograph=False)
    return functools.wraps(function)(tensorflow_internals.without_retracing_warning(compiled))


def to_planes(images):
    """Converts images `(batch, height, width, channels)` to planes `(batch, height, channels, width)`.

    A row of one channel is then contiguous in memory, as vector instructions need it. uint8 images stay uint8, which is
    four times faster to read; others become float32.
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
    """Converts planes `(batch, height, channels, width)` to float32 images `(batch, height, width, channels)`."""
    return ops.transpose(ops.cast(planes, "float32"), (0, 1, 3, 2))
