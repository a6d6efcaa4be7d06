"""Layers of Keras and keras-cv in the place of this library's."""

import inspect

import tensorflow as tf


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
