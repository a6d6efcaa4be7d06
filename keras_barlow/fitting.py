"""What surrounds the training loop of Keras: where it begins, what it reads, who writes, and how it ends."""

import contextlib

import keras
import tensorflow as tf

from keras_barlow import callbacks, data, distribution, inputs

# What TensorFlow raises in a collective when another worker has gone.
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError)


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
    x = given["x"]
    known = given.get("callbacks") or []
    listed = known if isinstance(known, keras.callbacks.CallbackList) else None
    known = listed.callbacks if listed else tf.nest.flatten(known)
    checkpoints = next((one for one in known if isinstance(one, callbacks.Checkpoints)), None)
    epoch, batch = given.get("initial_epoch", 0), 0
    if checkpoints is not None:
        found = checkpoints.restore(model, data.order_of(x, given.get("steps_per_epoch")))
        epoch, batch = max((epoch, batch), found)
    if isinstance(x, data.Batches):
        given["x"] = distribution.distribute(strategy, lambda share: x.stream(epoch, batch, share))
        given["steps_per_epoch"] = len(x)
    elif isinstance(x, tf.data.Dataset):
        if batch:
            given["x"] = data.continued(x, epoch, batch, given.get("steps_per_epoch"))
            given["steps_per_epoch"] = given.get("steps_per_epoch") or len(x)
    else:
        inputs.check_one_worker(strategy)
    if isinstance(x, (tf.data.Dataset, data.Batches)):
        # Keras' default is to shuffle, and to warn that it cannot shuffle a dataset.
        given.setdefault("shuffle", False)
    given["initial_epoch"] = epoch
    if not distribution.is_chief(strategy):
        given["verbose"] = 0
    guard = callbacks.StopOnNonFiniteLoss(checkpoints)
    if listed:
        listed.append(guard)
    else:
        # The guard first, so that nothing is saved of what it stops; the checkpoints last, so that they hold what the
        # others have done.
        others = [one for one in callbacks.for_this_worker(known, strategy) if one is not checkpoints]
        given["callbacks"] = [guard, *others, *([checkpoints] if checkpoints else [])]
    try:
        with _without_first(model, batch):
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


@contextlib.contextmanager
def _without_first(model, batches):
    """The training loop counts some batches without training on them: those done before an interruption."""
    if not batches:
        yield
        return
    model.make_train_function()
    train_function = model.train_function

    def counted(iterator):
        nonlocal batches
        batches -= model.steps_per_execution
        if batches <= 0:
            model.train_function = train_function
        return model.get_metrics_result()

    model.train_function = counted
    try:
        yield
    finally:
        model.train_function = train_function
