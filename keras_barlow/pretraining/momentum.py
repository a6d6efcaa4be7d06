"""Momentum copies: networks that follow the trained ones slowly and get no gradient."""

from keras_barlow import networks


def slow_copy(network, input_shape):
    """A copy of a network whose weights are not trained.

    Its layers stay trainable, so that batch normalization takes the moments of the batch.

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


def follow(slow, network, momentum):
    """Moves a slow copy: `t <- m t + (1 - m) w` for every trained weight. Its moving statistics are its own.

    Args:
        slow: What `slow_copy` returned.
        network: The network that is trained.
        momentum: m in [0, 1), a float or a scalar tensor.
    """
    for target, weight in zip(slow.weights, network.weights, strict=True):
        if weight.trainable:
            target.assign(momentum * target + (1.0 - momentum) * weight)
