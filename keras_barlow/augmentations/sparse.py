"""Skips the images of a batch that a transform leaves unchanged, with static shapes."""

import math

from keras import ops


def apply_to_selected(transform, planes, transformation, probability):
    """Transforms the selected images of a batch and, if the probability is low, few others.

    The subset has a fixed size, so that shapes are static, as XLA needs: the expected number of selected images plus
    four standard deviations. About one batch in 30,000 has more; then the whole batch is transformed.

    Args:
        transform: Function of planes and their transformation that leaves images unchanged if they are not selected.
        planes: Tensor `(batch, height, channels, width)`.
        transformation: Dictionary of tensors with `batch` rows each, including the booleans `chosen`.
        probability: Probability that an image is selected.

    Returns:
        Float32 planes.
    """
    batch = planes.shape[0]
    capacity = batch and math.ceil(batch * probability + 4 * math.sqrt(batch * probability * (1 - probability)))
    if not capacity or 2 * capacity > batch:
        return transform(planes, transformation)
    chosen = transformation["chosen"]

    def transform_subset():
        _, rows = ops.top_k(ops.cast(chosen, "int32"), capacity, sorted=False)
        subset = {name: ops.take(values, rows, axis=0) for name, values in transformation.items()}
        return ops.scatter_update(planes, rows[:, None], transform(ops.take(planes, rows, axis=0), subset))

    def transform_all():
        return ops.cast(transform(planes, transformation), "float32")

    planes = ops.cast(planes, "float32")
    return ops.cond(ops.sum(ops.cast(chosen, "int32")) <= capacity, transform_subset, transform_all)
