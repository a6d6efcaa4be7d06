"""Epochs of an exact number of steps, for any `steps_per_execution`."""

import contextlib


@contextlib.contextmanager
def exact_epochs(model, steps, done):
    """Wraps the training loop so that every epoch has exactly its steps.

    Keras runs whole executions of `steps_per_execution` steps. If that does not divide an epoch, or a resumed epoch
    begins inside an execution, it would train on batches of the next epoch, or twice on the same ones.

    Args:
        model: Compiled `keras.Model`.
        steps: Number of steps per epoch; None if Keras detects the end of an epoch.
        done: Number of batches of the first epoch that have been trained.

    Yields:
        None.
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
    """A train function that runs one step per call, for any `steps_per_execution`."""
    size, train_function = model.steps_per_execution, model.train_function

    @contextlib.contextmanager
    def single():
        # Keras reads it when it creates the function, and again when it traces.
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
