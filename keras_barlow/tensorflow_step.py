"""The parts of a training step on TensorFlow that know no method: micro-batches, the optimizer, non-finite steps."""

import itertools
import math

import keras
import tensorflow as tf
from keras import ops

from keras_barlow import distribution, inputs


class BatchCounter:
    """How many batches a model was trained on.

    Optimizers count otherwise: under gradient accumulation and under a loss scale `iterations` stands still. The object
    keeps the variable out of the model's weights.

    Attributes:
        variable: int64 scalar `keras.Variable`.
    """

    def __init__(self):
        self.variable = keras.Variable(
            0, dtype="int64", trainable=False, aggregation="only_first_replica", name="batch_count"
        )


def micro_batches(model, x, step):
    """Splits a batch into micro-batches whose views are made only when they are asked for.

    Args:
        model: `BarlowTwins` with `accumulation_steps` above 1.
        x: Images, or a pair of views where the model draws none.
        step: Scalar integer tensor: which random numbers to take.

    Returns:
        A list of functions, one for each micro-batch. Each takes tensors to wait for, so that one micro-batch at a time
        is in memory, and returns the micro-batch's views.
    """
    if model.views is None:
        view_a, view_b = inputs.checked_pair(x, model.encoder)
        tensors, views_of = (inputs.checked_rows(view_a), view_b), lambda *views: views
    else:
        images = tf.nest.flatten(model.images_of(x))
        count_images = len(images)
        tensors = (*images, *model.views.draw(ops.shape(inputs.checked_rows(images[0]))[0], step))

        def views_of(*rows):
            return model.views.apply(rows[0] if count_images == 1 else rows[:2], rows[count_images:])

    count = model.accumulation_steps
    tensors = inputs.checked_micro_batches(tensors, count, model)
    rows = ops.shape(tensors[0])[0]
    bounds = [rows * index // count for index in range(count + 1)]

    def part(start, stop):
        def views(after):
            view_a, view_b = views_of(*distribution.rows_in_turn(tensors, start, stop - start, after))
            inputs.check_shapes(view_a, view_b)
            inputs.check_view_shape(view_a, model.encoder)
            return view_a, view_b

        return views

    return [part(*pair) for pair in itertools.pairwise(bounds)]


def accumulated(model, parts):
    """The step of the whole batch from micro-batches: embed all, one exact gradient, then back through each.

    Only embeddings are kept between micro-batches.

    Args:
        model: `BarlowTwins`.
        parts: What `micro_batches` returned.

    Returns:
        The triple `(terms, gradients, penalty)`: the terms of the loss, this replica's gradient of the weights, and its
        share of the penalties or None.
    """
    state = [variable.value for variable in model.non_trainable_variables]
    before = [tf.identity(value) for value in state]
    embeddings = []
    for part in parts:
        embeddings.append(model._embed(part, after=embeddings[-1:])[0])
    views = [tf.concat(view, axis=0) for view in zip(*embeddings, strict=True)]
    terms, *by_embedding = model._value_and_gradient(*views)
    # The second pass repeats the first, and moving statistics move once.
    for variable, value in zip(state, before, strict=True):
        variable.assign(value)
    start, gradients, total = 0, None, None
    for part, (rows, *_) in zip(parts, embeddings, strict=True):
        stop = start + ops.shape(rows)[0]
        with tf.GradientTape() as tape:
            again, passes = model._embed(part, after=gradients or by_embedding)
            penalty = model._penalty(passes, views[0], len(parts), rows)
        more = model._carry_back(tape, again, [gradient[start:stop] for gradient in by_embedding], penalty)
        gradients = more if gradients is None else [a + b for a, b in zip(gradients, more, strict=True)]
        total = penalty if total is None else total + penalty
        start = stop
    return terms, gradients, total


def apply_gradients(optimizer, gradients, weights):
    """One update of the optimizer with the gradient of the global batch, whatever the optimizer does to it first.

    The optimizer sums the gradients of the replicas, but clips each of them before the sum. So where it clips, the
    first replica carries the sum and the others carry zeros: clipping acts on the gradient of the global batch.

    Args:
        optimizer: Keras optimizer.
        gradients: List of this replica's gradients, which add up over the replicas.
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


def undone_unless_finite(step, model):
    """Takes a training step and undoes it if its loss or its gradient is not finite on every replica.

    Under a loss scale only the loss counts: a gradient that overflows is left to the optimizer, which skips the update
    and lowers the scale. Undoing that would keep the scale too high for ever.

    Args:
        step: Function without arguments that returns `(terms, penalty, gradients)`.
        model: Compiled `keras.Model` whose variables the step changes.

    Returns:
        The triple `(terms, penalty, finite)`; `finite` is a scalar boolean tensor, the same on every replica.
    """
    kept = [variable.value for variable in (*model.variables, *model.optimizer.variables)]
    before = [tf.identity(value) for value in kept]
    terms, penalty, gradients = step()
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    finite = distribution.all_finite([terms.loss] if scaled else [terms.loss, *gradients])
    for variable, value in zip(kept, before, strict=True):
        variable.assign(tf.where(finite, variable, value))
    return terms, penalty, finite
