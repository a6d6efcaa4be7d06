"""What several processes need to know of each other: who writes, who reads what, and what they agree on."""

import re
import socket
from typing import NamedTuple

import numpy as np
import tensorflow as tf

_PIECE = 2**24


class Share(NamedTuple):
    """Which replicas' rows a process reads: `count` of `replicas`, from number `first`.

    Attributes:
        replicas: Number of all replicas.
        first: Number of the first replica of this process.
        count: Number of replicas of this process.
    """

    replicas: int = 1
    first: int = 0
    count: int = 1


def worker_count(strategy=None):
    """Number of processes that train together.

    Args:
        strategy: `tf.distribute.Strategy`; None for the one in scope.

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
    """The number of this process among them; 0 is the chief.

    Args:
        strategy: `tf.distribute.Strategy`; None for the one in scope.

    Returns:
        A Python integer.
    """
    strategy = strategy or tf.distribute.get_strategy()
    return int(strategy.cluster_resolver.task_id) if worker_count(strategy) > 1 else 0


def is_chief(strategy=None):
    """Whether this process writes what is written once: checkpoints, logs, pictures, exports.

    Args:
        strategy: `tf.distribute.Strategy`; None for the one in scope.

    Returns:
        A Python boolean.

    Example:

    >>> is_chief()
    True
    """
    return worker_index(strategy) == 0


def distribute(strategy, dataset_of):
    """A dataset of which each replica takes its own rows, with nothing read twice and nothing dropped.

    Args:
        strategy: `tf.distribute.Strategy`.
        dataset_of: Function from this process' `Share` to a `tf.data.Dataset`, whose elements are the batches of its
            replicas in turn.

    Returns:
        What `fit` takes.
    """

    def of(context):
        count = context.num_replicas_in_sync // context.num_input_pipelines
        return dataset_of(Share(context.num_replicas_in_sync, context.input_pipeline_id * count, count))

    return strategy.distribute_datasets_from_function(of)


def agreement(strategy):
    """A function with which all workers decide alike.

    Args:
        strategy: `tf.distribute.Strategy`.

    Returns:
        A function from a boolean of this worker to whether it is true on any. All workers must call it.

    Example:

    >>> agreement(tf.distribute.get_strategy())(False)
    False
    """
    if worker_count(strategy) == 1:
        return bool
    total = _sum_over_workers(strategy)
    return lambda flag: bool(total(np.array([flag], "int32"))[0])


def from_all_workers(strategy, row):
    """What each worker has, on every worker. All workers must call it.

    Args:
        strategy: `tf.distribute.Strategy`.
        row: int32 array `(n,)`.

    Returns:
        int32 array `(workers, n)`.
    """
    rows = np.zeros((worker_count(strategy), len(row)), "int32")
    rows[worker_index(strategy)] = row
    return rows if len(rows) == 1 else _sum_over_workers(strategy)(rows)


def from_chief(strategy, content):
    """The chief's bytes, on every worker: no disk has to be shared. All workers must call it.

    Args:
        strategy: `tf.distribute.Strategy`.
        content: Bytes; only the chief's matter.

    Returns:
        Bytes.
    """
    if worker_count(strategy) == 1:
        return content
    total = _sum_over_workers(strategy)
    chief = is_chief(strategy)
    size = np.frombuffer((len(content) if chief else 0).to_bytes(8, "little"), "int32")
    size = int.from_bytes(total(size).tobytes(), "little")
    pieces = []
    for start in range(0, size, _PIECE):
        piece = np.zeros(_PIECE, "uint8")
        length = min(_PIECE, size - start)
        if chief:
            piece[:length] = np.frombuffer(content, "uint8", length, start)
        pieces.append(total(piece.view("int32")).tobytes()[:length])
    return b"".join(pieces)


def lost_worker(strategy, error):
    """Which worker no longer answers, in words.

    Args:
        strategy: `tf.distribute.Strategy`.
        error: What TensorFlow raised in an exchange with the others.

    Returns:
        A message.
    """
    addresses = strategy.cluster_resolver.cluster_spec().as_dict()["worker"]
    own = worker_index(strategy)
    named = {int(index) for index in re.findall(r"task:(\d+)", str(error))} - {own}
    # TensorFlow does not always say: whoever has no open port is gone.
    lost = [index for index, address in enumerate(addresses) if index != own and not _answers(address)] or sorted(named)
    which = ", ".join(f"worker {index} ({addresses[index]})" for index in lost if index < len(addresses))
    return (
        f"All workers must stay to the end. Received: {which or 'one of them'} no longer answers worker {own}. Start "
        "all of them again; with the same callbacks.Checkpoints (--resume) they go on from the last checkpoint."
    )


def _answers(address):
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def _sum_over_workers(strategy):
    """A function that sums int32 arrays over the workers: with zeros that is exact, whatever the bits stand for."""
    local = strategy.num_replicas_in_sync // worker_count(strategy)

    @tf.function
    def total(numbers):
        def summed(numbers):
            context = tf.distribute.get_replica_context()
            # One replica of each worker has something to say.
            speaks = tf.equal(context.replica_id_in_sync_group % local, 0)
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(speaks, numbers, 0))

        return strategy.run(summed, (numbers,))

    return lambda array: strategy.experimental_local_results(total(tf.constant(array)))[0].numpy()
