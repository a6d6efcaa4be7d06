"""Layers of Keras and keras-cv among this library's."""

import inspect

import numpy as np
import tensorflow as tf

# A layer that draws once for a whole batch may draw the same number by chance, but not so often.
_TRIALS = 8


def call_foreign(layer, images, training):
    """Calls a layer of another library on a batch of images.

    Args:
        layer: Keras layer from images to images.
        images: Float tensor `(batch, height, width, channels)` on 0..255.
        training: Python boolean.

    Returns:
        What the layer returns.
    """
    # keras-cv's pipelines take no `training`.
    flag = {"training": training} if "training" in inspect.signature(layer.call).parameters else {}
    if tf.executing_eagerly():
        return layer(images, **flag)
    # keras-cv branches on tensors in Python. Keras switches AutoGraph off in the training step; a function of its own
    # has it on.
    return tf.function(lambda x: layer(x, **flag))(images)


def check_repeatable(layers, image_shape):
    """Refuses layers that draw other numbers when their variables are set back.

    Micro-batches are drawn twice, and both passes must see the same views. Keras' layers draw from a
    `keras.random.SeedGenerator`, whose state is a variable; those of keras-cv 0.9 do not. So each layer is tried.

    Args:
        layers: Keras layers from images to images.
        image_shape: `(height, width, channels)` of the images to try them on; None for an unknown size.

    Raises:
        ValueError: If a layer does not repeat its draws.
    """
    shape = [size or default for size, default in zip(image_shape, (32, 32, 3), strict=True)]
    images = np.random.default_rng(0).uniform(0, 255, (16, *shape)).astype("float32")
    for layer in layers:
        # Some layers make their generator in the first call.
        call_foreign(layer, images, True)
        state = [(variable, np.asarray(variable)) for variable in layer.variables]
        seen = []
        for _ in range(_TRIALS):
            for variable, value in state:
                variable.assign(value)
            seen.append(np.asarray(call_foreign(layer, images, True)))
        if not all(np.array_equal(seen[0], again) for again in seen[1:]):
            raise ValueError(
                "With accumulation_steps > 1 every layer of the views must repeat its draws in a second pass, from a "
                f"keras.random.SeedGenerator. Received: {type(layer).__module__}.{type(layer).__name__}, which drew "
                "other numbers. Use the layer of this name in keras.layers or keras_barlow.augmentations, or "
                "accumulation_steps=1."
            )
