"""Collectives inside a replica, and the gradient contract.

The loss of Barlow Twins depends on the WHOLE global batch, because its standardization and its cross-correlation use
the rows of all replicas. A training step therefore has three separate parts:

1. Forward: each replica computes its embeddings `z_a, z_b` under the tape, with one pass per view.
2. Loss: the replicas gather their embeddings, or sum the cross-correlation matrix, whichever is cheaper. Each replica
   computes the value, which is the same everywhere, and the exact gradient `dz_a, dz_b` with respect to its OWN rows
   in plain arithmetic (`losses`). No collective is differentiated, so no factor of the replica count can go wrong.
3. Backward: each replica propagates its `dz` to the weights, and the optimizer SUMS the gradients over replicas. The
   sum equals the gradient of a single-device run on the global batch. Terms that every replica adds on its own, such
   as weight regularizers, are scaled by `1 / replica_count()`.

Replicas may have different numbers of rows, because offsets come from gathered sizes. On one replica, the functions
below are identities without collectives.
"""

import tensorflow as tf


def replica_count():
    """Returns the number of replicas of the strategy in scope, 1 without a strategy.

    Returns:
        A Python integer.

    Example:

    >>> replica_count()
    1
    """
    return tf.distribute.get_strategy().num_replicas_in_sync


def gather_rows(x):
    """Gathers the rows of `x` from all replicas, in replica order. Gradients do not cross replicas, by contract.

    Args:
        x: Tensor `(n, ...)`, where `n` may differ between replicas.

    Returns:
        Tensor `(N, ...)`, equal on all replicas.
    """
    context = _replica_context()
    if context is None:
        return x
    # The collective loses the static shape of a row.
    return tf.ensure_shape(context.all_gather(tf.stop_gradient(x), axis=0), (None, *x.shape[1:]))


def next_rows(x):
    """Returns for each row the next row of the global batch; the last row gets the first.

    Args:
        x: Tensor `(n, ...)`, where `n` may differ between replicas.

    Returns:
        Tensor of the same shape.

    Example:

    >>> next_rows(tf.constant([1, 2, 3])).numpy().tolist()
    [2, 3, 1]
    """
    context = _replica_context()
    if context is None:
        return tf.roll(x, -1, axis=0)
    count = tf.shape(x)[0]
    # Every replica with rows contributes its first row. Collectives do not take uint8.
    kept = x.dtype if x.dtype.is_floating else tf.int32
    first_rows = tf.cast(gather_rows(tf.cast(x[:1], kept)), x.dtype)
    has_rows = tf.cast(row_counts(count) > 0, tf.int32)
    following = tf.reduce_sum(has_rows[: context.replica_id_in_sync_group + 1]) % tf.reduce_sum(has_rows)
    rows = tf.concat([x[1:], first_rows[following : following + 1]], axis=0)[:count]
    return tf.ensure_shape(rows, x.shape)


def sum_over_replicas(x):
    """Sums `x` over the replicas.

    Args:
        x: Tensor of the same shape on every replica.

    Returns:
        Tensor of the same shape, equal on all replicas.
    """
    context = _replica_context()
    return x if context is None else context.all_reduce(tf.distribute.ReduceOp.SUM, x)


def sum_on_first_replica(x):
    """Sums `x` over the replicas. The first replica gets the sum, the others get zeros.

    Args:
        x: Tensor of the same shape on every replica.

    Returns:
        Tensor of the same shape.
    """
    context = _replica_context()
    if context is None:
        return x
    total = context.all_reduce(tf.distribute.ReduceOp.SUM, x)
    return tf.where(tf.equal(context.replica_id_in_sync_group, 0), total, tf.zeros_like(total))


def all_finite(tensors):
    """Returns whether all values of all tensors are finite on all replicas.

    Args:
        tensors: List of float tensors.

    Returns:
        A scalar boolean tensor, equal on all replicas.
    """
    nonfinite = [tf.reduce_any(tf.logical_not(tf.math.is_finite(tensor))) for tensor in tensors]
    return tf.equal(sum_over_replicas(tf.cast(tf.reduce_any(nonfinite), tf.float32)), 0.0)


def row_counts(count):
    """Returns the number of rows on each replica.

    Args:
        count: Number of rows on this replica, an integer or a scalar integer tensor.

    Returns:
        int32 tensor `(replicas,)`, equal on all replicas.
    """
    own = tf.reshape(tf.cast(count, tf.int32), (1,))
    context = _replica_context()
    return own if context is None else context.all_gather(own, axis=0)


def own_rows(count):
    """Returns the position of this replica's rows in the global batch.

    Args:
        count: Number of rows on this replica, an integer or a scalar integer tensor.

    Returns:
        The pair `(offset, total)`: the number of rows before this replica's rows, and of all rows.
    """
    context = _replica_context()
    if context is None:
        return 0, count
    if isinstance(context.strategy, tf.distribute.TPUStrategy):
        # On a TPU, all replicas have the same number of rows, which is known during tracing.
        return context.replica_id_in_sync_group * count, context.num_replicas_in_sync * count
    counts = row_counts(count)
    return tf.reduce_sum(counts[: context.replica_id_in_sync_group]), tf.reduce_sum(counts)


def rows_after(tensors, start, count, after):
    """Slices rows once the tensors `after` have been computed, so that micro-batches do not all run at once.

    This uses a data dependency. `tf.control_dependencies` would be clearer, but in TensorFlow 2.21 Grappler then lets a
    weight update run before the weight is read, about once in 20 steps.

    Args:
        tensors: List of tensors with the same number of rows.
        start: First row of the slice.
        count: Number of rows of the slice.
        after: Nest of tensors to wait for.

    Returns:
        A list of tensors with `count` rows.
    """
    samples = [tf.reshape(tf.cast(tensor, tf.float32), (-1,))[:1] for tensor in tf.nest.flatten(after)]
    if samples:
        # Always 0, but Grappler cannot prove it.
        start += tf.minimum(tf.cast(tf.reduce_any(tf.math.is_nan(tf.concat(samples, axis=0))), tf.int32), 0)
    slices = []
    for tensor in map(tf.convert_to_tensor, tensors):
        axes = tensor.shape.rank - 1
        rows = tf.slice(tensor, [start, *[0] * axes], [count, *[-1] * axes])
        slices.append(tf.ensure_shape(rows, (count if isinstance(count, int) else None, *tensor.shape[1:])))
    return slices


def _replica_context():
    """Returns the replica context if collectives are needed, None on one replica or outside of `run`."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return None
    return context
