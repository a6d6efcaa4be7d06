"""The one module that names `tf.distribute`, and the gradient contract.

The loss of Barlow Twins is a function of the WHOLE global batch: its standardisation and its
cross-correlation see every replica's rows. A training step therefore keeps three things apart:

1. forward: each replica computes its embeddings `z_a, z_b` under the tape, one pass per view;
2. loss: each replica gathers all rows and computes the value, which is the same everywhere, and its exact
   gradient with respect to its OWN rows, `dz_a, dz_b`, with plain arithmetic (`losses`). No collective is
   ever differentiated, so there is no factor of the replica count to get wrong;
3. backward: each replica carries its `dz` to the weights, and the optimizer SUMS over replicas. That sum
   is the gradient of the single-device run on the global batch. Whatever every replica adds on its own,
   weight regularisers for example, enters with weight `1 / replica_count()`.

Rows per replica may differ: offsets come from gathered sizes. The helpers below are identities on one
replica, with no collective behind them.
"""

import tensorflow as tf


def replica_count():
    """Number of replicas of the strategy in scope, 1 without one.

    Returns:
        A Python integer.

    Example:

    >>> replica_count()
    1
    """
    return tf.distribute.get_strategy().num_replicas_in_sync


def compiling_pays(model):
    """Whether XLA around the whole step helps: one replica on an accelerator.

    On the CPU it makes this step slower (its matrix products and convolutions are not TensorFlow's), and
    with several replicas it fails on the collectives.

    Args:
        model: The `keras.Model` that is to be compiled.

    Returns:
        A Python boolean.
    """
    strategy = model.distribute_strategy
    accelerators = tf.config.list_logical_devices("GPU") + tf.config.list_logical_devices("TPU")
    return bool(accelerators) and strategy.num_replicas_in_sync == 1


def gather_rows(x):
    """All replicas' rows of `x`, in replica order. Not differentiable across replicas, by contract.

    Args:
        x: Tensor `(n, ...)`; `n` may differ between replicas.

    Returns:
        Tensor `(N, ...)`, the same on every replica.
    """
    context = _replica_context()
    if context is None:
        return x
    # The collective forgets the static shape of a row.
    return tf.ensure_shape(context.all_gather(tf.stop_gradient(x), axis=0), (None, *x.shape[1:]))


def sum_over_replicas(x):
    """The sum of `x` over the replicas.

    Args:
        x: Tensor of the same shape on every replica.

    Returns:
        Tensor of that shape, the same on every replica.
    """
    context = _replica_context()
    return x if context is None else context.all_reduce(tf.distribute.ReduceOp.SUM, x)


def own_rows(count):
    """Where this replica's rows lie in the global batch.

    Args:
        count: Number of rows on this replica, an integer or a scalar integer tensor.

    Returns:
        The pair `(offset, total)`.
    """
    context = _replica_context()
    if context is None:
        return 0, count
    counts = context.all_gather(tf.reshape(tf.cast(count, tf.int32), (1,)), axis=0)
    index = context.replica_id_in_sync_group
    return tf.reduce_sum(counts[:index]), tf.reduce_sum(counts)


def _replica_context():
    """The replica context where collectives are needed, else None (one replica, or outside of `run`)."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return None
    return context
