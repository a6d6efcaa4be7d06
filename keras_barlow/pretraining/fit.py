"""Wraps `keras.Model.fit`: resume, per-replica data, one writer among workers, clean shutdown."""

from typing import NamedTuple

import keras
import tensorflow as tf

from keras_barlow import callbacks, data, distribution
from keras_barlow.pretraining import checks, worker_callbacks
from keras_barlow.pretraining.exact_epochs import exact_epochs

# Errors that TensorFlow raises in a collective when another worker is gone.
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError)


class _Start(NamedTuple):
    """Where training begins.

    Attributes:
        epoch: Index of the epoch, from 0.
        batch: Number of batches of that epoch that have been trained.
        first_epoch: Epoch in which the run began to read its dataset.
        ended: Whether the run is complete.
    """

    epoch: int
    batch: int = 0
    first_epoch: int = 0
    ended: bool = False


def run(model, train, arguments):
    """Calls `keras.Model.fit`: resumes from a checkpoint, gives each replica its own rows, and shuts down cleanly.

    Args:
        model: Compiled `JointEmbedding`.
        train: `keras.Model.fit` of the model.
        arguments: Dictionary of its arguments by name.

    Raises:
        ValueError: If the callbacks or the data cannot be used.
        RuntimeError: If another worker is lost.
    """
    strategy = distribution.strategy_of(model)
    checkpoints, ordered = callbacks_of_run(arguments, strategy)
    start = starting_point(model, arguments, checkpoints, ordered)
    data_arguments, steps = data_to_read(model, arguments, start)
    arguments = {**arguments, **data_arguments}
    arguments["initial_epoch"] = max(start.epoch, arguments.get("epochs", 1)) if start.ended else start.epoch
    if not distribution.is_chief(strategy):
        arguments["verbose"] = 0
    arguments["callbacks"] = ordered
    if start.batch:
        arguments["callbacks"] = _resumed_callbacks(ordered, model, arguments, start, steps)
    try:
        with exact_epochs(model, steps, start.batch):
            train(**arguments)
    except callbacks.Interrupted:
        pass
    except _LOST as error:
        if distribution.worker_count(strategy) == 1:
            raise
        raise RuntimeError(distribution.lost_worker(strategy, error)) from error
    finally:
        if checkpoints is not None:
            checkpoints.on_train_end()


def callbacks_of_run(arguments, strategy):
    """The callbacks that this process runs.

    Args:
        arguments: Arguments of `fit` by name.
        strategy: `tf.distribute.Strategy`.

    Returns:
        The pair `(checkpoints, ordered)`: the `Checkpoints` among them or None, and all of them in the order in which
        they run.

    Raises:
        ValueError: If they cannot work together.
    """
    all_callbacks = _as_list(arguments.get("callbacks"))
    checkpoints = _checkpoints_of(all_callbacks, arguments["x"])
    return checkpoints, _ordered(all_callbacks, checkpoints, strategy)


def _as_list(callbacks):
    """The callbacks in a new list, so that the user's list does not grow from fit to fit."""
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        return tf.nest.flatten(callbacks or [])
    if type(callbacks) is not keras.callbacks.CallbackList:
        raise ValueError(
            "`fit` adds its own callbacks, so it cannot keep a subclass of CallbackList. "
            f"Received: callbacks={type(callbacks).__name__}. Pass a list of callbacks."
        )
    # `fit` creates a new progress bar.
    return [one for one in callbacks.callbacks if not isinstance(one, keras.callbacks.ProgbarLogger)]


def _checkpoints_of(all_callbacks, x):
    """The `Checkpoints` among the callbacks, or None."""
    found = [one for one in all_callbacks if isinstance(one, callbacks.Checkpoints)]
    if len(found) > 1:
        raise ValueError(
            f"`fit` takes one Checkpoints callback. Received: {len(found)} Checkpoints, for the folders "
            f"{', '.join(str(one.folder) for one in found)}. Keep one of them."
        )
    backups = any(isinstance(one, keras.callbacks.BackupAndRestore) for one in all_callbacks)
    if backups and (found or isinstance(x, data.Batches)):
        raise ValueError(
            "BackupAndRestore chooses the first epoch itself and reads the data from the start. "
            f"Received: BackupAndRestore with {'Checkpoints' if found else 'Batches'}. Use "
            "keras_barlow.callbacks.Checkpoints(folder) alone, which resumes exactly."
        )
    return found[0] if found else None


