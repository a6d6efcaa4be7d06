"""Cosine similarities as pure functions on `keras.ops`, for the losses that compare directions."""

from keras import ops

# Far below the square of any norm that training produces.
_SMALLEST_SQUARED_NORM = 1e-12


def l2_normalized(x, axis=-1):
    """Scales vectors to length 1. A vector of zeros stays zero, with a finite gradient.

    Args:
        x: Float tensor.
        axis: Axis of the vectors.

    Returns:
        Tensor of the same shape.

    Example:

    >>> [round(float(value), 3) for value in l2_normalized(ops.array([3.0, 4.0]))]
    [0.6, 0.8]
    """
    squared_norm = ops.sum(ops.square(x), axis=axis, keepdims=True)
    return x * ops.rsqrt(ops.maximum(squared_norm, _SMALLEST_SQUARED_NORM))


def cosine(a, b):
    """The mean cosine of the rows of two tensors.

    Args:
        a: Float tensor `(N, D)`.
        b: Float tensor `(N, D)`.

    Returns:
        A scalar in [-1, 1].
    """
    return ops.mean(ops.sum(l2_normalized(a) * l2_normalized(b), axis=1))


def swapped_pairs(views, targets):
    """The pairs `(view, target)` of different views that a swapped loss averages over.

    Args:
        views: Number of views, at least 2.
        targets: Number of views that give a target. They come first.

    Returns:
        A list of pairs of indices.

    Example:

    >>> swapped_pairs(2, 2), swapped_pairs(3, 2)
    ([(1, 0), (0, 1)], [(1, 0), (2, 0), (0, 1), (2, 1)])
    """
    return [(view, target) for target in range(targets) for view in range(views) if view != target]


def swapped_cosine(predictions, targets):
    """The mean cosine of the prediction of each view and the target of each other view.

    Args:
        predictions: List of float tensors `(N, D)`, one per view.
        targets: List of float tensors `(N, D)`, one for each of the first views.

    Returns:
        A scalar in [-1, 1].
    """
    pairs = swapped_pairs(len(predictions), len(targets))
    return sum(cosine(predictions[view], targets[target]) for view, target in pairs) / len(pairs)


def checked_predictions(z):
    """The arguments of a loss of predictions and targets, if there are enough.

    Args:
        z: Sequence of tensors: at least two predictions, and two targets.

    Returns:
        `z`.

    Raises:
        ValueError: If there are fewer than four.
    """
    if len(z) < 4:
        raise ValueError(
            "The loss takes the predictions of at least two views and the targets of the first two. "
            f"Received: {len(z)} tensors. Call it as loss(p_a, p_b, t_a, t_b)."
        )
    return z


def checked_temperature(temperature):
    """The temperature, if it is positive.

    Args:
        temperature: A float.

    Returns:
        `temperature`.

    Raises:
        ValueError: If it is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"`temperature` must be positive. Received: temperature={temperature}")
    return temperature
