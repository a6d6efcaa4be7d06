"""Terms that networks add to the loss: weight regularizers, activity regularizers and `add_loss`.

A step may run on several replicas and in several micro-batches, whose gradients are summed. Each part adds its share of
a penalty, so that the shares sum to the penalty of the global batch:

- a weight regularizer depends on the weights alone. Its share is `1 / parts`;
- `add_loss` is treated as a mean over the images of the part. Its share is the part's fraction of the rows, which is
  also exact for a term that does not depend on the images;
- an activity regularizer is a mean over images in recent versions of Keras. Older versions sum over images, and the sum
  is added as it is.

Activity regularizers and `add_loss` are added once per forward pass, that is, once per view.
"""

import functools
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_barlow import engine, keras_internals


class PassPenalties(NamedTuple):
    """The penalties of one forward pass.

    Attributes:
        sums: Scalars that are sums over the images.
        means: Scalars that are means over the images.
    """

    sums: tuple = ()
    means: tuple = ()


class Recorder:
    """Collects the penalties of the forward passes that a step makes.

    Keras keeps the penalties of a pass until the network is called again, so they are read after each call.

    Example:

    >>> layer, recorder = keras.layers.Dense(2, activity_regularizer="l2"), Recorder()
    >>> with recorder as passes:
    ...     for _ in range(2):
    ...         _ = recorder.call(layer, keras.ops.ones((4, 3)), training=True)
    >>> len(passes)
    2
    """

    def __init__(self):
        self._passes = None

    def __enter__(self):
        self._passes = []
        return self._passes

    def __exit__(self, *error):
        self._passes = None

    def call(self, network, inputs, training):
        """Calls a network, and collects its penalties if a step is recording.

        Args:
            network: Keras layer or model.
            inputs: Its inputs.
            training: Python boolean.

        Returns:
            Its outputs.
        """
        outputs = network(inputs, training=training)
        if self._passes is not None:
            self._passes.append(of_pass(network))
        return outputs


def of_pass(network):
    """The penalties of the forward pass that a network has just made.

    Args:
        network: Keras layer or model.

    Returns:
        `PassPenalties`.
    """
    sums, means = [], []
    for layer in keras_internals.flat_layers(network):
        summed = layer.activity_regularizer is not None and _activities_are_summed()
        (sums if summed else means).extend(keras_internals.losses_of_last_call(layer))
    return PassPenalties(tuple(sums), tuple(means))


def own_share(passes, weights, parts, row_share):
    """This part's share of all penalties. The shares of all parts sum to the penalties of the global batch.

    Args:
        passes: List of `PassPenalties`, one per forward pass of the part.
        weights: Trainable `keras.Variable`s, some of them with a `regularizer`.
        parts: Number of replicas times number of micro-batches.
        row_share: Function that returns the part's fraction of the rows of the global batch. It is called only if
            there are means.

    Returns:
        A float32 scalar (float64 for float64 penalties), or None if there are no penalties.
    """
    shares = [full_precision(variable.regularizer(variable)) / parts for variable in weights if variable.regularizer]
    shares += [full_precision(penalty) for one in passes for penalty in one.sums]
    means = [full_precision(penalty) for one in passes for penalty in one.means]
    if means:
        share = row_share()
        shares += [penalty * ops.cast(share, penalty.dtype) for penalty in means]
    return sum(shares[1:], shares[0]) if shares else None


@functools.cache
def _activities_are_summed():
    """Whether this version of Keras sums an activity regularizer over images instead of averaging it."""
    with engine.outside_of_graphs():
        layer = keras.layers.ActivityRegularization(l2=1.0, dtype="float32")
        layer(np.ones((2, 1), "float32"))
        return float(layer.losses[0]) > 1.5


def full_precision(x):
    """Casts a tensor to float32. A float64 tensor is returned as it is.

    Args:
        x: Float tensor.

    Returns:
        A tensor of the same shape.
    """
    return ops.cast(x, engine.full_precision(x.dtype))
