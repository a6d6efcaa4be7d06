"""Momentum copies: networks that follow the trained ones slowly and get no gradient."""

import math

from keras import ops

from keras_barlow import networks
from keras_barlow.pretraining import checks


def slow_copies(encoder, projector):
    """Copies of encoder and projector whose weights are not trained.

    Their layers stay trainable, so that batch normalization takes the moments of the batch.

    Args:
        encoder: Built `keras.Model`.
        projector: Built Keras layer or model.

    Returns:
        A list of two.
    """
    return [slow_copy(encoder, encoder.input_shape), slow_copy(projector, encoder.output_shape)]


def slow_copy(network, input_shape):
    """A copy of a network whose weights are not trained, see `slow_copies`.

    Args:
        network: Built Keras layer or model.
        input_shape: Shape of its inputs, with None for the batch.

    Returns:
        A layer or model of the same class with equal weights.
    """
    copy = networks.copied(network, input_shape)
    for variable in copy.variables:
        variable.trainable = False
    return copy


def project(copies, images, training):
    """The embeddings of images by slow copies, without a gradient.

    Args:
        copies: What `slow_copies` returned.
        images: Float tensor `(batch, height, width, channels)` on 0..255.
        training: Python boolean.

    Returns:
        Tensor `(batch, D)`.
    """
    encoder, projector = copies
    return ops.stop_gradient(projector(encoder(images, training=training), training=training))


def checked_momentum(momentum, name):
    """The momentum, if it is in [0, 1).

    Args:
        momentum: A float.
        name: Name of the argument, for the error.

    Returns:
        `momentum`.

    Raises:
        ValueError: If it is outside.
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"`{name}` must be in [0, 1). Received: {name}={momentum}")
    return momentum


def checked_total_steps(total_steps):
    """The number of steps during which a momentum rises, if it is None or a positive integer.

    Args:
        total_steps: A number of steps, or None.

    Returns:
        A Python integer, or None.

    Raises:
        ValueError: If it is anything else.
    """
    return None if total_steps is None else checks.checked_count(total_steps, "total_steps", least=1)


def rising(start, step, total_steps):
    """The momentum of a step, which rises from `start` to 1 by a cosine.

        m = 1 - (1 - start) * (cos(pi * step / total_steps) + 1) / 2

    Args:
        start: Momentum of the first step, a float in [0, 1).
        step: Number of the step, a scalar integer tensor. After the last step the momentum stays 1.
        total_steps: Number of steps; None keeps the momentum constant.

    Returns:
        A float64 scalar, or `start` if it is constant.

    References:
        Grill et al.: Bootstrap Your Own Latent, NeurIPS 2020, section 3.3.
    """
    if total_steps is None:
        return start
    progress = ops.minimum(ops.cast(step, "float64") / total_steps, 1.0)
    return 1.0 - (1.0 - start) * (ops.cos(math.pi * progress) + 1.0) / 2.0


def follow(copies, trained, momentum):
    """Moves slow copies: `t <- m t + (1 - m) w` for every trained weight. Their moving statistics are their own.

    Args:
        copies: List of slow copies.
        trained: List of the networks that are trained.
        momentum: m, a float or a scalar tensor.
    """
    # In float64 first: Keras casts a Python float to float32 on its way to any other dtype.
    keep = ops.convert_to_tensor(momentum, "float64")
    for copy, network in zip(copies, trained, strict=True):
        for target, weight in zip(copy.weights, network.weights, strict=True):
            if weight.trainable:
                target.assign(ops.cast(keep, target.dtype) * target + ops.cast(1.0 - keep, target.dtype) * weight)
