"""One exact training step on TensorFlow. It knows no method: what it needs is passed in.

1. `embed` computes the embeddings of this replica's rows, one forward pass per view, under a tape;
2. `compare` gives the terms of the loss and the exact gradient of the embeddings, from the rows of all replicas
   (`losses.Loss`);
3. the tape carries that gradient back to the weights, and the optimizer sums over replicas.
"""

import itertools
import math

import keras
import tensorflow as tf
from keras import ops

from keras_barlow import distribution
from keras_barlow.distribution import replicas
from keras_barlow.pretraining import penalties
from keras_barlow.pretraining.update import Update


def whole_batch(views, embed, compare, weights, scale_loss, state):
    """The update from one pass over the batch.

    Args:
        views: Tuple of tensors `(n, height, width, channels)`: this replica's rows of each view.
        embed: Function from views to `(embeddings, passes)`: a tuple of tensors `(n, D)` in full precision, and a list
            of `penalties.PassPenalties`.
        compare: Function from embeddings to `(terms, *gradients)`, see `losses.Loss.value_and_gradient`.
        weights: List of trainable `keras.Variable`s.
        scale_loss: Function of a gradient of the loss, `optimizer.scale_loss`.
        state: List of `keras.Variable`s that a forward pass changes.

    Returns:
        An `Update`.
    """
    with tf.GradientTape() as tape:
        embeddings, passes = embed(views)
        penalty = own_penalty(passes, weights, embeddings[0])
    terms, *slopes = compare(embeddings)
    gradients = _carry_back(tape, embeddings, slopes, penalty, weights, scale_loss)
    return Update(terms, gradients, penalty, embeddings)


