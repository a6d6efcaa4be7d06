"""The functions of `distribution` on JAX, where a batch is one global array and the compiler divides the work.

A program is written for the whole batch, so there is one replica, its rows are all rows, and no function communicates.
`keras.distribution` decides on which devices the rows lie.
"""

import types

import jax
import keras
import numpy as np
from jax.experimental import multihost_utils
from keras import ops

from keras_barlow.distribution.share import Share

NAMES = ("auto", "none", "data_parallel")


def get_strategy(name="auto"):
    """Returns the distribution of this process over devices, and makes it the one of Keras.

    | name | devices |
    |---|---|
    | `"none"` | the first of this process |
    | `"data_parallel"` | all devices of all processes; each has its share of the rows of a batch |
    | `"auto"` | the first that applies: several devices, one device |

    Args:
        name: One of the names in the table.

    Returns:
        A `keras.distribution.DataParallel`, or None for one device.

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in NAMES:
        raise ValueError(f"On JAX, the strategy must be one of {', '.join(NAMES)}. Received: {name!r}.")
    if name == "auto":
        name = "data_parallel" if jax.device_count() > 1 else "none"
    strategy = keras.distribution.DataParallel(auto_shard_dataset=False) if name == "data_parallel" else None
    keras.distribution.set_distribution(strategy)
    return strategy


def strategy_of(model):
    """Returns the strategy of a model, as the other functions take it.

    Args:
        model: `keras.Model`.

    Returns:
        An object with `num_replicas_in_sync`, which is 1.
    """
    return types.SimpleNamespace(num_replicas_in_sync=1)


def replica_count():
    """Returns the number of replicas, 1: a program is written for the global batch."""
    return 1


def gather_rows(x):
    """Returns `x`, which has all rows.

    Args:
        x: Tensor `(N, ...)`.

    Returns:
        `x`.
    """
    return x


def next_rows(x):
    """Returns for each row the next row of the global batch; the last row gets the first.

    Args:
        x: Tensor `(N, ...)`.

    Returns:
        Tensor of the same shape.
    """
    return ops.roll(x, -1, axis=0)


def sum_over_replicas(x):
    """Returns `x`, which is global.

    Args:
        x: Tensor.

    Returns:
        `x`.
    """
    return x


sum_on_first_replica = sum_over_replicas


def all_finite(tensors):
    """Returns whether all values of all tensors are finite.

    Args:
        tensors: List of float tensors.

    Returns:
        A scalar boolean tensor.
    """
    return ops.all(ops.stack([ops.all(ops.isfinite(tensor)) for tensor in tensors]))


def row_counts(count):
    """Returns the number of rows on each replica.

    Args:
        count: Number of rows.

    Returns:
        int32 tensor `(1,)`.
    """
    return ops.reshape(ops.cast(count, "int32"), (1,))


def own_rows(count):
    """Returns the position of this replica's rows in the global batch, which are all rows.

    Args:
        count: Number of rows.

    Returns:
        The pair `(0, count)`.
    """
    return 0, count


def compiling_pays(model):
    """Returns whether to compile the training step: always.

    Args:
        model: `keras.Model` to compile.

    Returns:
        True.
    """
    return True


def worker_count(strategy=None):
    """Returns the number of processes.

    Args:
        strategy: Ignored: JAX knows its processes.

    Returns:
        A Python integer.
    """
    return jax.process_count()


def worker_index(strategy=None):
    """Returns the index of this process. The chief has index 0.

    Args:
        strategy: Ignored.

    Returns:
        A Python integer.
    """
    return jax.process_index()


def is_chief(strategy=None):
    """Returns whether this process is the chief, which writes checkpoints, logs, plots and exports.

    Args:
        strategy: Ignored.

    Returns:
        A Python boolean.
    """
    return worker_index() == 0


def distribute(strategy, dataset_of):
    """Returns the dataset of this process.

    Args:
        strategy: Ignored.
        dataset_of: Function from the `Share` of this process to a `tf.data.Dataset`.

    Returns:
        A `tf.data.Dataset`.
    """
    return dataset_of(Share(worker_count(), worker_index(), 1))


def agreement(strategy):
    """Returns a function with which all processes reach the same decision.

    Args:
        strategy: Ignored.

    Returns:
        A function from a boolean of this process to whether it is true on any process. All processes must call it.
    """
    if worker_count() == 1:
        return bool
    return lambda flag: bool(from_all_workers(strategy, np.array([flag], "int32")).any())


def from_all_workers(strategy, row):
    """Gathers an array from all processes. All processes must call it.

    Args:
        strategy: Ignored.
        row: int32 array `(n,)` of this process.

    Returns:
        int32 array `(processes, n)`.
    """
    row = np.asarray(row, "int32")
    return row[None] if worker_count() == 1 else np.asarray(multihost_utils.process_allgather(row))


def from_chief(strategy, content):
    """Broadcasts bytes from the chief, so that processes need no shared disk. All processes must call it.

    Args:
        strategy: Ignored.
        content: Bytes to send. Ignored on all processes but the chief.

    Returns:
        The bytes of the chief.
    """
    if worker_count() == 1:
        return content
    sizes = from_all_workers(strategy, np.array([len(content) if is_chief() else 0]))
    buffer = np.zeros(int(sizes[0, 0]), "uint8")
    if is_chief():
        buffer[:] = np.frombuffer(content, "uint8")
    return np.asarray(multihost_utils.broadcast_one_to_all(buffer), "uint8").tobytes()


def lost_worker(strategy, error):
    """Describes that a process no longer responds.

    Args:
        strategy: Ignored.
        error: Exception that JAX raised in a collective.

    Returns:
        An error message.
    """
    return (
        f"All processes must run to the end. Received: another process no longer responds to process {worker_index()} "
        f"({error}). Restart all; with the same callbacks.Checkpoints (--resume), they resume from the last checkpoint."
    )
