"""One exact training step on JAX, with the functions of `tensorflow_step`. It knows no method.

A program is written for the global batch, so the loss of the embeddings is that of the whole batch by construction.
`pure` turns a step that assigns variables into a pure function: a `keras.StatelessScope` records the assignments. A
forward pass that is differentiated has a separate scope, and returns its assignments as values.
"""

import itertools
import operator
from typing import NamedTuple

import jax
import keras
from keras import ops

from keras_barlow import distribution
from keras_barlow.pretraining import penalties
from keras_barlow.pretraining.update import Update


class Parts(NamedTuple):
    """Micro-batches.

    Attributes:
        tensors: List of tensors with one row per image.
        count: Number of micro-batches.
        views_of: Function from a list of rows of these tensors to a tuple of views.
    """

    tensors: list
    count: int
    views_of: object


def pure(step, groups, values):
    """Calls a step that assigns variables as a pure function of their values.

    Args:
        step: Function without arguments.
        groups: List of lists of `keras.Variable`s.
        values: Their values, in the same nesting.

    Returns:
        The pair of the result of `step` and the values after it.
    """
    variables, before = _flat(groups), _flat(values)
    with keras.StatelessScope(state_mapping=list(zip(variables, before, strict=True))) as scope:
        result = step()
    after = iter(_current(scope, variables, before))
    return result, tuple([next(after) for _ in group] for group in groups)


def whole_batch(views, embed, compare, weights, scale_loss, state):
    """The update from one pass over the batch.

    Args:
        views: Tuple of tensors `(N, height, width, channels)`.
        embed: See `tensorflow_step.whole_batch`.
        compare: See `tensorflow_step.whole_batch`.
        weights: List of trainable `keras.Variable`s.
        scale_loss: Function of a gradient of the loss, `optimizer.scale_loss`.
        state: List of `keras.Variable`s that a forward pass changes.

    Returns:
        An `Update`.
    """
    forward = _forward(embed, weights, state)
    values = [weight.value for weight in weights]
    (embeddings, penalty), carry_back, after = jax.vjp(
        lambda values: forward(values, [variable.value for variable in state], views), values, has_aux=True
    )
    terms, *slopes = compare(embeddings)
    (gradients,) = carry_back(_upstream(embeddings, slopes, penalty, scale_loss))
    _assign(state, after)
    return Update(terms, gradients, penalty, embeddings)


def micro_batches(tensors, count, views_of):
    """Splits a batch into micro-batches whose views are computed one micro-batch at a time.

    Args:
        tensors: List of tensors with one row per image: images, and the random numbers of their views.
        count: Number of micro-batches.
        views_of: Function from a list of such tensors to a tuple of views.

    Returns:
        `Parts`.
    """
    return Parts(list(tensors), count, views_of)


