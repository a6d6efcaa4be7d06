"""Selects the callbacks that each worker of a distributed run executes."""

import hashlib

import keras
import numpy as np

from keras_barlow import distribution

# They write the logs, which are the same on all workers, so one writer is enough.
_WRITERS = (keras.callbacks.TensorBoard, keras.callbacks.CSVLogger)
_SAVERS = (keras.callbacks.ModelCheckpoint, keras.callbacks.BackupAndRestore)
_MOST_SAVERS = 16


def for_this_worker(callbacks, strategy):
    """The callbacks that this worker runs. Callbacks that only write logs run on the chief.

    Args:
        callbacks: List of Keras callbacks.
        strategy: `tf.distribute.Strategy`.

    Returns:
        A list of callbacks.

    Raises:
        ValueError: If two workers would save to the same path.

    Example:

    >>> strategy = distribution.get_strategy("none")
    >>> for_this_worker([keras.callbacks.CSVLogger("log.csv")], strategy)[0].filename
    'log.csv'
    """
    if distribution.worker_count(strategy) == 1:
        return callbacks
    _check_paths([callback for callback in callbacks if isinstance(callback, _SAVERS)], strategy)
    if distribution.is_chief(strategy):
        return callbacks
    return [callback for callback in callbacks if not isinstance(callback, _WRITERS)]


def _check_paths(savers, strategy):
    paths = [str(getattr(saver, "filepath", getattr(saver, "backup_dir", ""))) for saver in savers][:_MOST_SAVERS]
    # Workers compare 31-bit hashes of the paths.
    numbers = [int.from_bytes(hashlib.sha256(path.encode()).digest()[:4], "little") >> 1 for path in paths]
    own = np.array(numbers + [0] * (_MOST_SAVERS - len(numbers)), "int32")
    others = np.delete(distribution.from_all_workers(strategy, own), distribution.worker_index(strategy), axis=0)
    for saver, path, number in zip(savers, paths, numbers, strict=True):
        if number in others:
            raise ValueError(
                f"Every worker needs its own path for {type(saver).__name__}. Received: {path} on more than one of "
                f"{distribution.worker_count(strategy)} workers. Use keras_barlow.callbacks.Checkpoints, which the "
                "chief writes and all workers resume from, or put "
                "keras_barlow.distribution.worker_index(strategy) into the path."
            )