def micro_batches(tensors, count, views_of):
    """Splits a batch into micro-batches whose views are computed on demand.

    Args:
        tensors: List of tensors with one row per image: images, and the random numbers of their views.
        count: Number of micro-batches.
        views_of: Function from a list of such tensors to a tuple of views.

    Returns:
        A list of functions. Each takes tensors to wait for, so that only one micro-batch is in memory, and returns the
        views of its micro-batch.
    """
    rows = ops.shape(tensors[0])[0]
    bounds = [rows * index // count for index in range(count + 1)]

    def part(start, stop):
        return lambda after: views_of(replicas.rows_after(tensors, start, stop - start, after))

    return [part(*pair) for pair in itertools.pairwise(bounds)]


def accumulated(parts, embed, compare, weights, scale_loss, state):
    """The update of the whole batch from micro-batches: embed all, one exact gradient, then back through each.

    Only embeddings are kept between micro-batches.

    Args:
        parts: What `micro_batches` returned.
        embed: See `whole_batch`.
        compare: See `whole_batch`.
        weights: See `whole_batch`.
        scale_loss: See `whole_batch`.
        state: See `whole_batch`.

    Returns:
        An `Update`.
    """
    restore = snapshot(state)
    embeddings = []
    for part in parts:
        embeddings.append(embed(part(embeddings[-1:]))[0])
    whole = tuple(tf.concat(view, axis=0) for view in zip(*embeddings, strict=True))
    terms, *slopes = compare(whole)
    # The second pass repeats the first, and moving statistics move once.
    restore()
    start, gradients, total = 0, None, None
    for part, (rows, *_) in zip(parts, embeddings, strict=True):
        stop = start + ops.shape(rows)[0]
        with tf.GradientTape() as tape:
            again, passes = embed(part(gradients or slopes))
            penalty = own_penalty(passes, weights, whole[0], rows, len(parts))
        more = _carry_back(tape, again, [slope[start:stop] for slope in slopes], penalty, weights, scale_loss)
        gradients = more if gradients is None else [a + b for a, b in zip(gradients, more, strict=True)]
        total = penalty if total is None else total + penalty
        start = stop
    return Update(terms, gradients, total, whole)


def value_and_gradient(loss, embeddings, constants):
    """The terms and gradients of a loss, with the static size of the global batch if it is known.

    Args:
        loss: `losses.Loss`.
        embeddings: Tuple of tensors `(n, D)`, this replica's rows.
        constants: Dictionary of the other tensors that the loss takes.

    Returns:
        The tuple `(terms, *gradients)`, see `losses.Loss.value_and_gradient`.
    """
    # `fit` gives all replicas the same number of rows.
    rows = embeddings[0].shape[0]
    total_rows = None if rows is None else rows * distribution.replica_count()
    return loss.value_and_gradient(*embeddings, total_rows=total_rows, **constants)


def own_penalty(passes, weights, batch, part=None, parts=1):
    """The share of the penalties of this replica, or of one of its micro-batches.

    Args:
        passes: List of `penalties.PassPenalties`.
        weights: List of trainable `keras.Variable`s.
        batch: Tensor with this replica's rows.
        part: Tensor with the rows of the micro-batch; None for the whole batch.
        parts: Number of micro-batches.

    Returns:
        A scalar, or None if there are no penalties.
    """

    def row_share():
        _, total = distribution.own_rows(ops.shape(batch)[0])
        return ops.cast(ops.shape(batch if part is None else part)[0], "float64") / ops.cast(total, "float64")

    return penalties.own_share(passes, weights, parts * distribution.replica_count(), row_share)


def _carry_back(tape, embeddings, slopes, penalty, weights, scale_loss):
    """The gradient of the weights, from the gradient of the embeddings."""
    targets = [*embeddings] if penalty is None else [*embeddings, penalty]
    slopes = [*slopes] if penalty is None else [*slopes, ops.ones_like(penalty)]
    return tape.gradient(
        targets,
        [weight.value for weight in weights],
        output_gradients=[scale_loss(slope) for slope in slopes],
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )


def apply_gradients(optimizer, gradients, weights):
    """Updates the weights with the gradient of the global batch.

    Keras' optimizers sum the gradients of the replicas, but clip each of them first. If the optimizer clips, the first
    replica passes the sum and the others pass zeros, so that the gradient of the global batch is clipped.

    Args:
        optimizer: Keras optimizer.
        gradients: List of this replica's gradients, which sum to the gradient of the global batch.
        weights: List of `keras.Variable`s.
    """
    if distribution.replica_count() > 1:
        if clips(optimizer):
            gradients = [distribution.sum_on_first_replica(gradient) for gradient in gradients]
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            # Keras checks only replica 0 for overflow, so share the flag across replicas.
            finite = distribution.all_finite(gradients)
            gradients = [tf.where(finite, gradient, math.inf) for gradient in gradients]
    optimizer.apply(gradients, weights)


def clips(optimizer):
    """Whether an optimizer clips gradients.

    Args:
        optimizer: Keras optimizer.

    Returns:
        A Python boolean.

    Example:

    >>> clips(keras.optimizers.SGD(0.1)), clips(keras.optimizers.SGD(0.1, clipnorm=1.0))
    (False, True)
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return any(getattr(inner, name, None) is not None for name in ("clipnorm", "global_clipnorm", "clipvalue"))


def undone_unless_finite(step, variables, scaled):
    """Takes a training step, and undoes it unless loss and gradient are finite on every replica.

    With a loss scale only the loss is checked. If the gradient overflows, the optimizer skips the update and lowers the
    scale; undoing that would keep the scale too high forever.

    Args:
        step: Function without arguments that returns an `Update`.
        variables: List of all `keras.Variable`s that the step changes.
        scaled: Whether the optimizer has a loss scale.

    Returns:
        The pair `(update, finite)`; `finite` is a scalar boolean tensor, the same on every replica.
    """
    restore = snapshot(variables)
    update = step()
    loss = update.terms["loss"]
    finite = distribution.all_finite([loss] if scaled else [loss, *update.gradients])
    restore(unless=finite)
    return update, finite


def snapshot(variables):
    """Remembers the values of variables.

    Args:
        variables: List of `keras.Variable`s.

    Returns:
        A function that restores them. With a scalar boolean tensor `unless`, they are restored only if it is False.
    """
    values = [variable.value for variable in variables]
    before = [tf.identity(value) for value in values]

    def restore(unless=None):
        for value, old in zip(values, before, strict=True):
            value.assign(old if unless is None else tf.where(unless, value, old))

    return restore
