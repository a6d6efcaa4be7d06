"""What networks add to the loss: weight regularizers, activity regularizers and `add_loss`.

A step runs on several replicas and in several micro-batches, and all their gradients are summed. Each part therefore
takes its share of a penalty, so that the shares add up to the penalty of the global batch:

- a weight regularizer is a function of the weights alone, the same in every part, and enters with `1 / parts`;
- `add_loss` is taken as a mean over the images of its part, and enters with the part's share of the rows. That is exact
  for a term that does not depend on the images, too;
- an activity regularizer is such a mean in recent versions of Keras. Older ones sum over the images, and the sum enters
  as it is.

Activity regularizers and `add_loss` count once for each forward pass, thus once for each view.
"""

import functools
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import ops


class PassPenalties(NamedTuple):
    """The penalties of one forward pass.

    Attributes:
        sums: Scalars that are sums over the images.
        means: Scalars that are means over the images.
    """

    sums: tuple = ()
    means: tuple = ()

    def __add__(self, other):
        return PassPenalties(self.sums + other.sums, self.means + other.means)


def of_pass(*networks):
    """The penalties of the forward pass that networks have just made.

    Keras keeps them until the network is called again, so this is read after each pass.

    Args:
        *networks: Layers and models; None is skipped.

    Returns:
        `PassPenalties`.

    Example:

    >>> layer = keras.layers.Dense(2, activity_regularizer="l2")
    >>> _ = layer(keras.ops.ones((4, 3)))
    >>> len(of_pass(layer).sums + of_pass(layer).means)
    1
    """
    sums, means, seen = [], [], set()
    for layer in (layer for network in networks if network is not None for layer in network._flatten_layers()):
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        (sums if layer.activity_regularizer is not None and _activities_are_summed() else means).extend(layer._losses)
    return PassPenalties(tuple(sums), tuple(means))


def own_share(passes, weights, parts, row_share):
    """This part's share of all penalties: the shares of all parts add up to the penalties of the global batch.

    Args:
        passes: `PassPenalties` of the part's forward passes, added up.
        weights: Trainable `keras.Variable`s, some of them with a `regularizer`.
        parts: Number of replicas times number of micro-batches.
        row_share: Function that gives the part's share of the rows of the global batch. It is called only if there
            are means.

    Returns:
        A float32 scalar (float64 for float64 penalties), or None if there are no penalties.
    """
    shares = [full_precision(variable.regularizer(variable)) / parts for variable in weights if variable.regularizer]
    shares += [full_precision(penalty) for penalty in passes.sums]
    if passes.means:
        share = row_share()
        shares += [full_precision(penalty) * ops.cast(share, full_precision(penalty).dtype) for penalty in passes.means]
    return sum(shares[1:], shares[0]) if shares else None


@functools.cache
def _activities_are_summed():
    """Whether this version of Keras sums an activity regularizer over the images, or divides by their number."""
    with tf.init_scope():
        layer = keras.layers.ActivityRegularization(l2=1.0, dtype="float32")
        layer(np.ones((2, 1), "float32"))
        return float(layer.losses[0]) > 1.5


def full_precision(x):
    """The tensor in float32, or in float64 where it is.

    Args:
        x: Float tensor.

    Returns:
        A tensor of the same shape.
    """
    return ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
