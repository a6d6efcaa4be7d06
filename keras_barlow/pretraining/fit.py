"""Wraps `keras.Model.fit`: resume, per-replica data, one writer among workers, clean shutdown."""

import contextlib
from typing import NamedTuple

import keras
import tensorflow as tf

from keras_barlow import callbacks, data, distribution
from keras_barlow.pretraining import checks, worker_callbacks

# What TensorFlow raises in a collective when another worker has gone.
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError)


class _Start(NamedTuple):
    """Where training begins.

    Attributes:
        epoch: From 0.
        batch: Number of batches of that epoch that are already trained on.
        first_epoch: Epoch in which the run began to read its dataset.
        ended: Whether there is nothing left to train.
    """

    epoch: int
    batch: int = 0
    first_epoch: int = 0
    ended: bool = False


def run(model, train, arguments):
    """Trains by `keras.Model.fit`: resumes from a checkpoint, gives each replica its own rows, and ends cleanly.

    Args:
        model: Compiled `JointEmbedding`.
        train: `keras.Model.fit` of the model.
        arguments: Dictionary of its arguments by name.

    Raises:
        ValueError: If the callbacks or the data cannot be used.
        RuntimeError: If another worker is lost.
    """
    strategy = model.distribute_strategy
    checkpoints, ordered = callbacks_of_run(arguments, strategy)
    start = starting_point(model, arguments, checkpoints, ordered)
    data_arguments, steps = data_to_read(model, arguments, start)
    arguments = {**arguments, **data_arguments}
    arguments["initial_epoch"] = max(start.epoch, arguments.get("epochs", 1)) if start.ended else start.epoch
    if not distribution.is_chief(strategy):
        arguments["verbose"] = 0
    arguments["callbacks"] = _quiet(ordered, model, arguments, start, steps) if start.batch else ordered
    try:
        with _whole_epochs(model, steps, start.batch):
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
    listed = _as_list(arguments.get("callbacks"))
    checkpoints = _checkpoints_of(listed, arguments["x"])
    return checkpoints, _ordered(listed, checkpoints, strategy)


def _as_list(callbacks):
    """The callbacks in a new list, so that the user's list does not grow from fit to fit."""
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        return tf.nest.flatten(callbacks or [])
    if type(callbacks) is not keras.callbacks.CallbackList:
        raise ValueError(
            "`fit` puts its own callbacks around those that it is given, so it cannot keep a list of another class. "
            f"Received: callbacks={type(callbacks).__name__}. Pass a list of callbacks."
        )
    # A progress bar is made anew for the epochs and steps of this fit.
    return [one for one in callbacks.callbacks if not isinstance(one, keras.callbacks.ProgbarLogger)]


def _checkpoints_of(listed, x):
    """The `Checkpoints` among the callbacks, or None."""
    found = [one for one in listed if isinstance(one, callbacks.Checkpoints)]
    if len(found) > 1:
        raise ValueError(
            f"A run is resumed from one folder. Received: {len(found)} Checkpoints, of "
            f"{', '.join(str(one.folder) for one in found)}. Pass one of them."
        )
    backups = any(isinstance(one, keras.callbacks.BackupAndRestore) for one in listed)
    if backups and (found or isinstance(x, data.Batches)):
        raise ValueError(
            "BackupAndRestore decides by itself in which epoch to begin, and reads the data from their beginning. "
            f"Received: BackupAndRestore with {'Checkpoints' if found else 'Batches'}. Use "
            "keras_barlow.callbacks.Checkpoints(folder) alone, which resumes exactly."
        )
    return found[0] if found else None


def _ordered(listed, checkpoints, strategy):
    """The callbacks of this process in the order in which they run."""
    guard = callbacks.StopOnNonFiniteLoss(checkpoints)
    # The guard first, so that nothing is saved of what it stops; the checkpoints last, so that they hold what the
    # others have done, the history too.
    others = [one for one in worker_callbacks.for_this_worker(listed, strategy) if one is not checkpoints]
    if checkpoints is None:
        return [guard, *others]
    if not any(isinstance(one, keras.callbacks.History) for one in others):
        others.append(keras.callbacks.History())
    return [guard, *others, checkpoints]


def starting_point(model, arguments, checkpoints, ordered):
    """Where training begins: at the newest checkpoint, which is restored, or at the beginning.

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
    """What `fit` reads.

    Args:
        model: Compiled `JointEmbedding`.
        arguments: Arguments of `fit` by name.
        start: What `starting_point` returned.

    Returns:
        The pair `(changed, steps)`: the arguments of `fit` that change, and the number of steps that each epoch has
        exactly, or None where Keras counts them.
    """
    x, steps = arguments["x"], arguments.get("steps_per_epoch")
    strategy = model.distribute_strategy
    # Keras' default is to shuffle, and to warn that it cannot shuffle a dataset.
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
        # Without checkpoints: Keras ends such an epoch with a warning.
        return shuffle, None
    epochs = start.epoch - start.first_epoch
    if start.batch or epochs or steps % model.steps_per_execution:
        x = data.continued(x, epochs, start.batch, steps)
    return {"x": x, "steps_per_epoch": steps or len(arguments["x"]), **shuffle}, steps or len(arguments["x"])


class _Quiet(keras.callbacks.CallbackList):
    """Callbacks that do not hear of the batches before an interruption, which the training loop counts again."""

    batches = 0

    def on_train_batch_begin(self, batch, logs=None):
        if batch + self.model.steps_per_execution > self.batches:
            self.batches = 0
            super().on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch, logs=None):
        if not self.batches:
            super().on_train_batch_end(batch, logs)


def _quiet(ordered, model, arguments, start, steps):
    verbose = arguments.get("verbose", "auto")
    quiet = _Quiet(
        ordered,
        add_history=True,
        add_progbar=verbose != 0,
        verbose=verbose,
        epochs=arguments.get("epochs", 1),
        steps=steps,
        model=model,
    )
    quiet.batches = start.batch
    return quiet


@contextlib.contextmanager
def _whole_epochs(model, steps, done):
    """Around the training loop: no execution trains again on the batches that are done, or on the next epoch's.

    Keras counts executions of `steps_per_execution` steps each, also where an epoch has no multiple of that, or begins
    in the middle of one.

    Args:
        model: Compiled `JointEmbedding`.
        steps: Steps of an epoch; None if Keras sees its end.
        done: Number of batches of the first epoch that are done.
    """
    size = model.steps_per_execution
    if steps is None or (not done and steps % size == 0):
        yield
        return
    model.make_train_function()
    train_function = model.train_function
    one_step = _one_step_function(model)
    place = 0

    def execute(iterator):
        nonlocal place, done
        count = max(0, min(place + size, steps) - max(place, done))
        place += size
        if place >= steps:
            place = done = 0
        if count == size:
            return train_function(iterator)
        logs = model.get_metrics_result()
        for _ in range(count):
            logs = one_step(iterator)
        return logs

    model.train_function = execute
    try:
        yield
    finally:
        model.train_function = train_function


def _one_step_function(model):
    """A train function of one step for each call, whatever `steps_per_execution` is."""
    size, train_function = model.steps_per_execution, model.train_function

    @contextlib.contextmanager
    def single():
        # Keras reads it when it makes the function, and again when it traces.
        model.steps_per_execution = 1
        try:
            yield
        finally:
            model.steps_per_execution = size

    with single():
        model.make_train_function(force=True)
    one_step, model.train_function = model.train_function, train_function

    def run(iterator):
        with single():
            return one_step(iterator)

    return run
