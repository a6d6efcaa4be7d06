"""How many images a batch may have, over all replicas, on each of them and in every micro-batch.

Each error states the rule, what was received and the remedy.
"""

import math
from typing import NamedTuple

import keras
import tensorflow as tf
from keras import ops

from keras_barlow import distribution, keras_internals


class RowLimits(NamedTuple):
    """How many images a batch of a method may have, over all replicas.

    Attributes:
        least: The smallest number.
        most: The largest number, or None.
        reason: Why, as the end of a sentence.
    """

    least: int = 2
    most: int | None = None
    reason: str = "the loss compares the images of a batch"

    def rule(self):
        """The rule as the beginning of an error message."""
        most = "" if self.most is None else f" and at most {self.most}"
        return f"A batch needs at least {self.least} images{most}, because {self.reason}. "


def checked_rows(view, limits):
    """Refuses a global batch of a wrong size: while tracing if the size is known, otherwise in the step."""
    rows = ops.shape(view)[0]
    _, total = distribution.own_rows(rows)
    if isinstance(total, int):
        _check_size(total, limits, f"images.shape={tuple(view.shape)}")
        return view
    remedy = "Use another batch size, or .batch(n, drop_remainder=True) if only the last batch is too small."
    most = tf.int32.max if limits.most is None else limits.most
    fits = tf.logical_and(total >= limits.least, total <= most)
    tf.debugging.assert_equal(fits, True, message=f"{limits.rule()}Received: another number. {remedy}")
    return view


def _check_size(rows, limits, received):
    if rows < limits.least or (limits.most is not None and rows > limits.most):
        raise ValueError(
            f"{limits.rule()}Received: {received}. Use a {'larger' if rows < limits.least else 'smaller'} batch."
        )


def check_even_rows(x, networks):
    """Refuses uneven rows on replicas if batch normalization is not synchronized.

    The moments of 3 rows and of 1 row are not those of the batch, and those of no rows are NaN.

    Args:
        x: Tensors with this replica's rows, in any nesting.
        networks: List of the networks that the step calls in training mode.
    """
    if distribution.replica_count() == 1 or all(layer.synchronized for layer in _trained_batch_norms(networks)):
        return
    counts = distribution.row_counts(ops.shape(tf.nest.flatten(x)[0])[0])
    tf.debugging.assert_equal(
        tf.reduce_min(counts),
        tf.reduce_max(counts),
        message="Batch normalization that is not synchronized needs the same number of images on every replica. "
        "Received: fewer images on one replica. Use synchronized=True for encoder, projector and predictor "
        "(layers.synchronize_batch_norm for another backbone), or a batch size that is divisible by the number of "
        "replicas, with drop_remainder=True.",
    )


def least_rows(networks):
    """The smallest number of images in a micro-batch: 2 with batch normalization, otherwise 1.

    Args:
        networks: List of the networks that the step calls in training mode.

    Returns:
        1 or 2.
    """
    shared = distribution.replica_count() > 1
    return 2 if any(not (shared and layer.synchronized) for layer in _trained_batch_norms(networks)) else 1


def checked_micro_batches(tensors, count, networks):
    """The tensors of a batch, if all its micro-batches have enough rows. A dynamic size is checked in the step."""
    rows, least = ops.shape(tensors[0])[0], least_rows(networks)
    rule = _micro_batch_rule(least, count)
    remedy = "Use a larger batch_size, or fewer accumulation_steps."
    if isinstance(rows, int):
        if rows < least * count:
            raise ValueError(f"{rule}{rows} images on this replica. {remedy}")
        return tensors
    remedy += " If only the last batch is too small, use .batch(n, drop_remainder=True)."
    check = tf.debugging.assert_greater_equal(rows, least * count, message=f"{rule}too few images. {remedy}")
    # Check before anything is computed: moving statistics would become NaN before the step fails.
    with tf.control_dependencies([check] if check is not None else []):
        return [tf.identity(tensor) for tensor in tensors]


def _micro_batch_rule(least, count):
    return (
        f"Every micro-batch needs at least {least} image{'s' * (least > 1)} on every replica. "
        f"Received: {count} micro-batches (accumulation_steps) for a batch of "
    )


def _trained_batch_norms(networks):
    """The batch normalization layers that use the moments of the batch."""
    layers = [layer for network in networks for layer in keras_internals.flat_layers(network)]
    return [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable]


def check_last_batch(x, batch_size, validation_split, model, training):
    """Refuses arrays whose batches would have too few or too many images, before training starts.

    Args:
        x: Array or nest of arrays.
        batch_size: Images per step.
        validation_split: Fraction of the images that `fit` keeps for validation.
        model: `JointEmbedding`.
        training: Whether the model will be trained. An evaluation has no micro-batches.
    """
    rows = next(array.shape[0] for array in tf.nest.flatten(x))
    trained = math.floor(rows * (1.0 - validation_split))
    check_rows(trained, batch_size, model)
    if trained < rows:
        check_rows(rows - trained, batch_size, model, training=False)


def check_rows(rows, batch_size, model, training=True):
    """Refuses a number of images whose batches would have too few or too many. See `check_last_batch`."""
    batch_size = batch_size or 32
    last = rows % batch_size or min(rows, batch_size)
    for size in {min(rows, batch_size), last}:
        received = f"{rows} images with batch_size={batch_size}, which leaves a batch of {size}"
        _check_size(size, model.row_limits, received)
    if not training or distribution.strategy_of(model).num_replicas_in_sync > 1:
        return
    least = least_rows(model.networks)
    if last < least * model.accumulation_steps:
        remedy = "Use a larger batch_size, or fewer accumulation_steps."
        if rows > batch_size:
            remedy += f" Or drop the last {last} of the {rows} images."
        raise ValueError(f"{_micro_batch_rule(least, model.accumulation_steps)}{last} images. {remedy}")
