"""Leaving out the work that most images of a batch do not need, with static shapes."""

import math

from keras import ops


def of_the_chosen(transform, planes, transformation, probability):
    """Transforms the chosen images of a batch and, where those are few, no more than a few others.

    Room is made for the expected number and four standard deviations more, so that shapes are static, also under XLA.
    Once in 30,000 batches there are more; then the whole batch is transformed.

    Args:
        transform: Function of planes and their transformation, which leaves the images alone that are not chosen.
        planes: Tensor `(batch, height, channels, width)`.
        transformation: Dictionary of tensors with `batch` rows each, among them the booleans `chosen`.
        probability: Of an image to be chosen.

    Returns:
        Float32 planes.
    """
    batch = planes.shape[0]
    room = batch and math.ceil(batch * probability + 4 * math.sqrt(batch * probability * (1 - probability)))
    if not room or 2 * room > batch:
        return transform(planes, transformation)
    chosen = transformation["chosen"]

    def few():
        _, rows = ops.top_k(ops.cast(chosen, "int32"), room, sorted=False)
        part = {name: ops.take(values, rows, axis=0) for name, values in transformation.items()}
        return ops.scatter_update(planes, rows[:, None], transform(ops.take(planes, rows, axis=0), part))

    planes = ops.cast(planes, "float32")
    return ops.cond(
        ops.sum(ops.cast(chosen, "int32")) <= room, few, lambda: ops.cast(transform(planes, transformation), "float32")
    )