def _ordered(all_callbacks, checkpoints, strategy):
    """The callbacks of this process in the order they run."""
    guard = callbacks.StopOnNonFiniteLoss(checkpoints)
    # The guard comes first, so that a broken model is not saved. Checkpoints come last, so that they save what the
    # other callbacks did, including the history.
    others = [one for one in worker_callbacks.for_this_worker(all_callbacks, strategy) if one is not checkpoints]
    if checkpoints is None:
        return [guard, *others]
    if not any(isinstance(one, keras.callbacks.History) for one in others):
        others.append(keras.callbacks.History())
    return [guard, *others, checkpoints]


def starting_point(model, arguments, checkpoints, ordered):
    """Restores the newest checkpoint, if there is one, and returns where training begins.

    Args:
        model: Compiled `JointEmbedding`.
        arguments: Arguments of `fit` by name.
        checkpoints: `callbacks.Checkpoints` or None.
        ordered: List of all callbacks.

    Returns:
        A `_Start`.
    """
    epoch = arguments.get("initial_epoch", 0)
    if checkpoints is None:
        return _Start(epoch, first_epoch=epoch)
    x = arguments["x"]
    order = data.order_of(x, arguments.get("steps_per_epoch"))
    if checkpoints.exact and isinstance(x, tf.data.Dataset):
        data.check_repeatable(x)
    place = checkpoints.restore(model, order, [one for one in ordered if one is not checkpoints], epoch)
    return _Start(*place, checkpoints.first_epoch, checkpoints.ended)


def data_to_read(model, arguments, start):
    """The dataset that `fit` reads.

    Args:
        model: Compiled `JointEmbedding`.
        arguments: Arguments of `fit` by name.
        start: What `starting_point` returned.

    Returns:
        The pair `(changed, steps)`: arguments of `fit` to replace, and the exact number of steps per epoch, or None if
        Keras counts them.
    """
    x, steps = arguments["x"], arguments.get("steps_per_epoch")
    strategy = distribution.strategy_of(model)
    # By default Keras shuffles, and warns that it cannot shuffle a dataset.
    shuffle = {"shuffle": arguments.get("shuffle", False)}
    if isinstance(x, data.Batches):
        dataset = distribution.distribute(strategy, lambda share: x.stream(start.epoch, start.batch, share))
        return {"x": dataset, "steps_per_epoch": len(x), **shuffle}, len(x)
    if not isinstance(x, tf.data.Dataset):
        checks.check_one_worker(strategy)
        return {}, None
    if steps is None and start.batch == 0:
        return shuffle, None
    if steps and not data.fills_epochs(x, steps):
        # There are no checkpoints, and Keras ends such an epoch with a warning.
        return shuffle, None
    epochs = start.epoch - start.first_epoch
    if start.batch or epochs or steps % model.steps_per_execution:
        x = data.continued(x, epochs, start.batch, steps)
    return {"x": x, "steps_per_epoch": steps or len(arguments["x"]), **shuffle}, steps or len(arguments["x"])


class _ResumedCallbacks(keras.callbacks.CallbackList):
    """Callbacks that skip the batches trained before an interruption, which Keras' loop counts again."""

    batches = 0

    def on_train_batch_begin(self, batch, logs=None):
        if batch + self.model.steps_per_execution > self.batches:
            self.batches = 0
            super().on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch, logs=None):
        if not self.batches:
            super().on_train_batch_end(batch, logs)


def _resumed_callbacks(ordered, model, arguments, start, steps):
    verbose = arguments.get("verbose", "auto")
    resumed = _ResumedCallbacks(
        ordered,
        add_history=True,
        add_progbar=verbose != 0,
        verbose=verbose,
        epochs=arguments.get("epochs", 1),
        steps=steps,
        model=model,
    )
    resumed.batches = start.batch
    return resumed
