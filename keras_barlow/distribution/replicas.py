"""What happens inside a replica, and the gradient contract.

The loss of Barlow Twins is a function of the WHOLE global batch: its standardisation and its
cross-correlation see every replica's rows. A training step therefore keeps three things apart:

1. forward: each replica computes its embeddings `z_a, z_b` under the tape, one pass per view;
2. loss: the replicas gather their embeddings, or sum the cross-correlation matrix, whichever is cheaper. Each
   computes the value, which is the same everywhere, and its exact gradient with respect to its OWN rows,
   `dz_a, dz_b`, with plain arithmetic (`losses`). No collective is ever differentiated, so there is no factor
   of the replica count to get wrong;
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


def sum_on_first_replica(x):
    """The sum of `x` over the replicas on the first one, and zeros on the others.

    Args:
        x: Tensor of the same shape on every replica.

    Returns:
        Tensor of that shape.
    """
    context = _replica_context()
    if context is None:
        return x
    total = context.all_reduce(tf.distribute.ReduceOp.SUM, x)
    return tf.where(tf.equal(context.replica_id_in_sync_group, 0), total, tf.zeros_like(total))


def all_finite(tensors):
    """Whether every number of every tensor is finite on every replica.

    Args:
        tensors: List of float tensors.

    Returns:
        A scalar boolean tensor, the same on every replica.
    """
    broken = [tf.reduce_any(tf.logical_not(tf.math.is_finite(tensor))) for tensor in tensors]
    return tf.equal(sum_over_replicas(tf.cast(tf.reduce_any(broken), tf.float32)), 0.0)


def row_counts(count):
    """The numbers of rows of all replicas.

    Args:
        count: Number of rows on this replica, an integer or a scalar integer tensor.

    Returns:
        int32 tensor `(replicas,)`, the same on every replica.
    """
    own = tf.reshape(tf.cast(count, tf.int32), (1,))
    context = _replica_context()
    return own if context is None else context.all_gather(own, axis=0)


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
    if isinstance(context.strategy, tf.distribute.TPUStrategy):
        # Compiled for a TPU, every replica has the same number of rows, known while tracing.
        return context.replica_id_in_sync_group * count, context.num_replicas_in_sync * count
    counts = row_counts(count)
    return tf.reduce_sum(counts[: context.replica_id_in_sync_group]), tf.reduce_sum(counts)


def rows_after(tensors, start, count, after):
    """Some rows of tensors, not before other tensors are there: a graph would do all its micro-batches at once.

    The wait is one of data. `tf.control_dependencies` would say it better, but TensorFlow's optimizer of such
    dependencies (2.21) then lets an optimizer's update overtake the reading of a weight, about once in 20 steps.

    Args:
        tensors: List of tensors with the same number of rows.
        start: First row.
        count: Number of rows.
        after: Tensors to wait for, in any nesting.

    Returns:
        A list of tensors with `count` rows.
    """
    samples = [tf.reshape(tf.cast(tensor, tf.float32), (-1,))[:1] for tensor in tf.nest.flatten(after)]
    if samples:
        # Always 0, which no optimizer of graphs finds out.
        start += tf.minimum(tf.cast(tf.reduce_any(tf.math.is_nan(tf.concat(samples, axis=0))), tf.int32), 0)
    rows = []
    for tensor in map(tf.convert_to_tensor, tensors):
        others = [0] * (tensor.shape.rank - 1)
        some = tf.slice(tensor, [start, *others], [count, *(number - 1 for number in others)])
        rows.append(tf.ensure_shape(some, (count if isinstance(count, int) else None, *tensor.shape[1:])))
    return rows


def _replica_context():
    """The replica context where collectives are needed, else None (one replica, or outside of `run`)."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return None
    return context
