"""Coordination of several worker processes: who writes, who reads which rows, and common decisions."""

import re
import socket

import numpy as np
import tensorflow as tf

from keras_barlow.distribution.share import Share

_CHUNK_BYTES = 2**24


def worker_count(strategy=None):
    """Returns the number of worker processes.

    Args:
        strategy: `tf.distribute.Strategy`; None for the strategy in scope.

    Returns:
        A Python integer.

    Example:

    >>> worker_count()
    1
    """
    strategy = strategy or tf.distribute.get_strategy()
    resolver = strategy.cluster_resolver
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) or resolver is None:
        return 1
    return max(1, len(resolver.cluster_spec().as_dict().get("worker", [])))


def worker_index(strategy=None):
    """Returns the index of this worker process. The chief has index 0.

    Args:
        strategy: `tf.distribute.Strategy`; None for the strategy in scope.

    Returns:
        A Python integer.
    """
    strategy = strategy or tf.distribute.get_strategy()
    return int(strategy.cluster_resolver.task_id) if worker_count(strategy) > 1 else 0


def is_chief(strategy=None):
    """Returns whether this process is the chief, which writes checkpoints, logs, plots and exports.

    Args:
        strategy: `tf.distribute.Strategy`; None for the strategy in scope.

    Returns:
        A Python boolean.

    Example:

    >>> is_chief()
    True
    """
    return worker_index(strategy) == 0


def distribute(strategy, dataset_of):
    """Distributes a dataset so that each replica reads its own rows, without duplicates or losses.

    Args:
        strategy: `tf.distribute.Strategy`.
        dataset_of: Function from the `Share` of this process to a `tf.data.Dataset`. Its elements are the batches of
            the replicas of this process, one after another.

    Returns:
        A distributed dataset that `fit` accepts.
    """

    def own_dataset(context):
        count = context.num_replicas_in_sync // context.num_input_pipelines
        return dataset_of(Share(context.num_replicas_in_sync, context.input_pipeline_id * count, count))

    return strategy.distribute_datasets_from_function(own_dataset)


def agreement(strategy):
    """Returns a function with which all workers reach the same decision.

    Args:
        strategy: `tf.distribute.Strategy`.

    Returns:
        A function from a boolean of this worker to whether it is true on any worker. All workers must call it.

    Example:

    >>> agreement(tf.distribute.get_strategy())(False)
    False
    """
    if worker_count(strategy) == 1:
        return bool
    total = _sum_over_workers(strategy)
    return lambda flag: bool(total(np.array([flag], "int32"))[0])


def from_all_workers(strategy, row):
    """Gathers an array from all workers. All workers must call it.

    Args:
        strategy: `tf.distribute.Strategy`.
        row: int32 array `(n,)` of this worker.

    Returns:
        int32 array `(workers, n)`.
    """
    rows = np.zeros((worker_count(strategy), len(row)), "int32")
    rows[worker_index(strategy)] = row
    return rows if len(rows) == 1 else _sum_over_workers(strategy)(rows)


def from_chief(strategy, content):
    """Broadcasts bytes from the chief, so that workers need no shared disk. All workers must call it.

    Args:
        strategy: `tf.distribute.Strategy`.
        content: Bytes to send. Ignored on all workers but the chief.

    Returns:
        The bytes of the chief.
    """
    if worker_count(strategy) == 1:
        return content
    total = _sum_over_workers(strategy)
    chief = is_chief(strategy)
    size = np.frombuffer((len(content) if chief else 0).to_bytes(8, "little"), "int32")
    size = int.from_bytes(total(size).tobytes(), "little")
    chunks = []
    for start in range(0, size, _CHUNK_BYTES):
        chunk = np.zeros(_CHUNK_BYTES, "uint8")
        length = min(_CHUNK_BYTES, size - start)
        if chief:
            chunk[:length] = np.frombuffer(content, "uint8", length, start)
        chunks.append(total(chunk.view("int32")).tobytes()[:length])
    return b"".join(chunks)


def lost_worker(strategy, error):
    """Describes which worker no longer responds.

    Args:
        strategy: `tf.distribute.Strategy`.
        error: Exception that TensorFlow raised in a collective.

    Returns:
        An error message.
    """
    addresses = strategy.cluster_resolver.cluster_spec().as_dict()["worker"]
    own = worker_index(strategy)
    named = {int(index) for index in re.findall(r"task:(\d+)", str(error))} - {own}
    # The error does not always name the worker, so look for closed ports first.
    lost = [index for index, address in enumerate(addresses) if index != own and not _answers(address)] or sorted(named)
    which = ", ".join(f"worker {index} ({addresses[index]})" for index in lost if index < len(addresses))
    return (
        f"All workers must run to the end. Received: {which or 'another worker'} no longer responds to worker {own}. "
        "Restart all workers; with the same callbacks.Checkpoints (--resume), they resume from the last checkpoint."
    )


def _answers(address):
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def _sum_over_workers(strategy):
    """Returns a function that sums int32 arrays over the workers. Adding zeros keeps any bit pattern intact."""
    local = strategy.num_replicas_in_sync // worker_count(strategy)

    @tf.function
    def total(numbers):
        def summed(numbers):
            context = tf.distribute.get_replica_context()
            # Only one replica of each worker contributes.
            contributes = tf.equal(context.replica_id_in_sync_group % local, 0)
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(contributes, numbers, 0))

        return strategy.run(summed, (numbers,))

    return lambda array: strategy.experimental_local_results(total(tf.constant(array)))[0].numpy()
