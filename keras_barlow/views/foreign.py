"""Layers of Keras, of keras-cv and of users in the place of this library's."""

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


def drawn(views, images, step):
    """The two views of a batch by the views layer of a model, which may be a layer of the user's own.

    Args:
        views: `Views`, or a layer from images to a pair of views; it gets `training` and `step` if `call` takes them.
        images: Float or uint8 tensor `(batch, height, width, channels)` on 0..255, or a pair of crops.
        step: Integer or scalar integer tensor.

    Returns:
        The pair `(view_a, view_b)`.

    Raises:
        ValueError: If the layer gives anything else than two tensors.
    """
    parameters = inspect.signature(getattr(views, "call", views)).parameters.values()
    everything = any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters)
    names = {parameter.name for parameter in parameters}
    options = {"training": True, "step": step}
    pair = views(images, **{name: value for name, value in options.items() if everything or name in names})
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ValueError(
            "`views` must give a pair (view_a, view_b) for a batch of images. "
            f"Received: {len(pair) if isinstance(pair, (tuple, list)) else type(pair).__name__} from {views!r}. "
            "Let its `call` return view_a, view_b."
        )
    return pair
