"""Calls image layers of Keras, keras-cv and users, which can replace this library's transforms."""

import inspect

import numpy as np

from keras_barlow import engine

# A layer that draws one number for the whole batch may repeat it by chance, but not this many times.
_TRIALS = 8


def call_foreign(layer, images, training):
    """Calls a layer of another library on a batch of images.

    Args:
        layer: Keras layer that maps images to images.
        images: Float tensor `(batch, height, width, channels)` on 0..255.
        training: Python boolean, passed to the layer if its `call` accepts it.

    Returns:
        The layer's output.
    """
    # keras-cv's pipelines do not accept `training`.
    flag = {"training": training} if "training" in inspect.signature(layer.call).parameters else {}
    return engine.with_branches(lambda x: layer(x, **flag))(images)


def check_repeatable(layers, image_shape):
    """Checks that layers repeat their random numbers when their variables are restored.

    The views of a micro-batch are drawn twice and must be the same in both passes. Keras layers draw from a
    `keras.random.SeedGenerator`, whose state is a variable, but the layers of keras-cv 0.9 do not, so every layer is
    tried out.

    Args:
        layers: Keras layers that map images to images.
        image_shape: Shape `(height, width, channels)` of the trial images; each may be None if it is unknown.

    Raises:
        ValueError: If a layer does not repeat its random numbers.
    """
    shape = [size or default for size, default in zip(image_shape, (32, 32, 3), strict=True)]
    images = np.random.default_rng(0).uniform(0, 255, (16, *shape)).astype("float32")
    for layer in layers:
        # Some layers create their generator in the first call.
        call_foreign(layer, images, True)
        state = [(variable, np.asarray(variable)) for variable in layer.variables]
        outputs = []
        for _ in range(_TRIALS):
            for variable, value in state:
                variable.assign(value)
            outputs.append(np.asarray(call_foreign(layer, images, True)))
        if not all(np.array_equal(outputs[0], output) for output in outputs[1:]):
            raise ValueError(
                "With accumulation_steps > 1 every layer of the views must repeat its random numbers in a second pass, "
                "by drawing them from a keras.random.SeedGenerator. "
                f"Received: {type(layer).__module__}.{type(layer).__name__}, which drew different numbers. Use the "
                "layer of this name in keras.layers or keras_barlow.augmentations, or accumulation_steps=1."
            )


def drawn(views, images, step):
    """Draws the views of a batch with the views layer of a model, which may be a custom layer.

    Args:
        views: `Views`, or a layer that maps images to a tuple of views. Its `call` receives `training` and `step` if it
            accepts them.
        images: Float or uint8 tensor `(batch, height, width, channels)` on 0..255, or a pair of crops.
        step: Number of the training step, an integer or a scalar integer tensor.

    Returns:
        A tuple of at least two views.

    Raises:
        ValueError: If the layer does not return at least two views.
    """
    parameters = inspect.signature(getattr(views, "call", views)).parameters.values()
    takes_kwargs = any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters)
    names = {parameter.name for parameter in parameters}
    options = {"training": True, "step": step}
    result = views(images, **{name: value for name, value in options.items() if takes_kwargs or name in names})
    if not isinstance(result, (tuple, list)) or len(result) < 2:
        received = f"{len(result)} view(s)" if isinstance(result, (tuple, list)) else type(result).__name__
        raise ValueError(
            "`views` must return a tuple of at least two views of a batch of images, such as the pair "
            f"(view_a, view_b). Received: {received} from {views!r}. Return view_a, view_b from its `call`."
        )
    return tuple(result)
