"""What surrounds the training loop of Keras: where it begins, what it reads, who writes, and how it ends."""

import contextlib
from typing import NamedTuple

import keras
import tensorflow as tf

from keras_barlow import callbacks, data, distribution, inputs

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


@contextlib.contextmanager
def prepared(model, given):
    """Around `keras.Model.fit`: goes on from a checkpoint, gives each replica its own rows and ends as it should.

    Args:
        model: Compiled `BarlowTwins`.
        given: The arguments of `fit` by name; they are changed in place.

    Yields:
        Nothing.
    """
    strategy = model.distribute_strategy
    known = _as_list(given.get("callbacks"))
    checkpoints = _checkpoints_of(known, given["x"])
    listed = _ordered(known, checkpoints, strategy)
    start = _start_of(model, given, checkpoints, listed)
    arguments, steps = _reading(model, given, start)
    given.update(arguments)
    given["initial_epoch"] = max(start.epoch, given.get("epochs", 1)) if start.ended else start.epoch
    if not distribution.is_chief(strategy):
        given["verbose"] = 0
    given["callbacks"] = _quiet(listed, model, given, start, steps) if start.batch else listed
    try:
        with _whole_epochs(model, steps, start.batch):
            yield
    except callbacks.Interrupted:
        pass
    except _LOST as error:
        if distribution.worker_count(strategy) == 1:
            raise
        raise RuntimeError(distribution.lost_worker(strategy, error)) from error
    finally:
        if checkpoints is not None:
            checkpoints.on_train_end()


def _as_list(known):
    """The callbacks in a list of our own: the user's does not grow from fit to fit."""
    if not isinstance(known, keras.callbacks.CallbackList):
        return tf.nest.flatten(known or [])
    if type(known) is not keras.callbacks.CallbackList:
        raise ValueError(
            "`fit` puts its own callbacks around those that it is given, so it cannot keep a list of another class. "
            f"Received: callbacks={type(known).__name__}. Pass a list of callbacks."
        )
    # A progress bar is made anew for the epochs and steps of this fit.
    return [one for one in known.callbacks if not isinstance(one, keras.callbacks.ProgbarLogger)]


def _checkpoints_of(known, x):
    """The `Checkpoints` among the callbacks, or None."""
    found = [one for one in known if isinstance(one, callbacks.Checkpoints)]
    if len(found) > 1:
        raise ValueError(
            f"A run is resumed from one folder. Received: {len(found)} Checkpoints, of "
            f"{', '.join(str(one.folder) for one in found)}. Pass one of them."
        )
    backups = any(isinstance(one, keras.callbacks.BackupAndRestore) for one in known)
    if backups and (found or isinstance(x, data.Batches)):
        raise ValueError(
            "BackupAndRestore decides by itself in which epoch to begin, and reads the data from their beginning. "
            f"Received: BackupAndRestore with {'Checkpoints' if found else 'Batches'}. Use "
            "keras_barlow.callbacks.Checkpoints(folder) alone, which resumes exactly."
        )
    return found[0] if found else None


def _ordered(known, checkpoints, strategy):
    """The callbacks of this process in the order in which they run."""
    guard = callbacks.StopOnNonFiniteLoss(checkpoints)
    # The guard first, so that nothing is saved of what it stops; the checkpoints last, so that they hold what the
    # others have done, the history too.
    others = [one for one in callbacks.for_this_worker(known, strategy) if one is not checkpoints]
    if checkpoints is None:
        return [guard, *others]
    if not any(isinstance(one, keras.callbacks.History) for one in others):
        others.append(keras.callbacks.History())
    return [guard, *others, checkpoints]


def _start_of(model, given, checkpoints, listed):
    """Where training begins: at the newest checkpoint, or at the beginning."""
    epoch = given.get("initial_epoch", 0)
    if checkpoints is None:
        return _Start(epoch, first_epoch=epoch)
    x = given["x"]
    order = data.order_of(x, given.get("steps_per_epoch"))
    if checkpoints.exact and isinstance(x, tf.data.Dataset):
        data.check_repeatable(x)
    place = checkpoints.restore(model, order, [one for one in listed if one is not checkpoints], epoch)
    return _Start(*place, checkpoints.first_epoch, checkpoints.ended)


def _reading(model, given, start):
    """What `fit` reads.

    Returns:
        The pair `(arguments, steps)`: those of `fit`, and the number of steps that each epoch has exactly, or None
        where Keras counts them.
    """
    x, steps = given["x"], given.get("steps_per_epoch")
    strategy = model.distribute_strategy
    # Keras' default is to shuffle, and to warn that it cannot shuffle a dataset.
    shuffle = {"shuffle": given.get("shuffle", False)}
    if isinstance(x, data.Batches):
        dataset = distribution.distribute(strategy, lambda share: x.stream(start.epoch, start.batch, share))
        return {"x": dataset, "steps_per_epoch": len(x), **shuffle}, len(x)
    if not isinstance(x, tf.data.Dataset):
        inputs.check_one_worker(strategy)
        return {}, None
    if steps is None and start.batch == 0:
        return shuffle, None
    if steps and not data.fills_epochs(x, steps):
        # Without checkpoints: Keras ends such an epoch with a warning.
        return shuffle, None
    epochs = start.epoch - start.first_epoch
    if start.batch or epochs or steps % model.steps_per_execution:
        x = data.continued(x, epochs, start.batch, steps)
    return {"x": x, "steps_per_epoch": steps or len(given["x"]), **shuffle}, steps or len(given["x"])


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


def _quiet(listed, model, given, start, steps):
    verbose = given.get("verbose", "auto")
    quiet = _Quiet(
        listed,
        add_history=True,
        add_progbar=verbose != 0,
        verbose=verbose,
        epochs=given.get("epochs", 1),
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
        model: Compiled `BarlowTwins`.
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