def accumulated(parts, embed, compare, weights, scale_loss, state):
    """The update of the whole batch from micro-batches: embed all, one exact gradient, then back through each.

    If the micro-batches have the same size, they are the iterations of a loop in the program, which has the size and
    the memory of one of them.

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
    values, before = ([variable.value for variable in group] for group in (weights, state))
    forward = _forward(embed, weights, state, parts.count, parts.tensors[0].shape[0])
    penalties_found = []

    def first_pass(state_values, rows):
        (embeddings, penalty), after = forward(values, state_values, parts.views_of(rows))
        penalties_found.append(penalty)
        return after, embeddings

    def second_pass(carried, rows_and_slopes):
        (rows, slopes), (state_values, total, summed) = rows_and_slopes, carried
        (embeddings, penalty), carry_back, after = jax.vjp(
            lambda values: forward(values, state_values, parts.views_of(rows)), values, has_aux=True
        )
        (gradients,) = carry_back(_upstream(embeddings, slopes, penalty, scale_loss))
        total = None if penalty is None else total + penalty
        return (after, total, [a + b for a, b in zip(summed, gradients, strict=True)]), ()

    loop = _scan if parts.tensors[0].shape[0] % parts.count == 0 else _unrolled
    _, embeddings = loop(first_pass, before, parts.tensors, parts.count)
    terms, *slopes = compare(embeddings)
    # The second pass repeats the first, and moving statistics move once.
    total = None if penalties_found[0] is None else ops.zeros((), penalties_found[0].dtype)
    start = before, total, [ops.zeros_like(value) for value in values]
    (after, total, gradients), _ = loop(second_pass, start, (parts.tensors, slopes), parts.count)
    _assign(state, after)
    return Update(terms, gradients, total, embeddings)


def value_and_gradient(loss, embeddings, constants):
    """The terms and gradients of a loss.

    Args:
        loss: `losses.Loss`.
        embeddings: Tuple of tensors `(N, D)`.
        constants: Dictionary of the other tensors that the loss takes.

    Returns:
        The tuple `(terms, *gradients)`, see `losses.Loss.value_and_gradient`.
    """
    return loss.value_and_gradient(*embeddings, total_rows=embeddings[0].shape[0], **constants)


def own_penalty(passes, weights, batch):
    """The penalties of a batch, see `tensorflow_step.own_penalty`."""
    return penalties.own_share(passes, weights, 1, lambda: 1.0)


def apply_gradients(optimizer, gradients, weights):
    """Updates the weights.

    Args:
        optimizer: Keras optimizer.
        gradients: List of the gradients of the weights.
        weights: List of `keras.Variable`s.
    """
    own = optimizer.variables
    # `apply` of an optimizer with a loss scale assigns variables in a branch, which only this form gives back.
    after_weights, after_own = optimizer.stateless_apply(
        [variable.value for variable in own], gradients, [weight.value for weight in weights]
    )
    _assign([*weights, *own], [*after_weights, *after_own])


def undone_unless_finite(step, variables, scaled):
    """Takes a training step, and undoes it unless loss and gradient are finite, see `tensorflow_step`."""
    before = [variable.value for variable in variables]
    update = step()
    checked = [update.terms["loss"]] if scaled else [update.terms["loss"], *update.gradients]
    finite = distribution.all_finite(checked)
    _assign(variables, [ops.where(finite, new.value, old) for new, old in zip(variables, before, strict=True)])
    return update, finite


def _forward(embed, weights, state, parts=1, total=None):
    """A pure function from the values of weights and state, and views, to embeddings and penalty, and the new state."""

    def forward(values, state_values, views):
        mapping = list(zip([*weights, *state], [*values, *state_values], strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            embeddings, passes = embed(views)
            rows = embeddings[0].shape[0]
            penalty = penalties.own_share(passes, weights, parts, lambda: rows / (total or rows))
        return (embeddings, penalty), _current(scope, state, state_values)

    return forward


def _upstream(embeddings, slopes, penalty, scale_loss):
    """The gradient that is carried back, in the nesting of the result of `_forward`."""
    slopes = [scale_loss(ops.cast(slope, z.dtype)) for slope, z in zip(slopes, embeddings, strict=True)]
    return tuple(slopes), None if penalty is None else scale_loss(ops.ones_like(penalty))


def _scan(body, carried, rows, count):
    split = jax.tree.map(lambda tensor: ops.reshape(tensor, (count, -1, *tensor.shape[1:])), rows)
    carried, results = jax.lax.scan(body, carried, split)
    return carried, jax.tree.map(lambda result: ops.reshape(result, (-1, *result.shape[2:])), results)


def _unrolled(body, carried, rows, count):
    size = jax.tree.leaves(rows)[0].shape[0]
    results = []
    for start, stop in itertools.pairwise(size * index // count for index in range(count + 1)):
        own = slice(start, stop)
        carried, result = body(carried, jax.tree.map(operator.itemgetter(own), rows))
        results.append(result)
    return carried, jax.tree.map(lambda *parts: ops.concatenate(parts), *results)


def _flat(groups):
    return list(itertools.chain.from_iterable(groups))


def _current(scope, variables, before):
    """The values of variables at the end of a scope."""
    after = [scope.get_current_value(variable) for variable in variables]
    return [old if new is None else new for new, old in zip(after, before, strict=True)]


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
