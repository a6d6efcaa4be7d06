"""Layers of Keras, of keras-cv and of users in the place of this library's."""

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
